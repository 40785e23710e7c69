// Winograd's pull-back through a 3x3 convolution, all tiles of many rows at once; templates over a SIMD trait
// S and a family F of transforms. Registers run along tiles.
#pragma once
#include "common/tile.h"
#include "conv_input_grad/kernels.h"
#include "conv_input_grad/rows.h"

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

  // The columns of adjacent tiles; `near` is a row of images from the tiles' first column on, `far` from the
  // next tiles' first column on.
  static void columns(const T* near, const T* far, Reg (&d)[points]) {
    d[0] = S::load(near);
    d[1] = S::load(near + S::lanes);
    S::split(d[0], d[1]);
    d[2] = S::load(far);
    d[3] = S::load(far + S::lanes);
    S::split(d[2], d[3]);
  }

  static void store(T* row, Reg (&y)[results]) {
    S::zip(y[0], y[1]);
    S::store(row, y[0]);
    S::store(row + S::lanes, y[1]);
  }
};

// F(4, 3): four results from six products, with the points 0, 2/3, -2/3, 3/2, -3/2 and infinity. Measured on
// random data of 16 to 512 channels: 2 to 4 times the rounding error of F(2, 3); with the usual points 0, 1,
// -1, 2, -2 it would be twice that.
template <class S>
struct F4 {
  using T = typename S::T;
  using Reg = typename S::Reg;
  static constexpr int results = 4, points = 6;
  static constexpr double a = 2.0 / 3, b = 3.0 / 2, a2 = a * a, b2 = b * b;  // a b = 1

  static Reg times(double factor, Reg x) { return S::mul(S::fill(T(factor)), x); }
  static Reg plus(Reg sum, double factor, Reg x) { return S::fma(S::fill(T(factor)), x, sum); }

  static void kernel(const Reg (&w)[3], Reg (&u)[points]) {
    constexpr double of_a = 1 / (2 * a2 * (a2 - b2)), of_b = 1 / (2 * b2 * (b2 - a2));
    const Reg even_a = plus(times(of_a, w[0]), of_a * a2, w[2]), odd_a = times(of_a * a, w[1]);
    const Reg even_b = plus(times(of_b, w[0]), of_b * b2, w[2]), odd_b = times(of_b * b, w[1]);
    u[0] = w[0];
    u[1] = S::add(even_a, odd_a);
    u[2] = S::sub(even_a, odd_a);
    u[3] = S::add(even_b, odd_b);
    u[4] = S::sub(even_b, odd_b);
    u[5] = w[2];
  }

  static void forward(Reg (&d)[points]) {
    const Reg even_a = plus(d[4], -b2, d[2]), odd_a = plus(times(a, d[3]), -b, d[1]);
    const Reg even_b = plus(d[4], -a2, d[2]), odd_b = plus(times(b, d[3]), -a, d[1]);
    d[0] = plus(S::add(d[0], d[4]), -(a2 + b2), d[2]);
    d[5] = plus(S::add(d[1], d[5]), -(a2 + b2), d[3]);
    d[1] = S::add(even_a, odd_a);
    d[2] = S::sub(even_a, odd_a);
    d[3] = S::add(even_b, odd_b);
    d[4] = S::sub(even_b, odd_b);
  }

  static void back(const Reg (&p)[points], Reg (&y)[results]) {
    const Reg even_a = S::add(p[1], p[2]), odd_a = S::sub(p[1], p[2]);
    const Reg even_b = S::add(p[3], p[4]), odd_b = S::sub(p[3], p[4]);
    y[0] = S::add(p[0], S::add(even_a, even_b));
    y[1] = plus(times(a, odd_a), b, odd_b);
    y[2] = plus(times(a2, even_a), b2, even_b);
    y[3] = plus(plus(p[5], a2 * a, odd_a), b2 * b, odd_b);
  }

  static void columns(const T* near, const T* far, Reg (&d)[points]) {
    Reg next[4];
    every_fourth(near, d[0], d[1], d[2], d[3]);
    every_fourth(far, next[0], next[1], next[2], next[3]);
    d[4] = next[0];
    d[5] = next[1];
  }

