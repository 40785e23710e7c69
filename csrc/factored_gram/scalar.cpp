// The definition of factored_gram, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "common/parallel.h"
#include "factored_gram/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
Wide<T> dot(const T* x, int64_t x_stride, const T* y, int64_t y_stride, int64_t count) {
  Wide<T> sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<Wide<T>>(x[i * x_stride]) * y[i * y_stride];
  return sum;
}

// sum_{t,s} <a(n,t), a2(m,s)> <g(n,c,t), g2(m,e,s)>
template <class T>
Wide<T> entry(const FactoredGram<T>& f, int64_t n, int64_t m, int64_t c, int64_t e) {
  const FactoredSide<T>&l = f.left, &r = f.right;
  Wide<T> sum = 0;
  for (int64_t t = 0; t < l.positions; ++t) {
    for (int64_t s = 0; s < r.positions; ++s) {
      const T* a = l.a + n * l.a_sample + t * l.a_position;
      const T* a2 = r.a + m * r.a_sample + s * r.a_position;
      const T* g = l.g + n * l.g_sample + c * l.g_class + t * l.g_position;
      const T* g2 = r.g + m * r.g_sample + e * r.g_class + s * r.g_position;
      sum += dot(a, l.a_input, a2, r.a_input, f.inputs) * dot(g, l.g_output, g2, r.g_output, f.outputs);
    }
  }
  return sum;
}

template <class T>
void pair_of_samples(const FactoredGram<T>& f, int64_t n, int64_t m) {
  T* out = f.out + n * f.out_n + m * f.out_m;
  for (int64_t c = 0; c < f.left.classes; ++c) {
    if (f.output == GramOutput::full) {
      for (int64_t e = 0; e < f.right.classes; ++e)
        out[c * f.out_c + e * f.out_e] += static_cast<T>(entry(f, n, m, c, e));
    } else {
      out[f.output == GramOutput::diagonal ? c * f.out_c : 0] += static_cast<T>(entry(f, n, m, c, c));
    }
  }
}

}  // namespace

template <class T>
void factored_gram_scalar(const FactoredGram<T>& problem, int threads) {
  parallel_tasks(problem.left.samples, threads, [&] {
    return [&](int64_t n) {
      for (int64_t m = problem.symmetric ? n : 0; m < problem.right.samples; ++m)
        pair_of_samples(problem, n, m);
    };
  });
}

template void factored_gram_scalar(const FactoredGram<float>&, int);
template void factored_gram_scalar(const FactoredGram<double>&, int);

}  // namespace twophase
