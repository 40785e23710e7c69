// What a vector tier provides to the driver (dispatch.cpp): packing and the work on one block,
// single-threaded.
#pragma once
#include <cstdint>

#include "common/active.h"
#include "common/pack.h"
#include "factored_gram/factored_gram.h"

namespace twophase {

// Packed operands of samples first ... first + samples - 1: rows (n, t) of inputs, and rows (n, t) of (class,
// output) pairs (tiles) or (n, c) of outputs (pointwise).
template <class T>
struct PackedBlock {
  const T* a;
  const T* g;
  int64_t first, samples;
  const ActiveGroup<T>* active;  // pointwise: each sample's rows by their active terms; or null
};

// One block of samples against another, for the methods tiles and pointwise.
template <class T>
struct BlockTask {
  const FactoredGram<T>* problem;
  PackedBlock<T> left, right;
  int64_t rows, depth;  // FactoredBlocks
  bool on_diagonal;     // symmetric and left = right
};

// Samples n in [first, last) against one sample m, for the method half.
template <class T>
struct HalfTask {
  const FactoredGram<T>* problem;
  const T* left_a;  // packed rows (n, t) of inputs, from sample `group` on
  const T* left_g;  // element (group, 0, 0, 0); outputs contiguous and padded with zeros to whole registers
  int64_t g_sample, g_class, g_position;
  int64_t group, first, last, m;
  int64_t rows, columns, depth;  // FactoredBlocks
};

template <class T>
struct FactoredKernels {
  int64_t width;  // rows of a packed panel
  int64_t lanes;  // elements of a register
  void (*pack)(const Rows<T>& source, int64_t first, int64_t count, int64_t depth, T* panels,
               int64_t panel_stride, int64_t width, int64_t start);
  int64_t (*block_scratch)(const BlockTask<T>& task);
  void (*tiles)(const BlockTask<T>& task, T* scratch);
  void (*pointwise)(const BlockTask<T>& task, T* scratch);
  int64_t (*half_scratch)(const HalfTask<T>& task);
  void (*half)(const HalfTask<T>& task, T* scratch);
  ActiveKernels<T> active;
};

extern const FactoredKernels<float> factored_avx2_f32;
extern const FactoredKernels<double> factored_avx2_f64;
extern const FactoredKernels<float> factored_avx512_f32;
extern const FactoredKernels<double> factored_avx512_f64;

template <class T>
void factored_gram_scalar(const FactoredGram<T>& problem, int threads);

}  // namespace twophase
