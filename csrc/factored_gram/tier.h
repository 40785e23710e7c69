// The kernel table of one vector tier; included once by each tier's file.
#pragma once
#include "factored_gram/half.h"
#include "factored_gram/pointwise.h"
#include "factored_gram/tiles.h"

namespace twophase {
namespace {

template <class S>
inline int64_t block_scratch(const BlockTask<typename S::T>& task) {
  const int64_t step = chunk_rows<S>(task.rows);
  return task.left.samples * up(task.right.samples, S::lanes) + 2 * step * step + step;
}

template <class S>
constexpr FactoredKernels<typename S::T> factored_kernels() {
  return {panel_width<S>,   S::lanes,        pack_rows<S>, block_scratch<S>,   run_tiles<S>,
          run_pointwise<S>, half_scratch<S>, run_half<S>,  active_kernels<S>()};
}

}  // namespace
}  // namespace twophase
