// Copies of rows of images, by whole registers; templates over a SIMD trait S.
#pragma once
#include <cstdint>

#include "common/sizes.h"

namespace twophase {
namespace {

constexpr int64_t tap_depth = 128;  // terms of the direct method summed in registers before they are added up

// to = `zeros` zeros, then `available` elements of `from`, then zeros, at least
// `count` elements together; up to two registers beyond are overwritten.
template <class S>
inline void copy_padded(const typename S::T* from, int64_t available, int64_t zeros, int64_t count,
                        typename S::T* to) {
  for (int64_t x = 0; x < zeros; x += S::lanes) S::store(to + x, S::zero());
  to += zeros;
  count -= zeros;
  int64_t x = 0;
  for (; x < count && x + S::lanes <= available; x += S::lanes) S::store(to + x, S::load(from + x));
  for (; x < count; x += S::lanes) {
    S::store(to + x, x < available ? S::load_first(from + x, available - x) : S::zero());
  }
}

// to (+)= from, exactly `count` elements of `to`; `from` is read in whole registers.
template <class S, bool add>
inline void put_row(const typename S::T* from, int64_t count, typename S::T* to) {
  int64_t x = 0;
  for (; x + S::lanes <= count; x += S::lanes) {
    const typename S::Reg value = S::load(from + x);
    S::store(to + x, add ? S::add(S::load(to + x), value) : value);
  }
  if (x == count) return;
  const typename S::Reg value = S::load(from + x);
  S::store_first(to + x, count - x, add ? S::add(S::load_first(to + x, count - x), value) : value);
}

template <class S>
inline void put_row(const typename S::T* from, int64_t count, typename S::T* to, bool add) {
  if (add) {
    put_row<S, true>(from, count, to);
  } else {
    put_row<S, false>(from, count, to);
  }
}

}  // namespace
}  // namespace twophase
