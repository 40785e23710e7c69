// The operands of some samples of a factored Gram block, split and packed; part of the driver, baseline
// instructions.
#pragma once
#include "common/parallel.h"
#include "factored_gram/packed_side.h"
#include "split_gram/packed_rows.h"

namespace twophase {
namespace {

// Samples first ... last - 1 of one side, in blocks of samples that start at a group of rows each.
class PackedSamples {
 public:
  PackedSamples(const FactoredGram<float>& f, const FactoredSide<float>& side, int64_t block, int64_t first,
                int64_t last, bool left, bool right)
      : side_(side),
        block_(block),
        first_(first),
        last_(last),
        a_round_{0, blocks(), 0, f.inputs},
        g_round_{0, blocks() * side.classes, 0, f.outputs},
        a_(block * side.positions, left, right, a_round_),
        g_(block * side.positions, left, right, g_round_) {}

  int64_t blocks() const { return ceil_div(last_ - first_, block_); }
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }
  int64_t first_of(int64_t block) const { return first_ + block * block_; }
  int64_t positions_of(int64_t block) const {
    return std::min(block_, last_ - first_of(block)) * side_.positions;
  }
  int64_t matrix_of(int64_t block, int64_t c) const { return block * side_.classes + c; }

  const Round& a_round() const { return a_round_; }
  const Round& g_round() const { return g_round_; }
  PackedRows& a() { return a_; }
  PackedRows& g() { return g_; }

  void pack(const SplitKernels& kernels, int threads) {
    const int64_t inputs = a_.tasks(a_round_);
    parallel_tasks(inputs + g_.tasks(g_round_), threads, [&] {
      return [&](int64_t task) {
        task < inputs ? pack_inputs(kernels, task) : pack_cotangents(kernels, task - inputs);
      };
    });
  }

 private:
  void pack_inputs(const SplitKernels& kernels, int64_t task) {
    const int64_t block = a_.matrix_of(a_round_, task);
    a_.pack(a_round_, {input_rows(side_), first_of(block) * side_.positions, positions_of(block)}, kernels,
            task);
  }

  void pack_cotangents(const SplitKernels& kernels, int64_t task) {
    const int64_t matrix = g_.matrix_of(g_round_, task);
    const int64_t block = matrix / side_.classes, c = matrix % side_.classes;
    const Rows<float> rows{side_.g + c * side_.g_class, side_.positions, side_.g_sample, side_.g_position,
                           side_.g_output};
    g_.pack(g_round_, {rows, first_of(block) * side_.positions, positions_of(block)}, kernels, task);
  }

  const FactoredSide<float>& side_;
  const int64_t block_, first_, last_;
  const Round a_round_, g_round_;
  PackedRows a_, g_;
};

}  // namespace
}  // namespace twophase
