// The pull-back of cotangents through a 2-D convolution: the gradient with respect to its input.
//
//   out(b, i, y, x) = [add] out(b, i, y, x)
//                     + sum over o, u, v of g(b, o, r, c) weight(o, i - first channel of o's group, u, v)
//                       where r stride + u dilation - padding = y and c stride + v dilation - padding = x
//
// Winograd: 3x3 kernels with stride, dilation and groups 1, padding up to 2, at least 8 channels on both
// sides and 128 pairs of them. Whichever is least work, by the shape alone, among
//   tiles of 2x2 results from 16 products instead of 36, by F(2, 3) along both axes: the rounding error of
//     the plain sum;
//   tiles of 4x2 results from 24 products instead of 72, by F(4, 3) along columns: where no more than 256
//     channels (with AVX2: 32) are summed and there are 8 rows and columns of cotangents at least, or with
//     `large_tiles`;
//   tiles of 4x4 results from 36 products instead of 144, with `large_tiles` alone.
// An infinite or NaN cotangent spoils the tiles that contain it. How far float32 is from float64, Frobenius
// norm, in units of torch's own distance (2.0e-7 of the result's norm when dense, 1.5e-7 below a ReLU), worst
// of 8 seeds of normal data, channels x side:
//
//                                  16x32   32x16    64x8  128x16   256x8
//   2x2, dense                      0.70    0.81    1.04    0.99    1.03
//   2x2, half zero                  0.93    1.07    1.37    1.30    1.33
//   4x2, dense                      1.22    1.30    1.43    1.37    1.47
//   4x2, half zero, as below a ReLU 1.70    1.77    1.95    1.84    1.92
//
// Tiles of 4x4, dense: 2.1 with 16 channels, 2.9 with 64. The largest error of an element, relative to the
// largest element, is at most 2.3 times torch's with tiles of 4x2. Where nine of ten are zero torch is only
// 0.8e-7 off, and tiles of 4x2, as far off as ever, 3.5 times that.
//
// Direct: everything else. A correlation of the padded cotangents with the taps, for each residue of the
// stride.
//
// 2 B Cout (Cin / groups) taps positions FLOPs when direct; 4/9, 1/3 or 1/4 of it, of whole tiles, by
// Winograd.
//
// The result may take the place of the cotangents (`out` is `g`): Winograd's does, else a copy of them is
// made.
//
// Element types float and double, sums in that type, the order fixed by the shapes: neither blocks nor
// threads change a bit.
#pragma once
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

template <class T>
struct ConvInputGrad {
  int64_t images, cout, cin, groups;
  int64_t height, width, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  const T* g;  // [images, cout, out_height, out_width], an image contiguous
  int64_t g_image;
  const T* weight;  // [cout, cin / groups, kernel], contiguous
  T* out;           // [images, cin, height, width], an image contiguous
  int64_t out_image;
  bool add;
  bool large_tiles;
};

template <class T>
void conv_input_grad(const ConvInputGrad<T>& problem, Isa isa, int threads);

}  // namespace twophase
