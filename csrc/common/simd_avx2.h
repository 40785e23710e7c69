// AVX2 + FMA registers as traits, for templates that are written once for all vector tiers.
//
// Include only from files compiled with -mavx2 -mfma. Everything is in an anonymous namespace: a symbol
// shared between translation units with different flags could run unsupported instructions elsewhere.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace twophase {
namespace {

struct Avx2F32 {
  using T = float;
  using Reg = __m256;
  using Pack = Avx2F32;  // the trait that packs operands
  static constexpr int lanes = 8;
  static constexpr int rows = 4;  // register tile: rows x (vectors * lanes)
  static constexpr int vectors = 3;
  static constexpr int active_rows = 4;  // rows of a tile that is fed term by term (active.h)
  static constexpr int dot_left = 5;     // register tile of dot products
  static constexpr int dot_right = 2;

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg fill(T value) { return _mm256_set1_ps(value); }
  static Reg load(const T* from) { return _mm256_loadu_ps(from); }
  static void store(T* to, Reg value) { _mm256_storeu_ps(to, value); }
  static void stream(T* to, Reg value) { _mm256_stream_ps(to, value); }  // past the caches; aligned
  static Reg add(Reg x, Reg y) { return _mm256_add_ps(x, y); }
  static Reg sub(Reg x, Reg y) { return _mm256_sub_ps(x, y); }
  static Reg mul(Reg x, Reg y) { return _mm256_mul_ps(x, y); }
  static Reg fma(Reg x, Reg y, Reg sum) { return _mm256_fmadd_ps(x, y, sum); }

  static __m256i first(int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  }
  // Only the first `count` < lanes elements; the others read as zero.
  static Reg load_first(const T* from, int64_t count) { return _mm256_maskload_ps(from, first(count)); }
  static void store_first(T* to, int64_t count, Reg value) { _mm256_maskstore_ps(to, first(count), value); }

  static T sum(Reg value) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }

  // The elements of x and y in turn: the first half to x, the second to y.
  static void zip(Reg& x, Reg& y) {
    const Reg low = _mm256_unpacklo_ps(x, y), high = _mm256_unpackhi_ps(x, y);
    x = _mm256_permute2f128_ps(low, high, 0x20);
    y = _mm256_permute2f128_ps(low, high, 0x31);
  }

  // In place: register i, lane j goes to register j, lane i.
  static void transpose(Reg (&r)[lanes]) {
    Reg t[lanes];
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      const Reg *x = t + 4 * i, *y = x + 2;
      r[4 * i] = _mm256_shuffle_ps(x[0], y[0], 0x44);
      r[4 * i + 1] = _mm256_shuffle_ps(x[0], y[0], 0xee);
      r[4 * i + 2] = _mm256_shuffle_ps(x[1], y[1], 0x44);
      r[4 * i + 3] = _mm256_shuffle_ps(x[1], y[1], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      const Reg low = r[i], high = r[i + 4];
      r[i] = _mm256_permute2f128_ps(low, high, 0x20);
      r[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
  }
};

struct Avx2F64 {
  using T = double;
  using Reg = __m256d;
  using Pack = Avx2F64;
  static constexpr int lanes = 4;
  static constexpr int rows = 4;
  static constexpr int vectors = 3;
  static constexpr int active_rows = 4;  // rows of a tile that is fed term by term (active.h)
  static constexpr int dot_left = 5;
  static constexpr int dot_right = 2;

  static Reg zero() { return _mm256_setzero_pd(); }
  static Reg fill(T value) { return _mm256_set1_pd(value); }
  static Reg load(const T* from) { return _mm256_loadu_pd(from); }
  static void store(T* to, Reg value) { _mm256_storeu_pd(to, value); }
  static void stream(T* to, Reg value) { _mm256_stream_pd(to, value); }  // past the caches; aligned
  static Reg add(Reg x, Reg y) { return _mm256_add_pd(x, y); }
  static Reg sub(Reg x, Reg y) { return _mm256_sub_pd(x, y); }
  static Reg mul(Reg x, Reg y) { return _mm256_mul_pd(x, y); }
  static Reg fma(Reg x, Reg y, Reg sum) { return _mm256_fmadd_pd(x, y, sum); }

  static __m256i first(int64_t count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static Reg load_first(const T* from, int64_t count) { return _mm256_maskload_pd(from, first(count)); }
  static void store_first(T* to, int64_t count, Reg value) { _mm256_maskstore_pd(to, first(count), value); }

  static T sum(Reg value) {
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(value), _mm256_extractf128_pd(value, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }

  static void zip(Reg& x, Reg& y) {
    const Reg low = _mm256_unpacklo_pd(x, y), high = _mm256_unpackhi_pd(x, y);
    x = _mm256_permute2f128_pd(low, high, 0x20);
    y = _mm256_permute2f128_pd(low, high, 0x31);
  }

  static void transpose(Reg (&r)[lanes]) {
    const Reg a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    const Reg c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20);
    r[1] = _mm256_permute2f128_pd(b, d, 0x20);
    r[2] = _mm256_permute2f128_pd(a, c, 0x31);
    r[3] = _mm256_permute2f128_pd(b, d, 0x31);
  }
};

}  // namespace
}  // namespace twophase
