#include "common/x86.h"
#include "pair_moments/kernels.h"
#include "pair_moments/sweep.h"

namespace twophase {
namespace {

const MomentKernels& kernels([[maybe_unused]] Isa isa) {
#ifdef TWOPHASE_X86
  if (isa >= Isa::avx512) return moments_avx512;
  if (isa >= Isa::avx2) return moments_avx2;
#endif
  return moments_scalar;
}

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

}  // namespace

void pair_moments(const std::vector<MomentsPosition>& positions, Isa isa, int threads, double* out) {
  const MomentKernels& kernel = kernels(isa);
  const int64_t count = static_cast<int64_t>(positions.size());
  MomentsFunction* moments = positions.empty() || positions[0].y ? kernel.moments : kernel.moments_with_dy;
  const auto sums = sweep_pairs<ChunkMoments>(
      positions, threads,
      [&](Element element, const void* x, const void* y, int64_t size, ChunkMoments& sum) {
        add(sum, moments(element, x, y, size));
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
  const MomentKernels& kernel = kernels(isa);
  const auto sums = sweep_pairs<ChunkResidual>(
      positions, threads,
      [&](Element element, const void* x, const void* y, int64_t size, ChunkResidual& sum) {
        add(sum, kernel.residual(element, x, y, size, scale));
      },
      [](ChunkResidual& sum, const ChunkResidual& part) { add(sum, part); });
  for (size_t p = 0; p < positions.size(); ++p) {
    out[p * kResidualFields] = sums[p][0].ee;
    out[p * kResidualFields + 1] = sums[p][0].ex;
  }
}

}  // namespace twophase
