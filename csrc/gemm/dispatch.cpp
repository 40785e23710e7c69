#include "common/tiers.h"
#include "gemm/gemm.h"
#include "gemm/kernels.h"

namespace twophase {
namespace {

constexpr TypedTiers<Gemm> tiers = {
#ifdef TWOPHASE_X86
    {&gemm_avx2::f32, &gemm_avx512::f32}, {&gemm_avx2::f64, &gemm_avx512::f64}
#endif
};

}  // namespace

template <>
const Gemm<float>& gemm<float>(Isa isa) {
  return tiers.f32.of(isa, gemm_scalar::f32);
}

template <>
const Gemm<double>& gemm<double>(Isa isa) {
  return tiers.f64.of(isa, gemm_scalar::f64);
}

}  // namespace twophase
