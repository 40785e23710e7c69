// Minimal filtering with three taps along one axis (Winograd 1980; Lavin and Gray 2016); templates over a
// SIMD trait S.
//   F2, F4: results of a correlation. `kernel` transforms three taps, `forward` the other operand of a tile,
//     and `back` the products to its results.
//   Grad2, Grad4: the gradient with respect to the taps. `input` and `cotangent` transform a tile's operands,
//     and `back` the products, summed over all tiles, to the three taps.
#pragma once
#include <cstdint>

namespace twophase {
namespace {

// F(2, 3): two results of a correlation with three taps from four products, with the points 0, 1, -1 and
// infinity.
template <class S>
struct F2 {
  using T = typename S::T;
  using Reg = typename S::Reg;
  static constexpr int results = 2, points = 4;

  static void kernel(const Reg (&w)[3], Reg (&u)[points]) {
    const Reg half = S::fill(T(0.5)), outer = S::mul(half, S::add(w[0], w[2])), middle = S::mul(half, w[1]);
    u[0] = w[0];
    u[1] = S::add(outer, middle);
    u[2] = S::sub(outer, middle);
    u[3] = w[2];
  }

  static void forward(Reg (&d)[points]) {
    const Reg sum = S::add(d[1], d[2]), difference = S::sub(d[2], d[1]);
    d[0] = S::sub(d[0], d[2]);
    d[3] = S::sub(d[1], d[3]);
    d[1] = sum;
    d[2] = difference;
  }

  static void back(const Reg (&p)[points], Reg (&y)[results]) {
    y[0] = S::add(S::add(p[0], p[1]), p[2]);
    y[1] = S::sub(S::sub(p[1], p[2]), p[3]);
  }
};

// F(4, 3): four results from six products, with the points 0, 2/3, -2/3, 3/2, -3/2 and infinity. For
// independent data they amplify the products' rounding errors 2.18 times (F(2, 3) does 1.29 times), the least
// of all pairs of opposite points tried; 5/8 and 3/2, with which all constants of `forward` and `back` are
// exact, do 2.19 times and were measured to be no better, and 1 and 2 twice that.
template <class S>
struct F4 {
  using T = typename S::T;
  using Reg = typename S::Reg;
  static constexpr int results = 4, points = 6;
  static constexpr double a = 2.0 / 3, b = 3.0 / 2, a2 = a * a, b2 = b * b;

  static Reg times(double factor, Reg x) { return S::mul(S::fill(T(factor)), x); }
  static Reg plus(Reg sum, double factor, Reg x) { return S::fma(S::fill(T(factor)), x, sum); }

  static void kernel(const Reg (&w)[3], Reg (&u)[points]) {
    constexpr double of_a = 1 / (2 * a2 * (a2 - b2)), of_b = 1 / (2 * b2 * (b2 - a2));
    const Reg even_a = plus(times(of_a, w[0]), of_a * a2, w[2]);
    const Reg even_b = plus(times(of_b, w[0]), of_b * b2, w[2]);
    u[0] = times(1 / (a2 * b2), w[0]);
    u[1] = plus(even_a, of_a * a, w[1]);
    u[2] = plus(even_a, -of_a * a, w[1]);
    u[3] = plus(even_b, of_b * b, w[1]);
    u[4] = plus(even_b, -of_b * b, w[1]);
    u[5] = w[2];
  }

  static void forward(Reg (&d)[points]) {
    const Reg even_a = plus(d[4], -b2, d[2]), odd_a = plus(d[3], -b2, d[1]);
    const Reg even_b = plus(d[4], -a2, d[2]), odd_b = plus(d[3], -a2, d[1]);
    d[0] = plus(plus(d[4], -(a2 + b2), d[2]), a2 * b2, d[0]);
    d[5] = plus(plus(d[5], -(a2 + b2), d[3]), a2 * b2, d[1]);
    d[1] = plus(even_a, a, odd_a);
    d[2] = plus(even_a, -a, odd_a);
    d[3] = plus(even_b, b, odd_b);
    d[4] = plus(even_b, -b, odd_b);
  }

