// The vectorised micro-kernel, written once for all register widths. Included by the tiers' files only; see
// driver.h for why it sits in an anonymous namespace.
//
// V describes a register: using T, using Register; constant width; zero, load, store, broadcast, add, and
// multiply_add(a, b, c) = a b + c rounded once.
#pragma once
#include <cstdint>

namespace twophase {
namespace {

// c[rows, vectors * width] += sum over q of left[q, rows]^T right[q, vectors * width], from operands packed
// for micro-tiles of mr x nr.
template <class V, int rows, int vectors, int mr, int nr>
inline void micro_kernel(int64_t k, const typename V::T* left, const typename V::T* right, typename V::T* c,
                         int64_t ldc) {
  typename V::Register sum[rows][vectors];
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[i][j] = V::zero();
  }
  for (int64_t q = 0; q < k; ++q) {
    typename V::Register b[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) b[j] = V::load(right + j * V::width);
#pragma GCC unroll 32
    for (int i = 0; i < rows; ++i) {
      const typename V::Register a = V::broadcast(left[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sum[i][j] = V::multiply_add(a, b[j], sum[i][j]);
    }
    left += mr;
    right += nr;
  }
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      typename V::T* at = c + i * ldc + j * V::width;
      V::store(at, V::add(V::load(at), sum[i][j]));
    }
  }
}

// The micro-kernel of a tile of 3 x row_step rows and 2 registers, or of a part of it.
template <class V, int row_step>
inline void run_micro_kernel(int rows, int vectors, int64_t k, const typename V::T* left,
                             const typename V::T* right, typename V::T* c, int64_t ldc) {
  constexpr int mr = 3 * row_step, nr = 2 * V::width;
  if (vectors == 2) {
    if (rows == mr) return micro_kernel<V, mr, 2, mr, nr>(k, left, right, c, ldc);
    if (rows == row_step) return micro_kernel<V, row_step, 2, mr, nr>(k, left, right, c, ldc);
    return micro_kernel<V, 2 * row_step, 2, mr, nr>(k, left, right, c, ldc);
  }
  if (rows == mr) return micro_kernel<V, mr, 1, mr, nr>(k, left, right, c, ldc);
  if (rows == row_step) return micro_kernel<V, row_step, 1, mr, nr>(k, left, right, c, ldc);
  return micro_kernel<V, 2 * row_step, 1, mr, nr>(k, left, right, c, ldc);
}

}  // namespace
}  // namespace twophase
