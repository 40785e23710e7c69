// Minimal filtering for the weight gradient of 3x3 convolutions with stride 1 (Winograd 1980; Lavin and Gray
// 2016): F(3x3, 2x2), "filters" of 2x2 cotangents that give 3x3 results from 4x4 inputs.
//
//   D = A^T [ sum over tiles (G g G^T) * (B^T x B) ] A        * elementwise, tiles 2 apart
//
//         1  0 -1  0             1  0            1  1  1  0
//   B^T = 0  h  h  0   h = 1/2   1  1    A^T =   0  1 -1  0
//         0 -h  h  0         G = 1 -1            0  1  1 -1
//         0  1  0 -1             0  1
//
// The sum is 16 products of [rows, tiles] by [tiles, channels]: 16 multiplications for 4 positions and 9
// taps, which take 36 otherwise. Vectors run over rows (c, o) of the result, so that all transforms are
// elementwise.
#pragma once
#include "common/pack.h"
#include "common/tile.h"
#include "per_sample_grad/winograd.h"

namespace twophase {
namespace {

template <class S>
inline typename S::Reg minus(typename S::Reg x, typename S::Reg y) {
  return S::fma(y, S::fill(-1), x);
}

// B^T applied to four registers.
template <class S>
inline void input_transform(typename S::Reg (&r)[4]) {
  const typename S::Reg half = S::fill(typename S::T{0.5});
  const typename S::Reg middle = S::mul(S::add(r[1], r[2]), half), other = S::mul(minus<S>(r[2], r[1]), half);
  r[0] = minus<S>(r[0], r[2]);
  r[3] = minus<S>(r[1], r[3]);
  r[1] = middle;
  r[2] = other;
}

// Registers (y, x) of the tile whose first position is (top, left) of [height, width] positions, `step`
// apart.
template <class S, int size>
inline void load_tile(const typename S::T* from, int64_t height, int64_t width, int64_t step, int64_t top,
                      int64_t left, typename S::Reg (&tile)[size][size]) {
  for (int y = 0; y < size; ++y) {
    const bool inside = top + y >= 0 && top + y < height;
    for (int x = 0; x < size; ++x) {
      const bool there = inside && left + x >= 0 && left + x < width;
      tile[y][x] = there ? S::load(from + ((top + y) * width + left + x) * step) : S::zero();
    }
  }
}

// X(p, tile, i): the transformed inputs of a sample, from its channels packed as [height * width, channels].
template <class S>
inline void transform_inputs(const WinogradPart<typename S::T>& f) {
  const ConvGrad<typename S::T>& conv = *f.problem;
  const WinogradSizes& z = f.sizes;
  for (int64_t y = 0; y < conv.height; ++y) {
    const Rows<typename S::T> line{f.x + y * conv.x_row, conv.cin, 0, conv.x_channel, conv.x_column};
    pack_rows<S>(line, 0, conv.cin, conv.width, f.x_packed + y * conv.width * z.channels, 0, z.channels, 0);
  }
  for (int64_t tile = 0; tile < z.tiles; ++tile) {
    const int64_t top = tile / z.tiles_x * 2 - conv.padding[0], left = tile % z.tiles_x * 2 - conv.padding[1];
    for (int64_t i = 0; i < z.channels; i += S::lanes) {
      typename S::Reg t[4][4];
      load_tile<S>(f.x_packed + i, conv.height, conv.width, z.channels, top, left, t);
      for (int y = 0; y < 4; ++y) input_transform<S>(t[y]);
      for (int x = 0; x < 4; ++x) {
        typename S::Reg column[4] = {t[0][x], t[1][x], t[2][x], t[3][x]};
        input_transform<S>(column);
        for (int y = 0; y < 4; ++y)
          S::store(f.x_tiles + (y * 4 + x) * z.x_step + tile * z.channels + i, column[y]);
      }
    }
  }
}

// Q(p, tile, row): the transformed cotangents of a panel of rows in a block of tiles, from [positions,
// panel].
template <class S>
inline void transform_cotangents(const WinogradPart<typename S::T>& f, int64_t rows, int64_t lines,
                                 int64_t tiles) {
  using Reg = typename S::Reg;
  constexpr int64_t width = panel_width<S>;
  const int64_t columns = f.problem->out_width;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t top = tile / f.sizes.tiles_x * 2, left = tile % f.sizes.tiles_x * 2;
    for (int64_t r = 0; r < rows; r += S::lanes) {
      Reg g[2][2];
      load_tile<S>(f.g_packed + r, lines, columns, width, top, left, g);
      const Reg half[4][2] = {{g[0][0], g[0][1]},
                              {S::add(g[0][0], g[1][0]), S::add(g[0][1], g[1][1])},
                              {minus<S>(g[0][0], g[1][0]), minus<S>(g[0][1], g[1][1])},
                              {g[1][0], g[1][1]}};
      typename S::T* to = f.g_tiles + tile * width + r;
      const int64_t step = f.sizes.g_step;
      for (int y = 0; y < 4; ++y, to += 4 * step) {
        S::store(to, half[y][0]);
        S::store(to + step, S::add(half[y][0], half[y][1]));
        S::store(to + 2 * step, minus<S>(half[y][0], half[y][1]));
        S::store(to + 3 * step, half[y][1]);
      }
    }
  }
}

// A^T applied to four registers `step` apart.
template <class S>
inline void output_transform(const typename S::Reg* m, int step, typename S::Reg (&out)[3]) {
  const typename S::Reg sum = S::add(m[step], m[2 * step]);
  out[0] = S::add(m[0], sum);
  out[1] = minus<S>(m[step], m[2 * step]);
  out[2] = minus<S>(sum, m[3 * step]);
}

// The 9 taps of channel `channel` of the block for a panel of rows, as [9, panel].
template <class S>
inline void transform_result(const WinogradPart<typename S::T>& f, int64_t rows, int64_t channel,
                             typename S::T* taps) {
  constexpr int64_t width = panel_width<S>;
  for (int64_t r = 0; r < rows; r += S::lanes) {
    typename S::Reg m[16], half[3][4];
    for (int p = 0; p < 16; ++p) m[p] = S::load(f.sums + p * f.sizes.sum_step + channel * width + r);
    for (int x = 0; x < 4; ++x) {
      typename S::Reg column[3];
      output_transform<S>(m + x, 4, column);
      for (int u = 0; u < 3; ++u) half[u][x] = column[u];
    }
    for (int u = 0; u < 3; ++u) {
      typename S::Reg row[3];
      output_transform<S>(half[u], 1, row);
      for (int v = 0; v < 3; ++v) S::store(taps + (u * 3 + v) * width + r, row[v]);
    }
  }
}

// rows[r][first + e] = taps(e, r) for e < count, r < rows.
template <class S>
inline void write_rows(const typename S::T* taps, int64_t count, typename S::T* const* to, int64_t rows,
                       int64_t first) {
  using Pack = typename S::Pack;
  constexpr int64_t width = panel_width<S>;
  for (int64_t r = 0; r < rows; r += Pack::lanes) {
    const int64_t here = rows - r < Pack::lanes ? rows - r : Pack::lanes;
    int64_t e = 0;
    for (; e + Pack::lanes <= count; e += Pack::lanes) {
      typename Pack::Reg block[Pack::lanes];
      for (int i = 0; i < Pack::lanes; ++i) block[i] = Pack::load(taps + (e + i) * width + r);
      Pack::transpose(block);
      for (int64_t i = 0; i < here; ++i) Pack::store(to[r + i] + first + e, block[i]);
    }
    for (; e < count; ++e)
      for (int64_t i = 0; i < here; ++i) to[r + i][first + e] = taps[e * width + r + i];
  }
}

// The same past the caches, for whole aligned registers.
template <class S>
inline void stream_rows(const typename S::T* taps, int64_t count, typename S::T* const* to, int64_t rows,
                        int64_t first) {
  using Pack = typename S::Pack;
  constexpr int64_t width = panel_width<S>;
  alignas(64) typename S::T turned[Pack::lanes * S::lanes];
  for (int64_t r = 0; r < rows; r += Pack::lanes) {
    const int64_t here = rows - r < Pack::lanes ? rows - r : Pack::lanes;
    for (int64_t e = 0; e < count; e += S::lanes) {
      for (int64_t part = 0; part < S::lanes; part += Pack::lanes) {
        typename Pack::Reg block[Pack::lanes];
        for (int i = 0; i < Pack::lanes; ++i) block[i] = Pack::load(taps + (e + part + i) * width + r);
        Pack::transpose(block);
        for (int i = 0; i < Pack::lanes; ++i) Pack::store(turned + i * S::lanes + part, block[i]);
      }
      for (int64_t i = 0; i < here; ++i) S::stream(to[r + i] + first + e, S::load(turned + i * S::lanes));
    }
  }
}

// Packs and transforms the cotangents of a panel of rows in the block of tiles from `tile` on; returns how
// many tiles it has.
template <class S>
inline int64_t load_cotangents(const WinogradPart<typename S::T>& f, int64_t row, int64_t rows,
                               int64_t tile) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const ConvGrad<T>& conv = *f.problem;
  const int64_t tiles = f.sizes.tiles - tile < f.sizes.tile_block ? f.sizes.tiles - tile : f.sizes.tile_block;
  const int64_t top = tile / f.sizes.tiles_x * 2, wanted = tiles / f.sizes.tiles_x * 2;
  const int64_t lines = conv.out_height - top < wanted ? conv.out_height - top : wanted;
  const int64_t even =
      conv.g_row == conv.out_width * conv.g_column ? lines : 1;  // evenly spaced: all at once
  for (int64_t y = 0; y < lines; y += even) {
    const Rows<T> line{f.g + (top + y) * conv.g_row, conv.cout, conv.g_class, conv.g_channel, conv.g_column};
    pack_rows<S>(line, row, rows, even * conv.out_width, f.g_packed + y * conv.out_width * width, 0, width,
                 0);
  }
  transform_cotangents<S>(f, rows, lines, tiles);
  return tiles;
}

