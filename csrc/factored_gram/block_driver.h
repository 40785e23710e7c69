// Methods tiles and pointwise over all samples and threads.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "factored_gram/packed_side.h"

namespace twophase {
namespace {

// Blocks of samples against blocks of samples; in the symmetric case those on and above the diagonal.
template <class T>
class BlockDriver {
 public:
  BlockDriver(const FactoredGram<T>& f, GramMethod method, const FactoredBlocks& blocks,
              const FactoredKernels<T>& k, int threads)
      : f_(f), method_(method), blocks_(blocks), kernels_(k), threads_(threads) {}

  void run() {
    const int64_t right_block = size_of_block(f_.right), left_block = size_of_block(f_.left);
    const int64_t right_step = group_size(f_, f_.right, right_block, blocks_.workspace);
    const int64_t left_step = group_size(f_, f_.left, left_block, blocks_.workspace);
    for (int64_t m = 0; m < f_.right.samples; m += right_step) {
      PackedSide<T> right(f_, f_.right, method_, kernels_, right_block, m,
                          std::min(f_.right.samples, m + right_step));
      right.pack(threads_);
      for (int64_t n = 0; n < (f_.symmetric ? m : f_.left.samples); n += left_step) {
        PackedSide<T> left(f_, f_.left, method_, kernels_, left_block, n,
                           std::min(f_.left.samples, n + left_step));
        left.pack(threads_);
        multiply(left, right, false);
      }
      if (f_.symmetric) multiply(right, right, true);
    }
  }

 private:
  int64_t size_of_block(const FactoredSide<T>& side) const {
    if (method_ != GramMethod::pointwise) return block_size(side, side.positions, blocks_.rows);
    int64_t blocks = 8;
    while (blocks * blocks < 16 * threads_) ++blocks;  // eight tasks and more per thread
    // Half a panel of inputs at least, as what is padded is multiplied, too.
    return block_size(side, side.classes, blocks_.rows, kernels_.width, blocks, kernels_.width / 2);
  }

  void multiply(PackedSide<T>& left, PackedSide<T>& right, bool upper) {
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t j = 0; j < right.blocks(); ++j) {
      for (int64_t i = 0; i < (upper ? j : left.blocks()); ++i) pairs.emplace_back(i, j);
    }
    for (int64_t j = 0; upper && j < right.blocks(); ++j) pairs.emplace_back(j, j);  // half the work: last
    const auto task = [&](int64_t index) -> BlockTask<T> {
      const auto [i, j] = pairs[static_cast<size_t>(index)];
      BlockTask<T> block{&f_, left.block(i), right.block(j), blocks_.rows, blocks_.depth, upper && i == j};
      if (!right.finite()) block.left.active = nullptr;  // zero times infinity is not zero
      return block;
    };
    parallel_tasks(static_cast<int64_t>(pairs.size()), threads_, [&] {
      auto scratch = std::make_unique<Workspace<T>>(kernels_.block_scratch(task(0)));
      return [&, scratch = std::move(scratch)](int64_t index) {
        (method_ == GramMethod::tiles ? kernels_.tiles : kernels_.pointwise)(task(index), scratch->data());
      };
    });
  }

  const FactoredGram<T>& f_;
  const GramMethod method_;
  const FactoredBlocks& blocks_;
  const FactoredKernels<T>& kernels_;
  const int threads_;
};

}  // namespace
}  // namespace twophase
