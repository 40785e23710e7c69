// What a matrix unit provides to the driver (dispatch.cpp): packing of rows, and products of packed rows.
#pragma once
#include <cstdint>

#include "common/pack.h"
#include "split_gram/split_gram.h"

namespace twophase {

constexpr int64_t kTileRows = 16;                      // rows of a tile, and pairs of depth in it
constexpr int64_t kStepDepth = 2 * kTileRows;          // depth of a tile
constexpr int64_t kTileSize = kTileRows * kStepDepth;  // numbers of a tile
constexpr int64_t kStepSize = 2 * kTileSize;           // a tile of high parts, then one of low parts
constexpr int64_t kPanelDepth = 256;                   // depth summed in a unit's accumulators
constexpr int64_t kPanelSteps = kPanelDepth / kStepDepth;
constexpr int64_t kBlockRows = 2 * kTileRows;  // rows and columns of a register block

// A group of at most kTileRows rows, from row `first` on, over one panel, split and packed for both sides of
// a product; a side that is not wanted is null. Missing rows and terms are zero.
//
// Left form: row i of a tile holds the 32 terms of row i. Right form: row p of a tile holds terms 2p and
// 2p + 1 of all 16 rows, which is the left form transposed by pairs.
struct SplitPack {
  Rows<float> rows;
  int64_t first, count, depth;
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

// Products of two chunks, entry by entry, summed per pair of samples and added to out. Rows and columns of a
// chunk are positions, counted from the first one of the samples (0, 0) of out.
struct SplitReduce {
  const float *weights, *products;  // rows `stride` apart
  int64_t stride, row, rows, column, columns;
  int64_t left_positions, right_positions;
  View<float> out;
  float* sums;  // scratch for `columns` numbers
};

struct SplitKernels {
  void (*configure)();                      // before `multiply`, on every thread
  void (*release)();                        // after it
  uint32_t (*pack)(const SplitPack& task);  // returns the largest |x|, as the bits of a float32
  void (*multiply)(const SplitProduct& task);
  void (*reduce)(const SplitReduce& task);
};

extern const SplitKernels split_emulated;
extern const SplitKernels split_emulated_avx512;  // in amx.cpp
extern const SplitKernels split_amx;

}  // namespace twophase
