// Splitting in plain C++: the definition.
#pragma once
#include <cstdint>
#include <cstring>

#include "split_gram/kernels.h"

namespace twophase {
namespace {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// A zero of its sign for a subnormal number.
inline uint32_t flushed(uint32_t bits) { return (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits; }

// The bits of x as a bfloat16, rounded to nearest, ties to even, in the upper half; x is finite.
inline uint32_t rounded(float x) {
  const uint32_t bits = flushed(bits_of(x));
  return (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
}

struct PlainSplitter {
  static uint32_t split(const float* const (&rows)[kTileRows], int64_t first, uint16_t* left,
                        uint16_t* right) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < kTileRows; ++i) {
      for (int64_t q = 0; q < kStepDepth; ++q) {
        const float x = rows[i][first + q];
        const uint32_t high = rounded(x), low = rounded(x - float_of(high)), size = bits_of(x) & 0x7fffffffu;
        largest = size > largest ? size : largest;
        store(high, low, i * kStepDepth + q, left);
        store(high, low, (q / 2 * kTileRows + i) * 2 + q % 2, right);
      }
    }
    return largest;
  }

 private:
  static void store(uint32_t high, uint32_t low, int64_t place, uint16_t* step) {
    if (step == nullptr) return;
    step[place] = static_cast<uint16_t>(high >> 16);
    step[kTileSize + place] = static_cast<uint16_t>(low >> 16);
  }
};

}  // namespace
}  // namespace twophase
