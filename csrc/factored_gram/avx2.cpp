#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "factored_gram/tier.h"

namespace twophase {

const FactoredKernels<float> factored_avx2_f32 = factored_kernels<Avx2F32>();
const FactoredKernels<double> factored_avx2_f64 = factored_kernels<Avx2F64>();

}  // namespace twophase
#endif
