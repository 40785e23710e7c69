// Gram blocks of float32 operands split into two bfloat16 parts, x = high + low, on a matrix unit:
//
//   out(b, i, j) += w(i, j) * sum over q < k of (low high' + high high' + high low')(i, j, q)
//
// The problem, its strides and its symmetric form are those of gram/gram.h; the optional weights w are a
// smaller matrix of which each entry counts for a block of `repeat` rows and columns (the layer's inputs,
// where a row is one output of a sample).
//
// Accuracy: high and low have 8 significant bits each, and low low' is left out: an error of up to 2^-15 of a
// single product, 3e-6 to 5e-6 in the Frobenius norm of a block. With `all_products`, and for k up to 64,
// where it costs nothing beside packing, low low' is added: up to 2^-16, 1e-6 to 2e-6. Sums are float32: 32
// terms by the unit (16 even and 16 odd ones, as tdpbf16ps documents it), 256 in its accumulators, then out.
// The unit flushes subnormal numbers to zero.
//
// Range: where the largest entries of a round of k (see kRoundBytes) have a product outside 2^-80 ... 2^112,
// or one of them is NaN or infinite, that round is computed in float32 as gram/gram.h does it. So an infinite
// entry gives the infinities and NaNs of exact arithmetic (high high' + high low' would be inf - inf), and
// tiny operands lose nothing to flushed low parts.
//
// Every order follows from the shape: the bits depend neither on the number of threads nor on the unit, be it
// real or emulated. Work: three products on the unit, half of them when symmetric. Memory beside the
// operands: 16 MiB of packed panels, or one panel of 1 KiB per row and side if that is more.
#pragma once
#include <cstdint>

#include "common/cpu.h"
#include "gram/gram.h"

namespace twophase {

// w(i, j) = data[i / row_repeat * row_stride + j / col_repeat * col_stride]; none if data is null.
struct GramWeights {
  const float* data = nullptr;
  int64_t row_stride = 0, col_stride = 0;
  int64_t row_repeat = 1, col_repeat = 1;
};

// Throws std::runtime_error if the operating system refuses this process the tile registers.
void split_gram_accumulate(const GramProblem<float>& problem, const GramWeights& weights, bool all_products,
                           MatrixUnit unit, int threads);

}  // namespace twophase
