#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "per_sample_grad/tier.h"

namespace twophase {

const GradKernels<float> grad_avx2_f32 = grad_kernels<Avx2F32>();
const GradKernels<double> grad_avx2_f64 = grad_kernels<Avx2F64>();

}  // namespace twophase
#endif
