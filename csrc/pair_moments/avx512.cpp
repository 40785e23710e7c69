// AVX-512: eight doubles at a time.
#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <immintrin.h>

#include "pair_moments/chunk.h"

namespace twophase {
namespace {

struct Eight {
  using Register = __m512d;
  using Count = int64_t;
  static constexpr int64_t width = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Count zero_count() { return 0; }
  static Register broadcast(double v) { return _mm512_set1_pd(v); }
  static Register load(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static Register load(const Bfloat16* p) {
    const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load_eight(p)), 16);
    return _mm512_cvtps_pd(_mm256_castsi256_ps(bits));
  }
  static Register load(const Half* p) { return _mm512_cvtps_pd(_mm256_cvtph_ps(load_eight(p))); }
  static Register add(Register a, Register b) { return _mm512_add_pd(a, b); }
  static Register subtract(Register a, Register b) { return _mm512_sub_pd(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }
  static Register negative_multiply_add(Register a, Register b, Register c) {
    return _mm512_fnmadd_pd(a, b, c);
  }
  static Register larger(Register a, Register b) {
    return _mm512_range_pd(a, b, 0b1011);  // larger absolute value, sign cleared
  }
  static Count count_zeros(Count c, Register a) {  // off the vector units, which are busy
    return c + __builtin_popcount(_mm512_cmp_pd_mask(a, zero(), _CMP_EQ_OQ));
  }
  static void store(double* p, Register a) { _mm512_storeu_pd(p, a); }
  static void fetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
  static double sum(Register v) {
    const Lanes lanes(v);
    double sum = 0;
    for (const double lane : lanes.value) sum += lane;
    return sum;
  }
  static double largest(Register v) {
    const Lanes lanes(v);
    double largest = 0;
    for (const double lane : lanes.value) largest = lane > largest ? lane : largest;
    return largest;
  }
  static int64_t total(Count c) { return c; }

 private:
  struct Lanes {
    explicit Lanes(Register v) { _mm512_store_pd(value, v); }
    alignas(64) double value[8];
  };
  static __m128i load_eight(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
};

}  // namespace

const MomentKernels moments_avx512 = {chunk_moments<Eight, false>, chunk_moments<Eight, true>,
                                      chunk_widen<Eight>, chunk_shared<Eight>, chunk_residual<Eight>};

}  // namespace twophase
#endif
