// The oracle: plain loops, no intrinsics.
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

double value_of(float element) { return element; }
double value_of(double element) { return element; }
double value_of(Bfloat16 element) { return from_bits(static_cast<uint32_t>(element.bits) << 16); }
double value_of(Half element) { return half_value(element.bits); }

// Eight lanes as the widest tier has, so that its sums are as accurate.
struct Lanes {
  struct Register {
    double lane[8];
  };
  using Count = Register;
  static constexpr int64_t width = 8;

  template <class F>
  static Register make(const F& lane_value) {
    Register result;
    for (int i = 0; i < width; ++i) result.lane[i] = lane_value(i);
    return result;
  }

  static Register broadcast(double v) {
    return make([&](int) { return v; });
  }
  static Register zero() { return broadcast(0.0); }
  static Count zero_count() { return zero(); }
  template <class E>
  static Register load(const E* p) {
    return make([&](int i) { return value_of(p[i]); });
  }
  static Register add(const Register& a, const Register& b) {
    return make([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Register subtract(const Register& a, const Register& b) {
    return make([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return make([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static Register negative_multiply_add(const Register& a, const Register& b, const Register& c) {
    return make([&](int i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Register larger(const Register& a, const Register& b) {
    return make([&](int i) { return std::fabs(a.lane[i]) > b.lane[i] ? std::fabs(a.lane[i]) : b.lane[i]; });
  }
  static Count count_zeros(const Count& c, const Register& a) {
    return make([&](int i) { return c.lane[i] + (a.lane[i] == 0.0); });
  }
  static void store(double* p, const Register& a) {
    for (int i = 0; i < width; ++i) p[i] = a.lane[i];
  }
  static void fetch(const void*) {}
  static double sum(const Register& v) {
    double result = 0.0;
    for (const double lane : v.lane) result += lane;
    return result;
  }
  static double largest(const Register& v) {
    double result = 0.0;
    for (const double lane : v.lane) result = lane > result ? lane : result;
    return result;
  }
  static int64_t total(const Count& c) { return static_cast<int64_t>(sum(c)); }
};

}  // namespace

const MomentKernels moments_scalar = {chunk_moments<Lanes, false>, chunk_moments<Lanes, true>,
                                      chunk_widen<Lanes>, chunk_shared<Lanes>, chunk_residual<Lanes>};

}  // namespace twophase
