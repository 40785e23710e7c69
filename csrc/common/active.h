// Products of rows that are zero in the same places, which are left out: the cotangents of all outputs of one
// sample below a ReLU, half of whose terms vanish for all of them at once.
//
//   C(i, j) = sum over the active terms q of the rows of A(i, q) * B(j, q)
//
// A group is so many rows (a sample's classes), packed in tiles of R rows: value (r, x) of a tile, where x
// counts the active terms, is at values[tile * count * R + x * R + r], and rows missing in the last tile are
// zero. B is in k-major panels (tile.h). What is left out are products with zero, so B must be finite, or
// they would be NaN.
#pragma once
#include <cstdint>

#include "common/sizes.h"
#include "common/tile.h"

namespace twophase {

// One group and its active terms, ascending.
template <class T>
struct ActiveGroup {
  const int32_t* terms;
  int64_t count;
  const T* values;
};

// What a vector tier provides for them.
template <class T>
struct ActiveKernels {
  int64_t (*width)(int64_t rows);
  int64_t (*find)(const T* rows, int64_t count, int64_t row_stride, int64_t terms, int32_t* found, T* sums);
  void (*pack)(const T* rows, int64_t count, int64_t row_stride, const int32_t* terms, int64_t active,
               T* values);
};

namespace {

constexpr int64_t least_active_rows = 6;   // fewer rows in a group do not fill a register tile
constexpr int64_t active_block = 128;      // terms summed in registers, about
constexpr double worth_leaving_out = 0.8;  // share of active terms up to which it pays

// Rows of a register tile for groups of `rows`.
template <class S>
inline int64_t active_tile_rows(int64_t rows) {
  return ceil_div(rows, ceil_div(rows, S::active_rows));
}

// Elements of a group's values, per active term.
template <class S>
inline int64_t active_width(int64_t rows) {
  return up(rows, active_tile_rows<S>(rows));
}

// Writes the terms that are not zero in all of the rows, which are row_stride apart, and returns how many
// there are; -1 if not all elements are finite. `sums` has room for one row, `found` for all terms.
template <class S>
inline int64_t find_active(const typename S::T* rows, int64_t count, int64_t row_stride, int64_t terms,
                           int32_t* found, typename S::T* sums) {
  using T = typename S::T;
  for (int64_t q = 0; q < terms; ++q) sums[q] = rows[q] < 0 ? -rows[q] : rows[q];
  for (int64_t r = 1; r < count; ++r) {
    const T* row = rows + r * row_stride;
    for (int64_t q = 0; q < terms; ++q) sums[q] += row[q] < 0 ? -row[q] : row[q];
  }
  T odd = 0;  // 0 - 0 stays 0, while infinity and NaN give NaN
  int64_t active = 0;
  for (int64_t q = 0; q < terms; ++q) {
    odd += sums[q] - sums[q];
    found[active] = static_cast<int32_t>(q);
    active += sums[q] != 0;
  }
  return odd == 0 ? active : -1;
}

// Packs the rows of a group at its active terms.
template <class S>
inline void pack_active(const typename S::T* rows, int64_t count, int64_t row_stride, const int32_t* terms,
                        int64_t active, typename S::T* values) {
  const int64_t tile = active_tile_rows<S>(count);
  for (int64_t first = 0; first < count; first += tile) {
    const int64_t wanted = smaller(tile, count - first);
    const typename S::T* row = rows + first * row_stride;
    for (int64_t x = 0; x < active; ++x, values += tile) {
      const typename S::T* from = row + terms[x];
      for (int64_t r = 0; r < wanted; ++r) values[r] = from[r * row_stride];
      for (int64_t r = wanted; r < tile; ++r) values[r] = 0;
    }
  }
}

// A tile of R rows of a group against V registers of a panel; `wanted` of the rows, from row i on, go to the
// epilogue.
template <class S, int R, int V, class Epilogue>
__attribute__((noinline)) void active_tile(const ActiveGroup<typename S::T>& group,
                                           const typename S::T* values, const typename S::T* panel, int64_t i,
                                           int64_t wanted, int64_t j, const Epilogue& epilogue) {
  using T = typename S::T;
  constexpr int64_t row = V * S::lanes;
  alignas(64) T held[R * row];
  const int64_t blocks = larger(1, ceil_div(group.count, active_block)),
                block = ceil_div(group.count, blocks);
  const int32_t *term = group.terms, *const end = group.terms + group.count;
  typename S::Reg sum[R][V];
  for (int64_t x = 0; x < R * row; x += S::lanes) S::store(held + x, S::zero());
  do {
    const int32_t* last = term + smaller(block, end - term);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) sum[r][v] = S::zero();
    for (; term < last; ++term, values += R) {
      typename S::Reg right[V];
      for (int v = 0; v < V; ++v) right[v] = S::load(panel + *term * panel_width<S> + v * S::lanes);
      for (int r = 0; r < R; ++r) {
        const typename S::Reg left = S::fill(values[r]);
        for (int v = 0; v < V; ++v) sum[r][v] = S::fma(left, right[v], sum[r][v]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) {
        T* before = held + r * row + v * S::lanes;
        sum[r][v] = S::add(S::load(before), sum[r][v]);
        if (term < end) S::store(before, sum[r][v]);
      }
    }
  } while (term < end);
  for (int r = 0; r < R; ++r) {
    if (r < wanted) epilogue.template row<V>(i + r, j, sum[r]);
  }
}

// All rows of a group, the first of which is row i of C, against the panel from column j on, of which
// `columns` are wanted.
template <class S, int R, class Epilogue>
inline void active_rows(const ActiveGroup<typename S::T>& group, const typename S::T* panel, int64_t rows,
                        int64_t i, int64_t j, int64_t columns, const Epilogue& epilogue) {
  if (active_tile_rows<S>(rows) != R) {
    if constexpr (R > 1) active_rows<S, R - 1>(group, panel, rows, i, j, columns, epilogue);
    return;
  }
  const typename S::T* values = group.values;
  for (int64_t r = 0; r < rows; r += R, values += group.count * R) {
    if (columns > (S::vectors - 1) * S::lanes) {
      active_tile<S, R, S::vectors>(group, values, panel, i + r, rows - r, j, epilogue);
    } else if (S::vectors > 2 && columns > S::lanes) {
      active_tile<S, R, S::vectors - 1>(group, values, panel, i + r, rows - r, j, epilogue);
    } else {
      active_tile<S, R, 1>(group, values, panel, i + r, rows - r, j, epilogue);
    }
  }
}

template <class S>
constexpr ActiveKernels<typename S::T> active_kernels() {
  return {active_width<S>, find_active<S>, pack_active<S>};
}

template <class S, class Epilogue>
inline void active_product(const ActiveGroup<typename S::T>& group, const typename S::T* panel, int64_t rows,
                           int64_t i, int64_t j, int64_t columns, const Epilogue& epilogue) {
  active_rows<S, S::active_rows>(group, panel, rows, i, j, columns, epilogue);
}

}  // namespace
}  // namespace twophase
