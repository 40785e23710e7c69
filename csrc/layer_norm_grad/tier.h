// The kernels of one vector tier, written once; included once by each tier's file. S is a SIMD trait of
// common/.
#pragma once
#include <immintrin.h>

#include "common/sizes.h"
#include "layer_norm_grad/kernels.h"

namespace twophase {
namespace {

constexpr int64_t summed_at_once = 64;  // positions, before they are added to the sums of those before

constexpr int64_t fetched_ahead = 2048;  // elements at least, from those of g that are read to those fetched

template <class T>
inline void fetch(const T* from) {
  _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T0);
}

// The first `count` elements, all of a register if `whole`.
template <class S, bool whole>
inline typename S::Reg load(const typename S::T* from, int64_t count) {
  return whole ? S::load(from) : S::load_first(from, count);
}

template <class S, bool whole>
inline void store(typename S::T* to, int64_t count, typename S::Reg value) {
  whole ? S::store(to, value) : S::store_first(to, count, value);
}

// R adjacent positions; some numbers of each, the same in all lanes.
template <class S, int R>
struct Positions {
  using Reg = typename S::Reg;
  int64_t features, ahead;
  const typename S::T *g, *x, *weight;
  typename S::T *out, *weight_sum, *bias_sum;
  Reg mean[R], rstd[R];
};

template <class S>
inline typename S::Reg normalised(typename S::Reg x, typename S::Reg mean, typename S::Reg rstd) {
  return S::mul(S::sub(x, mean), rstd);
}

// Features d ...: adds to the sums over positions, and to those of g w and g w xhat over features.
template <class S, int R, bool whole>
inline void sum_step(const Positions<S, R>& p, int64_t d, int64_t count, typename S::Reg (&gw)[R],
                     typename S::Reg (&gwx)[R]) {
  using Reg = typename S::Reg;
  Reg by_weight = S::load(p.weight_sum + d), by_bias = S::load(p.bias_sum + d);
  const Reg w = load<S, whole>(p.weight + d, count);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t at = r * p.features + d;
    fetch(p.g + at + p.ahead);
    fetch(p.out + at);
    const Reg g = load<S, whole>(p.g + at, count), scaled = S::mul(g, w);
    const Reg x = normalised<S>(load<S, whole>(p.x + at, count), p.mean[r], p.rstd[r]);
    by_bias = S::add(by_bias, g);
    by_weight = S::fma(g, x, by_weight);
    gw[r] = S::add(gw[r], scaled);
    gwx[r] = S::fma(scaled, x, gwx[r]);
  }
  S::store(p.weight_sum + d, by_weight);
  S::store(p.bias_sum + d, by_bias);
}

// out = rstd (g w - mean - slope xhat), with minus the slope given.
template <class S, int R, bool whole>
inline void result_step(const Positions<S, R>& p, int64_t d, int64_t count, const typename S::Reg (&mean)[R],
                        const typename S::Reg (&minus_slope)[R]) {
  using Reg = typename S::Reg;
  const Reg w = load<S, whole>(p.weight + d, count);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t at = r * p.features + d;
    const Reg centred = S::sub(S::mul(load<S, whole>(p.g + at, count), w), mean[r]);
    const Reg x = normalised<S>(load<S, whole>(p.x + at, count), p.mean[r], p.rstd[r]);
    store<S, whole>(p.out + at, count, S::mul(S::fma(x, minus_slope[r], centred), p.rstd[r]));
  }
}

template <class S, int R>
inline void some_rows(const LayerNormRows<typename S::T>& f, int64_t t, int64_t stride) {
  using Reg = typename S::Reg;
  const int64_t first = t * f.features, whole = f.features / S::lanes * S::lanes, rest = f.features - whole;
  Positions<S, R> p{f.features,  larger(R * f.features, fetched_ahead),
                    f.g + first, f.x + first,
                    f.weight,    f.out + first,
                    f.sums,      f.sums + stride,
                    {},          {}};
  Reg gw[R], gwx[R];
  for (int r = 0; r < R; ++r) {
    p.mean[r] = S::fill(f.mean[t + r]), p.rstd[r] = S::fill(f.rstd[t + r]);
    gw[r] = gwx[r] = S::zero();
  }
  for (int64_t d = 0; d < whole; d += S::lanes) sum_step<S, R, true>(p, d, S::lanes, gw, gwx);
  if (rest) sum_step<S, R, false>(p, whole, rest, gw, gwx);
  const auto size = static_cast<typename S::T>(f.features);
  for (int r = 0; r < R; ++r) {
    gw[r] = S::fill(S::sum(gw[r]) / size);
    gwx[r] = S::fill(-S::sum(gwx[r]) / size);
  }
  for (int64_t d = 0; d < whole; d += S::lanes) result_step<S, R, true>(p, d, S::lanes, gw, gwx);
  if (rest) result_step<S, R, false>(p, whole, rest, gw, gwx);
}

// Positions t ... last - 1, R at a time, what remains one by one; the sums are the same either way.
template <class S>
inline void sum_positions(const LayerNormRows<typename S::T>& f, int64_t t, int64_t last, int64_t stride) {
  constexpr int R = S::rows / 2;
  for (int64_t i = 0; i < 2 * stride; i += S::lanes) S::store(f.sums + i, S::zero());
  for (; t + R <= last; t += R) some_rows<S, R>(f, t, stride);
  for (; t < last; ++t) some_rows<S, 1>(f, t, stride);
}

template <class S>
inline void put_sums(const LayerNormRows<typename S::T>& f, const typename S::T* sums, typename S::T* to,
                     bool add) {
  for (int64_t d = 0; d < f.features; d += S::lanes) {
    const int64_t count = f.features - d;
    const typename S::Reg sum = S::load(sums + d);
    if (count >= S::lanes) {
      S::store(to + d, add ? S::add(S::load(to + d), sum) : sum);
    } else {
      S::store_first(to + d, count, add ? S::add(S::load_first(to + d, count), sum) : sum);
    }
  }
}

template <class S>
inline void rows(const LayerNormRows<typename S::T>& f) {
  const int64_t stride = up(f.features, S::lanes);
  for (int64_t t = 0; t == 0 || t < f.positions; t += summed_at_once) {
    sum_positions<S>(f, t, smaller(f.positions, t + summed_at_once), stride);
    put_sums<S>(f, f.sums, f.weight_grad, t > 0);
    put_sums<S>(f, f.sums + stride, f.bias_grad, t > 0);
  }
}

template <class S>
constexpr LayerNormKernels<typename S::T> layer_norm_kernels() {
  return {S::lanes, rows<S>};
}

}  // namespace
}  // namespace twophase
