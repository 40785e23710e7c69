// The definitions, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "batch_norm_grad/kernels.h"
#include "common/parallel.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
void channel(const BatchNormGrad<T>& f, int64_t n, int64_t c, int64_t k) {
  const int64_t row = (n * f.classes + c) * f.channels + k, shared = (n * f.channels + k) * f.positions;
  const T scale = f.weight ? f.weight[k] * f.rstd[k] : f.rstd[k];
  Wide<T> weight_sum = 0, bias_sum = 0;
  for (int64_t t = 0; t < f.positions; ++t) {
    const bool off = f.relu && f.relu[shared + t] <= 0;
    const T h = off ? 0 : f.g[row * f.positions + t];
    f.out[row * f.positions + t] = h * scale;
    weight_sum += static_cast<Wide<T>>(h) * (f.x[shared + t] - f.mean[k]);
    bias_sum += h;
  }
  f.weight_grad[row] = static_cast<T>(weight_sum * f.rstd[k]);
  f.bias_grad[row] = static_cast<T>(bias_sum);
}

}  // namespace

template <class T>
void batch_norm_grad_scalar(const BatchNormGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes, threads, [&] {
    return [&](int64_t task) {
      for (int64_t k = 0; k < f.channels; ++k) channel(f, task / f.classes, task % f.classes, k);
    };
  });
}

template <class T>
void relu_grad_scalar(const ReluGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes, threads, [&] {
    return [&](int64_t task) {
      const T* relu = f.relu + task / f.classes * f.elements;
      for (int64_t i = 0; i < f.elements; ++i) {
        if (relu[i] <= 0) f.g[task * f.elements + i] = 0;
      }
    };
  });
}

template void batch_norm_grad_scalar(const BatchNormGrad<float>&, int);
template void batch_norm_grad_scalar(const BatchNormGrad<double>&, int);
template void relu_grad_scalar(const ReluGrad<float>&, int);
template void relu_grad_scalar(const ReluGrad<double>&, int);

}  // namespace twophase
