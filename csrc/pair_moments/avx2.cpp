// AVX2 + FMA + F16C: four doubles at a time.
#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <immintrin.h>

#include "pair_moments/chunk.h"

namespace twophase {
namespace {

struct Four {
  using Register = __m256d;
  using Count = __m256i;
  static constexpr int64_t width = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Count zero_count() { return _mm256_setzero_si256(); }
  static Register broadcast(double v) { return _mm256_set1_pd(v); }
  static Register load(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static Register load(const Bfloat16* p) {
    const __m128i bits = _mm_slli_epi32(_mm_cvtepu16_epi32(load_four(p)), 16);
    return _mm256_cvtps_pd(_mm_castsi128_ps(bits));
  }
  static Register load(const Half* p) { return _mm256_cvtps_pd(_mm_cvtph_ps(load_four(p))); }
  static Register add(Register a, Register b) { return _mm256_add_pd(a, b); }
  static Register subtract(Register a, Register b) { return _mm256_sub_pd(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_pd(a, b, c); }
  static Register negative_multiply_add(Register a, Register b, Register c) {
    return _mm256_fnmadd_pd(a, b, c);
  }
  static Register larger(Register a, Register b) {
    return _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), a), b);
  }
  static Count count_zeros(Count c, Register a) {
    const Register zeros = _mm256_cmp_pd(a, zero(), _CMP_EQ_OQ);
    return _mm256_sub_epi64(c, _mm256_castpd_si256(zeros));  // true is -1
  }
  static void store(double* p, Register a) { _mm256_storeu_pd(p, a); }
  static void fetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
  static double sum(Register v) {
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
  }
  static double largest(Register v) {
    const __m128d pair = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(pair, _mm_unpackhi_pd(pair, pair)));
  }
  static int64_t total(Count c) {
    const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    return _mm_cvtsi128_si64(pair) + _mm_extract_epi64(pair, 1);
  }

 private:
  static __m128i load_four(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
};

}  // namespace

const MomentKernels moments_avx2 = {chunk_moments<Four, false>, chunk_moments<Four, true>, chunk_widen<Four>,
                                    chunk_shared<Four>, chunk_residual<Four>};

}  // namespace twophase
#endif
