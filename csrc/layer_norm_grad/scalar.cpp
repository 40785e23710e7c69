// The definition, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>
#include <vector>

#include "common/parallel.h"
#include "layer_norm_grad/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// Position t of sample b and class k; adds to the sums over positions.
template <class T>
void one_row(const LayerNormGrad<T>& f, int64_t b, int64_t row, int64_t t, Wide<T>* weight_sum,
             Wide<T>* bias_sum) {
  const T *g = f.g + (row * f.positions + t) * f.features, *x = f.x + (b * f.positions + t) * f.features;
  const Wide<T> mean = f.mean[b * f.positions + t], rstd = f.rstd[b * f.positions + t];
  T* out = f.out + (row * f.positions + t) * f.features;
  Wide<T> of_g = 0, of_product = 0;
  for (int64_t d = 0; d < f.features; ++d) {
    const Wide<T> xhat = (x[d] - mean) * rstd,
                  scaled = static_cast<Wide<T>>(g[d]) * (f.weight ? f.weight[d] : 1);
    weight_sum[d] += g[d] * xhat;
    bias_sum[d] += g[d];
    of_g += scaled;
    of_product += scaled * xhat;
  }
  for (int64_t d = 0; d < f.features; ++d) {
    const Wide<T> xhat = (x[d] - mean) * rstd,
                  scaled = static_cast<Wide<T>>(g[d]) * (f.weight ? f.weight[d] : 1);
    out[d] = static_cast<T>(rstd * (scaled - of_g / f.features - xhat * (of_product / f.features)));
  }
}

template <class T>
void one_class(const LayerNormGrad<T>& f, int64_t row) {
  std::vector<Wide<T>> weight_sum(static_cast<size_t>(f.features)), bias_sum(weight_sum);
  for (int64_t t = 0; t < f.positions; ++t) {
    one_row(f, row / f.classes, row, t, weight_sum.data(), bias_sum.data());
  }
  for (int64_t d = 0; d < f.features; ++d) {
    f.weight_grad[row * f.features + d] = static_cast<T>(weight_sum[static_cast<size_t>(d)]);
    f.bias_grad[row * f.features + d] = static_cast<T>(bias_sum[static_cast<size_t>(d)]);
  }
}

}  // namespace

template <class T>
void layer_norm_grad_scalar(const LayerNormGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes, threads, [&] { return [&](int64_t row) { one_class(f, row); }; });
}

template void layer_norm_grad_scalar(const LayerNormGrad<float>&, int);
template void layer_norm_grad_scalar(const LayerNormGrad<double>&, int);

}  // namespace twophase
