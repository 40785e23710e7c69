// Dot products between all classes of a left and all classes of a right operand, summed over rows (positions
// or matches); templates over a SIMD trait S.
//
//   out(c, e) += sum_t <x(t, c), y(t, e)>        x(t, c), y(t, e): `terms` contiguous elements, a multiple of
//   S::lanes
#pragma once
#include <cstdint>

namespace twophase {
namespace {

// Rows that are evenly spaced.
template <class T>
struct SpacedRows {
  const T* data;
  int64_t step;
  const T* operator[](int64_t t) const { return data + t * step; }
};

// What both operands share: class strides, extents, and where the sums go.
template <class T>
struct ClassDots {
  int64_t x_class, y_class, rows, terms;
  T* out;
  int64_t out_c, out_e;
};

// The tile of R left classes from c on and V right classes from e on, in registers.
template <class S, int R, int V, class X, class Y>
inline void dot_tile(const ClassDots<typename S::T>& f, const X& x, const Y& y, int64_t c, int64_t e) {
  typename S::Reg sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = S::zero();
  for (int64_t t = 0; t < f.rows; ++t) {
    const typename S::T *left_row = x[t] + c * f.x_class, *right_row = y[t] + e * f.y_class;
    for (int64_t q = 0; q < f.terms; q += S::lanes) {
      typename S::Reg right[V];
      for (int v = 0; v < V; ++v) right[v] = S::load(right_row + v * f.y_class + q);
      for (int r = 0; r < R; ++r) {
        const typename S::Reg left = S::load(left_row + r * f.x_class + q);
        for (int v = 0; v < V; ++v) sum[r][v] = S::fma(left, right[v], sum[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) f.out[(c + r) * f.out_c + (e + v) * f.out_e] += S::sum(sum[r][v]);
}

template <class S, int R, int V, class X, class Y>
inline void dot_columns(const ClassDots<typename S::T>& f, const X& x, const Y& y, int64_t c, int64_t e,
                        int64_t right_classes) {
  for (; e + V <= right_classes; e += V) dot_tile<S, R, V>(f, x, y, c, e);
  if constexpr (V > 1) {
    if (e < right_classes) dot_columns<S, R, V / 2>(f, x, y, c, e, right_classes);
  }
}

// All pairs of classes from left class c on, in the largest tiles that fit.
template <class S, int R, class X, class Y>
inline void dot_rows(const ClassDots<typename S::T>& f, const X& x, const Y& y, int64_t c,
                     int64_t left_classes, int64_t right_classes) {
  for (; c + R <= left_classes; c += R) dot_columns<S, R, S::dot_right>(f, x, y, c, 0, right_classes);
  if constexpr (R > 1) {
    if (c < left_classes) dot_rows<S, R / 2>(f, x, y, c, left_classes, right_classes);
  }
}

template <class S, class X, class Y>
inline void dot_classes(const ClassDots<typename S::T>& f, const X& x, const Y& y, int64_t left_classes,
                        int64_t right_classes) {
  dot_rows<S, S::dot_left>(f, x, y, 0, left_classes, right_classes);
}

}  // namespace
}  // namespace twophase
