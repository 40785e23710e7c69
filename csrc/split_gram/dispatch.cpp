// Rounds of packing and multiplying over all matrices.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/parallel.h"
#include "split_gram/packed_rows.h"

namespace twophase {
namespace {

constexpr int64_t kRoundBytes = 16 << 20;  // of packed panels
constexpr int64_t kLargestTile = 256;      // rows and columns of a task: operands and result fit L2
constexpr int64_t kSmallestTile = 64;
constexpr int64_t kTasksPerThread = 3;
constexpr int64_t kShortDepth = 64;  // terms up to which all four products are made

// A square of one matrix's result.
struct SplitTask {
  int64_t matrix, row, column, side;
};

class SplitGramRun {
 public:
  SplitGramRun(const GramProblem<float>& problem, const GramWeights& weights, bool all_products,
               MatrixUnit unit, int threads)
      : p_(problem),
        weights_(weights),
        all_(all_products || problem.k <= kShortDepth),
        kernels_(split_kernels(unit)),
        threads_(problem.batch * problem.n * problem.m * problem.k < serial_work ? 1 : threads),
        round_(largest_round()),
        left_(p_.n, true, p_.symmetric, round_),
        right_(p_.symmetric ? 0 : p_.m, false, true, round_) {}

  void run() {
    for (int64_t matrix = 0; matrix < p_.batch; matrix += round_.count) {
      for (int64_t start = 0; start < p_.k; start += round_.depth) {
        const Round round{matrix, std::min(round_.count, p_.batch - matrix), start,
                          std::min(round_.depth, p_.k - start)};
        pack(round) ? multiply(round) : multiply_in_float32(round);
      }
    }
  }

 private:
  // As many whole panels, then as many matrices, as fit the bound; from the shape alone.
  Round largest_round() const {
    const int64_t rows = kTileRows * (ceil_div(p_.n, kTileRows) + ceil_div(p_.m, kTileRows));
    const int64_t panel = rows * kPanelDepth * 2 * static_cast<int64_t>(sizeof(uint16_t));
    const int64_t fit = std::max<int64_t>(1, kRoundBytes / panel), panels = ceil_div(p_.k, kPanelDepth);
    return {0, std::min(p_.batch, std::max<int64_t>(1, fit / panels)), 0,
            std::min(p_.k, std::min(fit, panels) * kPanelDepth)};
  }

  // Returns whether the unit may multiply what was packed.
  bool pack(const Round& round) {
    left_.forget_largest(), right_.forget_largest();
    const int64_t left = left_.tasks(round), right = right_.tasks(round);
    parallel_tasks(left + right, threads_, [&] {
      return [&](int64_t task) {
        if (task < left) return pack_rows(left_, p_.x, p_.n, round, task);
        pack_rows(right_, p_.y, p_.m, round, task - left);
      };
    });
    return in_range(left_.largest(), (p_.symmetric ? left_ : right_).largest());
  }

  void pack_rows(PackedRows& to, const Batch<const float>& x, int64_t count, const Round& round,
                 int64_t task) const {
    const View<const float> at = x.at(round.first + to.matrix_of(round, task), 0, round.start);
    to.pack(round, {{at.data, count, 0, at.row_stride, at.col_stride}, 0, count}, kernels_, task);
  }

  // Cutting the result changes no bits, so it follows from the number of threads. Tiles on the diagonal are
  // half the work of the others and come last, which evens out the threads' loads.
  std::vector<SplitTask> list_tasks(const Round& round) const {
    std::vector<SplitTask> tasks;
    for (int64_t tile = kLargestTile;; tile -= kBlockRows) {
      tasks.clear();
      for (int64_t matrix = 0; matrix < round.count; ++matrix) add_tasks(matrix, tile, tasks);
      if (tile <= kSmallestTile || static_cast<int64_t>(tasks.size()) >= kTasksPerThread * threads_) break;
    }
    const auto whole = [&](const SplitTask& task) { return !p_.symmetric || task.row != task.column; };
    std::stable_partition(tasks.begin(), tasks.end(), whole);
    return tasks;
  }

  void add_tasks(int64_t matrix, int64_t tile, std::vector<SplitTask>& tasks) const {
    for (int64_t row = 0; row < p_.n; row += tile) {
      for (int64_t column = p_.symmetric ? row : 0; column < p_.m; column += tile) {
        tasks.push_back({matrix, row, column, tile});
      }
    }
  }

  void multiply(const Round& round) {
    const std::vector<SplitTask> tasks = list_tasks(round);
    parallel_tasks(static_cast<int64_t>(tasks.size()), threads_, [&] {
      return [&, scope = std::make_unique<TileScope>(kernels_)](int64_t i) {
        for (int64_t panel = 0; panel < round.panels(); ++panel) multiply(round, tasks[i], panel);
      };
    });
  }

  void multiply(const Round& round, const SplitTask& task, int64_t panel) {
    PackedRows& right = p_.symmetric ? left_ : right_;
    kernels_.multiply({left_.left(round, task.matrix, panel), right.right(round, task.matrix, panel),
                       left_.group_size(), round.steps(panel), task.row, std::min(p_.n, task.row + task.side),
                       task.column, std::min(p_.m, task.column + task.side), p_.symmetric, all_,
                       p_.out.at(round.first + task.matrix, 0, 0), &weights_});
  }

  void multiply_in_float32(const Round& round) {
    GramProblem<float> part = p_;
    part.k = round.depth;
    for (int64_t b = round.first; b < round.first + round.count; ++b) {
      part.batch = 1;
      part.x.data = p_.x.at(b, 0, round.start).data;
      part.y.data = p_.y.at(b, 0, round.start).data;
      part.out.data = p_.out.at(b, 0, 0).data;
      weights_.data == nullptr ? gram_accumulate(part, available_isas().back(), threads_)
                               : add_weighted(part);
    }
  }

  void add_weighted(GramProblem<float> part) const {
    Workspace<float> sums(p_.n * p_.m);
    std::fill_n(sums.data(), p_.n * p_.m, 0.0f);
    const View<float> out = part.out.at(0, 0, 0);
    part.out = {sums.data(), 0, p_.m, 1};
    gram_accumulate(part, available_isas().back(), threads_);
    parallel_tasks(p_.n, threads_, [&] {
      return [&](int64_t i) {
        const float* weights = weights_.data + i / weights_.row_repeat * weights_.row_stride;
        for (int64_t j = p_.symmetric ? i : 0; j < p_.m; ++j) {
          out.data[i * out.row_stride + j * out.col_stride] +=
              weights[j / weights_.col_repeat * weights_.col_stride] * sums.data()[i * p_.m + j];
        }
      };
    });
  }

  const GramProblem<float>& p_;
  const GramWeights& weights_;
  const bool all_;
  const SplitKernels& kernels_;
  const int threads_;
  const Round round_;
  PackedRows left_, right_;
};

}  // namespace

void split_gram_accumulate(const GramProblem<float>& problem, const GramWeights& weights, bool all_products,
                           MatrixUnit unit, int threads) {
  if (problem.batch * problem.n * problem.m * problem.k == 0) return;
  require_tiles(unit);
  SplitGramRun(problem, weights, all_products, unit, threads).run();
}

}  // namespace twophase
