// Packing of rows for a matrix unit; templates over a splitter, which splits 16 rows of 32 contiguous terms:
//   static uint32_t split(const float* block, int64_t stride, uint16_t* left, uint16_t* right);
#pragma once
#include "split_gram/kernels.h"

namespace twophase {
namespace {

// The rows and terms that are there, from term `first` on, and zeros around them.
inline void copy_block(const SplitPack& task, int64_t first, float* block) {
  const int64_t terms = task.depth - first < kStepDepth ? task.depth - first : kStepDepth;
  const float* from = task.rows.data + first * task.rows.col_stride;
  for (int64_t i = 0; i < kTileSize; ++i) block[i] = 0;
  for (int64_t i = 0; i < task.count; ++i) {
    for (int64_t q = 0; q < terms; ++q) {
      block[i * kStepDepth + q] = from[i * task.rows.row_stride + q * task.rows.col_stride];
    }
  }
}

template <class Splitter>
inline uint32_t pack_group(const SplitPack& task) {
  alignas(64) float copy[kTileSize];
  uint32_t largest = 0;
  uint16_t *left = task.left, *right = task.right;
  for (int64_t q = 0; q < task.depth; q += kStepDepth) {
    const bool whole = task.count == kTileRows && q + kStepDepth <= task.depth && task.rows.col_stride == 1;
    if (!whole) copy_block(task, q, copy);
    const uint32_t found = Splitter::split(whole ? task.rows.data + q : copy,
                                           whole ? task.rows.row_stride : kStepDepth, left, right);
    largest = found > largest ? found : largest;
    if (left != nullptr) left += kStepSize;
    if (right != nullptr) right += kStepSize;
  }
  return largest;
}

}  // namespace
}  // namespace twophase
