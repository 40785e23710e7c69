// Method tiles: A A^T and G G^T of a chunk of positions in cache, multiplied and summed per pair of samples.
#pragma once
#include "factored_gram/block.h"

namespace twophase {
namespace {

// columns[j] = sum over rows i in [first, last) of x(i, j) y(i, j); `count` is padded to whole registers.
template <class S>
inline void multiply_rows(const typename S::T* x, const typename S::T* y, int64_t stride, int64_t first,
                          int64_t last, int64_t count, typename S::T* columns) {
  for (int64_t j = 0; j < count; j += S::lanes) {
    typename S::Reg sum = S::zero();
    for (int64_t i = first; i < last; ++i) {
      sum = S::fma(S::load(x + i * stride + j), S::load(y + i * stride + j), sum);
    }
    S::store(columns + j, sum);
  }
}

// out[m] += sum of the columns of sample m, for columns first ... first + count - 1 of a block.
template <class S>
inline void add_segments(const typename S::T* columns, int64_t first, int64_t count, int64_t positions,
                         typename S::T* out, int64_t stride) {
  if (positions == 1) {
    for (int64_t j = 0; j < count; ++j) out[(first + j) * stride] += columns[j];
    return;
  }
  for (int64_t j = 0; j < count;) {
    const int64_t m = (first + j) / positions;
    const int64_t end = smaller(count, (m + 1) * positions - first);
    double sum = 0;
    for (; j < end; ++j) sum += columns[j];
    out[m * stride] += static_cast<typename S::T>(sum);
  }
}

// Rows `row` ... against columns `column` ... of a block of samples.
template <class S>
struct Chunk {
  using T = typename S::T;
  const BlockTask<T>& task;
  const FactoredGram<T>& f;
  int64_t row, rows, column, columns, stride;
  T *weights, *products, *sums;

  void multiply(Operand<T> left, Operand<T> right, int64_t terms, T* to) const {
    product_blocked<S>(rows, columns, terms, task.depth, left, right, to, stride);
  }

  // out(n, m) += sum over positions of weights * products, for all samples in the chunk.
  void reduce(T* out) const {
    for (int64_t i = 0; i < rows;) {
      const int64_t n = (row + i) / f.left.positions;
      const int64_t end = smaller(rows, (n + 1) * f.left.positions - row);
      multiply_rows<S>(weights, products, stride, i, end, up(columns, S::lanes), sums);
      T* to = out + (task.left.first + n) * f.out_n + task.right.first * f.out_m;
      add_segments<S>(sums, column, columns, f.right.positions, to, f.out_m);
      i = end;
    }
  }

  // Terms `first` ... of the cotangents, on each side.
  void multiply_cotangents(int64_t left_first, int64_t right_first, int64_t terms) const {
    multiply(panels_at<S>(task.left.g, row, f.left.classes * f.outputs, left_first),
             panels_at<S>(task.right.g, column, f.right.classes * f.outputs, right_first), terms, products);
  }

  void classes(int64_t c, int64_t e, T* out) const {
    multiply_cotangents(c * f.outputs, e * f.outputs, f.outputs);
    reduce(out);
  }

  void run() const {
    multiply(panels_at<S>(task.left.a, row, f.inputs, 0), panels_at<S>(task.right.a, column, f.inputs, 0),
             f.inputs, weights);
    if (f.output == GramOutput::trace) {
      multiply_cotangents(0, 0, f.left.classes * f.outputs);
      reduce(f.out);
      return;
    }
    for (int64_t c = 0; c < f.left.classes; ++c) {
      if (f.output == GramOutput::diagonal) {
        classes(c, c, f.out + c * f.out_c);
      } else {
        for (int64_t e = 0; e < f.right.classes; ++e) classes(c, e, f.out + c * f.out_c + e * f.out_e);
      }
    }
  }
};

template <class S>
inline void run_tiles(const BlockTask<typename S::T>& task, typename S::T* scratch) {
  const FactoredGram<typename S::T>& f = *task.problem;
  const int64_t step = chunk_rows<S>(task.rows);
  const int64_t rows = task.left.samples * f.left.positions, columns = task.right.samples * f.right.positions;
  for (int64_t i = 0; i < rows; i += step) {
    for (int64_t j = 0; j < columns; j += step) {
      Chunk<S>{task,
               f,
               i,
               smaller(step, rows - i),
               j,
               smaller(step, columns - j),
               step,
               scratch,
               scratch + step * step,
               scratch + 2 * step * step}
          .run();
    }
  }
}

}  // namespace
}  // namespace twophase
