// Drives a vector tier over samples, classes and threads, or calls the scalar oracle.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/tiers.h"
#include "common/workspace.h"
#include "layer_norm_grad/kernels.h"

namespace twophase {
namespace {

constexpr TypedTiers<LayerNormKernels> tiers = {
#ifdef TWOPHASE_X86
    {&layer_norm_avx2_f32, &layer_norm_avx512_f32}, {&layer_norm_avx2_f64, &layer_norm_avx512_f64}
#endif
};

// A task is a sample and class; those of a sample follow each other, while its x is in cache.
template <class T>
void layer_norm_grad_vector(const LayerNormGrad<T>& f, const LayerNormKernels<T>& k, int wanted) {
  const int64_t rows = f.samples * f.classes, row = f.positions * f.features;
  const int threads = rows * row < serial_elements ? 1 : wanted;
  const std::vector<T> ones(f.weight ? 0 : static_cast<size_t>(f.features), T(1));
  const T* weight = f.weight ? f.weight : ones.data();
  parallel_tasks(rows, threads, [&] {
    auto sums = std::make_shared<Workspace<T>>(2 * (f.features + k.lanes));
    return [&, sums](int64_t task) {
      const int64_t b = task / f.classes;
      k.rows({f.positions, f.features, f.g + task * row, f.x + b * row, f.mean + b * f.positions,
              f.rstd + b * f.positions, weight, f.out + task * row, f.weight_grad + task * f.features,
              f.bias_grad + task * f.features, sums->data()});
    };
  });
}

}  // namespace

template <class T>
void layer_norm_grad(const LayerNormGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) return layer_norm_grad_vector(problem, *kernels, threads);
  layer_norm_grad_scalar(problem, threads);
}

template void layer_norm_grad(const LayerNormGrad<float>&, Isa, int);
template void layer_norm_grad(const LayerNormGrad<double>&, Isa, int);

}  // namespace twophase
