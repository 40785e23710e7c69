// Method half over all samples and threads.
#pragma once
#include <memory>
#include <vector>

#include "factored_gram/packed_side.h"

namespace twophase {
namespace {

// Cotangents with contiguous outputs, padded to whole registers: the operand itself where it is so already.
template <class T>
class PaddedCotangents {
 public:
  PaddedCotangents(const FactoredSide<T>& side, int64_t outputs, int64_t lanes, int threads)
      : sample(side.g_sample), g_class(side.g_class), position(side.g_position), data(side.g) {
    if (outputs % lanes == 0 && side.g_output == 1) return;
    position = up(outputs, lanes);
    g_class = side.positions * position;
    sample = side.classes * g_class;
    copy_ = std::make_unique<Workspace<T>>(side.samples * sample);
    data = copy_->data();
    parallel_tasks(side.samples, threads, [&] { return [&](int64_t n) { copy_sample(side, outputs, n); }; });
  }

  int64_t sample, g_class, position;
  const T* data;

 private:
  void copy_sample(const FactoredSide<T>& side, int64_t outputs, int64_t n) {
    for (int64_t c = 0; c < side.classes; ++c) {
      for (int64_t t = 0; t < side.positions; ++t) {
        const T* from = side.g + n * side.g_sample + c * side.g_class + t * side.g_position;
        T* to = copy_->data() + n * sample + c * g_class + t * position;
        for (int64_t i = 0; i < outputs; ++i) to[i] = from[i * side.g_output];
        for (int64_t i = outputs; i < position; ++i) to[i] = 0;
      }
    }
  }

  std::unique_ptr<Workspace<T>> copy_;
};

constexpr int64_t least_tasks =
    16;  // keeps threads busy; the same for any number of them, so that results are too

template <class T>
class HalfDriver {
 public:
  HalfDriver(const FactoredGram<T>& f, const FactoredBlocks& blocks, const FactoredKernels<T>& k, int threads)
      : f_(f), blocks_(blocks), kernels_(k), threads_(threads), g_(f.left, f.outputs, k.lanes, threads) {}

  void run() {
    const int64_t per_sample = std::max<int64_t>(1, f_.left.positions * f_.inputs);
    const int64_t step = std::max<int64_t>(1, blocks_.workspace / per_sample);
    for (int64_t group = 0; group < f_.left.samples; group += step) {
      run_group(group, std::min(f_.left.samples, group + step));
    }
  }

 private:
  // Left samples group ... end - 1 against all right samples.
  void run_group(int64_t group, int64_t end) {
    Workspace<T> packed(up((end - group) * f_.left.positions, kernels_.width) * f_.inputs);
    pack(group, end, packed.data());
    const std::vector<HalfTask<T>> tasks = tasks_of(group, end, packed.data());
    parallel_tasks(static_cast<int64_t>(tasks.size()), threads_, [&] {
      auto scratch = std::make_unique<Workspace<T>>(kernels_.half_scratch(tasks[0]));
      return [&, scratch = std::move(scratch)](int64_t i) {
        kernels_.half(tasks[static_cast<size_t>(i)], scratch->data());
      };
    });
  }

  void pack(int64_t group, int64_t end, T* packed) {
    const int64_t rows = (end - group) * f_.left.positions, width = kernels_.width,
                  stride = f_.inputs * width;
    const int64_t first = group * f_.left.positions;
    parallel_tasks(ceil_div(rows, width), threads_, [&] {
      return [&](int64_t i) {
        const int64_t count = std::min(width, rows - i * width);
        kernels_.pack(input_rows(f_.left), first + i * width, count, f_.inputs, packed + i * stride, stride,
                      width, 0);
      };
    });
  }

  // The largest tasks, those of the last right samples, come first; few right samples are cut along the left.
  std::vector<HalfTask<T>> tasks_of(int64_t group, int64_t end, const T* packed) const {
    std::vector<HalfTask<T>> tasks;
    const int64_t parts = ceil_div(least_tasks, f_.right.samples);
    const int64_t step = ceil_div(end - group, parts);
    for (int64_t m = f_.right.samples - 1; m >= 0; --m) {
      const int64_t last = f_.symmetric ? std::min(end, m + 1) : end;
      for (int64_t n = group; n < last; n += step) {
        tasks.push_back({&f_, packed, g_.data + group * g_.sample, g_.sample, g_.g_class, g_.position, group,
                         n, std::min(last, n + step), m, blocks_.rows, blocks_.columns, blocks_.depth});
      }
    }
    return tasks;
  }

  const FactoredGram<T>& f_;
  const FactoredBlocks& blocks_;
  const FactoredKernels<T>& kernels_;
  const int threads_;
  const PaddedCotangents<T> g_;
};

}  // namespace
}  // namespace twophase
