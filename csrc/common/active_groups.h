// The groups of an operand and their active terms (active.h), for drivers: baseline instructions.
#pragma once
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/active.h"
#include "common/parallel.h"
#include "common/workspace.h"

namespace twophase {
namespace {

constexpr int64_t least_group_work = int64_t{1} << 22;  // multiply-adds from which on looking for zeros pays
constexpr int64_t least_group_terms = 64;

// Whether it may pay to look for terms that are zero in all `rows` rows of each of `groups` groups.
inline bool pays_for_groups(int64_t groups, int64_t rows, int64_t terms, int64_t columns) {
  return rows >= least_active_rows && terms >= least_group_terms &&
         terms <= std::numeric_limits<int32_t>::max() && groups * rows * terms * columns >= least_group_work;
}

template <class T>
class ActiveGroups {
 public:
  ActiveGroups(const ActiveKernels<T>& k, int64_t groups, int64_t rows, int64_t terms)
      : k_(k), groups_(groups), rows_(rows), terms_(terms), found_(groups * terms), counts_(size(groups)) {}

  // Looks for the active terms of all groups; `stride` elements lie between groups, `row_stride` between
  // rows.
  void find(const T* first, int64_t stride, int64_t row_stride, int threads) {
    parallel_tasks(groups_, threads, [&] {
      return [&, sums = std::vector<T>(size(terms_))](int64_t n) mutable {
        counts_[size(n)] = k_.find(first + n * stride, rows_, row_stride, terms_, terms_of(n), sums.data());
      };
    });
  }

  bool finite() const {
    for (const int64_t count : counts_)
      if (count < 0) return false;
    return true;
  }

  // Whether there are few enough of them; never if an element is not finite.
  bool worth() const {
    int64_t active = 0;
    for (const int64_t count : counts_) active += count;
    return finite() &&
           static_cast<double>(active) <= worth_leaving_out * static_cast<double>(groups_ * terms_);
  }

  // Elements of a group's values, at most.
  int64_t values_size() const { return k_.width(rows_) * terms_; }

  ActiveGroup<T> pack(int64_t n, const T* rows, int64_t row_stride, T* values) {
    const int64_t count = counts_[size(n)];
    k_.pack(rows, rows_, row_stride, terms_of(n), count, values);
    return {terms_of(n), count, values};
  }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }
  int32_t* terms_of(int64_t n) { return found_.data() + n * terms_; }

  const ActiveKernels<T>& k_;
  const int64_t groups_, rows_, terms_;
  Workspace<int32_t> found_;
  std::vector<int64_t> counts_;
};

}  // namespace
}  // namespace twophase
