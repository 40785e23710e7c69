// The kernels of one vector tier, written once; included once by each tier's file.
//
// S is a SIMD trait of common/ with three operations more: subtract(x, y); kept(value, gate), which is 0
// where gate <= 0; and pair_sums(x, y), the sums of adjacent lanes of x, then of y.
#pragma once
#include <immintrin.h>

#include "batch_norm_grad/kernels.h"
#include "common/sizes.h"

namespace twophase {
namespace {

constexpr int64_t summed_at_once = 2048;  // positions, before the lanes are added up

// Asks for what the next block reads: the blocks of a sample's classes are far apart, and the processor's own
// prefetching starts anew at each. Measured: twice to three times as fast from the L3 cache, 1.6 times from
// memory.
template <class T>
inline void fetch(const T* next) {
  _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
}

// The first `count` elements, at most a register.
template <class S>
inline typename S::Reg load_some(const typename S::T* from, int64_t count) {
  return count >= S::lanes ? S::load(from) : S::load_first(from, count);
}

template <class S>
inline void store_some(typename S::T* to, int64_t count, typename S::Reg value) {
  if (count >= S::lanes) {
    S::store(to, value);
  } else {
    S::store_first(to, count, value);
  }
}

// A channel of one sample and class.
template <class T>
struct Row {
  const T *g, *x, *relu, *next;
  T* out;
};

template <class S>
struct RowSums {
  typename S::Reg weight, bias;
};

// One register of a row; `count` elements of it if `whole` is false.
template <class S, bool gated, bool whole, bool stream>
inline void step(const Row<typename S::T>& row, int64_t t, int64_t count, typename S::Reg mean,
                 typename S::Reg scale, RowSums<S>& sums) {
  const auto load = [&](const typename S::T* from) {
    return whole ? S::load(from + t) : S::load_first(from + t, count);
  };
  fetch(row.next + t);
  typename S::Reg h = load(row.g);
  if constexpr (gated) h = S::kept(h, load(row.relu));
  sums.bias = S::add(sums.bias, h);
  sums.weight = S::fma(h, S::subtract(load(row.x), mean), sums.weight);
  const typename S::Reg result = S::mul(h, scale);
  if constexpr (stream) {
    S::stream(row.out + t, result);
  } else if constexpr (whole) {
    S::store(row.out + t, result);
  } else {
    S::store_first(row.out + t, count, result);
  }
}

// Positions t ... last - 1; even and odd registers are summed apart.
template <class S, bool gated, bool stream>
inline RowSums<S> sweep(const Row<typename S::T>& row, int64_t t, int64_t last, typename S::Reg mean,
                        typename S::Reg scale) {
  RowSums<S> even{S::zero(), S::zero()}, odd = even;
  for (; t + 2 * S::lanes <= last; t += 2 * S::lanes) {
    step<S, gated, true, stream>(row, t, S::lanes, mean, scale, even);
    step<S, gated, true, stream>(row, t + S::lanes, S::lanes, mean, scale, odd);
  }
  if (t + S::lanes <= last) {
    step<S, gated, true, stream>(row, t, S::lanes, mean, scale, even);
    t += S::lanes;
  }
  if (t < last) step<S, gated, false, false>(row, t, last - t, mean, scale, odd);
  return {S::add(even.weight, odd.weight), S::add(even.bias, odd.bias)};
}

// Lane i: the sum of elements i * size ... (i + 1) * size - 1, for a power of two.
template <class S, int size>
inline typename S::Reg tree_sums(const typename S::T* from) {
  if constexpr (size == 1) {
    return S::load(from);
  } else {
    return S::pair_sums(tree_sums<S, size / 2>(from), tree_sums<S, size / 2>(from + size / 2 * S::lanes));
  }
}

// Channel k of the block. A long row in pieces, whose lanes are added.
template <class S, bool gated, bool stream>
inline RowSums<S> one_row(const ChannelBlock<typename S::T>& f, int64_t k) {
  const int64_t first = k * f.positions;
  const Row<typename S::T> row{f.g + first, f.x + first, gated ? f.relu + first : nullptr,
                               f.g + first + f.ahead, f.out + first};
  const typename S::Reg mean = S::fill(f.mean[k]), scale = S::fill(f.scale[k]);
  RowSums<S> sums = sweep<S, gated, stream>(row, 0, smaller(f.positions, summed_at_once), mean, scale);
  for (int64_t t = summed_at_once; t < f.positions; t += summed_at_once) {
    const int64_t last = smaller(f.positions, t + summed_at_once);
    const RowSums<S> piece = sweep<S, gated, stream>(row, t, last, mean, scale);
    sums = {S::add(sums.weight, piece.weight), S::add(sums.bias, piece.bias)};
  }
  return sums;
}

// The lanes of as many rows as there are lanes are added together.
template <class S, bool gated, bool stream>
inline void all_rows(const ChannelBlock<typename S::T>& f) {
  alignas(64) typename S::T weight[S::lanes * S::lanes] = {}, bias[S::lanes * S::lanes] = {};
  for (int64_t k = 0; k < f.channels; k += S::lanes) {
    const int64_t count = smaller(S::lanes, f.channels - k);
    for (int64_t i = 0; i < count; ++i) {
      const RowSums<S> sums = one_row<S, gated, stream>(f, k + i);
      S::store(weight + i * S::lanes, sums.weight);
      S::store(bias + i * S::lanes, sums.bias);
    }
    const typename S::Reg rstd = load_some<S>(f.rstd + k, count);
    store_some<S>(f.weight_grad + k, count, S::mul(tree_sums<S, S::lanes>(weight), rstd));
    store_some<S>(f.bias_grad + k, count, tree_sums<S, S::lanes>(bias));
  }
  if constexpr (stream) _mm_sfence();
}

template <class S>
inline void rows(const ChannelBlock<typename S::T>& f) {
  if (f.stream) return f.relu ? all_rows<S, true, true>(f) : all_rows<S, false, true>(f);
  f.relu ? all_rows<S, true, false>(f) : all_rows<S, false, false>(f);
}

// The same for any size up to `lanes`.
template <class S, int power = 1>
inline typename S::Reg segment_sums(const typename S::T* from, int64_t size) {
  if (size == power) return tree_sums<S, power>(from);
  if constexpr (2 * power <= S::lanes) return segment_sums<S, 2 * power>(from, size);
  typename S::T sums[S::lanes];
  for (int i = 0; i < S::lanes; ++i, from += size) {
    sums[i] = from[0];
    for (int64_t t = 1; t < size; ++t) sums[i] += from[t];
  }
  return S::load(sums);
}

// Channels k ... k + lanes - 1, as one run of elements.
template <class S, bool gated>
inline void pack_of_rows(const ChannelBlock<typename S::T>& f, int64_t k) {
  using T = typename S::T;
  alignas(64) T weight[S::lanes * S::lanes], bias[S::lanes * S::lanes];
  const int64_t first = k * f.positions, end = f.channels * f.positions - first;
  for (int64_t i = 0; i < S::lanes * f.positions; i += S::lanes) {
    typename S::Reg h = S::zero(), product = S::zero();
    if (i < end) {
      const auto load = [&](const T* from) { return load_some<S>(from + first + i, end - i); };
      fetch(f.g + first + i + f.ahead);
      h = load(f.g);
      if constexpr (gated) h = S::kept(h, load(f.relu));
      product = S::mul(h, S::subtract(load(f.x), load(f.mean)));
      store_some<S>(f.out + first + i, end - i, S::mul(h, load(f.scale)));
    }
    S::store(bias + i, h);
    S::store(weight + i, product);
  }
  const int64_t count = f.channels - k;
  const typename S::Reg rstd = load_some<S>(f.rstd + k, count);
  store_some<S>(f.weight_grad + k, count, S::mul(segment_sums<S>(weight, f.positions), rstd));
  store_some<S>(f.bias_grad + k, count, segment_sums<S>(bias, f.positions));
}

template <class S>
inline void packed(const ChannelBlock<typename S::T>& f) {
  for (int64_t k = 0; k < f.channels; k += S::lanes) {
    f.relu ? pack_of_rows<S, true>(f, k) : pack_of_rows<S, false>(f, k);
  }
}

template <class S>
inline void gate(typename S::T* g, const typename S::T* relu, int64_t count, int64_t ahead) {
  int64_t i = 0;
  for (; i + S::lanes <= count; i += S::lanes) {
    fetch(g + i + ahead);
    S::store(g + i, S::kept(S::load(g + i), S::load(relu + i)));
  }
  if (i == count) return;
  const typename S::Reg last = S::kept(S::load_first(g + i, count - i), S::load_first(relu + i, count - i));
  S::store_first(g + i, count - i, last);
}

template <class S>
constexpr NormGradKernels<typename S::T> norm_grad_kernels() {
  return {S::lanes, rows<S>, packed<S>, gate<S>};
}

}  // namespace
}  // namespace twophase
