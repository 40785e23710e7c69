// Method pointwise (T = S = 1, full): A A^T of a block of samples, then G G^T over (n,c) x (m,e), scaled by
// it in registers and added to the result.
#pragma once
#include "factored_gram/block.h"

namespace twophase {
namespace {

// to[i][offsets[j]] += weights[i][j] * (partial + tile)(i, j). Weights are readable up to whole registers.
template <class S>
struct ScaleAndAdd {
  using T = typename S::T;
  const T* const* weights;
  T* const* to;
  const int64_t* offsets;
  int64_t columns;
  bool contiguous;   // offsets are offsets[0] + j
  const T* partial;  // in rows of partial_row elements, or null
  int64_t partial_row;

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&tile)[V]) const {
    typename S::Reg sum[V];
    for (int v = 0; v < V; ++v) {
      sum[v] = partial ? S::add(S::load(partial + i * partial_row + j + v * S::lanes), tile[v]) : tile[v];
    }
    if (!contiguous) return scatter(i, j, sum);
    T* out = to[i] + offsets[0] + j;
    const T* weight = weights[i] + j;
    for (int v = 0; v < V; ++v, j += S::lanes, out += S::lanes, weight += S::lanes) {
      if (j + S::lanes <= columns) {
        S::store(out, S::fma(S::load(weight), sum[v], S::load(out)));
      } else {
        const typename S::Reg held = S::load_first(out, columns - j);
        S::store_first(out, columns - j, S::fma(S::load(weight), sum[v], held));
      }
    }
  }

  template <int V>
  void scatter(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    T terms[V * S::lanes];
    for (int v = 0; v < V; ++v) S::store(terms + v * S::lanes, sum[v]);
    const int64_t count = smaller(V * S::lanes, columns - j);
    for (int64_t x = 0; x < count; ++x) to[i][offsets[j + x]] += weights[i][j + x] * terms[x];
  }
};

// A chunk of (n,c) rows against a chunk of (m,e) columns of a block of samples.
template <class S>
struct PointwiseChunk {
  using T = typename S::T;
  const BlockTask<T>& task;
  const FactoredGram<T>& f;
  const T* sample_weights;  // <a(n), a2(m)> of the block, in rows of sample_stride
  int64_t sample_stride;
  T* expanded;  // one row of column weights per sample of the rows
  T* partial;   // sums of the terms so far
  int64_t partial_row;
  int64_t row, rows, column, columns;
  int64_t sample_of_column[max_chunk], offsets[max_chunk];
  const T* weights[max_chunk];
  T* to[max_chunk];

  PointwiseChunk(const BlockTask<T>& block, T* scratch, int64_t stride, int64_t step)
      : task(block),
        f(*block.problem),
        sample_weights(scratch),
        sample_stride(stride),
        expanded(scratch + block.left.samples * stride),
        partial(expanded + step * step),
        partial_row(step) {}

