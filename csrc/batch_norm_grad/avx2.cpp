#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "batch_norm_grad/tier.h"
#include "common/simd_avx2.h"

namespace twophase {
namespace {

struct F32 : Avx2F32 {
  static Reg subtract(Reg x, Reg y) { return _mm256_sub_ps(x, y); }
  static Reg kept(Reg value, Reg gate) {
    return _mm256_and_ps(value, _mm256_cmp_ps(gate, zero(), _CMP_NLE_UQ));
  }
  static Reg pair_sums(Reg x, Reg y) {
    const __m256d quarters = _mm256_castps_pd(_mm256_hadd_ps(x, y));  // x, y, x, y
    return _mm256_castpd_ps(_mm256_permute4x64_pd(quarters, 0xd8));
  }
};

struct F64 : Avx2F64 {
  static Reg subtract(Reg x, Reg y) { return _mm256_sub_pd(x, y); }
  static Reg kept(Reg value, Reg gate) {
    return _mm256_and_pd(value, _mm256_cmp_pd(gate, zero(), _CMP_NLE_UQ));
  }
  static Reg pair_sums(Reg x, Reg y) { return _mm256_permute4x64_pd(_mm256_hadd_pd(x, y), 0xd8); }
};

}  // namespace

const NormGradKernels<float> norm_grad_avx2_f32 = norm_grad_kernels<F32>();
const NormGradKernels<double> norm_grad_avx2_f64 = norm_grad_kernels<F64>();

}  // namespace twophase
#endif
