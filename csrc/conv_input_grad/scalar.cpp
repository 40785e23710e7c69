// The definition, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "common/parallel.h"
#include "conv_input_grad/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// The output position that tap `tap` connects with input position `at` on an axis, or -1.
template <class T>
int64_t position(const ConvInputGrad<T>& f, size_t axis, int64_t at, int64_t tap, int64_t positions) {
  const int64_t scaled = at + f.padding[axis] - tap * f.dilation[axis];
  if (scaled < 0 || scaled % f.stride[axis] != 0 || scaled / f.stride[axis] >= positions) return -1;
  return scaled / f.stride[axis];
}

// The sum over the taps for output channel g, kernel w, and input position (y, x).
template <class T>
Wide<T> tap_sum(const ConvInputGrad<T>& f, const T* g, const T* w, int64_t y, int64_t x) {
  Wide<T> sum = 0;
  for (int64_t u = 0; u < f.kernel[0]; ++u) {
    const int64_t row = position(f, 0, y, u, f.out_height);
    if (row < 0) continue;
    for (int64_t v = 0; v < f.kernel[1]; ++v) {
      const int64_t column = position(f, 1, x, v, f.out_width);
      if (column >= 0) sum += static_cast<Wide<T>>(g[row * f.out_width + column]) * w[u * f.kernel[1] + v];
    }
  }
  return sum;
}

template <class T>
void channel(const ConvInputGrad<T>& f, int64_t b, int64_t i) {
  const int64_t inputs = f.cin / f.groups, outputs = f.cout / f.groups, taps = f.kernel[0] * f.kernel[1];
  const int64_t first = i / inputs * outputs, positions = f.out_height * f.out_width;
  T* out = f.out + b * f.out_image + i * f.height * f.width;
  for (int64_t y = 0; y < f.height; ++y) {
    for (int64_t x = 0; x < f.width; ++x, ++out) {
      Wide<T> sum = f.add ? *out : 0;
      for (int64_t o = first; o < first + outputs; ++o) {
        const T* w = f.weight + (o * inputs + i % inputs) * taps;
        sum += tap_sum(f, f.g + b * f.g_image + o * positions, w, y, x);
      }
      *out = static_cast<T>(sum);
    }
  }
}

}  // namespace

template <class T>
void conv_input_grad_scalar(const ConvInputGrad<T>& f, int threads) {
  parallel_tasks(f.images * f.cin, threads,
                 [&] { return [&](int64_t task) { channel(f, task / f.cin, task % f.cin); }; });
}

template void conv_input_grad_scalar(const ConvInputGrad<float>&, int);
template void conv_input_grad_scalar(const ConvInputGrad<double>&, int);

}  // namespace twophase
