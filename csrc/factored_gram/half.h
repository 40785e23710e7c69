// Method half (full): for one sample m and the positions of many samples n, M = a a2^T, H = M g2, then <g,
// H>.
#pragma once
#include "common/dot.h"
#include "factored_gram/block.h"

namespace twophase {
namespace {

constexpr int64_t dot_bytes = 24 * 1024;  // of g and H read by one round of dot products: they stay in L1

// The classes of the right side in groups whose rows of H fit `columns`; each group starts at a panel.
template <class S>
struct ClassGroups {
  int64_t outputs, size, panels;  // padded outputs of a class, classes of a group, columns of its panels

  ClassGroups(int64_t outputs_, int64_t classes, int64_t columns)
      : outputs(up(outputs_, S::lanes)),
        size(larger(1, smaller(classes, columns / larger(outputs, 1)))),
        panels(up(size * outputs, panel_width<S>)) {}
};

template <class S>
struct HalfRows {
  using T = typename S::T;
  const HalfTask<T>& task;
  const FactoredGram<T>& f;
  ClassGroups<S> groups;
  T *right_a, *right_g, *weights, *h;  // panels; panels; M^T [S, step]; H [step, panels of a group]
  int64_t step;

  int64_t right_a_width() const { return smaller(panel_width<S>, up(f.right.positions, S::lanes)); }

  void pack_right() const {
    const FactoredSide<T>& r = f.right;
    const Rows<T> inputs{r.a + task.m * r.a_sample, larger(r.positions, 1), 0, r.a_position, r.a_input};
    pack_rows<S>(inputs, 0, r.positions, f.inputs, right_a, f.inputs * right_a_width(), right_a_width(), 0);
    for (int64_t e = 0; e < r.classes; ++e) {
      const Rows<T> outputs{r.g + task.m * r.g_sample + e * r.g_class, larger(f.outputs, 1), 0, r.g_output,
                            r.g_position};
      pack_rows<S>(outputs, 0, f.outputs, r.positions,
                   right_g + e / groups.size * groups.panels * r.positions, r.positions * panel_width<S>,
                   panel_width<S>, e % groups.size * groups.outputs);
    }
  }

  // Positions lo ... hi - 1 (counted from sample `group`, lo at a panel), of which those from `wanted` on are
  // used.
  void run(int64_t lo, int64_t hi, int64_t wanted) const {
    const Operand<T> inputs{right_a, f.inputs * panel_width<S>, right_a_width()};
    product_blocked<S>(f.right.positions, hi - lo, f.inputs, task.depth, inputs,
                       panels_at<S>(task.left_a, lo, f.inputs, 0), weights, step);
    for (int64_t e = 0; e < f.right.classes; e += groups.size) {
      const int64_t classes = smaller(groups.size, f.right.classes - e), s = f.right.positions;
      const Operand<T> left{weights + (wanted - lo), panel_width<S>, step};
      product_blocked<S>(hi - wanted, classes * groups.outputs, s, task.depth, left,
                         panels_at<S>(right_g + e / groups.size * groups.panels * s, 0, s, 0), h,
                         groups.panels);
      for_samples(wanted, hi, e, classes);
    }
  }

  void for_samples(int64_t lo, int64_t hi, int64_t e, int64_t classes) const {
    const int64_t positions = f.left.positions;
    for (int64_t i = lo; i < hi;) {
      const int64_t n = task.group + i / positions, t = i % positions;
      const int64_t count = smaller(hi - i, positions - t);
      dots(n, t, count, h + (i - lo) * groups.panels, e, classes);
      i += count;
    }
  }

  // All classes of sample n against `classes` classes from e on, over `count` positions from t on, in rounds
  // that fit L1.
  void dots(int64_t n, int64_t t, int64_t count, const T* rows, int64_t e, int64_t classes) const {
    const T* g = task.left_g + (n - task.group) * task.g_sample;
    T* out = f.out + n * f.out_n + task.m * f.out_m + e * f.out_e;
    const int64_t line = (f.left.classes + classes) * sizeof(T);
    const int64_t terms = larger(S::lanes, smaller(groups.outputs, dot_bytes / line / S::lanes * S::lanes));
    const int64_t round = larger(1, dot_bytes / line / terms);
    for (int64_t u = 0; u < count; u += round) {
      for (int64_t q = 0; q < groups.outputs; q += terms) {
        const ClassDots<T> dots_of{
            task.g_class, groups.outputs, smaller(round, count - u), smaller(terms, groups.outputs - q), out,
            f.out_c,      f.out_e};
        const SpacedRows<T> x{g + (t + u) * task.g_position + q, task.g_position};
        const SpacedRows<T> y{rows + u * groups.panels + q, groups.panels};
        dot_classes<S>(dots_of, x, y, f.left.classes, classes);
      }
    }
  }
};

// Scratch, in order: right_a, right_g, weights, h.
template <class S>
inline HalfRows<S> half_rows(const HalfTask<typename S::T>& task, typename S::T* scratch, int64_t* size) {
  const FactoredGram<typename S::T>& f = *task.problem;
  const ClassGroups<S> groups(f.outputs, f.right.classes, task.columns);
  const int64_t all_groups = (f.right.classes + groups.size - 1) / groups.size;
  const int64_t step = chunk_rows<S>(task.rows);
  const int64_t right_a = up(f.right.positions, panel_width<S>) * f.inputs;
  const int64_t right_g = all_groups * groups.panels * f.right.positions;
  const int64_t weights = f.right.positions * step, h = step * groups.panels;
  if (size != nullptr) *size = right_a + right_g + weights + h;
  typename S::T* at = scratch;
  return {task, f, groups, at, at + right_a, at + right_a + right_g, at + right_a + right_g + weights, step};
}

template <class S>
inline int64_t half_scratch(const HalfTask<typename S::T>& task) {
  int64_t size = 0;
  half_rows<S>(task, nullptr, &size);
  return size;
}

template <class S>
inline void run_half(const HalfTask<typename S::T>& task, typename S::T* scratch) {
  const HalfRows<S> rows = half_rows<S>(task, scratch, nullptr);
  const int64_t positions = task.problem->left.positions;
  const int64_t first = (task.first - task.group) * positions, last = (task.last - task.group) * positions;
  rows.pack_right();
  for (int64_t lo = first / panel_width<S> * panel_width<S>; lo < last; lo += rows.step) {
    rows.run(lo, smaller(last, lo + rows.step), larger(first, lo));
  }
}

}  // namespace
}  // namespace twophase
