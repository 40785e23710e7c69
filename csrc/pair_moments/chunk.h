// The chunk kernels, written once for all register widths. Included by the tiers' files only; in an anonymous
// namespace for the reason given in gemm/driver.h.
//
// V describes a register of doubles: using Register, using Count; constant width; zero, zero_count, load
// (from every element type), add, subtract, multiply_add(a, b, c) = a b + c and negative_multiply_add(a, b,
// c) = c - a b, both rounded once; larger(a, b) = max(|a|, b) for b >= 0; count_zeros(c, a); store to
// doubles; fetch(p), a hint that the line at p will be read; and sum, largest, total over the lanes.
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
    max_abs_d = V::larger(d, max_abs_d);
    equal = V::count_zeros(equal, d);
  }
};

// Without <y, y>, which is the same for all runs.
template <class V>
struct SharedSums {
  typename V::Register xy = V::zero(), xx = V::zero(), dd = V::zero(), dx = V::zero(), ds = V::zero();
  typename V::Register max_abs_d = V::zero();
  typename V::Count equal = V::zero_count();

  void add(typename V::Register x, typename V::Register y) {
    const typename V::Register d = V::subtract(y, x);
    xy = V::multiply_add(x, y, xy);
    xx = V::multiply_add(x, x, xx);
    dd = V::multiply_add(d, d, dd);
    dx = V::multiply_add(d, x, dx);
    ds = V::multiply_add(d, V::add(x, y), ds);
    max_abs_d = V::larger(d, max_abs_d);
    equal = V::count_zeros(equal, d);
  }
};

// The least from which all others follow: y = x + d, so <x, y> = xx + dx, and <d, x + y> = 2 dx + dd.
template <class V>
struct NearSums {
  typename V::Register xx = V::zero(), dd = V::zero(), dx = V::zero(), max_abs_d = V::zero();
  typename V::Count equal = V::zero_count();

