// Winograd's products at the places of tiles, over channels; templates over a SIMD trait S and tiles F.
#pragma once
#include "common/tile.h"
#include "conv_input_grad/ahead.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

// Of 32 registers, 24 hold sums, half of them of even terms and half of odd terms: two sums round less than
// one and take no longer (measured). Of 16 registers, 12 hold one sum each.
template <class S>
constexpr bool two_sums = S::lanes * sizeof(typename S::T) == 64;

template <class S, int V>
constexpr int rows_of_tile = 12 / V;

// sum(r, v) += left(r) right(v).
template <class S, int R, int V>
__attribute__((always_inline)) inline void add_term(const typename S::T* left, const typename S::T* right,
                                                    typename S::Reg (&sum)[R][V]) {
  typename S::Reg b[V];
  for (int v = 0; v < V; ++v) b[v] = S::load(right + v * S::lanes);
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
    const typename S::Reg a = S::fill(left[r * S::lanes]);
    for (int v = 0; v < V; ++v) sum[r][v] = S::fma(a, b[v], sum[r][v]);
  }
}

template <class S, int R, int V>
__attribute__((always_inline)) inline void add_terms(const typename S::T* left, const typename S::T* right,
                                                     int64_t terms, typename S::Reg (&even)[R][V],
                                                     typename S::Reg (&odd)[R][V]) {
  constexpr int64_t width = panel_width<S>;
  int64_t q = 0;
  for (; q + 2 <= terms; q += 2) {
    add_term<S, R, V>(left + q, right + q * width, even);
    add_term<S, R, V>(left + q + 1, right + (q + 1) * width, two_sums<S> ? odd : even);
  }
  if (q < terms) add_term<S, R, V>(left + q, right + q * width, even);
}

// sum(r, v) = sum over `terms` channels q of left(r, q) right(q, v).
template <class S, int R, int V>
__attribute__((always_inline)) inline void sum_terms(const typename S::T* left, int64_t group,
                                                     const typename S::T* right, int64_t terms,
                                                     typename S::Reg (&sum)[R][V]) {
  typename S::Reg odd[R][V];
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = odd[r][v] = S::zero();
  for (int64_t q = 0; q < terms; q += S::lanes, left += group, right += S::lanes * panel_width<S>) {
    if (q + S::lanes <= terms) {
      add_terms<S, R, V>(left, right, S::lanes, sum, odd);
    } else {
      add_terms<S, R, V>(left, right, terms - q, sum, odd);
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = two_sums<S> ? S::add(sum[r][v], odd[r][v]) : sum[r][v];
}

// sum(r, v) += from(r, v), where put_sums put them one after another.
template <class S, int R, int V>
__attribute__((always_inline)) inline void add_sums(const typename S::T* from, typename S::Reg (&sum)[R][V]) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v, from += S::lanes) sum[r][v] = S::add(S::load(from), sum[r][v]);
}

// to(r, v) (+)= sum(r, v), with `step` elements between rows.
template <class S, bool add, int R, int V>
__attribute__((always_inline)) inline void put_sums(const typename S::Reg (&sum)[R][V], int64_t step,
                                                    typename S::T* to) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r, to += step)
    for (int v = 0; v < V; ++v) {
      S::store(to + v * S::lanes, add ? S::add(S::load(to + v * S::lanes), sum[r][v]) : sum[r][v]);
    }
}

// A product at one place: of transformed cotangents, whose groups of channels are `group` elements apart, and
// one panel of kernels. Sums are added to `total`, which has room for a tile of registers, every `depth`
// terms.
template <class T>
struct PlaceProduct {
  int64_t group, terms, depth;
  const T *places, *kernels;
  T *products, *total;
  Ahead<T>* ahead;
};

