#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "gram/tier.h"

namespace twophase {

const TriangleKernels<float> triangle_avx512_f32 = triangle_kernels<Avx512F32>();
const TriangleKernels<double> triangle_avx512_f64 = triangle_kernels<Avx512F64>();

}  // namespace twophase
#endif
