// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "batch_norm_grad/batch_norm_grad.h"

namespace twophase {

// Some channels of one sample and class.
template <class T>
struct ChannelBlock {
  int64_t channels, positions;
  const T *g, *x, *relu, *rstd;
  const T *mean, *scale;  // one per channel; for `packed` one per channel and position
  T *out, *weight_grad, *bias_grad;
  int64_t ahead;  // from g to what is read next
  bool stream;    // out does not fit the caches, and its rows are aligned whole registers
};

template <class T>
struct NormGradKernels {
  int64_t lanes;                             // elements of a register
  void (*rows)(const ChannelBlock<T>& f);    // channel by channel
  void (*packed)(const ChannelBlock<T>& f);  // several channels per register: at most `lanes` positions
  void (*gate)(T* g, const T* relu, int64_t count, int64_t ahead);
};

extern const NormGradKernels<float> norm_grad_avx2_f32;
extern const NormGradKernels<double> norm_grad_avx2_f64;
extern const NormGradKernels<float> norm_grad_avx512_f32;
extern const NormGradKernels<double> norm_grad_avx512_f64;

template <class T>
void batch_norm_grad_scalar(const BatchNormGrad<T>& problem, int threads);
template <class T>
void relu_grad_scalar(const ReluGrad<T>& problem, int threads);

}  // namespace twophase
