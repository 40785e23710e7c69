#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "gram/tier.h"

namespace twophase {

const TriangleKernels<float> triangle_avx2_f32 = triangle_kernels<Avx2F32>();
const TriangleKernels<double> triangle_avx2_f64 = triangle_kernels<Avx2F64>();

}  // namespace twophase
#endif
