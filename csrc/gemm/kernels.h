// The entry points of the tiers; only gemm/dispatch.cpp chooses among them.
#pragma once
#include "gemm/gemm.h"

namespace twophase::gemm_scalar {
extern const Gemm<float> f32;
extern const Gemm<double> f64;
}  // namespace twophase::gemm_scalar

namespace twophase::gemm_avx2 {
extern const Gemm<float> f32;
extern const Gemm<double> f64;
}  // namespace twophase::gemm_avx2

namespace twophase::gemm_avx512 {
extern const Gemm<float> f32;
extern const Gemm<double> f64;
}  // namespace twophase::gemm_avx512