// Tiles t ... last - 1: products(t, i) (+)= sum over q of places(t, q) kernels(q, i), in tiles of R x V
// registers, what remains in smaller ones.
template <class S, int R, int V, bool add>
inline void place_rows(const PlaceProduct<typename S::T>& f, int64_t t, int64_t last) {
  constexpr int64_t width = panel_width<S>, step = V * S::lanes;
  for (; t + R <= last; t += R) {
    if (f.ahead) f.ahead->ask();
    const typename S::T *left = f.places + t * S::lanes, *right = f.kernels;
    for (int64_t q = 0; q < f.terms; q += f.depth) {
      typename S::Reg sum[R][V];
      sum_terms<S, R, V>(left, f.group, right, smaller(f.depth, f.terms - q), sum);
      if (q != 0) add_sums<S, R, V>(f.total, sum);
      if (q + f.depth < f.terms) {
        put_sums<S, false, R, V>(sum, step, f.total);
      } else {
        put_sums<S, add, R, V>(sum, width, f.products + t * width);
      }
      left += f.depth / S::lanes * f.group, right += f.depth * width;
    }
  }
  if constexpr (R > 1) {
    if (t < last) place_rows<S, R / 2, V, add>(f, t, last);
  }
}

template <class S, int V, bool add>
inline void place_product(const PlaceProduct<typename S::T>& f, int64_t channels, int64_t tiles) {
  if (channels > (V - 1) * S::lanes) {
    place_rows<S, rows_of_tile<S, V>, V, add>(f, 0, tiles);
  } else if constexpr (V > 1) {
    place_product<S, V - 1, add>(f, channels, tiles);
  }
}

// What to ask for during the products of one panel; its share of the next cotangents.
template <class S, class F>
inline Ahead<typename S::T> ahead_of(const WinogradPlan<typename S::T>& plan,
                                     const WinogradProduct<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>, places = F::places;
  const ConvInputGrad<typename S::T>& p = *plan.problem;
  const int64_t first = f.panel * width, panels = (p.cin + width - 1) / width;
  const int64_t taken = p.out_height * p.out_width, given = p.height * p.width;
  const int64_t share = (p.cout + panels - 1) / panels, from = smaller(p.cout, f.panel * share);
  const int64_t vectors = (smaller(width, p.cin - first) + S::lanes - 1) / S::lanes;
  const int64_t times = larger(1, places * (f.tiles * vectors / rows_of_tile<S, 1>) / 2);
  const int64_t row = f.rows.first, next = row + f.rows.count;
  return {{{p.g + from * taken, p.g_image, taken, smaller(share, p.cout - from), p.out_width, p.out_height},
           F::results_y,
           plan.down,
           next,
           f.rows.next},
          {{p.out + first * given, p.out_image, given, smaller(width, p.cin - first), p.width, p.height},
           F::results_y,
           plan.down,
           row,
           f.rows.count},
          times};
}

// Products at all places for one panel of input channels and all output channels from ... last - 1, whose
// kernels are given.
template <class S, class F>
inline void multiply(const WinogradPlan<typename S::T>& plan, const WinogradProduct<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>;
  const int64_t channels = smaller(width, plan.problem->cin - f.panel * width);
  Ahead<typename S::T> asked = ahead_of<S, F>(plan, f), *ahead = f.rows.count ? &asked : nullptr;
  alignas(64) typename S::T total[rows_of_tile<S, 1> * S::lanes];
  for (int place = 0; place < F::places; ++place) {
    PlaceProduct<typename S::T> at = {plan.group,
                                      0,
                                      smaller(product_depth, F::sum_length * (two_sums<S> ? 2 : 1)),
                                      f.places + place * plan.place_plane + f.from / S::lanes * plan.group,
                                      f.kernels + place * f.kernel_plane,
                                      f.products + place * plan.product_plane,
                                      total,
                                      ahead};
    for (int64_t q = f.from; q < f.last; q += product_depth) {
      at.terms = smaller(product_depth, f.last - q);
      if (q == 0) {
        place_product<S, S::vectors, false>(at, channels, f.tiles);
      } else {
        place_product<S, S::vectors, true>(at, channels, f.tiles);
      }
      at.kernels += product_depth * width, at.places += product_depth / S::lanes * plan.group;
    }
  }
}

}  // namespace
}  // namespace twophase
