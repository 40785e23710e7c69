// Packing by register transposes, shared by the AVX2 and AVX-512 tiers (included by their files only).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace twophase {
namespace {

// packed[q * stride + r] = source[r * row_stride + q] for r < rows, q < 8, zero for r >= given. rows: 2, 4, 6
// or 8.
template <int rows>
inline void transpose_block(int64_t given, const float* source, int64_t row_stride, float* packed,
                            int64_t stride) {
  __m256 row[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r)
    row[r] = r < rows && r < given ? _mm256_loadu_ps(source + r * row_stride) : _mm256_setzero_ps();
  __m256 pair[8];  // 2 x 2 blocks transposed, within halves
#pragma GCC unroll 4
  for (int r = 0; r < 8; r += 2) {
    pair[r] = _mm256_unpacklo_ps(row[r], row[r + 1]);
    pair[r + 1] = _mm256_unpackhi_ps(row[r], row[r + 1]);
  }
  __m256 four[8];  // four[h + q]: rows h ... h + 3 of columns q and q + 4
#pragma GCC unroll 2
  for (int h = 0; h < 8; h += 4) {
    four[h] = _mm256_shuffle_ps(pair[h], pair[h + 2], 0x44);
    four[h + 1] = _mm256_shuffle_ps(pair[h], pair[h + 2], 0xee);
    four[h + 2] = _mm256_shuffle_ps(pair[h + 1], pair[h + 3], 0x44);
    four[h + 3] = _mm256_shuffle_ps(pair[h + 1], pair[h + 3], 0xee);
  }
#pragma GCC unroll 8
  for (int q = 0; q < 8; ++q) {
    const __m256 upper = four[q % 4], lower = four[4 + q % 4];
    const __m128 first = q < 4 ? _mm256_castps256_ps128(upper) : _mm256_extractf128_ps(upper, 1);
    const __m128 second = q < 4 ? _mm256_castps256_ps128(lower) : _mm256_extractf128_ps(lower, 1);
    float* to = packed + q * stride;
    if (rows == 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), first);
    } else {
      _mm_storeu_ps(to, first);
    }
    if (rows == 6) _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), second);
    if (rows == 8) _mm_storeu_ps(to + 4, second);
  }
}

// packed[q * stride + r] = source[r * row_stride + q] for r < rows, q < 4, zero for r >= given. rows: 2 or 4.
template <int rows>
inline void transpose_block(int64_t given, const double* source, int64_t row_stride, double* packed,
                            int64_t stride) {
#pragma GCC unroll 2
  for (int r = 0; r < rows; r += 2) {
    const __m256d a = r < given ? _mm256_loadu_pd(source + r * row_stride) : _mm256_setzero_pd();
    const __m256d b = r + 1 < given ? _mm256_loadu_pd(source + (r + 1) * row_stride) : _mm256_setzero_pd();
    const __m256d even = _mm256_unpacklo_pd(a, b), odd = _mm256_unpackhi_pd(a, b);
    _mm_storeu_pd(packed + r, _mm256_castpd256_pd128(even));
    _mm_storeu_pd(packed + stride + r, _mm256_castpd256_pd128(odd));
    _mm_storeu_pd(packed + 2 * stride + r, _mm256_extractf128_pd(even, 1));
    _mm_storeu_pd(packed + 3 * stride + r, _mm256_extractf128_pd(odd, 1));
  }
}

// Rows r ... r + rows - 1 of a group, of which `given` are there, for the first whole multiple of a register
// of k.
template <int rows, class T>
inline void pack_band(int64_t given, int64_t whole, const T* source, int64_t row_stride, T* packed,
                      int64_t stride) {
  constexpr int64_t width = 32 / sizeof(T);
  if (given >= rows) {
    for (int64_t q = 0; q < whole; q += width) {
      transpose_block<rows>(rows, source + q, row_stride, packed + q * stride, stride);
    }
  } else {
    for (int64_t q = 0; q < whole; q += width) {
      transpose_block<rows>(given, source + q, row_stride, packed + q * stride, stride);
    }
  }
}

// packed[q * W + r] = source[r * row_stride + q] for r < rows, zero for rows <= r < W, q < k; W is even.
template <int64_t W, class T>
inline void pack_rows(int64_t rows, int64_t k, const T* source, int64_t row_stride, T* packed) {
  constexpr int64_t width = 32 / sizeof(T);
  constexpr int64_t whole_rows = W / width * width;
  constexpr int rest = static_cast<int>(W - whole_rows);
  const int64_t whole = k / width * width;
  for (int64_t r = 0; r < whole_rows; r += width) {
    pack_band<static_cast<int>(width)>(rows - r, whole, source + r * row_stride, row_stride, packed + r, W);
  }
  if constexpr (rest > 0) {
    pack_band<rest>(rows - whole_rows, whole, source + whole_rows * row_stride, row_stride,
                    packed + whole_rows, W);
  }
  for (int64_t q = whole; q < k; ++q) {
    for (int64_t r = 0; r < W; ++r) packed[q * W + r] = r < rows ? source[r * row_stride + q] : T(0);
  }
}

}  // namespace
}  // namespace twophase