  static void every_fourth(const T* from, Reg& r0, Reg& r1, Reg& r2, Reg& r3) {
    r0 = S::load(from);
    r1 = S::load(from + S::lanes);
    r2 = S::load(from + 2 * S::lanes);
    r3 = S::load(from + 3 * S::lanes);
    S::split(r0, r1);  // columns 0 and 2, columns 1 and 3 of the first half of the tiles
    S::split(r2, r3);
    S::split(r0, r2);
    S::split(r1, r3);
  }

  static void store(T* row, Reg (&y)[results]) {
    S::zip(y[0], y[2]);
    S::zip(y[1], y[3]);
    S::zip(y[0], y[1]);
    S::zip(y[2], y[3]);
    for (int r = 0; r < results; ++r) S::store(row + r * S::lanes, y[r]);
  }
};

// The nine taps of `lanes` kernels, input channels `input` ... of one output channel, rotated by half a turn;
// zero for channels beyond the last.
template <class S>
inline void load_kernels(const ConvInputGrad<typename S::T>& f, int64_t output, int64_t input,
                         typename S::Reg (&taps)[3][3]) {
  typename S::T by_tap[9][S::lanes];
  for (int64_t lane = 0; lane < S::lanes; ++lane) {
    const bool inside = input + lane < f.cin;
    const typename S::T* w = f.weight + (output * f.cin + (inside ? input + lane : 0)) * 9;
    for (int tap = 0; tap < 9; ++tap) by_tap[tap][lane] = inside ? w[8 - tap] : 0;
  }
  for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = S::load(by_tap[tap]);
}

template <class S, template <class> class Family>
inline void transform_kernels(const WinogradPlan<typename S::T>& plan, int64_t panel, int64_t from,
                              int64_t last, typename S::T* kernels) {
  using F = Family<S>;
  using Reg = typename S::Reg;
  constexpr int64_t width = panel_width<S>;
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  for (int64_t output = from; output < last; ++output) {
    for (int64_t i = 0; i < width; i += S::lanes) {
      Reg taps[3][3], half[F::points][3];
      load_kernels<S>(f, output, panel * width + i, taps);
      for (int v = 0; v < 3; ++v) {
        const Reg column[3] = {taps[0][v], taps[1][v], taps[2][v]};
        Reg u[F::points];
        F::kernel(column, u);
        for (int p = 0; p < F::points; ++p) half[p][v] = u[p];
      }
      typename S::T* to = kernels + (panel * f.cout + output) * width + i;
      for (int p = 0; p < F::points; ++p) {
        Reg u[F::points];
        F::kernel(half[p], u);
        for (int q = 0; q < F::points; ++q, to += plan.kernel_plane) S::store(to, u[q]);
      }
    }
  }
}

// One channel of the cotangents of a task as rows of images with their padding: line (p, 0) holds the p-th
// row of all tiles from column 0 on, line (p, 1) from the next tile on; rows of tiles are adjacent.
template <class S, class F>
inline void fill_lines(const WinogradPlan<typename S::T>& plan, const WinogradTask<typename S::T>& task,
                       int64_t channel, typename S::T* lines, int64_t line) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t above = 2 - f.padding[0], before = 2 - f.padding[1], count = plan.across * F::results;
  const int64_t second = F::results - before;  // column of the next tile; not negative: before <= 2
  int64_t image = task.first_row / plan.down, row = task.first_row % plan.down;
  for (int64_t done = 0; done < task.rows; ++done, lines += count) {
    const typename S::T* g = f.g + image * f.g_image + channel * f.out_height * f.out_width;
    typename S::T* to = lines;
    for (int64_t p = 0; p < F::points; ++p, to += 2 * line) {
      const int64_t y = row * F::results + p - above;
      const bool inside = y >= 0 && y < f.out_height;
      const typename S::T* from = g + (inside ? y * f.out_width : 0);
      const int64_t available = inside ? f.out_width : 0;
      copy_padded<S>(from, available, before, count, to);
      copy_padded<S>(from + second, available - second, 0, count, to + line);
    }
    if (++row == plan.down) row = 0, ++image;
  }
}

