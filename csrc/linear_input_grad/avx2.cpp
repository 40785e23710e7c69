#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "linear_input_grad/tier.h"

namespace twophase {

const LinearInputKernels<float> linear_input_avx2_f32 = linear_input_kernels<Avx2F32>();
const LinearInputKernels<double> linear_input_avx2_f64 = linear_input_kernels<Avx2F64>();

}  // namespace twophase
#endif
