#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "conv_input_grad/tier.h"

namespace twophase {

const ConvInputKernels<float> conv_input_avx512_f32 = conv_input_kernels<Avx512F32>();
const ConvInputKernels<double> conv_input_avx512_f64 = conv_input_kernels<Avx512F64>();

}  // namespace twophase
#endif
