// The definitions, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "common/parallel.h"
#include "per_sample_grad/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
Wide<T> linear_entry(const LinearGrad<T>& f, int64_t n, int64_t c, int64_t i, int64_t j) {
  const T* a = f.a + n * f.a_sample + j * f.a_input;
  const T* g = f.g + n * f.g_sample + c * f.g_class + i * f.g_output;
  Wide<T> sum = 0;
  for (int64_t t = 0; t < f.positions; ++t)
    sum += static_cast<Wide<T>>(g[t * f.g_position]) * a[t * f.a_position];
  return sum;
}

// The sum over output positions for tap (u, v) of input channel `channel`.
template <class T>
Wide<T> conv_entry(const ConvGrad<T>& f, const T* g, const T* channel, int64_t u, int64_t v) {
  Wide<T> sum = 0;
  for (int64_t y = 0; y < f.out_height; ++y) {
    const int64_t row = y * f.stride[0] + u * f.dilation[0] - f.padding[0];
    if (row < 0 || row >= f.height) continue;
    for (int64_t x = 0; x < f.out_width; ++x) {
      const int64_t column = x * f.stride[1] + v * f.dilation[1] - f.padding[1];
      if (column < 0 || column >= f.width) continue;
      sum += static_cast<Wide<T>>(g[y * f.g_row + x * f.g_column]) *
             channel[row * f.x_row + column * f.x_column];
    }
  }
  return sum;
}

template <class T>
void conv_row(const ConvGrad<T>& f, int64_t n, int64_t c, int64_t o) {
  const int64_t per_group = f.cin / f.groups, first = o / (f.cout / f.groups) * per_group;
  const T* g = f.g + n * f.g_sample + c * f.g_class + o * f.g_channel;
  T* out = f.out.data + n * f.out.sample + c * f.out.class_ + o * f.out.output;
  for (int64_t i = 0; i < per_group; ++i) {
    const T* channel = f.x + n * f.x_sample + (first + i) * f.x_channel;
    for (int64_t u = 0; u < f.kernel[0]; ++u) {
      for (int64_t v = 0; v < f.kernel[1]; ++v) *out++ = static_cast<T>(conv_entry(f, g, channel, u, v));
    }
  }
}

}  // namespace

template <class T>
void linear_grad_scalar(const LinearGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes, threads, [&] {
    return [&](int64_t task) {
      const int64_t n = task / f.classes, c = task % f.classes;
      for (int64_t i = 0; i < f.outputs; ++i) {
        T* out = f.out.data + n * f.out.sample + c * f.out.class_ + i * f.out.output;
        for (int64_t j = 0; j < f.inputs; ++j) out[j] = static_cast<T>(linear_entry(f, n, c, i, j));
      }
    };
  });
}

template <class T>
void conv_grad_scalar(const ConvGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes, threads, [&] {
    return [&](int64_t task) {
      for (int64_t o = 0; o < f.cout; ++o) conv_row(f, task / f.classes, task % f.classes, o);
    };
  });
}

template void linear_grad_scalar(const LinearGrad<float>&, int);
template void linear_grad_scalar(const LinearGrad<double>&, int);
template void conv_grad_scalar(const ConvGrad<float>&, int);
template void conv_grad_scalar(const ConvGrad<double>&, int);

}  // namespace twophase
