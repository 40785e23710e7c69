// The direct pull-back: products of all taps, then their sum at the places where they belong; templates over
// a SIMD trait S.
#pragma once
#include "common/tile.h"
#include "conv_input_grad/kernels.h"
#include "conv_input_grad/rows.h"

namespace twophase {
namespace {

// Rows of cotangents that reach rows first ... first + count - 1 of the input.
struct Reach {
  int64_t first, count;
};

template <class T>
inline Reach reach_of(const ConvInputGrad<T>& f, int64_t first, int64_t count) {
  const int64_t stride = f.stride[0], earliest = first + f.padding[0] - (f.kernel[0] - 1) * f.dilation[0];
  const int64_t from = earliest > 0 ? (earliest + stride - 1) / stride : 0;
  const int64_t to = smaller(f.out_height, (first + count - 1 + f.padding[0]) / stride + 1);
  return {from, larger(0, to - from)};
}

// line += from, `count` elements of `from` but whole registers of `line`.
template <class S>
inline void add_to_line(const typename S::T* from, int64_t count, typename S::T* line) {
  int64_t x = 0;
  for (; x + S::lanes <= count; x += S::lanes)
    S::store(line + x, S::add(S::load(line + x), S::load(from + x)));
  if (x < count) S::store(line + x, S::add(S::load(line + x), S::load_first(from + x, count - x)));
}

// joined[j * stride + r] = line r, element j, of `count` lines of `length` elements, a multiple of `lanes`.
template <class S>
inline void join_lines(const typename S::T* lines, int64_t length, int64_t count, typename S::T* joined) {
  if (count == 2) {
    for (int64_t j = 0; j < length; j += S::lanes) {
      typename S::Reg even = S::load(lines + j), odd = S::load(lines + length + j);
      S::zip(even, odd);
      S::store(joined + 2 * j, even);
      S::store(joined + 2 * j + S::lanes, odd);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r)
    for (int64_t j = 0; j < length; ++j) joined[j * count + r] = lines[r * length + j];
}

// Row y of one channel of one image. products: the rows (u, v) of the channel, `stride` apart, at the image's
// first position, which is in row reach.first of the cotangents. Line r collects the columns x with
// (x + padding) % stride = r.
template <class S>
inline void sum_taps(const DirectPlan<typename S::T>& plan, const Reach& reach, const typename S::T* products,
                     int64_t stride, int64_t y, typename S::T* lines, typename S::T* out) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t step = f.stride[1], length = plan.products_line;
  bool touched = false;
  for (int64_t u = 0; u < f.kernel[0]; ++u) {
    const int64_t scaled = y + f.padding[0] - u * f.dilation[0], q = scaled / f.stride[0] - reach.first;
    if (scaled < 0 || scaled % f.stride[0] != 0 || q >= reach.count) continue;
    if (!touched) {
      for (int64_t x = 0; x < step * length; x += S::lanes) S::store(lines + x, S::zero());
      touched = true;
    }
    for (int64_t v = 0; v < f.kernel[1]; ++v) {
      const typename S::T* row = products + (u * f.kernel[1] + v) * stride + q * f.out_width;
      const int64_t shift = v * f.dilation[1];
      add_to_line<S>(row, f.out_width, lines + shift % step * length + shift / step);
    }
  }
  if (!touched) {
    if (!f.add)
      for (int64_t x = 0; x < f.width; ++x) out[x] = 0;
    return;
  }
  typename S::T* joined = step == 1 ? lines : lines + step * length;
  if (step > 1) join_lines<S>(lines, length, step, joined);
  put_row<S>(joined + f.padding[1], f.width, out, f.add);
}

template <class S>
inline void run_direct(const DirectPlan<typename S::T>& plan, const DirectTask<typename S::T>& task,
                       const DirectScratch<typename S::T>& scratch) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const ConvInputGrad<T>& f = *plan.problem;
  const int64_t inputs = f.cin / f.groups, outputs = f.cout / f.groups, taps = f.kernel[0] * f.kernel[1];
  const Reach reach = reach_of(f, task.first_row, task.rows);
  const int64_t positions = reach.count * f.out_width, columns = task.images * positions;
  const int64_t channel = f.out_height * f.out_width, stride = (columns + S::lanes - 1) / S::lanes * S::lanes;
  const T* g =
      f.g + task.first_image * f.g_image + task.group * outputs * channel + reach.first * f.out_width;
  const Rows<T> source{g, positions, f.g_image, 1, channel};
  if (columns > 0) pack_rows<S>(source, 0, columns, outputs, scratch.cotangents, outputs * width, width, 0);
  const int64_t blocks = (inputs + plan.channels - 1) / plan.channels;
  for (int64_t block = task.first_block; block < task.first_block + task.blocks; ++block) {
    const int64_t first = block * plan.channels, count = smaller(plan.channels, inputs - first);
    const T* kernels = plan.kernels + (task.group * blocks + block) * plan.kernel_block;
    product_blocked<S>(count * taps, columns, outputs, product_depth, {kernels, outputs * width, width},
                       {scratch.cotangents, outputs * width, width}, scratch.products, stride);
    for (int64_t b = 0; b < task.images; ++b) {
      T* image = f.out + (task.first_image + b) * f.out_image;
      for (int64_t i = 0; i < count; ++i) {
        const T* products = scratch.products + i * taps * stride + b * positions;
        T* out = image + (task.group * inputs + first + i) * f.height * f.width;
        for (int64_t y = task.first_row; y < task.first_row + task.rows; ++y) {
          sum_taps<S>(plan, reach, products, stride, y, scratch.lines, out + y * f.width);
        }
      }
    }
  }
}

}  // namespace
}  // namespace twophase