  void add(typename V::Register x, typename V::Register y) {
    const typename V::Register d = V::subtract(y, x);
    xx = V::multiply_add(x, x, xx);
    dd = V::multiply_add(d, d, dd);
    dx = V::multiply_add(d, x, dx);
    max_abs_d = V::larger(d, max_abs_d);
    equal = V::count_zeros(equal, d);
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

// Elements i ... size - 1, at most a register, filled up with zeros.
template <class V, class E>
inline typename V::Register load_last(const E* x, int64_t i, int64_t size) {
  E last[V::width] = {};
  for (int64_t j = 0; i + j < size; ++j) last[j] = x[i + j];
  return V::load(last);
}

template <class V, class E>
inline double widen_elements(const E* y, int64_t size, double* wide) {
  typename V::Register yy = V::zero();
  for (int64_t i = 0; i < size; i += V::width) {
    const typename V::Register value = i + V::width <= size ? V::load(y + i) : load_last<V>(y, i, size);
    V::store(wide + i, value);
    yy = V::multiply_add(value, value, yy);
  }
  return V::sum(yy);
}

// The runs lie far apart, and the processor's own prefetching starts anew in each chunk, so each line of x
// asks for one of what comes next. Measured: about twice as fast from memory. `sums` as in `sweep`.
template <class V, class Sums, class E>
inline Sums sweep_shared(const E* x, const double* y, int64_t size, const E* next, Sums sums) {
  constexpr int64_t width = V::width, line = 64 / static_cast<int64_t>(sizeof(E));
  int64_t i = 0;
  for (; i + line <= size; i += line) {
    V::fetch(next + i);
    for (int64_t j = 0; j < line; j += width) sums.add(V::load(x + i + j), V::load(y + i + j));
  }
  for (; i + width <= size; i += width) sums.add(V::load(x + i), V::load(y + i));
  if (i < size) sums.add(load_last<V>(x, i, size), V::load(y + i));
  return sums;
}

// Calls body with `vector` as a pointer to its elements.
template <class Body>
inline auto with_elements(Element element, const void* vector, const Body& body) {
  switch (element) {
    case Element::f32:
      return body(static_cast<const float*>(vector));
    case Element::f64:
      return body(static_cast<const double*>(vector));
    case Element::bf16:
      return body(static_cast<const Bfloat16*>(vector));
    case Element::f16:
      break;
  }
  return body(static_cast<const Half*>(vector));
}

template <class V, class Sums>
inline Sums sweep_elements(Element element, const void* x, const void* y, int64_t size, const Sums& sums) {
  return with_elements(element, x, [&](auto* elements) {
    return sweep<V>(elements, static_cast<decltype(elements)>(y), size, sums);
  });
}

template <class V, class Sums>
inline Sums sweep_shared(Element element, const void* x, const SharedChunk& y, int64_t size,
                         const void* next) {
  return with_elements(element, x, [&](auto* elements) {
    return sweep_shared<V>(elements, y.wide, size, static_cast<decltype(elements)>(next), Sums());
  });
}

// max |d| of all kinds of sums, and how many entries differ.
template <class V, class Sums>
inline void set_differences(const Sums& s, int64_t size, ChunkMoments& moments) {
  moments.max_abs_d =
      moments.dd == moments.dd ? V::largest(s.max_abs_d) : moments.dd;  // lanes may lose a NaN
  const int64_t fill = (V::width - size % V::width) % V::width;         // zeros at the end, all equal
  moments.changed = static_cast<double>(size + fill - V::total(s.equal));
}

// What the kinds with five sums have in common, and the two that they have not.
template <class V, class Sums>
inline ChunkMoments moments_of(const Sums& s, int64_t size, double yy, double dy) {
  ChunkMoments moments{V::sum(s.xy), V::sum(s.xx), yy, V::sum(s.dd), V::sum(s.dx), V::sum(s.ds), 0, 0, dy};
  set_differences<V>(s, size, moments);
  return moments;
}

template <class V, bool with_dy>
ChunkMoments chunk_moments(Element element, const void* x, const void* y, int64_t size) {
  const auto s = sweep_elements<V>(element, x, y, size, MomentSums<V, with_dy>());
  return moments_of<V>(s, size, V::sum(s.yy), V::sum(s.dy));
}

template <class V>
double chunk_widen(Element element, const void* y, int64_t size, double* wide) {
  return with_elements(element, y, [&](auto* elements) { return widen_elements<V>(elements, size, wide); });
}

constexpr double nearly_equal = 4;  // |x|^2 up to so many times |y|^2

// Three of the five sums, and the others from those: with |x| <= 2 |y| the errors of xx + dx are at most some
// times those of <x, y> itself, each some roundings of |x| |y|, and those of 2 dx + dd are those of |d| (|x|
// + |y|) always. A longer x, infinities and NaN get all five.
template <class V>
ChunkMoments chunk_shared(Element element, const void* x, const SharedChunk& y, int64_t size,
                          const void* next) {
  const auto s = sweep_shared<V, NearSums<V>>(element, x, y, size, next);
  const double xx = V::sum(s.xx), dd = V::sum(s.dd), dx = V::sum(s.dx);
  if (!(xx <= nearly_equal * y.yy && xx + dd < __builtin_inf())) {
    return moments_of<V>(sweep_shared<V, SharedSums<V>>(element, x, y, size, next), size, y.yy, 0);
  }
  ChunkMoments moments{xx + dx, xx, y.yy, dd, dx, 2 * dx + dd, 0, 0, 0};
  set_differences<V>(s, size, moments);
  return moments;
}

template <class V>
ChunkResidual chunk_residual(Element element, const void* x, const void* y, int64_t size, double scale) {
  const auto s = sweep_elements<V>(element, x, y, size, ResidualSums<V>{V::broadcast(scale)});
  return {V::sum(s.ee), V::sum(s.ex)};
}

}  // namespace
}  // namespace twophase
