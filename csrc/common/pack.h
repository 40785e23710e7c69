// Packing of strided rows into k-major panels (tile.h), by square blocks; templates over a SIMD trait.
//
// Row i, element q goes to panels[(i / width) * panel_stride + q * width + i % width]; rows missing in the
// last panel are zero, so that whole registers of it can be read.
#pragma once
#include <cstdint>

#include "common/sizes.h"

namespace twophase {

// Rows of a matrix whose row index has two levels: row r is at data + (r / inner) * outer_stride + (r %
// inner) * inner_stride, and its elements are depth_stride apart.
template <class T>
struct Rows {
  const T* data;
  int64_t inner;
  int64_t outer_stride;
  int64_t inner_stride;
  int64_t depth_stride;

  // Always inlined: no copy of it with wide instructions may be shared with other translation units.
  __attribute__((always_inline)) const T* row(int64_t r) const {
    return data + r / inner * outer_stride + r % inner * inner_stride;
  }
};

namespace {

// `lanes` rows with contiguous elements, by transposing square blocks.
template <class S>
inline void pack_transposed(const typename S::T* const (&from)[S::lanes], int rows, int64_t depth,
                            typename S::T* to, int64_t width) {
  int64_t q = 0;
  for (; q + S::lanes <= depth; q += S::lanes) {
    typename S::Reg block[S::lanes];
    for (int i = 0; i < S::lanes; ++i) block[i] = i < rows ? S::load(from[i] + q) : S::zero();
    S::transpose(block);
    for (int i = 0; i < S::lanes; ++i) S::store(to + (q + i) * width, block[i]);
  }
  for (; q < depth; ++q)
    for (int i = 0; i < S::lanes; ++i) to[q * width + i] = i < rows ? from[i][q] : 0;
}

// Asks for the next rows, as many as a square block has: a transposition waits for every line it touches.
template <class S>
inline void fetch_rows(const Rows<typename S::T>& source, int64_t first, int64_t last, int64_t depth) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(typename S::T));
  for (int64_t r = first; r < last && r < first + S::lanes; ++r) {
    const typename S::T* row = source.row(r);
    for (int64_t q = 0; q < depth; q += line) __builtin_prefetch(row + q, 0, 2);
  }
}

// `count` rows, a multiple of `lanes`, whose elements of one depth are adjacent in memory.
template <class S>
inline void pack_copied(const typename S::T* from, int64_t count, int64_t depth_stride, int64_t depth,
                        typename S::T* to, int64_t width) {
  for (int64_t q = 0; q < depth; ++q, from += depth_stride, to += width) {
    for (int64_t i = 0; i < count; i += S::lanes) S::store(to + i, S::load(from + i));
  }
}

template <class S>
inline void pack_any(const typename S::T* const (&from)[S::lanes], int rows, int64_t depth_stride,
                     int64_t depth, typename S::T* to, int64_t width) {
  for (int64_t q = 0; q < depth; ++q)
    for (int i = 0; i < S::lanes; ++i) to[q * width + i] = i < rows ? from[i][q * depth_stride] : 0;
}

// How many of the rows from `first` on, at most `count`, have adjacent elements; a multiple of `lanes`.
template <class S>
inline int64_t adjacent_rows(const Rows<typename S::T>& source, int64_t first, int64_t count) {
  if (source.inner_stride != 1) return 0;
  const int64_t rest = source.inner - first % source.inner;
  return (count < rest ? count : rest) / S::lanes * S::lanes;
}

// Rows first ... first + count - 1 of `source` to places start ... of panels of `width`, filled up with zeros
// to whole registers of S, which start and width are multiples of.
template <class S>
inline void pack_rows(const Rows<typename S::T>& source, int64_t first, int64_t count, int64_t depth,
                      typename S::T* panels, int64_t panel_stride, int64_t width, int64_t start) {
  using Pack = typename S::Pack;
  const int64_t end = up(count, S::lanes);
  for (int64_t i = 0; i < end;) {
    typename S::T* to = panels + (start + i) / width * panel_stride + (start + i) % width;
    const int64_t room = width - (start + i) % width, left = count > i ? count - i : 0;
    const int64_t adjacent = adjacent_rows<Pack>(source, first + i, left < room ? left : room);
    if (adjacent > 0 && source.depth_stride != 1) {
      pack_copied<Pack>(source.row(first + i), adjacent, source.depth_stride, depth, to, width);
      i += adjacent;
      continue;
    }
    const typename S::T* from[Pack::lanes] = {};
    const int rows = static_cast<int>(left < Pack::lanes ? left : Pack::lanes);
    for (int r = 0; r < rows; ++r) from[r] = source.row(first + i + r);
    if (source.depth_stride == 1) {
      fetch_rows<Pack>(source, first + i + Pack::lanes, first + count, depth);
      pack_transposed<Pack>(from, rows, depth, to, width);
    } else {
      pack_any<Pack>(from, rows, source.depth_stride, depth, to, width);
    }
    i += Pack::lanes;
  }
}

}  // namespace
}  // namespace twophase
