// The pull-back of cotangents through a 2-D convolution: the gradient with respect to its input.
//
//   out(b, i, y, x) = [add] out(b, i, y, x)
//                     + sum over o, u, v of g(b, o, r, c) weight(o, i - first channel of o's group, u, v)
//                       where r stride + u dilation - padding = y and c stride + v dilation - padding = x
//
// Winograd: 3x3 kernels with stride, dilation and groups 1, padding up to 2, at least 8 channels on both
// sides and 128 pairs of them. Tiles of 2x2 results from 16 products instead of 36, with the transforms of
// F(2x2, 3x3), whose only constants are 1 and 1/2: its rounding error is like that of the plain sum. With
// `large_tiles`, where that is less work, tiles of 4x4 results from 36 products instead of 144, at 2 to 4
// times the rounding error. An infinite or NaN cotangent spoils the tiles that contain it.
//
// Direct: everything else. A correlation of the padded cotangents with the taps, for each residue of the
// stride.
//
// 2 B Cout (Cin / groups) taps positions FLOPs when direct; 4/9 or 1/4 of it, of whole tiles, by Winograd.
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
