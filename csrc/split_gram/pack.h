// Packing of rows for a matrix unit; templates over a splitter, which splits 32 contiguous terms, from
// `first` on, of 16 rows:
//   static uint32_t split(const float* const (&rows)[kTileRows], int64_t first, uint16_t* left, uint16_t*
//   right);
#pragma once
#include "split_gram/kernels.h"

namespace twophase {
namespace {

// The terms that are there, of the rows that are there, from term `first` on, and zeros around them.
inline void copy_block(const SplitPack& task, const float* const (&rows)[kTileRows], int64_t first,
                       float* block) {
  const int64_t terms = task.depth - first < kStepDepth ? task.depth - first : kStepDepth;
  for (int64_t i = 0; i < kTileSize; ++i) block[i] = 0;
  for (int64_t i = 0; i < task.count; ++i) {
    const float* from = rows[i] + first * task.rows.depth_stride;
    for (int64_t q = 0; q < terms; ++q) block[i * kStepDepth + q] = from[q * task.rows.depth_stride];
  }
}

template <class Splitter>
inline uint32_t pack_group(const SplitPack& task) {
  alignas(64) float copy[kTileSize];
  const float *rows[kTileRows] = {}, *copied[kTileRows];
  for (int64_t i = 0; i < task.count; ++i) rows[i] = task.rows.row(task.first + i);
  for (int64_t i = 0; i < kTileRows; ++i) copied[i] = copy + i * kStepDepth;
  const int64_t whole = task.count == kTileRows && task.rows.depth_stride == 1 ? task.depth : 0;
  uint32_t largest = 0;
  uint16_t *left = task.left, *right = task.right;
  for (int64_t q = 0; q < task.depth; q += kStepDepth) {
    const bool direct = q + kStepDepth <= whole;
    if (!direct) copy_block(task, rows, q, copy);
    const uint32_t found =
        direct ? Splitter::split(rows, q, left, right) : Splitter::split(copied, 0, left, right);
    largest = found > largest ? found : largest;
    if (left != nullptr) left += kStepSize;
    if (right != nullptr) right += kStepSize;
  }
  return largest;
}

}  // namespace
}  // namespace twophase
