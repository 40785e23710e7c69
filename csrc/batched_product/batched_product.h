// Many small products, one operand of which may be shared by all outputs of a sample.
//
//   out(b, k, h, i, j) = sum over q of left(b, k, h, i, q) right(b, k, h, q, j)
//
// Operands and result have any strides; an operand whose stride along k is 0 is packed once for all k. Sums
// are those of gemm.h: which thread computes them changes no bit.
#pragma once
#include <array>
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

// Axes b, k, h, and the two of a matrix; strides count elements.
template <class T>
struct Matrices {
  T* data;
  std::array<int64_t, 5> strides;
};

template <class T>
struct BatchedProduct {
  int64_t samples, classes, heads, rows, terms, columns;
  Matrices<const T> left, right;
  Matrices<T> out;
};

template <class T>
void batched_product(const BatchedProduct<T>& problem, Isa isa, int threads);

}  // namespace twophase
