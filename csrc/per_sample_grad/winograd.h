// The fast path of 3x3 convolutions (winograd_tier.h): when it is taken, its sizes, and what a tier is
// handed.
#pragma once
#include <cstdint>

#include "per_sample_grad/per_sample_grad.h"

namespace twophase {

struct WinogradSizes {
  int64_t channels;                  // Cin, filled up to whole registers
  int64_t tiles_x, tiles;            // of output positions
  int64_t tile_block;                // transformed at a time, whole lines of tiles
  int64_t channel_block;             // whose sums are kept at a time
  int64_t x_step, g_step, sum_step;  // between the matrices of an operand; a row more than these hold, so
                                     // that they do not all fall into the same lines of the L1 cache
};

// Some rows (c, o) of one sample.
template <class T>
struct WinogradPart {
  const ConvGrad<T>* problem;
  WinogradSizes sizes;
  const T* x;  // of the sample
  const T* g;
  int64_t first, rows;
  T* const* to;
  bool stream;  // the result does not fit the caches, and 16 channels of it are whole aligned registers
  T* x_packed;  // [height, width, channels]
  T* x_tiles;   // `places` times [tiles, channels]
  T* g_packed;  // [positions of a block, panel]
  T* g_tiles;   // `places` times [tile_block, panel]
  T* sums;      // `places` times [channel_block, panel]
};

// The kernel for tiles of one size.
template <class T>
struct WinogradGrad {
  int64_t tile_height, tile_width, places;
  void (*run)(const WinogradPart<T>& part);
};

}  // namespace twophase
