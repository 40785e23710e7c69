// Moments of pairs of long vectors, one pass over memory.
//
// For vectors x and y, d = y - x:
//   xy = <x, y>   xx = |x|^2   yy = |y|^2   dd = |d|^2   dx = <d, x>   ds = <d, x + y>
//   max_abs_d = max |d| (NaN if any d is)   changed = number of entries with d != 0 (NaN counts)
// and for the residual e = y - scale x, each element rounded once (fused multiply-add):
//   ee = |e|^2    ex = <e, x>
//
// Elements are float, double, bfloat16 or IEEE half; each is widened to double first, all sums are double. A
// vector is cut into groups, groups into chunks; sums run within a chunk (one per register lane), then over
// the chunks of a group, then over the groups, always in this order: the result is bitwise the same for any
// number of threads. All pairs of runs: every run's chunk is read from memory once and meets the others in
// cache. Several runs against one: a chunk of y is widened, and <y, y> taken, once for all runs.
//
// Several runs against one: <x, y> and <d, x + y> follow from the others, chunk by chunk, wherever that loses
// nothing (chunk.h).
//
// Work: 14 operations per pair of elements, 7 where y is shared. Memory: 72 bytes per pair of vectors and
// 65,536 elements, 32 KiB a thread where y is shared. Measured on a Zen 4 core with a shared y in cache: 5.5
// elements of float per nanosecond, 22 GB/s; with five sums for each pair it was 3.7.
#pragma once
#include <cstdint>
#include <vector>

#include "common/cpu.h"

namespace twophase {

enum class Element { f32, f64, bf16, f16 };

// One tensor of each run: `runs` times x, and y, or no y for all pairs of the x.
struct MomentsPosition {
  Element element;
  int64_t size;
  std::vector<const void*> x;
  const void* y;
};

constexpr int kMomentFields = 8;
constexpr int kResidualFields = 2;

// out[r, s, position, field]: run r against y (one s), or against run s where y is null.
void pair_moments(const std::vector<MomentsPosition>& positions, Isa isa, int threads, double* out);

// out[position, field] of the first x and y.
void residual_moments(const std::vector<MomentsPosition>& positions, double scale, Isa isa, int threads,
                      double* out);

}  // namespace twophase
