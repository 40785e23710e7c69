// Drives a vector tier over blocks of rows and threads, or calls the scalar oracle.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/active_groups.h"
#include "common/parallel.h"
#include "common/sizes.h"
#include "common/tiers.h"
#include "common/workspace.h"
#include "linear_input_grad/kernels.h"

namespace twophase {
namespace {

constexpr TypedTiers<LinearInputKernels> tiers = {
#ifdef TWOPHASE_X86
    {&linear_input_avx2_f32, &linear_input_avx512_f32}, {&linear_input_avx2_f64, &linear_input_avx512_f64}
#endif
};

constexpr int64_t left_bytes = int64_t{512} << 10;  // of packed rows, which stay in L2
constexpr int64_t most_rows = 128;                  // of a task: what it holds back stays in L2, too
constexpr int64_t tasks_per_thread = 4;             // so that none waits long for the last
constexpr int64_t most_groups = 32;                 // of a task: their active terms stay in L2

template <class T>
class LinearInputDriver {
 public:
  LinearInputDriver(const LinearInputGrad<T>& f, const LinearInputKernels<T>& k, int threads)
      : f_(f),
        k_(k),
        rows_(f.samples * f.classes * f.positions),
        threads_(rows_ * f.outputs * f.inputs < serial_work ? 1 : threads),
        right_(up(f.inputs, k.width) * f.outputs) {
    const int64_t fitting = left_bytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(f.outputs, 1);
    const int64_t most = std::clamp(fitting, k.rows, most_rows);
    const int64_t blocks = up(std::max(ceil_div(rows_, most), tasks_per_thread * threads_), threads_);
    row_step_ = std::max(k.rows, up(ceil_div(rows_, blocks), k.rows));
    row_blocks_ = ceil_div(rows_, row_step_);
    const int64_t parts = ceil_div(threads_, std::max<int64_t>(row_blocks_, 1));
    column_step_ = std::max(k.width, up(ceil_div(f.inputs, parts), k.width));
    column_blocks_ = ceil_div(f.inputs, column_step_);
  }

  void run() {
    pack_weight();
    if (leaves_out()) return run_groups();
    parallel_tasks(row_blocks_ * column_blocks_, threads_, [&] {
      auto scratch = std::make_shared<Scratch>(*this);
      return
          [&, scratch](int64_t task) { run_block(task / column_blocks_, task % column_blocks_, *scratch); };
    });
  }

 private:
  struct Scratch {
    explicit Scratch(const LinearInputDriver& d)
        : left(up(d.row_step_, d.k_.width) * d.f_.outputs),
          partial(d.row_step_ * d.k_.partial_columns),
          scale(static_cast<size_t>(d.row_step_)) {}

    Workspace<T> left, partial;
    std::vector<const T*> scale;
  };

  void pack_weight() {
    const Rows<T> source{f_.weight, f_.inputs, 0, f_.weight_input, f_.weight_output};
    const int threads = f_.inputs * f_.outputs < serial_work ? 1 : threads_;
    parallel_tasks(ceil_div(f_.inputs, k_.width), threads, [&] {
      return [&](int64_t panel) {
        const int64_t first = panel * k_.width, stride = f_.outputs * k_.width;
        k_.pack(source, first, std::min(k_.width, f_.inputs - first), f_.outputs,
                right_.data() + panel * stride, stride, k_.width, 0);
      };
    });
  }

  // Whether many terms vanish for all outputs of a sample at once, and it may be used.
  bool leaves_out() {
    if (f_.positions != 1 || !pays_for_groups(f_.samples, f_.classes, f_.outputs, f_.inputs)) return false;
    groups_ = std::make_unique<ActiveGroups<T>>(k_.active, f_.samples, f_.classes, f_.outputs);
    groups_->find(f_.g, f_.classes * f_.outputs, f_.outputs, threads_);
    return groups_->worth() && weight_is_finite();
  }

  bool weight_is_finite() const {
    std::atomic<bool> finite{true};
    parallel_tasks(f_.outputs, threads_, [&] {
      return [&](int64_t o) {
        const T* row = f_.weight + o * f_.weight_output;
        T odd = 0;
        for (int64_t i = 0; i < f_.inputs; ++i) odd += row[i * f_.weight_input] - row[i * f_.weight_input];
        if (odd != 0) finite = false;
      };
    });
    return finite;
  }

  void run_groups() {
    const int64_t each =
        std::clamp(ceil_div(f_.samples, tasks_per_thread * threads_), int64_t{1}, most_groups);
    parallel_tasks(ceil_div(f_.samples, each), threads_, [&] {
      auto values = std::make_shared<Workspace<T>>(each * groups_->values_size());
      auto scale = std::make_shared<std::vector<const T*>>(static_cast<size_t>(each * f_.classes));
      return [&, each, values, scale](int64_t task) {
        const int64_t first = task * each, count = std::min(each, f_.samples - first);
        std::vector<ActiveGroup<T>> packed(static_cast<size_t>(count));
        for (int64_t n = 0; n < count; ++n) {
          T* to = values->data() + n * groups_->values_size();
          packed[static_cast<size_t>(n)] =
              groups_->pack(first + n, f_.g + (first + n) * f_.classes * f_.outputs, f_.outputs, to);
        }
        for (int64_t i = 0; i < count * f_.classes && f_.scale; ++i) {
          (*scale)[static_cast<size_t>(i)] = f_.scale + (first + i / f_.classes) * f_.inputs;
        }
        k_.multiply_groups({{count * f_.classes, f_.inputs, f_.outputs, nullptr, right_.data(),
                             f_.scale ? scale->data() : nullptr, f_.out + first * f_.classes * f_.inputs,
                             f_.inputs, f_.add, nullptr},
                            packed.data(),
                            f_.classes});
      };
    });
  }

  void run_block(int64_t row_block, int64_t column_block, Scratch& s) {
    const int64_t first = row_block * row_step_, rows = std::min(row_step_, rows_ - first);
    const int64_t column = column_block * column_step_;
    const Rows<T> g{f_.g + first * f_.outputs, rows, 0, f_.outputs, 1};
    k_.pack(g, 0, rows, f_.outputs, s.left.data(), f_.outputs * k_.width, k_.width, 0);
    for (int64_t i = 0; i < rows && f_.scale; ++i) {
      const int64_t b = (first + i) / (f_.classes * f_.positions), t = (first + i) % f_.positions;
      s.scale[static_cast<size_t>(i)] = f_.scale + (b * f_.positions + t) * f_.inputs + column;
    }
    k_.multiply({rows, std::min(column_step_, f_.inputs - column), f_.outputs, s.left.data(),
                 right_.data() + column * f_.outputs, f_.scale ? s.scale.data() : nullptr,
                 f_.out + first * f_.inputs + column, f_.inputs, f_.add, s.partial.data()});
  }

  const LinearInputGrad<T>& f_;
  const LinearInputKernels<T>& k_;
  const int64_t rows_;
  const int threads_;
  Workspace<T> right_;
  std::unique_ptr<ActiveGroups<T>> groups_;
  int64_t row_step_, row_blocks_, column_step_, column_blocks_;
};

}  // namespace

template <class T>
void linear_input_grad(const LinearInputGrad<T>& problem, Isa isa, int threads) {
  if (const auto* kernels = tiers.of<T>(isa)) return LinearInputDriver<T>(problem, *kernels, threads).run();
  linear_input_grad_scalar(problem, threads);
}

template void linear_input_grad(const LinearInputGrad<float>&, Isa, int);
template void linear_input_grad(const LinearInputGrad<double>&, Isa, int);

}  // namespace twophase
