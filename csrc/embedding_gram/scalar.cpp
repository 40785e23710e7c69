// The definition of embedding_gram, loop by loop: the oracle of the vector tiers. Sums in a wider type.
#include <type_traits>

#include "common/parallel.h"
#include "embedding_gram/kernels.h"

namespace twophase {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
Wide<T> entry(const EmbeddingGram<T>& f, int64_t n, int64_t m, int64_t c, int64_t e) {
  const TokenSide<T>&l = f.left, &r = f.right;
  Wide<T> sum = 0;
  for (int64_t t = 0; t < l.positions; ++t) {
    const int64_t token = l.tokens[n * l.token_sample + t * l.token_position];
    if (token == f.padding) continue;
    const T* g = l.g + n * l.g_sample + c * l.g_class + t * l.g_position;
    for (int64_t s = 0; s < r.positions; ++s) {
      if (r.tokens[m * r.token_sample + s * r.token_position] != token) continue;
      const T* g2 = r.g + m * r.g_sample + e * r.g_class + s * r.g_position;
      for (int64_t i = 0; i < f.outputs; ++i)
        sum += static_cast<Wide<T>>(g[i * l.g_output]) * g2[i * r.g_output];
    }
  }
  return sum;
}

template <class T>
void pair_of_samples(const EmbeddingGram<T>& f, int64_t n, int64_t m) {
  T* out = f.out + n * f.out_n + m * f.out_m;
  for (int64_t c = 0; c < f.left.classes; ++c) {
    if (f.output == GramOutput::full) {
      for (int64_t e = 0; e < f.right.classes; ++e) {
        out[c * f.out_c + e * f.out_e] += static_cast<T>(entry(f, n, m, c, e));
      }
    } else {
      out[f.output == GramOutput::diagonal ? c * f.out_c : 0] += static_cast<T>(entry(f, n, m, c, c));
    }
  }
}

}  // namespace

template <class T>
void embedding_gram_scalar(const EmbeddingGram<T>& problem, int threads) {
  parallel_tasks(problem.left.samples, threads, [&] {
    return [&](int64_t n) {
      for (int64_t m = problem.symmetric ? n : 0; m < problem.right.samples; ++m)
        pair_of_samples(problem, n, m);
    };
  });
}

template void embedding_gram_scalar(const EmbeddingGram<float>&, int);
template void embedding_gram_scalar(const EmbeddingGram<double>&, int);

}  // namespace twophase
