// The backward pass of LayerNorm over the last axis, for all cotangents of a sample.
//
//   xhat(b, t, d)        = (x(b, t, d) - mean(b, t)) rstd(b, t),  gw(b, k, t, d) = g(b, k, t, d) weight(d)
//   out(b, k, t, d)      = rstd(b, t) (gw - mean_d(gw) - xhat mean_d(gw xhat))
//   weight_grad(b, k, d) = sum_t g(b, k, t, d) xhat(b, t, d)
//   bias_grad(b, k, d)   = sum_t g(b, k, t, d)
//
// One pass over memory: some rows of g are read for their sums, and again from L1 for the result. About 12
// operations per element of g, so memory is the limit. Everything is contiguous; out may be g. Element types
// float and double, sums in that type: over d in the lanes of a register, then over the lanes as a tree; over
// t for 64 positions at most, then piece after piece. The order follows from the shape alone.
#pragma once
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

template <class T>
struct LayerNormGrad {
  int64_t samples, classes, positions, features;
  const T* g;     // [samples, classes, positions, features]
  const T* x;     // [samples, positions, features]
  const T* mean;  // [samples, positions], as rstd
  const T* rstd;
  const T* weight;  // [features], or null for ones
  T* out;           // as g
  T* weight_grad;   // [samples, classes, features], as bias_grad
  T* bias_grad;
};

template <class T>
void layer_norm_grad(const LayerNormGrad<T>& problem, Isa isa, int threads);

}  // namespace twophase