// The sums over all tiles for a panel of rows and a block of channels.
template <class S>
inline void sum_tiles(const WinogradPart<typename S::T>& f, int64_t row, int64_t rows, int64_t channel,
                      int64_t channels) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const WinogradSizes& z = f.sizes;
  for (int64_t tile = 0; tile < z.tiles; tile += z.tile_block) {
    const int64_t tiles = load_cotangents<S>(f, row, rows, tile);
    for (int64_t p = 0; p < 16; ++p) {
      const Operand<T> left{f.x_tiles + p * z.x_step + tile * z.channels + channel, width, z.channels};
      const Operand<T> right{f.g_tiles + p * z.g_step, 0, width};
      T* sums = f.sums + p * z.sum_step;
      if (tile == 0) {
        product<S>(channels, rows, tiles, left, right, StorePadded<S, false>{sums, width});
      } else {
        product<S>(channels, rows, tiles, left, right, StorePadded<S, true>{sums, width});
      }
    }
  }
}

template <class S>
inline void winograd(const WinogradPart<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>, together = 16;  // channels, so that whole lines are written
  alignas(64) typename S::T taps[together * 9 * width];
  transform_inputs<S>(f);
  for (int64_t row = 0; row < f.rows; row += width) {
    const int64_t rows = f.rows - row < width ? f.rows - row : width;
    for (int64_t i = 0; i < f.problem->cin; i += f.sizes.channel_block) {
      const int64_t left = f.problem->cin - i;
      const int64_t channels = left < f.sizes.channel_block ? left : f.sizes.channel_block;
      sum_tiles<S>(f, f.first + row, rows, i, channels);
      for (int64_t j = 0; j < channels; j += together) {
        const int64_t count = channels - j < together ? channels - j : together;
        for (int64_t k = 0; k < count; ++k) transform_result<S>(f, rows, j + k, taps + k * 9 * width);
        (f.stream ? stream_rows<S> : write_rows<S>)(taps, count * 9, f.to + row, rows, (i + j) * 9);
      }
    }
  }
  if (f.stream) _mm_sfence();
}

}  // namespace
}  // namespace twophase
