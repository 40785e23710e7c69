#include "common/x86.h"
#include "gemm/gemm.h"
#include "gemm/kernels.h"

namespace twophase {
namespace {

template <class T>
const Gemm<T>& choose(Isa isa, const Gemm<T>& scalar, const Gemm<T>& avx2, const Gemm<T>& avx512) {
  if (isa >= Isa::avx512) return avx512;
  return isa >= Isa::avx2 ? avx2 : scalar;
}

}  // namespace

#ifdef TWOPHASE_X86
template <>
const Gemm<float>& gemm<float>(Isa isa) {
  return choose(isa, gemm_scalar::f32, gemm_avx2::f32, gemm_avx512::f32);
}

template <>
const Gemm<double>& gemm<double>(Isa isa) {
  return choose(isa, gemm_scalar::f64, gemm_avx2::f64, gemm_avx512::f64);
}
#else
template <>
const Gemm<float>& gemm<float>(Isa) {
  return gemm_scalar::f32;
}

template <>
const Gemm<double>& gemm<double>(Isa) {
  return gemm_scalar::f64;
}
#endif

}  // namespace twophase
