// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "common/pack.h"
#include "per_sample_grad/per_sample_grad.h"
#include "per_sample_grad/winograd.h"

namespace twophase {

// Patches of one sample's channels: row (i, u, v) holds the input of tap (u, v) at every output position.
template <class T>
struct Patches {
  const ConvGrad<T>* problem;
  const T* x;  // first channel
};

// rows[i][j] = sum_q left(i, q) right(j, q) over packed operands.
template <class T>
struct StackedProduct {
  int64_t rows, columns, terms;
  const T* left;
  const T* right;
  T* const* to;
  bool stream;  // the result does not fit the caches, and its rows are aligned to registers and whole numbers
                // of them
};

template <class T>
struct GradKernels {
  int64_t width;  // rows of a packed panel
  int64_t lanes;  // elements of a register
  void (*pack)(const Rows<T>& source, int64_t first, int64_t count, int64_t depth, T* panels,
               int64_t panel_stride, int64_t width, int64_t start);
  // Rows 0 ... count - 1 of the patches; `line` holds out_height * out_width * lanes elements.
  void (*pack_patches)(const Patches<T>& patches, int64_t count, T* panels, int64_t width, T* line);
  void (*multiply)(const StackedProduct<T>& product);
  WinogradGrad<T> winograd, winograd_mixed, winograd_large;  // tiles of 2x2, 4x2 and 4x4 cotangents
};

extern const GradKernels<float> grad_avx2_f32;
extern const GradKernels<double> grad_avx2_f64;
extern const GradKernels<float> grad_avx512_f32;
extern const GradKernels<double> grad_avx512_f64;

template <class T>
void linear_grad_scalar(const LinearGrad<T>& problem, int threads);
template <class T>
void conv_grad_scalar(const ConvGrad<T>& problem, int threads);

}  // namespace twophase
