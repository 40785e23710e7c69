// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "common/sizes.h"
#include "common/tile.h"
#include "per_sample_grad/kernels.h"
#include "per_sample_grad/winograd_tier.h"

namespace twophase {
namespace {

constexpr int64_t block_depth = 128;  // terms summed in registers before they are added to the result
constexpr int64_t short_terms =
    16;  // up to here a result is written row by row: the writing takes longer than the sums

// rows[i][j] = tile, or += tile; columns beyond the last are not touched.
template <class S, bool add>
struct StoreRows {
  using T = typename S::T;
  T* const* rows;
  int64_t columns;

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    T* to = rows[i] + j;
    for (int v = 0; v < V; ++v, to += S::lanes) {
      const int64_t left = columns - j - v * S::lanes;
      if (left >= S::lanes) {
        S::store(to, add ? S::add(S::load(to), sum[v]) : sum[v]);
      } else {
        S::store_first(to, left, add ? S::add(S::load_first(to, left), sum[v]) : sum[v]);
      }
    }
  }
};

// rows[i][j] = tile, past the caches: for results that are larger than these. Rows must be aligned to
// registers.
template <class S>
struct StreamRows {
  using T = typename S::T;
  T* const* rows;

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    for (int v = 0; v < V; ++v) S::stream(rows[i] + j + v * S::lanes, sum[v]);
  }
};

template <class S>
inline void multiply(const StackedProduct<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>;
  for (int64_t q = 0; q == 0 || q < f.terms; q += block_depth) {
    const int64_t depth = smaller(block_depth, f.terms - q);
    const Operand<typename S::T> left{f.left + q * width, f.terms * width, width};
    const Operand<typename S::T> right{f.right + q * width, f.terms * width, width};
    if (f.stream && f.terms <= block_depth) {
      product_by_rows<S>(f.rows, f.columns, depth, left, right, StreamRows<S>{f.to});
      _mm_sfence();
    } else if (q == 0 && f.terms <= short_terms) {
      product_by_rows<S>(f.rows, f.columns, depth, left, right, StoreRows<S, false>{f.to, f.columns});
    } else if (q == 0) {
      product<S>(f.rows, f.columns, depth, left, right, StoreRows<S, false>{f.to, f.columns});
    } else {
      product<S>(f.rows, f.columns, depth, left, right, StoreRows<S, true>{f.to, f.columns});
    }
  }
}

// to[x] = from(x * stride) for the output columns x whose input column lies inside, else zero. `from` is
// input column `shift` (may be negative) of a row of `width` columns, `step` elements apart.
template <class T>
inline void copy_line(const T* row, int64_t width, int64_t step, int64_t shift, int64_t stride, int64_t count,
                      T* to) {
  const int64_t first = shift < 0 ? smaller(count, (-shift + stride - 1) / stride) : 0;
  const int64_t inside = width - shift;  // x * stride must be below it
  const int64_t last = larger(first, inside <= 0 ? 0 : smaller(count, (inside + stride - 1) / stride));
  for (int64_t x = 0; x < first; ++x) to[x] = 0;
  const T* from = row + shift * step;
  if (stride * step == 1) {
    for (int64_t x = first; x < last; ++x) to[x] = from[x];
  } else {
    for (int64_t x = first; x < last; ++x) to[x] = from[x * stride * step];
  }
  for (int64_t x = last; x < count; ++x) to[x] = 0;
}

// Row (i, u, v) of the patches, from end to end.
template <class T>
inline void copy_patch(const Patches<T>& patches, int64_t index, T* to) {
  const ConvGrad<T>& f = *patches.problem;
  const int64_t taps = f.kernel[0] * f.kernel[1], u = index % taps / f.kernel[1], v = index % f.kernel[1];
  const T* channel = patches.x + index / taps * f.x_channel;
  const int64_t shift = v * f.dilation[1] - f.padding[1];
  for (int64_t y = 0; y < f.out_height; ++y, to += f.out_width) {
    const int64_t row = y * f.stride[0] + u * f.dilation[0] - f.padding[0];
    const bool inside = row >= 0 && row < f.height;
    copy_line(channel + (inside ? row : 0) * f.x_row, inside ? f.width : shift, f.x_column, shift,
              f.stride[1], f.out_width, to);
  }
}

template <class S>
inline void pack_patches(const Patches<typename S::T>& patches, int64_t count, typename S::T* panels,
                         int64_t width, typename S::T* line) {
  using Pack = typename S::Pack;
  const int64_t terms = patches.problem->out_height * patches.problem->out_width;
  const int64_t end = (count + S::lanes - 1) / S::lanes * S::lanes;
  for (int64_t i = 0; i < end; i += Pack::lanes) {
    const int rows = static_cast<int>(larger(0, smaller(Pack::lanes, count - i)));
    const typename S::T* from[Pack::lanes] = {};
    for (int r = 0; r < rows; ++r) {
      copy_patch(patches, i + r, line + r * terms);
      from[r] = line + r * terms;
    }
    pack_transposed<Pack>(from, rows, terms, panels + i / width * terms * width + i % width, width);
  }
}

template <class S, class F>
constexpr WinogradGrad<typename S::T> winograd_kernel() {
  return {F::height, F::width, F::places, winograd<S, F>};
}

template <class S>
constexpr GradKernels<typename S::T> grad_kernels() {
  return {panel_width<S>,
          S::lanes,
          pack_rows<S>,
          pack_patches<S>,
          multiply<S>,
          winograd_kernel<S, GradTile<Grad2<S>, Grad2<S>>>(),
          winograd_kernel<S, GradTile<Grad4<S>, Grad2<S>>>(),
          winograd_kernel<S, GradTile<Grad4<S>, Grad4<S>>>()};
}

}  // namespace
}  // namespace twophase
