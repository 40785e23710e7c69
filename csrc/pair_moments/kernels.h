// The entry points of the tiers; only pair_moments/dispatch.cpp chooses among them.
#pragma once
#include <cstdint>

#include "pair_moments/pair_moments.h"

namespace twophase {

// What a chunk yields: the public fields, and <d, y>, from which the moments of (y, x) follow.
struct ChunkMoments {
  double xy, xx, yy, dd, dx, ds, max_abs_d, changed, dy;
};

struct ChunkResidual {
  double ee, ex;
};

// A chunk of the y that all runs meet.
struct SharedChunk {
  const double* wide;  // its elements, with zeros up to a whole register
  double yy;
};

using MomentsFunction = ChunkMoments(Element element, const void* x, const void* y, int64_t size);

struct MomentKernels {
  MomentsFunction* moments;  // dy stays 0
  MomentsFunction* moments_with_dy;
  // Several runs against one: y is widened once, and <y, y> taken, for all runs; `next` is read after x.
  double (*widen)(Element element, const void* y, int64_t size, double* wide);
  ChunkMoments (*moments_with_shared)(Element element, const void* x, const SharedChunk& y, int64_t size,
                                      const void* next);
  ChunkResidual (*residual)(Element element, const void* x, const void* y, int64_t size, double scale);
};

extern const MomentKernels moments_scalar;
extern const MomentKernels moments_avx2;
extern const MomentKernels moments_avx512;

}  // namespace twophase
