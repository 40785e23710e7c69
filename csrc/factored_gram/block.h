// Sizes and small steps shared by the methods; in an anonymous namespace like all code of the vector tiers.
#pragma once
#include "common/sizes.h"
#include "common/tile.h"
#include "factored_gram/kernels.h"

namespace twophase {
namespace {

constexpr int64_t max_chunk = 512;  // rows of a chunk, at most

// Rows of a chunk: whole panels, about `rows` of them.
template <class S>
inline int64_t chunk_rows(int64_t rows) {
  constexpr int64_t width = panel_width<S>;
  return larger(width, smaller(rows, max_chunk) / width * width);
}

// Packed panels from row `first` (a multiple of the panel width) and depth q on; panels hold `total` terms.
template <class S>
inline Operand<typename S::T> panels_at(const typename S::T* packed, int64_t first, int64_t total,
                                        int64_t q) {
  constexpr int64_t width = panel_width<S>;
  return {packed + first / width * total * width + q * width, total * width, width};
}

}  // namespace
}  // namespace twophase
