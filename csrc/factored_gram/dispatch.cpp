// Chooses the tier and the method, or calls the scalar oracle.
#include "common/tiers.h"
#include "factored_gram/block_driver.h"
#include "factored_gram/half_driver.h"

namespace twophase {
namespace {

constexpr TypedTiers<FactoredKernels> tiers = {
#ifdef TWOPHASE_X86
    {&factored_avx2_f32, &factored_avx512_f32}, {&factored_avx2_f64, &factored_avx512_f64}
#endif
};

template <class T>
bool is_empty(const FactoredGram<T>& f) {
  const FactoredSide<T>&l = f.left, &r = f.right;
  return l.samples * l.positions * l.classes == 0 || r.samples * r.positions * r.classes == 0 ||
         f.inputs * f.outputs == 0;
}

}  // namespace

template <class T>
void factored_gram(const FactoredGram<T>& problem, GramMethod method, const FactoredBlocks& blocks, Isa isa,
                   int threads) {
  if (is_empty(problem)) return;
  if (const auto* kernels = tiers.of<T>(isa)) {
    if (method == GramMethod::half) return HalfDriver<T>(problem, blocks, *kernels, threads).run();
    return BlockDriver<T>(problem, method, blocks, *kernels, threads).run();
  }
  factored_gram_scalar(problem, threads);
}

template void factored_gram(const FactoredGram<float>&, GramMethod, const FactoredBlocks&, Isa, int);
template void factored_gram(const FactoredGram<double>&, GramMethod, const FactoredBlocks&, Isa, int);

}  // namespace twophase
