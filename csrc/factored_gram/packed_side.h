// Packed operands of a range of samples (methods tiles and pointwise); part of the driver, baseline
// instructions.
#pragma once
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "common/active_groups.h"
#include "common/parallel.h"
#include "common/sizes.h"
#include "common/workspace.h"
#include "factored_gram/kernels.h"

namespace twophase {
namespace {

template <class T>
Rows<T> input_rows(const FactoredSide<T>& side) {
  return {side.a, side.positions, side.a_sample, side.a_position, side.a_input};
}

constexpr int64_t most_group_rows = 64;  // a chunk of rows holds several groups

// A range of samples of one side, packed in blocks that start at a panel each.
template <class T>
class PackedSide {
 public:
  PackedSide(const FactoredGram<T>& f, const FactoredSide<T>& side, GramMethod method,
             const FactoredKernels<T>& k, int64_t block, int64_t first, int64_t last)
      : side_(side),
        kernels_(k),
        pointwise_(method == GramMethod::pointwise),
        inputs_(f.inputs),
        outputs_(f.outputs),
        block_(block),
        first_(first),
        last_(last),
        a_block_(up(block * side.positions, k.width) * f.inputs),
        g_block_(pointwise_ ? up(block * side.classes, k.width) * f.outputs
                            : up(block * side.positions, k.width) * side.classes * f.outputs),
        looks_(pointwise_ && side.g_output == 1 && side.classes <= most_group_rows &&
               pays_for_groups(side.samples, side.classes, f.outputs, f.right.samples * f.right.classes)),
        a_(a_block_ * blocks()),
        g_(g_block_ * blocks()) {}

  int64_t blocks() const { return ceil_div(last_ - first_, block_); }

  PackedBlock<T> block(int64_t i) {
    const ActiveGroup<T>* active = packed_.empty() ? nullptr : packed_.data() + i * block_;
    return {a_.data() + i * a_block_, g_.data() + i * g_block_, first_ + i * block_, samples(i), active};
  }

  void pack(int threads) {
    parallel_tasks(blocks(), threads, [&] { return [&](int64_t i) { pack_block(i); }; });
    if (looks_) find_active(threads);
  }

  // Whether nothing is lost where products with zeros are left out; known after packing.
  bool finite() const { return groups_ && groups_->finite(); }

 private:
  int64_t samples(int64_t i) const { return std::min(block_, last_ - first_ - i * block_); }

  void find_active(int threads) {
    groups_ = std::make_unique<ActiveGroups<T>>(kernels_.active, last_ - first_, side_.classes, outputs_);
    groups_->find(side_.g + first_ * side_.g_sample, side_.g_sample, side_.g_class, threads);
    if (!groups_->worth()) return;
    values_ = std::make_unique<Workspace<T>>((last_ - first_) * groups_->values_size());
    packed_.resize(static_cast<size_t>(last_ - first_));
    parallel_tasks(last_ - first_, threads, [&] {
      return [&](int64_t n) {
        packed_[static_cast<size_t>(n)] =
            groups_->pack(n, side_.g + (first_ + n) * side_.g_sample, side_.g_class,
                          values_->data() + n * groups_->values_size());
      };
    });
  }

  void pack_block(int64_t i) {
    const int64_t n = first_ + i * block_, count = samples(i) * side_.positions, width = kernels_.width;
    kernels_.pack(input_rows(side_), n * side_.positions, count, inputs_, a_.data() + i * a_block_,
                  inputs_ * width, width, 0);
    T* g = g_.data() + i * g_block_;
    if (pointwise_) {
      const Rows<T> rows{side_.g, side_.classes, side_.g_sample, side_.g_class, side_.g_output};
      kernels_.pack(rows, n * side_.classes, samples(i) * side_.classes, outputs_, g, outputs_ * width, width,
                    0);
      return;
    }
    const int64_t terms = side_.classes * outputs_;
    for (int64_t c = 0; c < side_.classes; ++c) {
      const Rows<T> rows{side_.g + c * side_.g_class, side_.positions, side_.g_sample, side_.g_position,
                         side_.g_output};
      kernels_.pack(rows, n * side_.positions, count, outputs_, g + c * outputs_ * width, terms * width,
                    width, 0);
    }
  }

  const FactoredSide<T>& side_;
  const FactoredKernels<T>& kernels_;
  const bool pointwise_;
  const int64_t inputs_, outputs_, block_, first_, last_, a_block_, g_block_;
  const bool looks_;  // for terms that are zero in all rows of a sample
  Workspace<T> a_, g_;
  std::unique_ptr<ActiveGroups<T>> groups_;
  std::unique_ptr<Workspace<T>> values_;
  std::vector<ActiveGroup<T>> packed_;
};

// Samples per group such that the packed operands of a group have at most `workspace` elements.
template <class T>
int64_t group_size(const FactoredGram<T>& f, const FactoredSide<T>& side, int64_t block, int64_t workspace) {
  const int64_t per_sample = side.positions * (f.inputs + side.classes * f.outputs);
  return up(std::max<int64_t>(block, workspace / std::max<int64_t>(per_sample, 1)), block);
}

// Samples per block: about `rows` rows, in blocks of equal size; at least `least_blocks`, to keep threads
// busy, unless these would be narrower than two registers or have fewer than `least` samples. A few rows less
// if they then fill whole panels. `least_blocks` may follow from the number of threads only where blocks
// change no sum.
template <class T>
int64_t block_size(const FactoredSide<T>& side, int64_t rows_per_sample, int64_t rows, int64_t width = 1,
                   int64_t least_blocks = 8, int64_t least = 1) {
  const int64_t per_sample = std::max<int64_t>(rows_per_sample, 1);
  const int64_t fits = std::max<int64_t>(1, rows / per_sample);
  const int64_t spread = std::min(least_blocks, std::max<int64_t>(1, side.samples * per_sample / 16));
  const int64_t blocks = std::max(spread, ceil_div(side.samples, fits));
  const int64_t size = std::max({int64_t{1}, std::min(least, fits), ceil_div(side.samples, blocks)});
  const int64_t whole = width / std::gcd(width, per_sample);  // samples whose rows fill panels
  return size >= whole ? size / whole * whole : size;
}

}  // namespace
}  // namespace twophase
