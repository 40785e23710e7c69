// Gram blocks, accumulated in place.
//
//   out(b, i, j) += sum over q < k of x(b, i, q) * y(b, j, q)        b < batch, i < n, j < m
//
// symmetric (y is x, m is n): only micro-tiles that hold an entry with i <= j are touched; the entries below
// the diagonal hold garbage until `symmetrize`; a block on the diagonal is packed once for both sides.
//
// float and double, arithmetic in that type, every stride free. Work: n m k multiply-adds, n (n + 1) k / 2
// when symmetric. Memory beside the operands: at most 2 x 768 KiB per thread, plus 16 MiB of partial sums
// where a long k is cut into slices. The slices depend on the shape alone and are added in order, so the
// result is bitwise the same for any number of threads. The relative error is that of a sum in runs of
// `Gemm::depth`.
#pragma once
#include <cstdint>

#include "common/cpu.h"
#include "gemm/gemm.h"

namespace twophase {

// `batch` matrices of equal shape.
template <class T>
struct Batch {
  T* data;
  int64_t batch_stride;
  int64_t row_stride;
  int64_t col_stride;

  View<T> at(int64_t b, int64_t row, int64_t col) const {
    return {data + b * batch_stride + row * row_stride + col * col_stride, row_stride, col_stride};
  }
};

template <class T>
struct GramProblem {
  int64_t batch, n, m, k;
  bool symmetric;
  Batch<const T> x, y;
  Batch<T> out;
};

template <class T>
void gram_accumulate(const GramProblem<T>& problem, Isa isa, int threads);

// out(b, j, i) = out(b, i, j) for i < j < n.
template <class T>
void symmetrize(int64_t batch, int64_t n, const Batch<T>& out, int threads);

}  // namespace twophase
