// Winograd's pull-back through a 3x3 convolution; templates over a SIMD trait S and tiles F.
// Registers run along channels: cotangents are turned from planes to positions with adjacent channels, and
// results back, so that every transform works on whole registers whatever the images' size.
#pragma once
#include "common/minimal_filtering.h"
#include "common/pack.h"
#include "conv_input_grad/kernels.h"
#include "conv_input_grad/rows.h"

namespace twophase {
namespace {

// Tiles whose columns are transformed by one family and whose rows by another. A sum of products has `length`
// terms at most before it is added to a total.
template <class V, class H, int length>
struct Tile {
  using Vertical = V;
  using Horizontal = H;
  static constexpr int results_y = V::results, points_y = V::points;
  static constexpr int results_x = H::results, points_x = H::points;
  static constexpr int places = points_y * points_x;
  static constexpr int64_t sum_length = length;
};

// Rows of tiles `row` ... of one image, of which there are `rows`; the first of them is tile `tile`.
struct TileRows {
  int64_t image, row, rows, tile;
};

// Calls body for the part that every image has in rows first ... first + count - 1, counted through.
template <class Body>
inline void for_each_image(int64_t first, int64_t count, int64_t down, int64_t across, const Body& body) {
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) % down, rows = smaller(down - row, count - done);
    body(TileRows{(first + done) / down, row, rows, done * across});
    done += rows;
  }
}

// The nine taps of `lanes` kernels, input channels `input` ... of one output channel, rotated by half a turn;
// zero for channels beyond the last.
template <class S>
inline void load_kernels(const ConvInputGrad<typename S::T>& f, int64_t output, int64_t input,
                         typename S::Reg (&taps)[3][3]) {
  using Pack = typename S::Pack;
  alignas(64) typename S::T by_tap[9 * S::lanes];
  for (int64_t lane = 0; lane < S::lanes; lane += Pack::lanes) {
    const typename S::T* from[Pack::lanes] = {};
    const int64_t left = f.cin - input - lane;
    const int rows = static_cast<int>(larger(0, smaller(Pack::lanes, left)));
    for (int r = 0; r < rows; ++r) from[r] = f.weight + (output * f.cin + input + lane + r) * 9;
    pack_transposed<Pack>(from, rows, 9, by_tap + lane, S::lanes);
  }
  for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = S::load(by_tap + (8 - tap) * S::lanes);
}

template <class S, class F>
inline void transform_kernels(const WinogradPlan<typename S::T>& plan, int64_t panel, int64_t from,
                              int64_t last, typename S::T* kernels, int64_t plane) {
  using Reg = typename S::Reg;
  constexpr int64_t width = panel_width<S>;
  for (int64_t output = from; output < last; ++output, kernels += width) {
    for (int64_t i = 0; i < width; i += S::lanes) {
      Reg taps[3][3], half[F::points_y][3];
      load_kernels<S>(*plan.problem, output, panel * width + i, taps);
      for (int v = 0; v < 3; ++v) {
        const Reg column[3] = {taps[0][v], taps[1][v], taps[2][v]};
        Reg u[F::points_y];
        F::Vertical::kernel(column, u);
        for (int p = 0; p < F::points_y; ++p) half[p][v] = u[p];
      }
      typename S::T* to = kernels + i;
      for (int p = 0; p < F::points_y; ++p) {
        Reg u[F::points_x];
        F::Horizontal::kernel(half[p], u);
        for (int q = 0; q < F::points_x; ++q, to += plane) S::store(to, u[q]);
      }
    }
  }
}

// Rows y ... of `lanes` output channels of an image as [positions, lanes]; channels beyond the last are zero.
template <class S>
inline void gather_positions(const ConvInputGrad<typename S::T>& f, int64_t image, int64_t output, int64_t y,
                             int64_t rows, typename S::T* to) {
  using Pack = typename S::Pack;
  const int64_t plane = f.out_height * f.out_width;
  const typename S::T* g = f.g + image * f.g_image + output * plane + y * f.out_width;
  for (int64_t lane = 0; lane < S::lanes; lane += Pack::lanes) {
    const typename S::T* from[Pack::lanes] = {};
    const int count = static_cast<int>(larger(0, smaller(Pack::lanes, f.cout - output - lane)));
    for (int r = 0; r < count; ++r) from[r] = g + (lane + r) * plane;
    pack_transposed<Pack>(from, count, rows * f.out_width, to + lane, S::lanes);
  }
}

// One row of tiles, from its rows of positions: columns are transformed once and shared by adjacent tiles.
template <class S, class F>
inline void forward_row(const WinogradPlan<typename S::T>& plan, const typename S::T* const* lines,
                        typename S::T* to) {
  using Reg = typename S::Reg;
  const int64_t width = plan.problem->out_width, before = 2 - plan.problem->padding[1];
  constexpr int shared = F::points_x - F::results_x;  // columns of adjacent tiles
  Reg columns[F::points_x][F::points_y];
  const auto load_column = [&](int64_t x, Reg(&column)[F::points_y]) {
    if (x < 0 || x >= width) {
      for (int p = 0; p < F::points_y; ++p) column[p] = S::zero();
      return;
    }
    for (int p = 0; p < F::points_y; ++p) column[p] = S::load(lines[p] + x * S::lanes);
    F::Vertical::forward(column);
  };
  for (int c = 0; c < shared; ++c) load_column(c - before, columns[F::results_x + c]);
  for (int64_t t = 0; t < plan.across; ++t, to += S::lanes) {
    for (int c = 0; c < shared; ++c) {
      for (int p = 0; p < F::points_y; ++p) columns[c][p] = columns[F::results_x + c][p];
    }
    for (int c = shared; c < F::points_x; ++c) load_column(t * F::results_x + c - before, columns[c]);
    for (int p = 0; p < F::points_y; ++p) {
      Reg d[F::points_x];
      for (int c = 0; c < F::points_x; ++c) d[c] = columns[c][p];
      F::Horizontal::forward(d);
      for (int q = 0; q < F::points_x; ++q) S::store(to + (p * F::points_x + q) * plan.place_plane, d[q]);
    }
  }
}

