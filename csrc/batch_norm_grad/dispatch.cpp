// Drives a vector tier over samples, blocks of channels and threads, or calls the scalar oracle.
#include <algorithm>
#include <vector>

#include "batch_norm_grad/kernels.h"
#include "common/parallel.h"
#include "common/sizes.h"
#include "common/stream.h"
#include "common/tiers.h"

namespace twophase {
namespace {

constexpr TypedTiers<NormGradKernels> tiers = {
#ifdef TWOPHASE_X86
    {&norm_grad_avx2_f32, &norm_grad_avx512_f32}, {&norm_grad_avx2_f64, &norm_grad_avx512_f64}
#endif
};

constexpr int64_t shared_bytes = int64_t{8} << 10;  // of x (and of relu) that stay in L1 for all classes

int threads_for(int64_t elements, int threads) { return elements < serial_elements ? 1 : threads; }

// A sample's units (channels or elements) in blocks: they stay in cache for all classes, and a few samples,
// too, keep all threads busy.
struct Blocks {
  int64_t units, step, count;

  Blocks(int64_t all, int64_t unit_bytes, int64_t multiple, int64_t samples, int threads) : units(all) {
    const int64_t parts = ceil_div(threads > 1 ? 4 * threads : 1, std::max<int64_t>(samples, 1));
    const int64_t wanted = std::min(shared_bytes / std::max<int64_t>(unit_bytes, 1), ceil_div(units, parts));
    step = std::max<int64_t>(up(wanted, multiple), multiple);
    count = ceil_div(units, step);
  }
  int64_t first(int64_t task) const { return task % count * step; }
  // From a block of class c to the one that is read next, in units: of the next class, or the next block.
  int64_t ahead(int64_t task, int64_t c, int64_t classes) const {
    if (c + 1 < classes) return units;
    return first(task) + step < units ? step - c * units : 0;
  }
  int64_t size(int64_t task) const { return std::min(step, units - first(task)); }
};

template <class T>
class NormDriver {
 public:
  NormDriver(const BatchNormGrad<T>& f, const NormGradKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        threads_(threads_for(f.samples * f.classes * f.channels * f.positions, threads)),
        packed_(f.positions <= k.lanes),
        blocks_(f.channels, f.positions * static_cast<int64_t>(sizeof(T)) * (packed_ ? 2 : 1),
                packed_ ? k.lanes : 1, f.samples, threads_),
        stream_(f.out != f.g && f.positions % k.lanes == 0 &&
                streams(f.out, f.samples * f.classes * f.channels * f.positions, k.lanes)) {
    const int64_t repeats = packed_ ? f.positions : 1;
    for (int64_t i = 0; i < f.channels; ++i) {
      const T scale = f.weight ? f.weight[i] * f.rstd[i] : f.rstd[i];
      mean_.insert(mean_.end(), static_cast<size_t>(repeats), f.mean[i]);
      scale_.insert(scale_.end(), static_cast<size_t>(repeats), scale);
    }
  }

  void run() const {
    parallel_tasks(f_.samples * blocks_.count, threads_, [&] {
      return [&](int64_t task) {
        for (int64_t c = 0; c < f_.classes; ++c) run_block(task, c);
      };
    });
  }

 private:
  void run_block(int64_t task, int64_t c) const {
    const int64_t n = task / blocks_.count, k = blocks_.first(task);
    const int64_t shared = (n * f_.channels + k) * f_.positions;
    const int64_t row = (n * f_.classes + c) * f_.channels + k, own = row * f_.positions;
    const int64_t per_channel = packed_ ? k * f_.positions : k;
    const ChannelBlock<T> block{blocks_.size(task),
                                f_.positions,
                                f_.g + own,
                                f_.x + shared,
                                f_.relu ? f_.relu + shared : nullptr,
                                f_.rstd + k,
                                mean_.data() + per_channel,
                                scale_.data() + per_channel,
                                f_.out + own,
                                f_.weight_grad + row,
                                f_.bias_grad + row,
                                blocks_.ahead(task, c, f_.classes) * f_.positions,
                                stream_};
    packed_ ? k_.packed(block) : k_.rows(block);
  }

  const BatchNormGrad<T>& f_;
  const NormGradKernels<T>& k_;
  const int threads_;
  const bool packed_;
  const Blocks blocks_;
  const bool stream_;
  std::vector<T> mean_, scale_;
};

template <class T>
void relu_grad_vector(const ReluGrad<T>& f, const NormGradKernels<T>& k, int wanted) {
  const int threads = threads_for(f.samples * f.classes * f.elements, wanted);
  const Blocks blocks(f.elements, sizeof(T), k.lanes, f.samples, threads);
  parallel_tasks(f.samples * blocks.count, threads, [&] {
    return [&](int64_t task) {
      const int64_t n = task / blocks.count, i = blocks.first(task);
      for (int64_t c = 0; c < f.classes; ++c) {
        k.gate(f.g + (n * f.classes + c) * f.elements + i, f.relu + n * f.elements + i, blocks.size(task),
               blocks.ahead(task, c, f.classes));
      }
    };
  });
}

}  // namespace

template <class T>
void batch_norm_grad(const BatchNormGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) return NormDriver<T>(problem, *kernels, threads).run();
  batch_norm_grad_scalar(problem, threads);
}

template <class T>
void relu_grad(const ReluGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) return relu_grad_vector(problem, *kernels, threads);
  relu_grad_scalar(problem, threads);
}

template void batch_norm_grad(const BatchNormGrad<float>&, Isa, int);
template void batch_norm_grad(const BatchNormGrad<double>&, Isa, int);
template void relu_grad(const ReluGrad<float>&, Isa, int);
template void relu_grad(const ReluGrad<double>&, Isa, int);

}  // namespace twophase
