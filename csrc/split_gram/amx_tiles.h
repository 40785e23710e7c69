// The tile registers. The statements are written out because the compilers' own (_tile_loadd and the like)
// take literal register numbers only, and do not all say which memory they read and write.
//
// Include only from files compiled with -mamx-tile -mamx-bf16; everything is in an anonymous namespace.
#pragma once
#include "split_gram/kernels.h"

namespace twophase {
namespace {

// Palette 1: all eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64, "the processor reads 64 bytes");

struct AmxTiles {
  static void configure() {
    const TileConfiguration all;
    __asm__ volatile("ldtilecfg %0" : : "m"(all));
  }

  // Other libraries on this thread find no configuration, and the registers need not be saved any more.
  static void release() { __asm__ volatile("tilerelease" : : : "memory"); }

  template <int T>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
  }

  template <int T>
  static void load(const uint16_t* from) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(int64_t{64}), "i"(T) : "memory");
  }

  // Rows `stride` numbers apart.
  template <int T>
  static void store(float* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(4 * stride), "i"(T) : "memory");
  }

  // Tile C += tile A times tile B.
  template <int C, int A, int B>
  static void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

}  // namespace
}  // namespace twophase