template <class S, class F>
inline void forward(const WinogradPlan<typename S::T>& plan, int64_t first_row, int64_t rows,
                    typename S::T* positions, typename S::T* places) {
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t line = f.out_width * S::lanes;
  typename S::T* const turned = positions + line;
  for (int64_t x = 0; x < line; x += S::lanes) S::store(positions + x, S::zero());
  for_each_image(first_row, rows, plan.down, plan.across, [&](const TileRows& part) {
    const int64_t top = part.row * F::results_y - (2 - f.padding[0]), first = larger(0, top);
    const int64_t last = smaller(f.out_height, top + part.rows * F::results_y + F::points_y - F::results_y);
    for (int64_t output = 0; output < f.cout; output += S::lanes) {
      typename S::T* const group = places + output / S::lanes * plan.group;
      gather_positions<S>(f, part.image, output, first, larger(0, last - first), turned);
      for (int64_t row = 0; row < part.rows; ++row) {
        const typename S::T* lines[F::points_y];
        for (int p = 0; p < F::points_y; ++p) {
          const int64_t y = top + row * F::results_y + p;
          lines[p] = y >= first && y < last ? turned + (y - first) * line : positions;
        }
        forward_row<S, F>(plan, lines, group + (part.tile + row * plan.across) * S::lanes);
      }
    }
  });
}

// to(i, q) (+)= from(q, i) for `count` positions q and `channels` channels i, at most `lanes`.
template <class S, bool add>
inline void put_positions(const typename S::T* from, int64_t count, int64_t channels, int64_t plane,
                          typename S::T* to) {
  using Pack = typename S::Pack;
  for (int64_t lane = 0; lane < channels; lane += Pack::lanes, to += Pack::lanes * plane) {
    const int64_t rows = smaller(Pack::lanes, channels - lane);
    int64_t q = 0;
    for (; q + Pack::lanes <= count; q += Pack::lanes) {
      typename Pack::Reg block[Pack::lanes];
      for (int i = 0; i < Pack::lanes; ++i) block[i] = Pack::load(from + (q + i) * S::lanes + lane);
      Pack::transpose(block);
      for (int i = 0; i < Pack::lanes; ++i) {
        typename S::T* at = to + i * plane + q;
        if (i < rows) Pack::store(at, add ? Pack::add(Pack::load(at), block[i]) : block[i]);
      }
    }
    for (; q < count; ++q)
      for (int64_t i = 0; i < rows; ++i) {
        const typename S::T value = from[q * S::lanes + lane + i];
        to[i * plane + q] = add ? to[i * plane + q] + value : value;
      }
  }
}

// The results of one tile, of which `rows` x `columns` lie inside the image.
template <class S, class F>
inline void back_tile(const typename S::T* from, int64_t plane, int64_t rows, int64_t columns, int64_t line,
                      typename S::T* to) {
  typename S::Reg half[F::results_y][F::points_x];
  for (int q = 0; q < F::points_x; ++q) {
    typename S::Reg column[F::points_y], y[F::results_y];
    for (int p = 0; p < F::points_y; ++p) column[p] = S::load(from + (p * F::points_x + q) * plane);
    F::Vertical::back(column, y);
    for (int r = 0; r < F::results_y; ++r) half[r][q] = y[r];
  }
  for (int r = 0; r < F::results_y; ++r) {
    typename S::Reg y[F::results_x];
    F::Horizontal::back(half[r], y);
    for (int x = 0; x < F::results_x; ++x) {
      if (r < rows && x < columns) S::store(to + r * line + x * S::lanes, y[x]);
    }
  }
}

template <class S, class F>
inline void back(const WinogradPlan<typename S::T>& plan, int64_t first_row, int64_t rows, int64_t panel,
                 const typename S::T* products, typename S::T* positions) {
  constexpr int64_t width = panel_width<S>;
  const ConvInputGrad<typename S::T>& f = *plan.problem;
  const int64_t line = f.width * S::lanes, plane = f.height * f.width;
  const int64_t last = smaller(f.cin, (panel + 1) * width);
  for_each_image(first_row, rows, plan.down, plan.across, [&](const TileRows& part) {
    const int64_t top = part.row * F::results_y, bottom = smaller(f.height, top + part.rows * F::results_y);
    for (int64_t channel = panel * width; channel < last; channel += S::lanes) {
      const typename S::T* from = products + part.tile * width + channel % width;
      for (int64_t y = 0; y < bottom - top; y += F::results_y) {
        for (int64_t x = 0; x < f.width; x += F::results_x, from += width) {
          back_tile<S, F>(from, plan.product_plane, bottom - top - y, f.width - x, line,
                          positions + y * line + x * S::lanes);
        }
      }
      typename S::T* out = f.out + part.image * f.out_image + channel * plane + top * f.width;
      const int64_t count = (bottom - top) * f.width, channels = smaller(S::lanes, last - channel);
      if (f.add) {
        put_positions<S, true>(positions, count, channels, plane, out);
      } else {
        put_positions<S, false>(positions, count, channels, plane, out);
      }
    }
  });
}

}  // namespace
}  // namespace twophase
