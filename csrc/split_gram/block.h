// One register block of a product of packed operands, and adding it to the result; templates over the tiles.
//
// Tiles 0 ... 3 hold the sums of 2 x 2 tiles of the result, 4 and 5 left and 6 and 7 right operands: eight
// loads for twelve products a step.
#pragma once
#include "split_gram/kernels.h"

namespace twophase {
namespace {

// R x C tiles, R, C <= 2.
template <class Tiles, int R, int C>
struct RegisterBlock {
  Tiles& tiles;
  int64_t group_stride;

  void load_left(const uint16_t* from) const {
    tiles.template load<4>(from);
    if constexpr (R == 2) tiles.template load<5>(from + group_stride);
  }

  void load_right(const uint16_t* from) const {
    tiles.template load<6>(from);
    if constexpr (C == 2) tiles.template load<7>(from + group_stride);
  }

  void multiply() const {
    tiles.template dot<0, 4, 6>();
    if constexpr (C == 2) tiles.template dot<1, 4, 7>();
    if constexpr (R == 2) tiles.template dot<2, 5, 6>();
    if constexpr (R == 2 && C == 2) tiles.template dot<3, 5, 7>();
  }

  // sums[R * 16][C * 16], rows kBlockRows apart: low high' + high high' + high low' over all steps, and low
  // low' if `all`.
  void run(const uint16_t* left, const uint16_t* right, int64_t steps, bool all, float* sums) const {
    tiles.template zero<0>(), tiles.template zero<1>(), tiles.template zero<2>(), tiles.template zero<3>();
    for (int64_t step = 0; step < steps; ++step, left += kStepSize, right += kStepSize) {
      load_left(left + kTileSize);
      if (all) {
        load_right(right + kTileSize);
        multiply();
      }
      load_right(right);
      multiply();
      load_left(left);
      multiply();
      load_right(right + kTileSize);
      multiply();
    }
    tiles.template store<0>(sums, kBlockRows);
    if constexpr (C == 2) tiles.template store<1>(sums + kTileRows, kBlockRows);
    if constexpr (R == 2) tiles.template store<2>(sums + kTileRows * kBlockRows, kBlockRows);
    if constexpr (R == 2 && C == 2) {
      tiles.template store<3>(sums + kTileRows * kBlockRows + kTileRows, kBlockRows);
    }
  }
};

// out[j] += sums[j], times weights[j] unless that is null.
inline void add_some(const float* sums, const float* weights, int64_t count, float* out, int64_t stride) {
  if (weights == nullptr) {
    for (int64_t j = 0; j < count; ++j) out[j * stride] += sums[j];
  } else {
    for (int64_t j = 0; j < count; ++j) out[j * stride] += weights[j] * sums[j];
  }
}

// The same for a whole row of a block with contiguous results, which the compiler makes a few registers of.
inline void add_whole(const float* __restrict sums, const float* __restrict weights, float* __restrict out) {
  if (weights == nullptr) {
    for (int64_t j = 0; j < kBlockRows; ++j) out[j] += sums[j];
  } else {
    for (int64_t j = 0; j < kBlockRows; ++j) out[j] += weights[j] * sums[j];
  }
}

// The weights of a row's columns from `column` on, in `line` where they do not lie side by side already.
inline const float* weights_of(const GramWeights& w, int64_t row, int64_t column, int64_t count,
                               float* line) {
  const float* from = w.data + row / w.row_repeat * w.row_stride;
  if (w.col_repeat == 1 && w.col_stride == 1) return from + column;
  int64_t at = column / w.col_repeat, left = w.col_repeat - column % w.col_repeat;
  for (int64_t j = 0; j < count; ++j) {
    line[j] = from[at * w.col_stride];
    if (--left == 0) ++at, left = w.col_repeat;
  }
  return line;
}

// Adds the sums of the block at (row, column), as much of it as the result has.
inline void add_block(const SplitProduct& p, int64_t row, int64_t column, const float* sums) {
  const int64_t rows = p.last_row - row < kBlockRows ? p.last_row - row : kBlockRows;
  const int64_t columns = p.last_column - column < kBlockRows ? p.last_column - column : kBlockRows;
  float line[kBlockRows];
  const float* weights = nullptr;
  for (int64_t i = 0; i < rows; ++i) {
    const bool same = i > 0 && p.weights->row_repeat > 1 && (row + i) % p.weights->row_repeat != 0;
    if (p.weights->data != nullptr && !same) weights = weights_of(*p.weights, row + i, column, columns, line);
    float* out = p.out.data + (row + i) * p.out.row_stride + column * p.out.col_stride;
    if (columns == kBlockRows && p.out.col_stride == 1) {
      add_whole(sums + i * kBlockRows, weights, out);
    } else {
      add_some(sums + i * kBlockRows, weights, columns, out, p.out.col_stride);
    }
  }
}

template <class Tiles, int R, int C>
inline void multiply_block(Tiles& tiles, const SplitProduct& p, int64_t row, int64_t column) {
  alignas(64) float sums[kBlockRows * kBlockRows];
  RegisterBlock<Tiles, R, C>{tiles, p.group_stride}.run(p.left + row / kTileRows * p.group_stride,
                                                        p.right + column / kTileRows * p.group_stride,
                                                        p.steps, p.all, sums);
  add_block(p, row, column, sums);
}

// The left operands of a row of blocks (32 KiB) stay in L1 while the right ones come from L2.
template <class Tiles>
inline void multiply_blocks(const SplitProduct& p) {
  Tiles tiles;
  for (int64_t i = p.row; i < p.last_row; i += kBlockRows) {
    const bool tall = p.last_row - i > kTileRows;
    const int64_t first = p.symmetric && i > p.column ? i : p.column;
    for (int64_t j = first; j < p.last_column; j += kBlockRows) {
      const bool wide = p.last_column - j > kTileRows;
      if (tall && wide) {
        multiply_block<Tiles, 2, 2>(tiles, p, i, j);
      } else if (tall) {
        multiply_block<Tiles, 2, 1>(tiles, p, i, j);
      } else if (wide) {
        multiply_block<Tiles, 1, 2>(tiles, p, i, j);
      } else {
        multiply_block<Tiles, 1, 1>(tiles, p, i, j);
      }
    }
  }
}

}  // namespace
}  // namespace twophase
