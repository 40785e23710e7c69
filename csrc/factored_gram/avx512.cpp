#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "factored_gram/tier.h"

namespace twophase {

const FactoredKernels<float> factored_avx512_f32 = factored_kernels<Avx512F32>();
const FactoredKernels<double> factored_avx512_f64 = factored_kernels<Avx512F64>();

}  // namespace twophase
#endif
