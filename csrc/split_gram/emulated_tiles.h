// The eight tile registers in memory, with the arithmetic that is documented for tdpbf16ps: products of the
// even and of the odd terms are added to two sums that start at zero, one fused multiply-add each; the two
// are added, and then added to the accumulator. Rounding is to nearest even; subnormal operands and results
// are zeros.
#pragma once
#include "split_gram/plain_splitter.h"

namespace twophase {
namespace {

// x y + sum, rounded once: the product of two bfloat16 is exact in double, and where the sum is not, it lies
// too far from a tie between two float32 for the second rounding to matter.
inline float multiply_add(float x, float y, float sum) {
  const double exact = static_cast<double>(x) * static_cast<double>(y) + static_cast<double>(sum);
  return float_of(flushed(bits_of(static_cast<float>(exact))));
}

inline float add(float x, float y) { return float_of(flushed(bits_of(x + y))); }

struct EmulatedTiles {
  alignas(64) uint32_t tiles[8][kTileRows][kTileRows];

  static void configure() {}
  static void release() {}

  template <int T>
  void zero() {
    std::memset(tiles[T], 0, sizeof tiles[T]);
  }

  template <int T>
  void load(const uint16_t* from) {
    std::memcpy(tiles[T], from, sizeof tiles[T]);
  }

  // Rows `stride` numbers apart.
  template <int T>
  void store(float* to, int64_t stride) const {
    for (int64_t i = 0; i < kTileRows; ++i) std::memcpy(to + i * stride, tiles[T][i], sizeof tiles[T][i]);
  }

  template <int C, int A, int B>
  void dot() {
    for (int64_t i = 0; i < kTileRows; ++i) dot_row(tiles[A][i], tiles[B], tiles[C][i]);
  }

 private:
  static float first_of(uint32_t pair) { return float_of(flushed(pair << 16)); }
  static float second_of(uint32_t pair) { return float_of(flushed(pair & 0xffff0000u)); }

  static void dot_row(const uint32_t (&a)[kTileRows], const uint32_t (&b)[kTileRows][kTileRows],
                      uint32_t (&c)[kTileRows]) {
    float even[kTileRows] = {}, odd[kTileRows] = {};
    for (int64_t p = 0; p < kTileRows; ++p) {
      const float first = first_of(a[p]), second = second_of(a[p]);
      for (int64_t j = 0; j < kTileRows; ++j) {
        even[j] = multiply_add(first, first_of(b[p][j]), even[j]);
        odd[j] = multiply_add(second, second_of(b[p][j]), odd[j]);
      }
    }
    for (int64_t j = 0; j < kTileRows; ++j) {
      c[j] = bits_of(add(float_of(flushed(c[j])), add(even[j], odd[j])));
    }
  }
};

}  // namespace
}  // namespace twophase
