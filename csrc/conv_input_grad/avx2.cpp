#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "conv_input_grad/tier.h"

namespace twophase {

const ConvInputKernels<float> conv_input_avx2_f32 = conv_input_kernels<Avx2F32>();
const ConvInputKernels<double> conv_input_avx2_f64 = conv_input_kernels<Avx2F64>();

}  // namespace twophase
#endif
