#include "gram/gram.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/tiers.h"
#include "common/workspace.h"
#include "gram/kernels.h"
#include "gram/plan.h"

namespace twophase {
namespace {

// None for the scalar tier, where blocks on the diagonal are like the others.
constexpr TypedTiers<TriangleKernels> triangle_tiers = {
#ifdef TWOPHASE_X86
    {&triangle_avx2_f32, &triangle_avx512_f32}, {&triangle_avx2_f64, &triangle_avx512_f64}
#endif
};

// Tiles on the diagonal are half the work of the others and come last, which evens out the threads' loads.
std::vector<GramTask> list_tasks(int64_t batch, int64_t n, int64_t m, bool symmetric, const GramPlan& plan) {
  std::vector<GramTask> tasks, diagonal;
  for (int64_t slice = 0; slice < plan.slices; ++slice) {
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t row = 0; row < n; row += plan.tile) {
        for (int64_t col = symmetric ? row : 0; col < m; col += plan.tile) {
          (symmetric && row == col ? diagonal : tasks).push_back({b, row, col, slice});
        }
      }
    }
  }
  tasks.insert(tasks.end(), diagonal.begin(), diagonal.end());
  return tasks;
}

template <class T>
class GramRun {
 public:
  GramRun(const GramProblem<T>& problem, Isa isa, int threads)
      : p_(problem),
        gemm_(gemm<T>(isa)),
        triangles_(triangle_tiers.of<T>(isa)),
        threads_(problem.batch * problem.n * problem.m * problem.k < serial_work ? 1 : threads),
        plan_(plan_gram(p_.batch, p_.n, p_.m, p_.k, p_.symmetric, sizeof(T), threads_)),
        partial_(plan_.slices > 1 ? plan_.slices * p_.batch * p_.n * p_.m : 0) {}

  void run() {
    const std::vector<GramTask> tasks = list_tasks(p_.batch, p_.n, p_.m, p_.symmetric, plan_);
    parallel_tasks(static_cast<int64_t>(tasks.size()), threads_, [&] {
      return [&, scratch = std::make_unique<Workspace<T>>(scratch_size())](int64_t index) {
        multiply(tasks[index], scratch->data());
      };
    });
    if (plan_.slices > 1) add_slices();
  }

 private:
  int64_t scratch_size() const {
    const int64_t rows = std::min(plan_.tile, p_.n), columns = std::min(plan_.tile, p_.m);
    const int64_t k = std::min(plan_.slice_size, p_.k), depth = std::min(gemm_.depth, k);
    return std::max(gemm_.scratch_size(rows, columns, k),
                    triangles_ ? triangles_->scratch_size(rows, depth) : 0);
  }

  void multiply(const GramTask& task, T* scratch) {
    const int64_t first = task.slice * plan_.slice_size;
    const GemmShape shape{std::min(plan_.tile, p_.n - task.row), std::min(plan_.tile, p_.m - task.col),
                          std::min(plan_.slice_size, p_.k - first),
                          p_.symmetric ? task.col - task.row : GemmShape{}.diagonal};
    const View<T> out =
        plan_.slices > 1 ? cleared_partial(task, shape) : p_.out.at(task.batch, task.row, task.col);
    const View<const T> x = p_.x.at(task.batch, task.row, first);
    if (triangles_ && p_.symmetric && task.row == task.col) {
      triangles_->add(shape.m, shape.k, gemm_.depth, x, out, scratch);
    } else {
      gemm_.multiply(shape, x, p_.y.at(task.batch, task.col, first), out, scratch);
    }
  }

  T* partial(int64_t slice, int64_t batch, int64_t row) {
    return partial_.data() + ((slice * p_.batch + batch) * p_.n + row) * p_.m;
  }

  View<T> cleared_partial(const GramTask& task, const GemmShape& shape) {
    T* corner = partial(task.slice, task.batch, task.row) + task.col;
    for (int64_t i = 0; i < shape.m; ++i) std::fill_n(corner + i * p_.m, shape.n, T(0));
    return {corner, p_.m, 1};
  }

  void add_slices() {
    parallel_tasks(p_.batch * p_.n, threads_,
                   [&] { return [&](int64_t index) { add_row(index / p_.n, index % p_.n); }; });
  }

  // out += (slice 0 + slice 1 + ...), in this order.
  void add_row(int64_t batch, int64_t row) {
    const int64_t first = p_.symmetric ? row : 0;
    T* sum = partial(0, batch, row);
    for (int64_t slice = 1; slice < plan_.slices; ++slice) {
      const T* more = partial(slice, batch, row);
      for (int64_t j = first; j < p_.m; ++j) sum[j] += more[j];
    }
    const View<T> out = p_.out.at(batch, row, 0);
    for (int64_t j = first; j < p_.m; ++j) out.data[j * out.col_stride] += sum[j];
  }

  const GramProblem<T>& p_;
  const Gemm<T>& gemm_;
  const TriangleKernels<T>* triangles_;
  const int threads_;
  const GramPlan plan_;
  Workspace<T> partial_;
};

constexpr int64_t kMirrorBlock = 64;

// Mirrors the block of rows starting at `row`, blockwise so that both sides stay in cache.
template <class T>
void mirror_rows(int64_t n, View<T> out, int64_t row) {
  const int64_t end = std::min(row + kMirrorBlock, n);
  for (int64_t col = row; col < n; col += kMirrorBlock) {
    for (int64_t j = col; j < std::min(col + kMirrorBlock, n); ++j) {
      for (int64_t i = row; i < std::min(end, j); ++i) {
        out.data[j * out.row_stride + i * out.col_stride] = out.data[i * out.row_stride + j * out.col_stride];
      }
    }
  }
}

}  // namespace

template <class T>
void gram_accumulate(const GramProblem<T>& problem, Isa isa, int threads) {
  if (problem.batch * problem.n * problem.m * problem.k == 0) return;
  GramRun<T>(problem, isa, threads).run();
}

template <class T>
void symmetrize(int64_t batch, int64_t n, const Batch<T>& out, int threads) {
  const int64_t blocks = ceil_div(n, kMirrorBlock);
  parallel_tasks(batch * blocks, batch * n * n < serial_work ? 1 : threads, [&] {
    return [&](int64_t task) { mirror_rows(n, out.at(task / blocks, 0, 0), task % blocks * kMirrorBlock); };
  });
}

template void gram_accumulate<float>(const GramProblem<float>&, Isa, int);
template void gram_accumulate<double>(const GramProblem<double>&, Isa, int);
template void symmetrize<float>(int64_t, int64_t, const Batch<float>&, int);
template void symmetrize<double>(int64_t, int64_t, const Batch<double>&, int);

}  // namespace twophase
