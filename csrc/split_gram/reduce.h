// Hadamard products of two chunks, summed per pair of samples.
#pragma once
#include "split_gram/kernels.h"

namespace twophase {
namespace {

// sums[j] = sum over rows first ... last - 1 of weights * products.
inline void sum_rows(const SplitReduce& r, int64_t first, int64_t last) {
  for (int64_t j = 0; j < r.columns; ++j) r.sums[j] = 0;
  for (int64_t i = first; i < last; ++i) {
    const float *weights = r.weights + i * r.stride, *products = r.products + i * r.stride;
    for (int64_t j = 0; j < r.columns; ++j) r.sums[j] += weights[j] * products[j];
  }
}

// out[m] += the sums of the columns of sample m.
inline void add_samples(const SplitReduce& r, float* out) {
  for (int64_t j = 0; j < r.columns;) {
    const int64_t m = (r.column + j) / r.right_positions, rest = (m + 1) * r.right_positions - r.column;
    const int64_t end = rest < r.columns ? rest : r.columns;
    double sum = 0;
    for (; j < end; ++j) sum += r.sums[j];
    out[m * r.out.col_stride] += static_cast<float>(sum);
  }
}

inline void reduce_chunk(const SplitReduce& r) {
  for (int64_t i = 0; i < r.rows;) {
    const int64_t n = (r.row + i) / r.left_positions, rest = (n + 1) * r.left_positions - r.row;
    const int64_t end = rest < r.rows ? rest : r.rows;
    sum_rows(r, i, end);
    add_samples(r, r.out.data + n * r.out.row_stride);
    i = end;
  }
}

}  // namespace
}  // namespace twophase
