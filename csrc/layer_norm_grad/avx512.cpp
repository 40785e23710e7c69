#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "layer_norm_grad/tier.h"

namespace twophase {

const LayerNormKernels<float> layer_norm_avx512_f32 = layer_norm_kernels<Avx512F32>();
const LayerNormKernels<double> layer_norm_avx512_f64 = layer_norm_kernels<Avx512F64>();

}  // namespace twophase
#endif
