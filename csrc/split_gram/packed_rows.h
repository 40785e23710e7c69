// The rows of one side of a product, split and packed for some panels of depth; part of the drivers, baseline
// instructions.
#pragma once
#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "common/sizes.h"
#include "common/workspace.h"
#include "split_gram/kernels.h"

namespace twophase {
namespace {

const SplitKernels& split_kernels(MatrixUnit unit) {
#ifdef TWOPHASE_AMX
  if (unit == MatrixUnit::amx) return split_amx;
  if (unit == MatrixUnit::emulated_avx512) return split_emulated_avx512;
#endif
  (void)unit;
  return split_emulated;
}

// Throws std::runtime_error if this process may not use the unit.
inline void require_tiles(MatrixUnit unit) {
  if (unit != MatrixUnit::amx || permit_tiles()) return;
  throw std::runtime_error(
      "the operating system refuses this process the AMX tile registers, though its parent had them; set "
      "TWOPHASE_ISA=avx512, or compute with precision='highest'");
}

// Whether the unit keeps its accuracy on operands of these largest sizes (bits of |x| and |y|).
inline bool in_range(uint32_t x, uint32_t y) {
  constexpr int bias = 127, largest = 126, lowest_product = -80, highest_product = 112;
  const int a = static_cast<int>(x >> 23) - bias, b = static_cast<int>(y >> 23) - bias;
  if (a > largest || b > largest) return false;
  return x == 0 || y == 0 || (a + b >= lowest_product && a + b < highest_product);
}

// The unit's state on one thread.
class TileScope {
 public:
  explicit TileScope(const SplitKernels& kernels) : kernels_(kernels) { kernels_.configure(); }
  ~TileScope() { kernels_.release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  const SplitKernels& kernels_;
};

// Some matrices of a batch, terms start ... start + depth - 1 of k.
struct Round {
  int64_t first, count, start, depth;

  int64_t panels() const { return ceil_div(depth, kPanelDepth); }
  int64_t panel_depth(int64_t panel) const { return std::min(kPanelDepth, depth - panel * kPanelDepth); }
  int64_t steps(int64_t panel) const { return ceil_div(panel_depth(panel), kStepDepth); }
};

// The rows of one matrix: `count` from row `first` on, at term 0 of a round.
struct SourceRows {
  Rows<float> rows;
  int64_t first, count;
};

class PackedRows {
 public:
  // Room for matrices of `rows` rows, in left form, in right form or in both.
  PackedRows(int64_t rows, bool left, bool right, const Round& largest)
      : left_(left),
        right_(right),
        groups_(ceil_div(rows, kTileRows)),
        group_size_(std::min(kPanelSteps, ceil_div(largest.depth, kStepDepth)) * kStepSize),
        form_size_(largest.count * largest.panels() * groups_ * group_size_),
        memory_((left + right) * form_size_) {}

  int64_t group_size() const { return group_size_; }
  int64_t tasks(const Round& round) const { return round.count * groups_ * runs(round); }
  uint32_t largest() const { return largest_; }

  // Group 0 of a matrix of the round and a panel.
  const uint16_t* left(const Round& round, int64_t matrix, int64_t panel) {
    return memory_.data() + place(round, matrix, panel);
  }
  const uint16_t* right(const Round& round, int64_t matrix, int64_t panel) {
    return memory_.data() + left_ * form_size_ + place(round, matrix, panel);
  }

  // The matrix of the round that a task packs.
  int64_t matrix_of(const Round& round, int64_t task) const { return task / runs(round) / groups_; }

  // Packs a group of a matrix, given by its rows, over some panels: rows are read in long runs, which takes
  // half the time of reading one panel of all rows first.
  void pack(const Round& round, const SourceRows& from, const SplitKernels& kernels, int64_t task) {
    const int64_t matrix = matrix_of(round, task), group = task / runs(round) % groups_;
    const int64_t first = task % runs(round) * kPanelsOfTask, row = group * kTileRows;
    if (row >= from.count) return;
    for (int64_t panel = first; panel < std::min(round.panels(), first + kPanelsOfTask); ++panel) {
      SplitPack pack{
          from.rows, from.first + row, std::min(kTileRows, from.count - row), round.panel_depth(panel),
          nullptr,   nullptr};
      pack.rows.data += panel * kPanelDepth * pack.rows.depth_stride;
      uint16_t* to = memory_.data() + place(round, matrix, panel) + group * group_size_;
      if (left_) pack.left = to;
      if (right_) pack.right = to + left_ * form_size_;
      raise(kernels.pack(pack));
    }
  }

  void forget_largest() { largest_ = 0; }

 private:
  static constexpr int64_t kPanelsOfTask = 8;

  static int64_t runs(const Round& round) { return ceil_div(round.panels(), kPanelsOfTask); }

  int64_t place(const Round& round, int64_t matrix, int64_t panel) const {
    return (matrix * round.panels() + panel) * groups_ * group_size_;
  }

  void raise(uint32_t found) {
    uint32_t known = largest_.load(std::memory_order_relaxed);
    while (found > known && !largest_.compare_exchange_weak(known, found)) {
    }
  }

  const bool left_, right_;
  const int64_t groups_, group_size_, form_size_;
  Workspace<uint16_t> memory_;
  std::atomic<uint32_t> largest_{0};
};

}  // namespace
}  // namespace twophase
