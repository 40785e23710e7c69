// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "common/active.h"
#include "common/pack.h"
#include "common/sizes.h"
#include "common/tile.h"
#include "linear_input_grad/kernels.h"

namespace twophase {
namespace {

constexpr int64_t summed_bytes = 768;  // of terms in registers; a right panel of so many stays in L1
constexpr int64_t short_terms = 24;    // up to here writing is the work, and rows are written end to end

template <class S>
constexpr int64_t partial_columns = 8 * panel_width<S>;

// out (+)= (partial + tile) scale, each of the three if it is there; columns beyond the last are not touched.
template <class S>
struct Finish {
  using T = typename S::T;
  T* out;
  int64_t out_row, columns;
  const T* partial;  // rows partial_columns apart, or null
  const T* const* scale;
  int64_t first;  // column, of the rows of scale
  bool add;

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    for (int v = 0; v < V; ++v, j += S::lanes) {
      typename S::Reg value = sum[v];
      if (partial) value = S::add(S::load(partial + i * partial_columns<S> + j), value);
      put(out + i * out_row + j, scale ? scale[i] + first + j : nullptr, columns - j, value);
    }
  }

  static typename S::Reg some(const T* from, int64_t count) {
    return count >= S::lanes ? S::load(from) : S::load_first(from, count);
  }

  void put(T* to, const T* factor, int64_t count, typename S::Reg value) const {
    if (factor && add) {
      value = S::fma(value, some(factor, count), some(to, count));
    } else if (factor) {
      value = S::mul(value, some(factor, count));
    } else if (add) {
      value = S::add(value, some(to, count));
    }
    if (count >= S::lanes) {
      S::store(to, value);
    } else {
      S::store_first(to, count, value);
    }
  }
};

// Columns first ... first + columns - 1, at most partial_columns, in blocks of terms of nearly equal length.
template <class S>
inline void multiply_columns(const LinearInputBlock<typename S::T>& f, int64_t first, int64_t columns) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>, longest = summed_bytes / static_cast<int64_t>(sizeof(T));
  const int64_t blocks = (f.terms + longest - 1) / longest;
  const int64_t block = blocks > 1 ? (f.terms + blocks - 1) / blocks : f.terms;
  const int64_t stride = f.terms * width;
  for (int64_t q = 0; q == 0 || q < f.terms; q += block) {
    const int64_t depth = smaller(block, f.terms - q);
    const Operand<T> left{f.left + q * width, stride, width};
    const Operand<T> right{f.right + first * f.terms + q * width, stride, width};
    if (q + depth == f.terms) {
      const Finish<S> finish{f.out + first, f.out_row, columns, q ? f.partial : nullptr,
                             f.scale,       first,     f.add};
      product<S>(f.rows, columns, depth, left, right, finish);
      return;
    }
    if (q == 0) {
      product<S>(f.rows, columns, depth, left, right, StorePadded<S, false>{f.partial, partial_columns<S>});
    } else {
      product<S>(f.rows, columns, depth, left, right, StorePadded<S, true>{f.partial, partial_columns<S>});
    }
  }
}

template <class S>
inline void multiply(const LinearInputBlock<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>;
  if (f.terms <= short_terms) {
    const Operand<typename S::T> left{f.left, f.terms * width, width}, right{f.right, f.terms * width, width};
    const Finish<S> finish{f.out, f.out_row, f.columns, nullptr, f.scale, 0, f.add};
    return product_by_rows<S>(f.rows, f.columns, f.terms, left, right, finish);
  }
  for (int64_t j = 0; j < f.columns; j += partial_columns<S>) {
    multiply_columns<S>(f, j, smaller(partial_columns<S>, f.columns - j));
  }
}

// A panel of the weight stays in L2 while the samples go by.
template <class S>
inline void multiply_groups(const LinearInputGroups<typename S::T>& f) {
  const LinearInputBlock<typename S::T>& block = f.block;
  const Finish<S> finish{block.out, block.out_row, block.columns, nullptr, block.scale, 0, block.add};
  for (int64_t j = 0; j < block.columns; j += panel_width<S>) {
    const typename S::T* panel = block.right + j * block.terms;
    for (int64_t i = 0; i < block.rows; i += f.group_rows) {
      active_product<S>(f.groups[i / f.group_rows], panel, f.group_rows, i, j, block.columns - j, finish);
    }
  }
}

template <class S>
constexpr LinearInputKernels<typename S::T> linear_input_kernels() {
  return {panel_width<S>,      S::rows,           partial_columns<S>, pack_rows<S>, multiply<S>,
          active_kernels<S>(), multiply_groups<S>};
}

}  // namespace
}  // namespace twophase
