// AVX-512 registers as traits; see simd_avx2.h. Packing uses the AVX2 traits, whose square blocks suit short
// rows.
//
// Include only from files compiled with -mavx512f (and bw, dq, vl); everything is in an anonymous namespace.
#pragma once
#include "common/simd_avx2.h"

namespace twophase {
namespace {

struct Avx512F32 {
  using T = float;
  using Reg = __m512;
  using Pack = Avx2F32;
  static constexpr int lanes = 16;
  static constexpr int rows = 8;  // register tile: rows x (vectors * lanes)
  static constexpr int vectors = 2;
  static constexpr int active_rows = 12;  // rows of a tile that is fed term by term (active.h)
  static constexpr int dot_left = 5;      // register tile of dot products
  static constexpr int dot_right = 5;

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg fill(T value) { return _mm512_set1_ps(value); }
  static Reg load(const T* from) { return _mm512_loadu_ps(from); }
  static void store(T* to, Reg value) { _mm512_storeu_ps(to, value); }
  static void stream(T* to, Reg value) { _mm512_stream_ps(to, value); }  // past the caches; aligned
  static Reg add(Reg x, Reg y) { return _mm512_add_ps(x, y); }
  static Reg sub(Reg x, Reg y) { return _mm512_sub_ps(x, y); }
  static Reg mul(Reg x, Reg y) { return _mm512_mul_ps(x, y); }
  static Reg fma(Reg x, Reg y, Reg sum) { return _mm512_fmadd_ps(x, y, sum); }

  static __mmask16 first(int64_t count) { return count > 0 ? static_cast<__mmask16>((1u << count) - 1) : 0; }
  static Reg load_first(const T* from, int64_t count) { return _mm512_maskz_loadu_ps(first(count), from); }
  static void store_first(T* to, int64_t count, Reg value) { _mm512_mask_storeu_ps(to, first(count), value); }

  // The elements of x and y in turn: the first half to x, the second to y.
  static void zip(Reg& x, Reg& y) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    permute(x, y, low, _mm512_add_epi32(low, _mm512_set1_epi32(8)));
  }
  static void permute(Reg& x, Reg& y, __m512i first, __m512i second) {
    const Reg left = _mm512_permutex2var_ps(x, first, y);
    y = _mm512_permutex2var_ps(x, second, y);
    x = left;
  }

  static T sum(Reg value) { return _mm512_reduce_add_ps(value); }
};

struct Avx512F64 {
  using T = double;
  using Reg = __m512d;
  using Pack = Avx2F64;
  static constexpr int lanes = 8;
  static constexpr int rows = 8;
  static constexpr int vectors = 2;
  static constexpr int active_rows = 12;  // rows of a tile that is fed term by term (active.h)
  static constexpr int dot_left = 5;
  static constexpr int dot_right = 5;

  static Reg zero() { return _mm512_setzero_pd(); }
  static Reg fill(T value) { return _mm512_set1_pd(value); }
  static Reg load(const T* from) { return _mm512_loadu_pd(from); }
  static void store(T* to, Reg value) { _mm512_storeu_pd(to, value); }
  static void stream(T* to, Reg value) { _mm512_stream_pd(to, value); }  // past the caches; aligned
  static Reg add(Reg x, Reg y) { return _mm512_add_pd(x, y); }
  static Reg sub(Reg x, Reg y) { return _mm512_sub_pd(x, y); }
  static Reg mul(Reg x, Reg y) { return _mm512_mul_pd(x, y); }
  static Reg fma(Reg x, Reg y, Reg sum) { return _mm512_fmadd_pd(x, y, sum); }

  static __mmask8 first(int64_t count) { return count > 0 ? static_cast<__mmask8>((1u << count) - 1) : 0; }
  static Reg load_first(const T* from, int64_t count) { return _mm512_maskz_loadu_pd(first(count), from); }
  static void store_first(T* to, int64_t count, Reg value) { _mm512_mask_storeu_pd(to, first(count), value); }

  static void zip(Reg& x, Reg& y) {
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    permute(x, y, low, _mm512_add_epi64(low, _mm512_set1_epi64(4)));
  }
  static void permute(Reg& x, Reg& y, __m512i first, __m512i second) {
    const Reg left = _mm512_permutex2var_pd(x, first, y);
    y = _mm512_permutex2var_pd(x, second, y);
    x = left;
  }

  static T sum(Reg value) { return _mm512_reduce_add_pd(value); }
};

}  // namespace
}  // namespace twophase
