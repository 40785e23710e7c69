#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "batch_norm_grad/tier.h"
#include "common/simd_avx512.h"

namespace twophase {
namespace {

struct F32 : Avx512F32 {
  static Reg subtract(Reg x, Reg y) { return _mm512_sub_ps(x, y); }
  static Reg kept(Reg value, Reg gate) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(gate, zero(), _CMP_NLE_UQ), value);
  }
  static Reg pair_sums(Reg x, Reg y) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);  // of x, then y
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return add(_mm512_permutex2var_ps(x, even, y), _mm512_permutex2var_ps(x, odd, y));
  }
};

struct F64 : Avx512F64 {
  static Reg subtract(Reg x, Reg y) { return _mm512_sub_pd(x, y); }
  static Reg kept(Reg value, Reg gate) {
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(gate, zero(), _CMP_NLE_UQ), value);
  }
  static Reg pair_sums(Reg x, Reg y) {
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i odd = _mm512_add_epi64(even, _mm512_set1_epi64(1));
    return add(_mm512_permutex2var_pd(x, even, y), _mm512_permutex2var_pd(x, odd, y));
  }
};

}  // namespace

const NormGradKernels<float> norm_grad_avx512_f32 = norm_grad_kernels<F32>();
const NormGradKernels<double> norm_grad_avx512_f64 = norm_grad_kernels<F64>();

}  // namespace twophase
#endif