  static void back(const Reg (&p)[points], Reg (&y)[results]) {
    const Reg even_a = S::add(p[1], p[2]), odd_a = S::sub(p[1], p[2]);
    const Reg even_b = S::add(p[3], p[4]), odd_b = S::sub(p[3], p[4]);
    y[0] = S::add(p[0], S::add(even_a, even_b));
    y[1] = plus(times(a, odd_a), b, odd_b);
    y[2] = plus(times(a2, even_a), b2, even_b);
    y[3] = plus(plus(p[5], a2 * a, odd_a), b2 * b, odd_b);
  }
};

// The gradient with respect to three taps, F(3, 2): from two cotangents and four inputs, by the points of F2.
template <class S>
struct Grad2 {
  using T = typename S::T;
  using Reg = typename S::Reg;
  static constexpr int cotangents = 2, points = 4;

  static void input(Reg (&r)[points]) {
    const Reg half = S::fill(T(0.5));
    const Reg middle = S::mul(S::add(r[1], r[2]), half), other = S::mul(S::sub(r[2], r[1]), half);
    r[0] = S::sub(r[0], r[2]);
    r[3] = S::sub(r[1], r[3]);
    r[1] = middle;
    r[2] = other;
  }

  static void cotangent(const Reg (&g)[cotangents], Reg (&u)[points]) {
    u[0] = g[0];
    u[1] = S::add(g[0], g[1]);
    u[2] = S::sub(g[0], g[1]);
    u[3] = g[1];
  }

  static void back(const Reg (&m)[points], Reg (&out)[3]) {
    const Reg sum = S::add(m[1], m[2]);
    out[0] = S::add(m[0], sum);
    out[1] = S::sub(m[1], m[2]);
    out[2] = S::sub(sum, m[3]);
  }
};

// F(3, 4): from four cotangents and six inputs, by the points of F4.
template <class S>
struct Grad4 {
  using T = typename S::T;
  using Reg = typename S::Reg;
  using Points = F4<S>;
  static constexpr int cotangents = 4, points = Points::points;
  static constexpr double a = Points::a, b = Points::b, a2 = Points::a2, b2 = Points::b2;

  static void input(Reg (&r)[points]) { Points::forward(r); }

  static void cotangent(const Reg (&g)[cotangents], Reg (&u)[points]) {
    constexpr double of_a = 1 / (2 * a2 * (a2 - b2)), of_b = 1 / (2 * b2 * (b2 - a2));
    const Reg even_a = Points::plus(Points::times(of_a, g[0]), of_a * a2, g[2]);
    const Reg odd_a = Points::plus(Points::times(of_a * a, g[1]), of_a * a2 * a, g[3]);
    const Reg even_b = Points::plus(Points::times(of_b, g[0]), of_b * b2, g[2]);
    const Reg odd_b = Points::plus(Points::times(of_b * b, g[1]), of_b * b2 * b, g[3]);
    u[0] = Points::times(1 / (a2 * b2), g[0]);
    u[1] = S::add(even_a, odd_a);
    u[2] = S::sub(even_a, odd_a);
    u[3] = S::add(even_b, odd_b);
    u[4] = S::sub(even_b, odd_b);
    u[5] = g[3];
  }

  static void back(const Reg (&m)[points], Reg (&out)[3]) {
    const Reg even_a = S::add(m[1], m[2]), even_b = S::add(m[3], m[4]);
    out[0] = S::add(m[0], S::add(even_a, even_b));
    out[1] = Points::plus(Points::times(a, S::sub(m[1], m[2])), b, S::sub(m[3], m[4]));
    out[2] = Points::plus(Points::plus(m[5], a2, even_a), b2, even_b);
  }
};

}  // namespace
}  // namespace twophase
