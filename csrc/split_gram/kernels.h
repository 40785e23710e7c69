// What a matrix unit provides to the driver (dispatch.cpp): packing of rows, and products of packed rows.
#pragma once
#include <cstdint>

#include "split_gram/split_gram.h"

namespace twophase {

constexpr int64_t kTileRows = 16;                      // rows of a tile, and pairs of depth in it
constexpr int64_t kStepDepth = 2 * kTileRows;          // depth of a tile
constexpr int64_t kTileSize = kTileRows * kStepDepth;  // numbers of a tile
constexpr int64_t kStepSize = 2 * kTileSize;           // a tile of high parts, then one of low parts
constexpr int64_t kPanelDepth = 256;                   // depth summed in a unit's accumulators
constexpr int64_t kPanelSteps = kPanelDepth / kStepDepth;
constexpr int64_t kBlockRows = 2 * kTileRows;  // rows and columns of a register block

// A group of at most kTileRows rows over one panel, split and packed for both sides of a product; a side that
// is not wanted is null. Missing rows and terms are zero.
//
// Left form: row i of a tile holds the 32 terms of row i. Right form: row p of a tile holds terms 2p and
// 2p + 1 of all 16 rows, which is the left form transposed by pairs.
struct SplitPack {
  View<const float> rows;
  int64_t count, depth;
  uint16_t *left, *right;  // ceil(depth / kStepDepth) steps of kStepSize
};

// Rows and columns of packed operands against each other, one panel deep.
struct SplitProduct {
  const uint16_t *left, *right;  // of row 0 and column 0 of the whole product, groups group_stride apart
  int64_t group_stride, steps;
  int64_t row, last_row, column, last_column;  // row and column: multiples of kBlockRows
  bool symmetric;                              // blocks below the diagonal are skipped
  bool all;                                    // low low' too
  View<float> out;                             // of row 0 and column 0
  const GramWeights* weights;
};

struct SplitKernels {
  void (*configure)();                      // before `multiply`, on every thread
  void (*release)();                        // after it
  uint32_t (*pack)(const SplitPack& task);  // returns the largest |x|, as the bits of a float32
  void (*multiply)(const SplitProduct& task);
};

extern const SplitKernels split_emulated;
extern const SplitKernels split_emulated_avx512;  // in amx.cpp
extern const SplitKernels split_amx;

}  // namespace twophase
