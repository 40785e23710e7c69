// Minimal filtering for the weight gradient of 3x3 convolutions with stride 1 (Winograd 1980; Lavin and Gray
// 2016): tiles of c x c cotangents that give 3x3 taps from (c + 2) x (c + 2) inputs; templates over a SIMD
// trait S and the transforms F of c cotangents along one axis (common/minimal_filtering.h).
//
//   D = A^T [ sum over tiles (G g G^T) * (B^T x B) ] A        * elementwise, tiles c apart
//
// The sum is (c + 2)^2 products of [rows, tiles] by [tiles, channels]: 16 multiplications for 4 positions and
// 9 taps, which take 36 otherwise, or 36 for 16 positions, which take 144. Vectors run over rows (c, o) of
// the result, so that all transforms are elementwise.
#pragma once
#include "common/minimal_filtering.h"
#include "common/pack.h"
#include "common/tile.h"
#include "per_sample_grad/winograd.h"

namespace twophase {
namespace {

// Tiles whose columns are transformed by V and whose rows by H.
template <class V, class H>
struct GradTile {
  using Vertical = V;
  using Horizontal = H;
  static constexpr int height = V::cotangents, width = H::cotangents;
  static constexpr int down = V::points, across = H::points, places = down * across;
};

// Registers (y, x) of the tile whose first position is (top, left) of [height, width] positions, `step`
// apart.
template <class S, int down, int across>
inline void load_tile(const typename S::T* from, int64_t height, int64_t width, int64_t step, int64_t top,
                      int64_t left, typename S::Reg (&tile)[down][across]) {
  for (int y = 0; y < down; ++y) {
    const bool inside = top + y >= 0 && top + y < height;
    for (int x = 0; x < across; ++x) {
      const bool there = inside && left + x >= 0 && left + x < width;
      tile[y][x] = there ? S::load(from + ((top + y) * width + left + x) * step) : S::zero();
    }
  }
}

// X(p, tile, i): the transformed inputs of a sample, from its channels packed as [height * width, channels].
template <class S, class F>
inline void transform_inputs(const WinogradPart<typename S::T>& f) {
  const ConvGrad<typename S::T>& conv = *f.problem;
  const WinogradSizes& z = f.sizes;
  for (int64_t y = 0; y < conv.height; ++y) {
    const Rows<typename S::T> line{f.x + y * conv.x_row, conv.cin, 0, conv.x_channel, conv.x_column};
    pack_rows<S>(line, 0, conv.cin, conv.width, f.x_packed + y * conv.width * z.channels, 0, z.channels, 0);
  }
  for (int64_t tile = 0; tile < z.tiles; ++tile) {
    const int64_t top = tile / z.tiles_x * F::height - conv.padding[0];
    const int64_t left = tile % z.tiles_x * F::width - conv.padding[1];
    for (int64_t i = 0; i < z.channels; i += S::lanes) {
      typename S::Reg t[F::down][F::across];
      load_tile<S>(f.x_packed + i, conv.height, conv.width, z.channels, top, left, t);
      for (int y = 0; y < F::down; ++y) F::Horizontal::input(t[y]);
      typename S::T* to = f.x_tiles + tile * z.channels + i;
      for (int x = 0; x < F::across; ++x) {
        typename S::Reg column[F::down];
        for (int y = 0; y < F::down; ++y) column[y] = t[y][x];
        F::Vertical::input(column);
        for (int y = 0; y < F::down; ++y) S::store(to + (y * F::across + x) * z.x_step, column[y]);
      }
    }
  }
}

// Q(p, tile, row): the transformed cotangents of a panel of rows in a block of tiles, from [positions,
// panel].
template <class S, class F>
inline void transform_cotangents(const WinogradPart<typename S::T>& f, int64_t rows, int64_t lines,
                                 int64_t tiles) {
  using Reg = typename S::Reg;
  constexpr int64_t width = panel_width<S>;
  const int64_t columns = f.problem->out_width;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t top = tile / f.sizes.tiles_x * F::height, left = tile % f.sizes.tiles_x * F::width;
    for (int64_t r = 0; r < rows; r += S::lanes) {
      Reg g[F::height][F::width], half[F::down][F::width];
      load_tile<S>(f.g_packed + r, lines, columns, width, top, left, g);
      for (int x = 0; x < F::width; ++x) {
        Reg column[F::height], u[F::down];
        for (int y = 0; y < F::height; ++y) column[y] = g[y][x];
        F::Vertical::cotangent(column, u);
        for (int y = 0; y < F::down; ++y) half[y][x] = u[y];
      }
      typename S::T* to = f.g_tiles + tile * width + r;
      for (int y = 0; y < F::down; ++y) {
        Reg u[F::across];
        F::Horizontal::cotangent(half[y], u);
        for (int x = 0; x < F::across; ++x, to += f.sizes.g_step) S::store(to, u[x]);
      }
    }
  }
}

// The 9 taps of channel `channel` of the block for a panel of rows, as [9, panel].
template <class S, class F>
inline void transform_result(const WinogradPart<typename S::T>& f, int64_t rows, int64_t channel,
                             typename S::T* taps) {
  using Reg = typename S::Reg;
  constexpr int64_t width = panel_width<S>;
  for (int64_t r = 0; r < rows; r += S::lanes) {
    const typename S::T* from = f.sums + channel * width + r;
    Reg half[3][F::across];
    for (int x = 0; x < F::across; ++x) {
      Reg m[F::down], column[3];
      for (int y = 0; y < F::down; ++y) m[y] = S::load(from + (y * F::across + x) * f.sizes.sum_step);
      F::Vertical::back(m, column);
      for (int u = 0; u < 3; ++u) half[u][x] = column[u];
    }
    for (int u = 0; u < 3; ++u) {
      Reg row[3];
      F::Horizontal::back(half[u], row);
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
template <class S, class F>
inline int64_t load_cotangents(const WinogradPart<typename S::T>& f, int64_t row, int64_t rows,
                               int64_t tile) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const ConvGrad<T>& conv = *f.problem;
  const int64_t tiles = f.sizes.tiles - tile < f.sizes.tile_block ? f.sizes.tiles - tile : f.sizes.tile_block;
  const int64_t top = tile / f.sizes.tiles_x * F::height, wanted = tiles / f.sizes.tiles_x * F::height;
  const int64_t lines = conv.out_height - top < wanted ? conv.out_height - top : wanted;
  const int64_t even =
      conv.g_row == conv.out_width * conv.g_column ? lines : 1;  // evenly spaced: all at once
  for (int64_t y = 0; y < lines; y += even) {
    const Rows<T> line{f.g + (top + y) * conv.g_row, conv.cout, conv.g_class, conv.g_channel, conv.g_column};
    pack_rows<S>(line, row, rows, even * conv.out_width, f.g_packed + y * conv.out_width * width, 0, width,
                 0);
  }
  transform_cotangents<S, F>(f, rows, lines, tiles);
  return tiles;
}

// The sums over all tiles for a panel of rows and a block of channels.
template <class S, class F>
inline void sum_tiles(const WinogradPart<typename S::T>& f, int64_t row, int64_t rows, int64_t channel,
                      int64_t channels) {
  using T = typename S::T;
  constexpr int64_t width = panel_width<S>;
  const WinogradSizes& z = f.sizes;
  for (int64_t tile = 0; tile < z.tiles; tile += z.tile_block) {
    const int64_t tiles = load_cotangents<S, F>(f, row, rows, tile);
    for (int64_t p = 0; p < F::places; ++p) {
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

template <class S, class F>
inline void winograd(const WinogradPart<typename S::T>& f) {
  constexpr int64_t width = panel_width<S>, together = 16;  // channels, so that whole lines are written
  alignas(64) typename S::T taps[together * 9 * width];
  transform_inputs<S, F>(f);
  for (int64_t row = 0; row < f.rows; row += width) {
    const int64_t rows = f.rows - row < width ? f.rows - row : width;
    for (int64_t i = 0; i < f.problem->cin; i += f.sizes.channel_block) {
      const int64_t left = f.problem->cin - i;
      const int64_t channels = left < f.sizes.channel_block ? left : f.sizes.channel_block;
      sum_tiles<S, F>(f, f.first + row, rows, i, channels);
      for (int64_t j = 0; j < channels; j += together) {
        const int64_t count = channels - j < together ? channels - j : together;
        for (int64_t k = 0; k < count; ++k) transform_result<S, F>(f, rows, j + k, taps + k * 9 * width);
        (f.stream ? stream_rows<S> : write_rows<S>)(taps, count * 9, f.to + row, rows, (i + j) * 9);
      }
    }
  }
  if (f.stream) _mm_sfence();
}

}  // namespace
}  // namespace twophase