  void set_columns(int64_t first, int64_t count) {
    column = first;
    columns = count;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t m = (first + j) / f.right.classes, e = (first + j) % f.right.classes;
      sample_of_column[j] = m;
      offsets[j] = (task.right.first + m) * f.out_m + e * f.out_e;
    }
  }

  void set_rows(int64_t first, int64_t count) {
    row = first;
    rows = count;
    T* line = expanded;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = (first + i) / f.left.classes, c = (first + i) % f.left.classes;
      if (i > 0 && c == 0) line += up(columns, S::lanes);
      if (i == 0 || c == 0) expand(sample_weights + n * sample_stride, line);
      weights[i] = line;
      to[i] = f.out + (task.left.first + n) * f.out_n + c * f.out_c;
    }
  }

  void expand(const T* from, T* line) const {
    for (int64_t j = 0; j < columns; ++j) line[j] = from[sample_of_column[j]];
  }

  // The terms in blocks of nearly equal length; what all but the last one sum is held back beside the result,
  // whose rows are far apart.
  void run() const {
    const int64_t diagonal = task.on_diagonal ? column - row : all_rows;
    const int64_t blocks = (f.outputs + task.depth - 1) / task.depth,
                  block = (f.outputs + blocks - 1) / blocks;
    int64_t q = 0;
    for (; q + block < f.outputs; q += block) {
      if (q == 0) {
        hold<false>(q, block, diagonal);
      } else {
        hold<true>(q, block, diagonal);
      }
    }
    finish(q, diagonal);
  }

  // Terms q ... q + block - 1, to or onto those before them.
  template <bool add>
  void hold(int64_t q, int64_t block, int64_t diagonal) const {
    using Store = StorePadded<S, add>;
    const Fetching<S, Store> store{
        Store{partial, partial_row}, panels_at<S>(task.left.g, row, f.outputs, q + block),
        panels_at<S>(task.right.g, column, f.outputs, q + block), (block * panel_width<S> + rows - 1) / rows};
    product<S>(rows, columns, block, panels_at<S>(task.left.g, row, f.outputs, q),
               panels_at<S>(task.right.g, column, f.outputs, q), store, diagonal);
  }

  // The same, without the terms that vanish for all outputs of a sample of the rows; a right panel stays in
  // L2.
  void run_active() const {
    const bool contiguous = f.out_e == 1 && f.out_m == f.right.classes;
    const ScaleAndAdd<S> epilogue{weights, to, offsets, columns, contiguous, nullptr, partial_row};
    const int64_t group = f.left.classes;
    for (int64_t j = 0; j < columns; j += panel_width<S>) {
      const T* panel = panels_at<S>(task.right.g, column + j, f.outputs, 0).data;
      const int64_t last = task.on_diagonal ? smaller(rows, column + j + panel_width<S> - row) : rows;
      for (int64_t i = 0; i < last; i += group) {
        if (contiguous) fetch_panel(i, i + group, j);
        active_product<S>(task.left.active[(row + i) / group], panel, group, i, j, columns - j, epilogue);
      }
    }
  }

  // Terms q ... are added to those before them, and all to the result, a panel of rows at a time.
  void finish(int64_t q, int64_t diagonal) const {
    const bool contiguous = f.out_e == 1 && f.out_m == f.right.classes;
    const Operand<T> right = panels_at<S>(task.right.g, column, f.outputs, q);
    for (int64_t i = 0; i < rows; i += panel_width<S>) {
      if (contiguous) fetch_result(i + panel_width<S>, smaller(rows, i + 2 * panel_width<S>));
      const T* before = q ? partial + i * partial_row : nullptr;
      const ScaleAndAdd<S> epilogue{weights + i, to + i, offsets, columns, contiguous, before, partial_row};
      product<S>(smaller(panel_width<S>, rows - i), columns, f.outputs - q,
                 panels_at<S>(task.left.g, row + i, f.outputs, q), right, epilogue, diagonal - i);
    }
  }

  // Asks for a panel of rows i ... last - 1 of the result.
  void fetch_panel(int64_t i, int64_t last, int64_t j) const {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    for (; i < last; ++i) {
      for (int64_t x = j; x < smaller(columns, j + panel_width<S>); x += line) {
        __builtin_prefetch(to[i] + offsets[0] + x, 1, 2);
      }
    }
  }

  // Asks for rows i ... last - 1 of the result, which the processor would not foresee.
  void fetch_result(int64_t i, int64_t last) const {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    for (; i < last; ++i) {
      const T* out = to[i] + offsets[0];
      for (int64_t j = 0; j < columns; j += line) __builtin_prefetch(out + j, 1, 2);
    }
  }
};

template <class S>
inline void run_pointwise(const BlockTask<typename S::T>& task, typename S::T* scratch) {
  const FactoredGram<typename S::T>& f = *task.problem;
  const int64_t step = chunk_rows<S>(task.rows), stride = up(task.right.samples, S::lanes);
  const int64_t rows = task.left.samples * f.left.classes, columns = task.right.samples * f.right.classes;
  const bool active = task.left.active != nullptr;
  const int64_t row_step = active ? larger(f.left.classes, step / f.left.classes * f.left.classes) : step;
  product_blocked<S>(task.left.samples, task.right.samples, f.inputs, task.depth,
                     panels_at<S>(task.left.a, 0, f.inputs, 0), panels_at<S>(task.right.a, 0, f.inputs, 0),
                     scratch, stride);
  PointwiseChunk<S> chunk(task, scratch, stride, step);
  for (int64_t j = 0; j < columns; j += step) {
    chunk.set_columns(j, smaller(step, columns - j));
    for (int64_t i = 0; i < rows; i += row_step) {
      chunk.set_rows(i, smaller(row_step, rows - i));
      if (active) {
        chunk.run_active();
      } else {
        chunk.run();
      }
    }
  }
}

}  // namespace
}  // namespace twophase
