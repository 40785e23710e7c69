// Winograd's products at the places of tiles, over channels; templates over a SIMD trait S and tiles F.
#pragma once
#include "common/tile.h"
#include "conv_input_grad/ahead.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

// Registers that hold sums, of 32 or 16: half of them sum even terms, half odd terms. Every `sum_depth` terms
// both are added to a total. Sums of 8 terms round less than one of 64, which matters for tiles of 2x4
// results, and take no longer (measured with AVX-512, where one sum of 8 terms took a tenth more).
template <class S>
constexpr int accumulators = S::lanes * sizeof(typename S::T) == 64 ? 24 : 12;
constexpr int64_t sum_depth = 16;

template <class S, int V>
constexpr int rows_of_tile = accumulators<S> / 2 / V;

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
    add_term<S, R, V>(left + q + 1, right + (q + 1) * width, odd);
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
    for (int v = 0; v < V; ++v) sum[r][v] = S::add(sum[r][v], odd[r][v]);
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

// Tiles t ... last - 1 against one panel of channels: products(t, i) (+)= sum over q of places(t, q)
// kernels(q, i), in tiles of R x V registers, what remains in smaller ones. `total` has room for one tile.
template <class S, int R, int V, bool add>
inline void place_rows(const WinogradPlan<typename S::T>& plan, int64_t t, int64_t last, int64_t terms,
                       const typename S::T* places, const typename S::T* kernels, typename S::T* products,
                       typename S::T* total, Ahead<typename S::T>* ahead) {
  constexpr int64_t width = panel_width<S>, step = V * S::lanes;
  for (; t + R <= last; t += R) {
    if (ahead) ahead->ask();
    const typename S::T *left = places + t * S::lanes, *right = kernels;
    for (int64_t q = 0; q < terms; q += sum_depth) {
      typename S::Reg sum[R][V];
      sum_terms<S, R, V>(left, plan.group, right, smaller(sum_depth, terms - q), sum);
      if (q != 0) add_sums<S, R, V>(total, sum);
      if (q + sum_depth < terms) {
        put_sums<S, false, R, V>(sum, step, total);
      } else {
        put_sums<S, add, R, V>(sum, width, products + t * width);
      }
      left += sum_depth / S::lanes * plan.group, right += sum_depth * width;
    }
  }
  if constexpr (R > 1) {
    if (t < last) place_rows<S, R / 2, V, add>(plan, t, last, terms, places, kernels, products, total, ahead);
  }
}

template <class S, int V, bool add>
inline void place_product(const WinogradPlan<typename S::T>& plan, int64_t channels, int64_t tiles,
                          int64_t terms, const typename S::T* places, const typename S::T* kernels,
                          typename S::T* products, typename S::T* total, Ahead<typename S::T>* ahead) {
  if (channels > (V - 1) * S::lanes) {
    place_rows<S, rows_of_tile<S, V>, V, add>(plan, 0, tiles, terms, places, kernels, products, total, ahead);
  } else if constexpr (V > 1) {
    place_product<S, V - 1, add>(plan, channels, tiles, terms, places, kernels, products, total, ahead);
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
    const typename S::T* places = f.places + place * plan.place_plane + f.from / S::lanes * plan.group;
    const typename S::T* kernels = f.kernels + place * f.kernel_plane;
    typename S::T* products = f.products + place * plan.product_plane;
    for (int64_t q = f.from; q < f.last; q += product_depth, kernels += product_depth * width,
                 places += product_depth / S::lanes * plan.group) {
      const int64_t terms = smaller(product_depth, f.last - q);
      if (q == 0) {
        place_product<S, S::vectors, false>(plan, channels, f.tiles, terms, places, kernels, products, total,
                                            ahead);
      } else {
        place_product<S, S::vectors, true>(plan, channels, f.tiles, terms, places, kernels, products, total,
                                           ahead);
      }
    }
  }
}

}  // namespace
}  // namespace twophase
