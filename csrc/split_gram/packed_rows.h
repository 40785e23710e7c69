// The rows of one side of a product, split and packed for some panels of depth; part of the driver, baseline
// instructions.
#pragma once
#include <algorithm>
#include <atomic>

#include "common/workspace.h"
#include "split_gram/kernels.h"

namespace twophase {
namespace {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Matrices first ... first + count - 1 of a batch, terms start ... start + depth - 1 of k.
struct Round {
  int64_t first, count, start, depth;

  int64_t panels() const { return ceil_div(depth, kPanelDepth); }
  int64_t panel_depth(int64_t panel) const { return std::min(kPanelDepth, depth - panel * kPanelDepth); }
};

class PackedRows {
 public:
  // `forms`: 1, or 2 where the rows stand on both sides of the product.
  PackedRows(int64_t rows, int forms, const Round& largest)
      : rows_(rows),
        groups_(ceil_div(rows, kTileRows)),
        group_size_(std::min(kPanelSteps, ceil_div(largest.depth, kStepDepth)) * kStepSize),
        form_size_(largest.count * largest.panels() * groups_ * group_size_),
        memory_(forms * form_size_) {}

  int64_t group_size() const { return group_size_; }
  int64_t tasks(const Round& round) const { return round.count * round.panels() * units(); }

  // Group 0 of a matrix of the round and a panel, in the first or second form.
  uint16_t* at(const Round& round, int64_t matrix, int64_t panel, int form) {
    return memory_.data() + form * form_size_ + (matrix * round.panels() + panel) * groups_ * group_size_;
  }

  // Packs a few groups; `left` and `right` are the forms' numbers, or -1 for none. Raises `largest`.
  void pack(const Round& round, const Batch<const float>& x, const SplitKernels& kernels, int64_t task,
            int left, int right, std::atomic<uint32_t>& largest) {
    const int64_t matrix = task / units() / round.panels(), panel = task / units() % round.panels();
    const int64_t begin = task % units() * kGroupsOfTask;
    for (int64_t group = begin; group < std::min(groups_, begin + kGroupsOfTask); ++group) {
      const auto place = [&](int form) {
        return form < 0 ? nullptr : at(round, matrix, panel, form) + group * group_size_;
      };
      const int64_t row = group * kTileRows;
      raise(largest, kernels.pack({x.at(round.first + matrix, row, round.start + panel * kPanelDepth),
                                   std::min(kTileRows, rows_ - row), round.panel_depth(panel), place(left),
                                   place(right)}));
    }
  }

 private:
  static constexpr int64_t kGroupsOfTask = 2;

  int64_t units() const { return ceil_div(groups_, kGroupsOfTask); }

  static void raise(std::atomic<uint32_t>& largest, uint32_t found) {
    uint32_t known = largest.load(std::memory_order_relaxed);
    while (found > known && !largest.compare_exchange_weak(known, found)) {
    }
  }

  const int64_t rows_, groups_, group_size_, form_size_;
  Workspace<uint16_t> memory_;
};

}  // namespace
}  // namespace twophase
