// The definition, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "common/parallel.h"
#include "linear_input_grad/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// Row (b, k, t) of the result.
template <class T>
void one_row(const LinearInputGrad<T>& f, int64_t row) {
  const int64_t b = row / (f.classes * f.positions), t = row % f.positions;
  const T* g = f.g + row * f.outputs;
  T* out = f.out + row * f.inputs;
  for (int64_t i = 0; i < f.inputs; ++i) {
    Wide<T> sum = 0;
    for (int64_t o = 0; o < f.outputs; ++o) {
      sum += static_cast<Wide<T>>(g[o]) * f.weight[o * f.weight_output + i * f.weight_input];
    }
    if (f.scale) sum *= f.scale[(b * f.positions + t) * f.inputs + i];
    out[i] = static_cast<T>(f.add ? out[i] + sum : sum);
  }
}

}  // namespace

template <class T>
void linear_input_grad_scalar(const LinearInputGrad<T>& f, int threads) {
  parallel_tasks(f.samples * f.classes * f.positions, threads,
                 [&] { return [&](int64_t row) { one_row(f, row); }; });
}

template void linear_input_grad_scalar(const LinearInputGrad<float>&, int);
template void linear_input_grad_scalar(const LinearInputGrad<double>&, int);

}  // namespace twophase
