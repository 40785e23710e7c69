// Random projection: products with a matrix of random signs that is never stored.
//
//   out(r, j) += sum over q < depth of x(r, q) S(offset + q, j)           r < rows, j < directions
//
// S(q, j) = 2 b - 1, where b is bit j mod 32 of word (j / 32) mod 4 of Philox-4x32-10 (Salmon et al. 2011)
// with the counter (q mod 2^32, q / 2^32, j / 128, 0) and the key (seed mod 2^32, seed / 2^32): the same
// signs as the other backends', bit for bit.
//
// Cost: 2 rows depth directions FLOPs in the element type, and about one integer operation per sign, each of
// which is made once per block of 512 rows. Panels of 256 terms are multiplied by the tier's `gemm` and added
// to `out` in ascending q, for any number of threads.
#pragma once
#include <cstdint>

#include "common/cpu.h"
#include "gemm/gemm.h"

namespace twophase {

template <class T>
struct RandomProjection {
  int64_t rows, depth, directions;
  uint64_t seed, offset;
  View<const T> x;
  View<T> out;
};

template <class T>
void random_projection(const RandomProjection<T>& problem, Isa isa, int threads);

}  // namespace twophase
