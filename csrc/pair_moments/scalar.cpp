// The oracle: one element at a time.
#include <cmath>
#include <cstring>

#include "pair_moments/chunk.h"

namespace twophase {
namespace {

double from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits >> 15 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

struct One {
  using Register = double;
  using Count = int64_t;
  static constexpr int64_t width = 1;
  static Register zero() { return 0.0; }
  static Count zero_count() { return 0; }
  static Register broadcast(double v) { return v; }
  static Register load(const float* p) { return *p; }
  static Register load(const double* p) { return *p; }
  static Register load(const Bfloat16* p) { return from_bits(static_cast<uint32_t>(p->bits) << 16); }
  static Register load(const Half* p) { return half_value(p->bits); }
  static Register add(Register a, Register b) { return a + b; }
  static Register subtract(Register a, Register b) { return a - b; }
  static Register multiply_add(Register a, Register b, Register c) { return a * b + c; }
  static Register negative_multiply_add(Register a, Register b, Register c) { return std::fma(-a, b, c); }
  static Register absolute(Register a) { return std::fabs(a); }
  static Register maximum(Register a, Register b) { return a > b ? a : b; }
  static Count count_zeros(Count c, Register a) { return c + (a == 0.0); }
  static double sum(Register v) { return v; }
  static double largest(Register v) { return v; }
  static int64_t total(Count c) { return c; }
};

}  // namespace

const MomentKernels moments_scalar = {chunk_moments<One, false>, chunk_moments<One, true>,
                                      chunk_residual<One>};

}  // namespace twophase
