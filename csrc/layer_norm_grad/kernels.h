// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "layer_norm_grad/layer_norm_grad.h"

namespace twophase {

// All positions of one sample and class.
template <class T>
struct LayerNormRows {
  int64_t positions, features;
  const T *g, *x, *mean, *rstd, *weight;
  T *out, *weight_grad, *bias_grad;
  T* sums;  // room for the two sums over positions, each of whole registers
};

template <class T>
struct LayerNormKernels {
  int64_t lanes;  // elements of a register
  void (*rows)(const LayerNormRows<T>& f);
};

extern const LayerNormKernels<float> layer_norm_avx2_f32;
extern const LayerNormKernels<double> layer_norm_avx2_f64;
extern const LayerNormKernels<float> layer_norm_avx512_f32;
extern const LayerNormKernels<double> layer_norm_avx512_f64;

template <class T>
void layer_norm_grad_scalar(const LayerNormGrad<T>& problem, int threads);

}  // namespace twophase
