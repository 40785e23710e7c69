// The chunk kernels, written once for all register widths. Included by the tiers' files only; in an anonymous
// namespace for the reason given in gemm/driver.h.
//
// V describes a register of doubles: using Register, using Count; constant width; zero, zero_count, load
// (from every element type), add, subtract, multiply_add(a, b, c) = a b + c and negative_multiply_add(a, b,
// c) = c - a b, both rounded once; absolute; maximum; count_zeros(c, a) for a >= 0; and sum, largest,
// total over the lanes.
#pragma once
#include <cstdint>

#include "pair_moments/kernels.h"

namespace twophase {
namespace {

struct Bfloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// with_dy: also <d, y>, which only all pairs need.
template <class V, bool with_dy>
struct MomentSums {
  typename V::Register xy = V::zero(), xx = V::zero(), yy = V::zero(), dd = V::zero();
  typename V::Register dx = V::zero(), dy = V::zero(), ds = V::zero(), max_abs_d = V::zero();
  typename V::Count equal = V::zero_count();

  void add(typename V::Register x, typename V::Register y) {
    const typename V::Register d = V::subtract(y, x);
    xy = V::multiply_add(x, y, xy);
    xx = V::multiply_add(x, x, xx);
    yy = V::multiply_add(y, y, yy);
    dd = V::multiply_add(d, d, dd);
    dx = V::multiply_add(d, x, dx);
    if constexpr (with_dy) dy = V::multiply_add(d, y, dy);
    ds = V::multiply_add(d, V::add(x, y), ds);
    const typename V::Register size = V::absolute(d);
    max_abs_d = V::maximum(size, max_abs_d);
    equal = V::count_zeros(equal, size);
  }
};

template <class V>
struct ResidualSums {
  typename V::Register scale, ee = V::zero(), ex = V::zero();

  void add(typename V::Register x, typename V::Register y) {
    const typename V::Register e = V::negative_multiply_add(scale, x, y);
    ee = V::multiply_add(e, e, ee);
    ex = V::multiply_add(e, x, ex);
  }
};

// Adds x and y to `sums`, a register at a time; `sums` goes by value so that it lives in registers. The rest
// is filled up with zeros, which add nothing anywhere.
template <class V, class E, class Sums>
inline Sums sweep(const E* x, const E* y, int64_t size, Sums sums) {
  constexpr int64_t width = V::width;
  int64_t i = 0;
  for (; i + width <= size; i += width) sums.add(V::load(x + i), V::load(y + i));
  if (i == size) return sums;
  E last_x[width] = {}, last_y[width] = {};
  for (int64_t j = 0; i + j < size; ++j) {
    last_x[j] = x[i + j];
    last_y[j] = y[i + j];
  }
  sums.add(V::load(last_x), V::load(last_y));
  return sums;
}

template <class V, class Sums>
inline Sums sweep_elements(Element element, const void* x, const void* y, int64_t size, const Sums& sums) {
  switch (element) {
    case Element::f32:
      return sweep<V>(static_cast<const float*>(x), static_cast<const float*>(y), size, sums);
    case Element::f64:
      return sweep<V>(static_cast<const double*>(x), static_cast<const double*>(y), size, sums);
    case Element::bf16:
      return sweep<V>(static_cast<const Bfloat16*>(x), static_cast<const Bfloat16*>(y), size, sums);
    case Element::f16:
      break;
  }
  return sweep<V>(static_cast<const Half*>(x), static_cast<const Half*>(y), size, sums);
}

template <class V, bool with_dy>
ChunkMoments chunk_moments(Element element, const void* x, const void* y, int64_t size) {
  const auto s = sweep_elements<V>(element, x, y, size, MomentSums<V, with_dy>());
  const double dd = V::sum(s.dd);
  const double max_abs_d = dd == dd ? V::largest(s.max_abs_d) : dd;  // a maximum over lanes may lose a NaN
  const int64_t fill = (V::width - size % V::width) % V::width;      // zeros at the end, all equal
  const double changed = static_cast<double>(size + fill - V::total(s.equal));
  return {V::sum(s.xy), V::sum(s.xx), V::sum(s.yy), dd,          V::sum(s.dx),
          V::sum(s.ds), max_abs_d,    changed,      V::sum(s.dy)};
}

template <class V>
ChunkResidual chunk_residual(Element element, const void* x, const void* y, int64_t size, double scale) {
  const auto s = sweep_elements<V>(element, x, y, size, ResidualSums<V>{V::broadcast(scale)});
  return {V::sum(s.ee), V::sum(s.ex)};
}

}  // namespace
}  // namespace twophase