template <class S, class F>
inline void forward_tiles(const typename S::T* lines, int64_t line, typename S::T* to, int64_t plane) {
  typename S::Reg d[F::points][F::points];
  for (int p = 0; p < F::points; ++p) {
    F::columns(lines + 2 * p * line, lines + (2 * p + 1) * line, d[p]);
    F::forward(d[p]);
  }
  for (int q = 0; q < F::points; ++q) {
    typename S::Reg column[F::points];
    for (int p = 0; p < F::points; ++p) column[p] = d[p][q];
    F::forward(column);
    for (int p = 0; p < F::points; ++p) S::store(to + (p * F::points + q) * plane, column[p]);
  }
}

// The tiles' results as `results` lines of adjacent rows.
template <class S, class F>
inline void back_tiles(const typename S::T* from, int64_t plane, typename S::T* lines, int64_t line) {
  typename S::Reg half[F::results][F::points];
  for (int q = 0; q < F::points; ++q) {
    typename S::Reg column[F::points], y[F::results];
    for (int p = 0; p < F::points; ++p) column[p] = S::load(from + (p * F::points + q) * plane);
    F::back(column, y);
    for (int r = 0; r < F::results; ++r) half[r][q] = y[r];
  }
  for (int r = 0; r < F::results; ++r) {
    typename S::Reg y[F::results];
    F::back(half[r], y);
    F::store(lines + r * line, y);
  }
}

template <class S, class F>
inline void put_lines(const WinogradPlan<typename S::T>& plan, const WinogradTask<typename S::T>& task,
                      int64_t channel, const typename S::T* lines, int64_t line) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  int64_t image = task.first_row / plan.down, row = task.first_row % plan.down;
  for (int64_t done = 0; done < task.rows; ++done, lines += plan.across * F::results) {
    typename S::T* out = f.out + image * f.out_image + channel * f.height * f.width;
    for (int64_t r = 0; r < F::results; ++r) {
      const int64_t y = row * F::results + r;
      if (y < f.height) put_row<S>(lines + r * line, f.width, out + y * f.width, f.add);
    }
    if (++row == plan.down) row = 0, ++image;
  }
}

template <class S, template <class> class Family>
inline void run_winograd(const WinogradPlan<typename S::T>& plan, const WinogradTask<typename S::T>& task,
                         const WinogradScratch<typename S::T>& scratch) {
  using F = Family<S>;
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const int64_t tiles = task.rows * plan.across, outputs = plan.problem->cout;
  const int64_t stride = (tiles + S::lanes - 1) / S::lanes * S::lanes;
  for (int64_t o = 0; o < outputs; ++o) {
    fill_lines<S, F>(plan, task, o, scratch.lines, scratch.line);
    for (int64_t t = 0; t < tiles; t += S::lanes) {
      T* to = scratch.places + (t / width * outputs + o) * width + t % width;
      forward_tiles<S, F>(scratch.lines + t * F::results, scratch.line, to, scratch.place_plane);
    }
  }
  for (int place = 0; place < F::points * F::points; ++place) {
    const T* kernels = plan.kernels + place * plan.kernel_plane + task.first_channel * outputs;
    const Operand<T> left{kernels, outputs * width, width};
    const Operand<T> right{scratch.places + place * scratch.place_plane, outputs * width, width};
    product_blocked<S>(task.channels, tiles, outputs, product_depth, left, right,
                       scratch.products + place * scratch.product_plane, stride);
  }
  for (int64_t i = 0; i < task.channels; ++i) {
    for (int64_t t = 0; t < tiles; t += S::lanes) {
      back_tiles<S, F>(scratch.products + i * stride + t, scratch.product_plane,
                       scratch.lines + t * F::results, scratch.line);
    }
    put_lines<S, F>(plan, task, task.first_channel + i, scratch.lines, scratch.line);
  }
}

}  // namespace
}  // namespace twophase
