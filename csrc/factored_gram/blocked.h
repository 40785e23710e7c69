// The work on one block of samples, written once for all vector tiers; see factored_gram.h for the three
// methods. Included once by each tier's file; everything is in an anonymous namespace (see
// common/simd_avx2.h).
#pragma once
#include "common/tile.h"
#include "factored_gram/kernels.h"

namespace twophase {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t padded(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

// Columns of a block buffer: whole panels, and an odd number of them, so that rows do not fall on the same
// cache sets.
template <class S>
inline int64_t buffer_stride(int64_t columns) {
  return padded(columns, panel_width<S>);
}

// Packed panels from column or row `first` (a multiple of the panel width) and depth q on.
template <class S>
inline Operand<typename S::T> panels_at(const typename S::T* packed, int64_t first, int64_t total_depth,
                                        int64_t q) {
  constexpr int64_t width = panel_width<S>;
  return {packed + first / width * total_depth * width + q * width, total_depth * width, width};
}

// Position of a packed row: sample index within the block.
inline int64_t sample_of(int64_t row, int64_t per_sample) { return row / per_sample; }

// Rows of a chunk: whole panels, about `rows` of them.
template <class S>
inline int64_t chunk_rows(int64_t rows) {
  const int64_t whole = rows / panel_width<S> * panel_width<S>;
  return whole > 0 ? whole : panel_width<S>;
}

template <class T>
inline int64_t rows_of(const PackedBlock<T>& block, int64_t positions) {
  return block.samples * positions;
}

// out[m] += factor * sum over the columns of sample m.
template <class S>
inline void add_segments(const typename S::T* columns, int64_t first, int64_t count, int64_t positions,
                         typename S::T* out, int64_t stride) {
  for (int64_t j = 0; j < count;) {
    const int64_t m = sample_of(first + j, positions);
    const int64_t end = smaller(count, (m + 1) * positions - first);
    double sum = 0;
    for (; j < end; ++j) sum += columns[j];
    out[m * stride] += static_cast<typename S::T>(sum);
  }
}

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

// One chunk of rows against one chunk of columns of a block: the scratch it works in and where it lies.
template <class S>
struct Chunk {
  using T = typename S::T;
  const BlockTask<T>& task;
  int64_t row, rows, column, columns, stride;
  T *weights, *products, *sums;

  void product_of(const T* left, const T* right, int64_t total, int64_t left_q, int64_t right_q,
                  int64_t depth, T* to) const {
    product_blocked<S>(rows, columns, depth, task.depth, panels_at<S>(left, row, total, left_q),
                       panels_at<S>(right, column, total, right_q), to, stride);
  }

  // out(n, m) += sum over positions of weights * products, for all samples in the chunk.
  void reduce(T* out) const {
    const FactoredGram<T>& f = *task.problem;
    const int64_t per_row = f.left.positions, per_column = f.right.positions;
    for (int64_t i = 0; i < rows;) {
      const int64_t n = sample_of(row + i, per_row);
      const int64_t end = smaller(rows, (n + 1) * per_row - row);
      multiply_rows<S>(weights, products, stride, i, end, padded(columns, S::lanes), sums);
      T* to = out + (task.left.first + n) * f.out_n + task.right.first * f.out_m;
      add_segments<S>(sums, column, columns, per_column, to, f.out_m);
      i = end;
    }
  }

  void run() const {
    const FactoredGram<T>& f = *task.problem;
    const int64_t p = f.outputs, left_total = f.left.classes * p;
    product_of(task.left.a, task.right.a, f.inputs, 0, 0, f.inputs, weights);
    if (f.output == GramOutput::trace) {
      product_of(task.left.g, task.right.g, left_total, 0, 0, left_total, products);
      reduce(f.out);
      return;
    }
    for (int64_t c = 0; c < f.left.classes; ++c) {
      const bool full = f.output == GramOutput::full;
      for (int64_t e = full ? 0 : c; e < (full ? f.right.classes : c + 1); ++e) {
        class_product(c, e);
        reduce(f.out + c * f.out_c + (full ? e * f.out_e : 0));
      }
    }
  }

  void class_product(int64_t c, int64_t e) const {
    const FactoredGram<T>& f = *task.problem;
    const int64_t p = f.outputs;
    product_blocked<S>(rows, columns, p, task.depth,
                       panels_at<S>(task.left.g, row, f.left.classes * p, c * p),
                       panels_at<S>(task.right.g, column, f.right.classes * p, e * p), products, stride);
  }
};

template <class S>
struct Factored {
  using T = typename S::T;

  static void pack(const Rows<T>& source, int64_t first, int64_t count, int64_t depth, T* panels,
                   int64_t panel_stride, int64_t width) {
    pack_rows<S>(source, first, count, depth, panels, panel_stride, width);
  }

  static int64_t block_scratch(const BlockTask<T>& task) {
    const int64_t chunk = chunk_rows<S>(task.rows) + panel_width<S>;
    return 3 * chunk * chunk + 4 * chunk;
  }

  // Methods tiles: chunks of positions, A A^T and G G^T in cache, multiplied and summed per pair of samples.
  static void tiles(const BlockTask<T>& task, T* scratch) {
    const FactoredGram<T>& f = *task.problem;
    const int64_t step = chunk_rows<S>(task.rows);
    const int64_t rows = rows_of(task.left, f.left.positions),
                  columns = rows_of(task.right, f.right.positions);
    for (int64_t i = 0; i < rows; i += step) {
      for (int64_t j = 0; j < columns; j += step) {
        const int64_t height = smaller(step, rows - i), width = smaller(step, columns - j);
        const int64_t stride = buffer_stride<S>(width);
        const Chunk<S> chunk{task,
                             i,
                             height,
                             j,
                             width,
                             stride,
                             scratch,
                             scratch + height * stride,
                             scratch + 2 * height * stride};
        chunk.run();
      }
    }
  }

  static void pointwise(const BlockTask<T>& task, T* scratch);
  static int64_t half_scratch(const HalfTask<T>& task);
  static void half(const HalfTask<T>& task, T* scratch);
};

}  // namespace
}  // namespace twophase
