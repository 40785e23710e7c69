#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "layer_norm_grad/tier.h"

namespace twophase {

const LayerNormKernels<float> layer_norm_avx2_f32 = layer_norm_kernels<Avx2F32>();
const LayerNormKernels<double> layer_norm_avx2_f64 = layer_norm_kernels<Avx2F64>();

}  // namespace twophase
#endif
