// How a Gram block is cut into tasks. Slices of k change the rounding, so they follow from the shape alone;
// tiles of the output change nothing (see gemm/gemm.h), so they follow from the number of threads.
#pragma once
#include <cstdint>

namespace twophase {

struct GramPlan {
  int64_t tile;        // rows and columns of a task's output
  int64_t slices;      // parts of k
  int64_t slice_size;  // elements of k in a slice, a multiple of 768
};

// One task: a tile of one matrix of the batch, over one slice of k.
struct GramTask {
  int64_t batch, row, col, slice;
};

GramPlan plan_gram(int64_t batch, int64_t n, int64_t m, int64_t k, bool symmetric, int64_t element_size,
                   int threads);

}  // namespace twophase
