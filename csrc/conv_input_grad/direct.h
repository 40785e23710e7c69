// The direct pull-back: a correlation of the padded cotangents with the taps, for each residue of the stride;
// templates over a SIMD trait S.
//
// Input position y = stride r + residue is reached by the taps u for which residue + padding - u dilation is
// stride times a whole number d, from output position r + d. Cotangents shifted by every such d across lie
// end to end without gaps, so all positions of an image are the columns of one product over channels and
// taps.
#pragma once
#include "common/tile.h"
#include "conv_input_grad/kernels.h"
#include "conv_input_grad/rows.h"

namespace twophase {
namespace {

// A product of packed kernels [panel][output][tap][width] and padded cotangents.
template <class T>
struct TapProduct {
  const T* kernels;
  const T* cotangents;
  int64_t channel;  // elements between channels of the cotangents
  int64_t outputs;
  const int64_t* offsets;
  int64_t taps;
};

template <class S, int R, int V>
__attribute__((always_inline)) inline void accumulate_taps(const TapProduct<typename S::T>& f, int64_t i,
                                                           int64_t j, typename S::Reg (&sum)[R][V]) {
  const typename S::T *a = f.kernels + i, *b = f.cotangents + j;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = S::zero();
  for (int64_t o = 0; o < f.outputs; ++o, b += f.channel) {
    for (int64_t t = 0; t < f.taps; ++t, a += panel_width<S>) {
      typename S::Reg right[V];
      for (int v = 0; v < V; ++v) right[v] = S::load(b + f.offsets[t] + v * S::lanes);
      for (int r = 0; r < R; ++r) {
        const typename S::Reg left = S::fill(a[r]);
        for (int v = 0; v < V; ++v) sum[r][v] = S::fma(left, right[v], sum[r][v]);
      }
    }
  }
}

// Rows i ... last - 1 of a panel in tiles of R, what remains in smaller ones; see product_rows.
template <class S, int R, int V, class Epilogue>
inline void tap_rows(const TapProduct<typename S::T>& f, int64_t i, int64_t last, int64_t j,
                     const Epilogue& epilogue) {
  for (; i + R <= last; i += R) {
    typename S::Reg sum[R][V];
    accumulate_taps<S, R, V>(f, i, j, sum);
    for (int r = 0; r < R; ++r) epilogue.template row<V>(i + r, j, sum[r]);
  }
  if constexpr (R > 1) {
    if (i < last) tap_rows<S, R / 2, V>(f, i, last, j, epilogue);
  }
}

template <class S, int V, class Epilogue>
inline void tap_columns(const TapProduct<typename S::T>& f, int64_t rows, int64_t j, int64_t columns,
                        const Epilogue& epilogue) {
  for (; columns - j > (V - 1) * S::lanes; j += V * S::lanes)
    tap_rows<S, S::rows, V>(f, 0, rows, j, epilogue);
  if constexpr (V > 1) {
    if (j < columns) tap_columns<S, V - 1>(f, rows, j, columns, epilogue);
  }
}

// Where the products of a task's images lie: end to end with the rows between them, or one by one.
struct DirectColumns {
  int64_t products, columns;  // how many products of how many columns
  int64_t image, stride;      // columns between images, and of a row
  int64_t plane;              // cotangents between images
};

template <class S>
inline DirectColumns columns_of(int64_t images, int64_t useful, int64_t between) {
  constexpr int64_t lanes = S::lanes;
  const int64_t rounded = (useful + lanes - 1) / lanes * lanes,
                stacked = images * (useful + between) - between;
  if (images * rounded <= stacked) return {images, useful, rounded, images * rounded, useful + between};
  return {1, stacked, useful + between, (stacked + lanes - 1) / lanes * lanes, useful + between};
}

// products[row][column] for one panel of input channels, summed in registers over some outputs at a time.
template <class S>
inline void tap_product(TapProduct<typename S::T> f, int64_t rows, const DirectColumns& c,
                        typename S::T* products) {
  const int64_t all = f.outputs, some = larger(1, tap_depth / larger(1, f.taps));
  const typename S::T* cotangents = f.cotangents;
  for (int64_t o = 0; o < all; o += some) {
    f.outputs = smaller(some, all - o);
    for (int64_t b = 0; b < c.products; ++b) {
      typename S::T* to = products + b * c.image;
      f.cotangents = cotangents + o * f.channel + b * c.plane;
      if (o == 0) {
        tap_columns<S, S::vectors>(f, rows, 0, c.columns, StorePadded<S, false>{to, c.stride});
      } else {
        tap_columns<S, S::vectors>(f, rows, 0, c.columns, StorePadded<S, true>{to, c.stride});
      }
    }
    f.kernels += f.outputs * f.taps * panel_width<S>;
  }
}

// The rows of cotangents that a task needs, with zeros outside: per channel the copies shifted across, per
// copy the images.
template <class S>
inline void pad_cotangents(const DirectPlan<typename S::T>& plan, const DirectTask<typename S::T>& task,
                           typename S::T* to) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t outputs = f.cout / f.groups, top = task.first_row + plan.first_shift;
  for (int64_t o = 0; o < outputs; ++o, to += plan.channel) {
    for (int64_t copy = 0; copy < plan.copies; ++copy) {
      const int64_t shift = plan.shifts[copy], skipped = larger(0, shift);
      const int64_t zeros = smaller(larger(0, -shift), plan.pitch);
      typename S::T* line = to + copy * plan.copy;
      for (int64_t b = 0; b < task.images; ++b) {
        const typename S::T* g = f.g + (task.first_image + b) * f.g_image +
                                 (task.group * outputs + o) * f.out_height * f.out_width + skipped;
        for (int64_t y = top; y < top + task.rows + plan.span; ++y, line += plan.pitch) {
          const bool inside = y >= 0 && y < f.out_height;
          copy_padded<S>(g + (inside ? y * f.out_width : 0), inside ? f.out_width - skipped : 0, zeros,
                         plan.pitch, line);
        }
      }
    }
  }
}

// joined[j * count + r] = line r, element j, of `count` lines that are `step` apart; whole registers.
template <class S>
inline void join_lines(const typename S::T* lines, int64_t step, int64_t length, int64_t count,
                       typename S::T* joined) {
  if (count == 2) {
    for (int64_t j = 0; j < length; j += S::lanes) {
      typename S::Reg even = S::load(lines + j), odd = S::load(lines + step + j);
      S::zip(even, odd);
      S::store(joined + 2 * j, even);
      S::store(joined + 2 * j + S::lanes, odd);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r)
    for (int64_t j = 0; j < length; ++j) joined[j * count + r] = lines[r * step + j];
}

// Rows of the result with vertical residue `residue` for one panel of input channels, from the products of
// all horizontal residues.
template <class S>
inline void put_residue(const DirectPlan<typename S::T>& plan, const DirectTask<typename S::T>& task,
                        int64_t residue, int64_t channel, int64_t channels,
                        const DirectScratch<typename S::T>& scratch, const DirectColumns& columns) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t step = f.stride[1];
  for (int64_t b = 0; b < task.images; ++b) {
    for (int64_t i = 0; i < channels; ++i) {
      typename S::T* out = f.out + (task.first_image + b) * f.out_image + (channel + i) * f.height * f.width;
      for (int64_t r = 0; r < task.rows; ++r) {
        const int64_t y = (task.first_row + r) * f.stride[0] + residue;
        if (y >= f.height) continue;
        const typename S::T* row = scratch.products + i * columns.stride + b * columns.image + r * plan.pitch;
        if (step > 1) {
          join_lines<S>(row, panel_width<S> * columns.stride, plan.pitch, step, scratch.line);
          row = scratch.line;
        }
        put_row<S>(row, f.width, out + y * f.width, f.add);
      }
    }
  }
}

template <class S>
inline void run_direct(const DirectPlan<typename S::T>& plan, const DirectTask<typename S::T>& task,
                       const DirectScratch<typename S::T>& scratch) {
  constexpr int64_t width = panel_width<S>;
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t inputs = f.cin / f.groups, outputs = f.cout / f.groups;
  const DirectColumns columns = columns_of<S>(task.images, task.rows * plan.pitch, plan.span * plan.pitch);
  pad_cotangents<S>(plan, task, scratch.cotangents);
  for (int64_t panel = task.first_panel; panel < task.first_panel + task.panels; ++panel) {
    const int64_t first = panel * width, channels = smaller(width, inputs - first);
    for (int64_t vertical = 0; vertical < f.stride[0]; ++vertical) {
      for (int64_t horizontal = 0; horizontal < f.stride[1]; ++horizontal) {
        const DirectTaps& taps = plan.taps[vertical * f.stride[1] + horizontal];
        const typename S::T* kernels = plan.kernels + task.group * plan.kernel_group + taps.kernels +
                                       panel * outputs * taps.count * width;
        tap_product<S>({kernels, scratch.cotangents, plan.channel, outputs, taps.offsets, taps.count},
                       channels, columns, scratch.products + horizontal * width * columns.stride);
      }
      put_residue<S>(plan, task, vertical, task.group * inputs + first, channels, scratch, columns);
    }
  }
}

}  // namespace
}  // namespace twophase
