// The walk over positions, groups and chunks: which bytes meet in cache, on which thread, and the order of
// sums.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/parallel.h"
#include "pair_moments/pair_moments.h"

namespace twophase {

constexpr int64_t kGroup = 65536;        // elements of a vector summed by one task
constexpr int64_t kChunkBytes = 131072;  // of all runs together, so that a chunk of all pairs stays in L2
constexpr int64_t kSharedBytes = 8192;   // of each run, where only y meets others: two pages
constexpr int64_t kMaxChunk = 4096;      // elements

// The pairs of one position: every x with y, or every x with itself and the later ones.
struct PairList {
  explicit PairList(const MomentsPosition& p) : position(p), runs(static_cast<int64_t>(p.x.size())) {
    for (int64_t row = 0; row < runs; ++row) {
      for (int64_t col = p.y ? 0 : row; col < (p.y ? 1 : runs); ++col) list.emplace_back(row, col);
    }
  }
  int64_t size() const { return static_cast<int64_t>(list.size()); }
  std::pair<int64_t, int64_t> indices(int64_t i) const { return list[i]; }
  const void* x(int64_t i) const { return position.x[list[i].first]; }
  const void* y(int64_t i) const { return position.y ? position.y : position.x[list[i].second]; }

  const MomentsPosition& position;
  int64_t runs;
  std::vector<std::pair<int64_t, int64_t>> list;
};

inline int64_t element_bytes(Element element) {
  return element == Element::f64 ? 8 : element == Element::f32 ? 4 : 2;
}

// Whether several x meet one y, which is then widened once for all.
inline bool shares_y(const MomentsPosition& position) { return position.y && position.x.size() > 1; }

// A power of two from 256 to 4096 elements. A shared y, widened, and one x stay in L1.
inline int64_t chunk_size(const MomentsPosition& position) {
  if (shares_y(position)) return kSharedBytes / element_bytes(position.element);
  int64_t size = kMaxChunk;
  const int64_t vectors = static_cast<int64_t>(position.x.size()) + 1;
  while (size > 256 && size * vectors * element_bytes(position.element) > kChunkBytes) size /= 2;
  return size;
}

inline const void* at(const void* vector, Element element, int64_t index) {
  return static_cast<const char*>(vector) + index * element_bytes(element);
}

// result[position][pair]: reduce(pairs, begin, size, sums) adds a chunk of all pairs to their sums,
// merge(sum, part) adds a group's.
template <class Sum, class Reduce, class Merge>
std::vector<std::vector<Sum>> sweep_pairs(const std::vector<MomentsPosition>& positions, int threads,
                                          const Reduce& reduce, const Merge& merge) {
  struct Task {
    size_t position;
    int64_t begin, end;
    std::vector<Sum> sums;
  };
  std::vector<PairList> pairs(positions.begin(), positions.end());
  std::vector<Task> tasks;
  int64_t total = 0;
  for (size_t p = 0; p < positions.size(); ++p) {
    for (int64_t begin = 0; begin < positions[p].size; begin += kGroup) {
      tasks.push_back({p, begin, std::min(begin + kGroup, positions[p].size), {}});
    }
    total += positions[p].size * pairs[p].size();
  }
  const auto run_task = [&](int64_t index) {
    Task& task = tasks[index];
    const MomentsPosition& position = positions[task.position];
    const PairList& list = pairs[task.position];
    const int64_t step = chunk_size(position);
    task.sums.assign(list.size(), Sum{});
    for (int64_t i = task.begin; i < task.end; i += step) {
      const int64_t size = std::min(step, task.end - i);
      reduce(list, i, size, task.sums);
    }
  };
  parallel_tasks(static_cast<int64_t>(tasks.size()), total < serial_elements ? 1 : threads,
                 [&] { return run_task; });
  std::vector<std::vector<Sum>> result(positions.size());
  for (size_t p = 0; p < positions.size(); ++p) result[p].assign(pairs[p].size(), Sum{});
  for (const Task& task : tasks) {
    for (size_t pair = 0; pair < task.sums.size(); ++pair)
      merge(result[task.position][pair], task.sums[pair]);
  }
  return result;
}

}  // namespace twophase
