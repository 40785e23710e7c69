#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "per_sample_grad/tier.h"

namespace twophase {

const GradKernels<float> grad_avx512_f32 = grad_kernels<Avx512F32>();
const GradKernels<double> grad_avx512_f64 = grad_kernels<Avx512F64>();

}  // namespace twophase
#endif
