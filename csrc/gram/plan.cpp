#include "gram/plan.h"

#include <algorithm>

#include "common/sizes.h"

namespace twophase {
namespace {

constexpr int64_t kTileUnit = 96;    // a multiple of most micro-tiles' sides
constexpr int64_t kSliceUnit = 768;  // a multiple of every tier's block of terms
constexpr int64_t kEvenSlices = 4;   // their number is a multiple of this, for threads to share them evenly
// Below this, starting a slice costs more than it brings. Slices summed apart halve the error of a long sum.
constexpr int64_t kShortestSlice = 4096;
constexpr int64_t kMostSlices = 64;
constexpr int64_t kPartialBytes = 16 << 20;
constexpr int64_t kTasksPerThread = 3;

int64_t count_tiles(int64_t n, int64_t m, bool symmetric, int64_t tile) {
  const int64_t rows = ceil_div(n, tile), cols = ceil_div(m, tile);
  return symmetric ? rows * (rows + 1) / 2 : rows * cols;
}

}  // namespace

GramPlan plan_gram(int64_t batch, int64_t n, int64_t m, int64_t k, bool symmetric, int64_t element_size,
                   int threads) {
  const int64_t affordable = kPartialBytes / std::max<int64_t>(1, batch * n * m * element_size);
  const int64_t most = std::max<int64_t>(1, std::min({k / kShortestSlice, affordable, kMostSlices}));
  const int64_t wanted = most < kEvenSlices ? most : most / kEvenSlices * kEvenSlices;
  const int64_t slice_size = std::max<int64_t>(1, ceil_div(ceil_div(k, wanted), kSliceUnit)) * kSliceUnit;
  const int64_t slices = std::max<int64_t>(1, ceil_div(k, slice_size));
  // The largest tile is two of 768 KiB of packed panels; smaller ones only to keep all threads busy.
  int64_t tile = 16 * kTileUnit / element_size;
  const int64_t enough = kTasksPerThread * threads;
  while (tile > kTileUnit && batch * slices * count_tiles(n, m, symmetric, tile) < enough)
    tile -= kTileUnit / 2;
  return {tile, slices, slice_size};
}

}  // namespace twophase
