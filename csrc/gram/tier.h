// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "common/pack.h"
#include "common/sizes.h"
#include "common/tile.h"
#include "gram/kernels.h"

namespace twophase {
namespace {

// The next block of terms of all rows, asked for a few lines at a time while a block is multiplied: short
// pieces of rows that lie far apart, which the processor does not see coming.
template <class T>
class NextTerms {
 public:
  // Nothing is asked for where `terms` is 0, or where the terms of a row do not lie side by side.
  NextTerms(View<const T> x, int64_t n, int64_t terms, int64_t times)
      : row_(x.data),
        stride_(x.row_stride),
        terms_(terms),
        left_(x.col_stride == 1 && terms > 0 ? n : 0),
        some_((left_ * ((terms + line - 1) / line) + times - 1) / times) {}

  void ask() {
    for (int64_t count = some_; count > 0 && left_ > 0; --count) {
      __builtin_prefetch(row_ + at_, 0, 2);
      if ((at_ += line) < terms_) continue;
      at_ = 0;
      row_ += stride_;
      --left_;
    }
  }

 private:
  static constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));

  const T* row_;
  int64_t stride_, terms_, left_, some_, at_ = 0;
};

// Adds register tiles to a matrix with any strides, of which `columns` columns exist from the first on.
template <class S>
struct AddTo {
  using T = typename S::T;
  View<T> out;
  int64_t columns;
  NextTerms<T>* next;

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    next->ask();
    T* to = out.data + i * out.row_stride + j * out.col_stride;
    for (int v = 0; v < V; ++v, j += S::lanes, to += S::lanes * out.col_stride) add(to, columns - j, sum[v]);
  }

  void add(T* to, int64_t count, typename S::Reg value) const {
    if (out.col_stride != 1) {
      alignas(64) T each[S::lanes];
      S::store(each, value);
      for (int64_t l = 0; l < smaller(count, S::lanes); ++l) to[l * out.col_stride] += each[l];
    } else if (count >= S::lanes) {
      S::store(to, S::add(S::load(to), value));
    } else {
      S::store_first(to, count, S::add(S::load_first(to, count), value));
    }
  }
};

// The upper triangle, i <= j, of a block on the diagonal: rows that begin below some registers' columns leave
// those out.
template <class S>
inline void triangle(int64_t n, int64_t terms, const Operand<typename S::T>& x,
                     const View<typename S::T>& out, NextTerms<typename S::T> next) {
  constexpr int64_t width = panel_width<S>;
  for (int64_t j = 0; j < n; j += width) {
    const int64_t columns = smaller(n - j, width);
    int64_t first = 0;
    for (int64_t skip = 0; skip < columns; skip += S::lanes) {
      const int64_t last = smaller(n, j + skip + S::lanes);
      const Operand<typename S::T> right{x.data + skip, x.panel_stride, x.k_stride};
      const AddTo<S> add{{out.data + skip * out.col_stride, out.row_stride, out.col_stride}, n - skip, &next};
      product_panel<S, S::vectors>(columns - skip, first, last, j, terms, x, right, add);
      first = last;
    }
  }
}

template <class S>
inline int64_t scratch_size(int64_t n, int64_t depth) {
  return (n + panel_width<S> - 1) / panel_width<S> * panel_width<S> * depth;
}

template <class S>
inline void add_triangle(int64_t n, int64_t k, int64_t depth, View<const typename S::T> x,
                         View<typename S::T> out, typename S::T* scratch) {
  for (int64_t q = 0; q < k; q += depth) {
    const int64_t terms = smaller(depth, k - q), stride = terms * panel_width<S>;
    const Rows<typename S::T> rows{x.data + q * x.col_stride, n, 0, x.row_stride, x.col_stride};
    pack_rows<S>(rows, 0, n, terms, scratch, stride, panel_width<S>, 0);
    const int64_t panels = (n + panel_width<S> - 1) / panel_width<S>;
    const NextTerms<typename S::T> next({x.data + (q + terms) * x.col_stride, x.row_stride, x.col_stride}, n,
                                        smaller(depth, k - q - terms), panels * (n + panel_width<S>) / 2);
    triangle<S>(n, terms, {scratch, stride, panel_width<S>}, out, next);
  }
}

template <class S>
constexpr TriangleKernels<typename S::T> triangle_kernels() {
  return {scratch_size<S>, add_triangle<S>};
}

}  // namespace
}  // namespace twophase
