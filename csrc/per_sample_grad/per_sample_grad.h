// Per-sample gradients of linear maps and 2-D convolutions, for all cotangents of a sample at once.
//
//   linear:       out(n, c, i, j) = sum_t g(n, c, t, i) a(n, t, j)
//   convolution:  out(n, c, o, i, u, v) = sum_{y,x} g(n, c, o, y, x)
//                   in(n, i + first channel of o's group, y stride + u dilation - padding, x stride + v
//                   dilation - padding)
//                 with `in` zero outside its bounds
//
// Both are one product per sample (and group) with the classes stacked into rows: [C p, T] x [T, d]. The
// right operand, a or the patches of the convolution, is packed once and serves all classes; patches exist
// only packed. 2 N C p T d FLOPs.
//
// Convolutions with 3x3 taps and stride, dilation and groups 1 go by minimal filtering (winograd_tier.h)
// where that takes less work: tiles of 2x2 or 4x2 cotangents, or of 4x4 with `large_tiles`. The relative
// error in float32 (Frobenius norm, 7x7 to 112x112 positions), and that of torch's products with patches:
//
//   operands              4x2                4x4                torch
//   normal                2.3e-7 to 5.1e-7   4.8e-7 to 7.3e-7   1.1e-7 to 2.9e-7
//   half of both vanish   1.9e-7 to 4.1e-7   3.8e-7 to 5.9e-7   0.6e-7 to 1.9e-7
//   positive              0.8e-7 to 1.1e-7   0.9e-7 to 1.0e-7   0.9e-7 to 1.3e-7
//
// Operands have any strides and are only read; out(n, c, i) is a contiguous row of d elements (Cin / groups *
// taps for a convolution) anywhere in memory and is overwritten. Element types float and double, sums in that
// type, the order fixed by the shapes: neither blocks nor threads change a bit.
#pragma once
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

// The rows (n, c, i) of the result.
template <class T>
struct GradRows {
  T* data;
  int64_t sample, class_, output;  // strides
};

template <class T>
struct LinearGrad {
  int64_t samples, classes, positions, outputs, inputs;
  const T* a;
  int64_t a_sample, a_position, a_input;
  const T* g;
  int64_t g_sample, g_class, g_position, g_output;
  GradRows<T> out;
};

template <class T>
struct ConvGrad {
  int64_t samples, classes, cout, cin, groups;
  int64_t height, width, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  const T* x;
  int64_t x_sample, x_channel, x_row, x_column;
  const T* g;
  int64_t g_sample, g_class, g_channel, g_row, g_column;
  GradRows<T> out;
  bool large_tiles;
};

template <class T>
void linear_grad(const LinearGrad<T>& problem, Isa isa, int threads);

template <class T>
void conv_grad(const ConvGrad<T>& problem, Isa isa, int threads);

}  // namespace twophase
