// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "conv_input_grad/conv_input_grad.h"

namespace twophase {

// Terms of Winograd's products whose kernels are read for all tiles before the next.
constexpr int64_t product_depth = 64;

// Winograd. A tile is `results` x `results` results of one channel. Its `points` x `points` cotangents and
// the kernels are transformed; then, at each of the points^2 places, results = cotangents x kernels, a matrix
// product over channels; then these are transformed back. The rows of tiles of all images are counted
// through; channels of the result are taken by panels.
template <class T>
struct WinogradPlan {
  const ConvInputGrad<T>* problem;
  int64_t down, across;  // tiles of an image
  int64_t group;         // elements between groups of `lanes` channels of the transformed cotangents
  int64_t place_plane, product_plane;  // elements between places of transformed cotangents and of products
};

// Rows of tiles, of all images counted through. Room for their results, and then the cotangents of the `next`
// rows after them, are asked for from memory during products.
struct WinogradRows {
  int64_t first, count, next;
};

// For one panel: products(t, i) (+)= sum over channels q of places(t, q) kernels(q, i); adds unless `from` is
// 0.
template <class T>
struct WinogradProduct {
  int64_t panel, from, last;  // output channels, the first a multiple of product_depth
  int64_t tiles;
  const T* places;   // [groups, tiles, lanes], all channels
  const T* kernels;  // [last - from, panel]
  int64_t kernel_plane;
  T* products;        // [tiles, panel]
  WinogradRows rows;  // of the tiles, or none: nothing is asked for
};

template <class T>
struct WinogradKernels {
  int64_t results_y, results_x, places;  // of a tile
  // The kernels of a panel for output channels from ... last - 1.
  void (*transform)(const WinogradPlan<T>& plan, int64_t panel, int64_t from, int64_t last, T* kernels,
                    int64_t plane);
  // `positions` holds the rows of cotangents that the tiles of an image need, and one more, times `lanes`.
  void (*forward)(const WinogradPlan<T>& plan, int64_t first_row, int64_t rows, T* positions, T* places);
  void (*multiply)(const WinogradPlan<T>& plan, const WinogradProduct<T>& product);
  // `positions` holds the rows of an image's results, times `lanes`.
  void (*back)(const WinogradPlan<T>& plan, int64_t first_row, int64_t rows, int64_t panel, const T* products,
               T* positions);
};

// Direct. The taps of one residue of the stride: where they find their cotangents, and their kernels.
struct DirectTaps {
  int64_t count;
  const int64_t* offsets;
  int64_t kernels;  // place of its kernels [panel][output][tap][panel's channel] among those of a group
};

template <class T>
struct DirectPlan {
  const ConvInputGrad<T>* problem;
  int64_t positions;       // rows of the input of one residue
  int64_t first_shift;     // least and largest difference of rows of
  int64_t span;            // cotangents and of the input: the least, and how far the largest is from it
  int64_t copies;          // of the cotangents, each shifted across by
  const int64_t* shifts;   // this
  int64_t pitch;           // elements of a row of a copy: columns of the input of one residue
  int64_t copy, channel;   // elements of a copy and of all copies of a channel
  int64_t images, rows;    // of a task, at most; rows of one residue
  const DirectTaps* taps;  // per residue (vertical, horizontal)
  const T* kernels;
  int64_t kernel_group;  // elements
};

template <class T>
struct DirectTask {
  int64_t group, first_image, images, first_row, rows, first_panel, panels;
};

template <class T>
struct DirectScratch {
  T *cotangents, *products, *line;
};

template <class T>
struct ConvInputKernels {
  int64_t width;           // rows of a packed panel
  int64_t lanes;           // elements of a register
  int64_t mixed_channels;  // summed by tiles of 4x2 at most unless large tiles are allowed
  WinogradKernels<T> winograd, winograd_mixed, winograd_large;  // tiles of 2x2, 4x2 and 4x4 results
  void (*direct)(const DirectPlan<T>& plan, const DirectTask<T>& task, const DirectScratch<T>& scratch);
};

extern const ConvInputKernels<float> conv_input_avx2_f32;
extern const ConvInputKernels<double> conv_input_avx2_f64;
extern const ConvInputKernels<float> conv_input_avx512_f32;
extern const ConvInputKernels<double> conv_input_avx512_f64;

template <class T>
void conv_input_grad_scalar(const ConvInputGrad<T>& problem, int threads);

}  // namespace twophase
