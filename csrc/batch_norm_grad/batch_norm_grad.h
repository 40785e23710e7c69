// The backward pass of [BatchNorm in evaluation mode, then optionally ReLU], for all cotangents of a sample.
//
//   h(n, c, k, t)        = g(n, c, k, t), or 0 where relu(n, k, t) <= 0, whatever g is there
//   out(n, c, k, t)      = h(n, c, k, t) weight(k) rstd(k)
//   weight_grad(n, c, k) = sum_t h(n, c, k, t) (x(n, k, t) - mean(k)) rstd(k)
//   bias_grad(n, c, k)   = sum_t h(n, c, k, t)
//
// One pass: g is read once and out written once; a block of channels of x and relu stays in cache for all
// cotangents of its sample. About 7 operations per element of g, so memory is the limit. Everything is
// contiguous; out may be g. Element types float and double, sums in that type: in the lanes of two
// registers for 2,048 positions at most, then piece after piece, then over the lanes as a tree. The order
// follows from the number of positions alone: neither blocks of channels nor threads change a bit.
#pragma once
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

template <class T>
struct BatchNormGrad {
  int64_t samples, classes, channels, positions;
  const T* g;     // [samples, classes, channels, positions]
  const T* x;     // [samples, channels, positions]
  const T* relu;  // as x, or null
  const T* mean;  // [channels], as rstd and weight
  const T* rstd;
  const T* weight;  // or null
  T* out;           // as g
  T* weight_grad;   // [samples, classes, channels]
  T* bias_grad;
};

// g(n, c, i) = 0 where relu(n, i) <= 0.
template <class T>
struct ReluGrad {
  int64_t samples, classes, elements;
  T* g;
  const T* relu;
};

template <class T>
void batch_norm_grad(const BatchNormGrad<T>& problem, Isa isa, int threads);

template <class T>
void relu_grad(const ReluGrad<T>& problem, Isa isa, int threads);

}  // namespace twophase
