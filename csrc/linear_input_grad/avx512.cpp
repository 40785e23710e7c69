#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "linear_input_grad/tier.h"

namespace twophase {

const LinearInputKernels<float> linear_input_avx512_f32 = linear_input_kernels<Avx512F32>();
const LinearInputKernels<double> linear_input_avx512_f64 = linear_input_kernels<Avx512F64>();

}  // namespace twophase
#endif
