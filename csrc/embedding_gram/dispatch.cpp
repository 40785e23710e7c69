// Drives a vector tier over groups of samples and threads, or calls the scalar oracle.
#include "common/tiers.h"
#include "embedding_gram/kernels.h"
#include "embedding_gram/token_rows.h"

namespace twophase {
namespace {

constexpr TypedTiers<EmbeddingKernels> tiers = {
#ifdef TWOPHASE_X86
    {&embedding_avx2_f32, &embedding_avx512_f32}, {&embedding_avx2_f64, &embedding_avx512_f64}
#endif
};

template <class T>
class EmbeddingDriver {
 public:
  EmbeddingDriver(const EmbeddingGram<T>& f, int64_t workspace, const EmbeddingKernels<T>& k, int threads)
      : f_(f), workspace_(workspace), kernels_(k), threads_(threads) {}

  void run() const {
    const int64_t right_step = group_size(f_.right), left_step = group_size(f_.left);
    for (int64_t m = 0; m < f_.right.samples; m += right_step) {
      TokenRows<T> right = rows_of(f_.right, m, right_step);
      for (int64_t n = 0; n < (f_.symmetric ? m : f_.left.samples); n += left_step) {
        TokenRows<T> left = rows_of(f_.left, n, left_step);
        multiply(left, right, false);
      }
      if (f_.symmetric) multiply(right, right, true);
    }
  }

 private:
  int64_t group_size(const TokenSide<T>& side) const {
    const int64_t per_sample = side.positions * side.classes * (f_.outputs + kernels_.lanes);
    return std::max<int64_t>(1, workspace_ / std::max<int64_t>(per_sample, 1));
  }

  TokenRows<T> rows_of(const TokenSide<T>& side, int64_t first, int64_t step) const {
    return TokenRows<T>(f_, side, kernels_.lanes, first, std::min(side.samples, first + step), threads_);
  }

  void multiply(TokenRows<T>& left, TokenRows<T>& right, bool upper) const {
    parallel_tasks(left.samples(), threads_, [&] {
      return [&, shared = std::pair<std::vector<const T*>, std::vector<const T*>>()](int64_t i) mutable {
        for (int64_t j = upper ? i : 0; j < right.samples(); ++j) {
          collect_shared(left, i, right, j, shared.first, shared.second);
          T* out = f_.out + (left.first() + i) * f_.out_n + (right.first() + j) * f_.out_m;
          kernels_.add(f_, {static_cast<int64_t>(shared.first.size()), shared.first.data(),
                            shared.second.data(), left.padded_outputs(), out});
        }
      };
    });
  }

  // The rows of the tokens that both samples have, by merging the sorted tokens.
  static void collect_shared(TokenRows<T>& left, int64_t i, TokenRows<T>& right, int64_t j,
                             std::vector<const T*>& x, std::vector<const T*>& y) {
    const std::vector<int64_t>&a = left.tokens(i), &b = right.tokens(j);
    x.clear();
    y.clear();
    for (size_t k = 0, l = 0; k < a.size() && l < b.size();) {
      if (a[k] == b[l]) {
        x.push_back(left.row(i, k++));
        y.push_back(right.row(j, l++));
      } else {
        ++(a[k] < b[l] ? k : l);
      }
    }
  }

  const EmbeddingGram<T>& f_;
  const int64_t workspace_;
  const EmbeddingKernels<T>& kernels_;
  const int threads_;
};

}  // namespace

template <class T>
void embedding_gram(const EmbeddingGram<T>& problem, int64_t workspace, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa))
    return EmbeddingDriver<T>(problem, workspace, *kernels, threads).run();
  embedding_gram_scalar(problem, threads);
}

template void embedding_gram(const EmbeddingGram<float>&, int64_t, Isa, int);
template void embedding_gram(const EmbeddingGram<double>&, int64_t, Isa, int);

}  // namespace twophase
