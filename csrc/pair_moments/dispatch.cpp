#include "common/tiers.h"
#include "pair_moments/kernels.h"
#include "pair_moments/sweep.h"

namespace twophase {
namespace {

constexpr VectorTiers<MomentKernels> tiers = {
#ifdef TWOPHASE_X86
    &moments_avx2, &moments_avx512
#endif
};

void add(ChunkMoments& sum, const ChunkMoments& m) {
  sum.xy += m.xy;
  sum.xx += m.xx;
  sum.yy += m.yy;
  sum.dd += m.dd;
  sum.dx += m.dx;
  sum.ds += m.ds;
  sum.dy += m.dy;
  sum.changed += m.changed;
  // A NaN stays: it compares false with everything.
  if (!(m.max_abs_d <= sum.max_abs_d) && sum.max_abs_d == sum.max_abs_d) sum.max_abs_d = m.max_abs_d;
}

void add(ChunkResidual& sum, const ChunkResidual& r) {
  sum.ee += r.ee;
  sum.ex += r.ex;
}

void write(const ChunkMoments& m, double* out) {
  const double fields[kMomentFields] = {m.xy, m.xx, m.yy, m.dd, m.dx, m.ds, m.max_abs_d, m.changed};
  for (int i = 0; i < kMomentFields; ++i) out[i] = fields[i];
}

// The moments of (y, x) from those of (x, y).
ChunkMoments swapped(const ChunkMoments& m) {
  return {m.xy, m.yy, m.xx, m.dd, -m.dy, -m.ds, m.max_abs_d, m.changed, -m.dx};
}

// The pairs of a chunk, one by one.
void reduce_pairs(MomentsFunction* moments, const PairList& pairs, int64_t begin, int64_t size,
                  std::vector<ChunkMoments>& sums) {
  const Element element = pairs.position.element;
  for (int64_t i = 0; i < pairs.size(); ++i) {
    add(sums[i], moments(element, at(pairs.x(i), element, begin), at(pairs.y(i), element, begin), size));
  }
}

// Several runs against one.
void reduce_shared(const MomentKernels& kernel, const PairList& pairs, int64_t begin, int64_t size,
                   std::vector<ChunkMoments>& sums) {
  alignas(64) double wide[kMaxChunk];
  const Element element = pairs.position.element;
  const SharedChunk y{wide, kernel.widen(element, at(pairs.position.y, element, begin), size, wide)};
  for (int64_t i = 0; i < pairs.size(); ++i) {
    const bool last = i + 1 == pairs.size();
    const void* next = at(pairs.x(last ? 0 : i + 1), element, last ? begin + size : begin);
    add(sums[i], kernel.moments_with_shared(element, at(pairs.x(i), element, begin), y, size, next));
  }
}

}  // namespace

void pair_moments(const std::vector<MomentsPosition>& positions, Isa isa, int threads, double* out) {
  const MomentKernels& kernel = tiers.of(isa, moments_scalar);
  const int64_t count = static_cast<int64_t>(positions.size());
  MomentsFunction* moments = positions.empty() || positions[0].y ? kernel.moments : kernel.moments_with_dy;
  const auto sums = sweep_pairs<ChunkMoments>(
      positions, threads,
      [&](const PairList& pairs, int64_t begin, int64_t size, std::vector<ChunkMoments>& sums) {
        if (shares_y(pairs.position)) return reduce_shared(kernel, pairs, begin, size, sums);
        reduce_pairs(moments, pairs, begin, size, sums);
      },
      [](ChunkMoments& sum, const ChunkMoments& part) { add(sum, part); });
  for (int64_t p = 0; p < count; ++p) {
    const PairList pairs(positions[p]);
    const int64_t columns = positions[p].y ? 1 : pairs.runs;
    for (int64_t i = 0; i < pairs.size(); ++i) {
      const auto [row, col] = pairs.indices(i);
      write(sums[p][i], out + ((row * columns + col) * count + p) * kMomentFields);
      if (!positions[p].y)
        write(swapped(sums[p][i]), out + ((col * columns + row) * count + p) * kMomentFields);
    }
  }
}

void residual_moments(const std::vector<MomentsPosition>& positions, double scale, Isa isa, int threads,
                      double* out) {
  const MomentKernels& kernel = tiers.of(isa, moments_scalar);
  const auto sums = sweep_pairs<ChunkResidual>(
      positions, threads,
      [&](const PairList& pairs, int64_t begin, int64_t size, std::vector<ChunkResidual>& sums) {
        const Element element = pairs.position.element;
        const void *x = at(pairs.x(0), element, begin), *y = at(pairs.y(0), element, begin);
        add(sums[0], kernel.residual(element, x, y, size, scale));
      },
      [](ChunkResidual& sum, const ChunkResidual& part) { add(sum, part); });
  for (size_t p = 0; p < positions.size(); ++p) {
    out[p * kResidualFields] = sums[p][0].ee;
    out[p * kResidualFields + 1] = sums[p][0].ex;
  }
}

}  // namespace twophase
