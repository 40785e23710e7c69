// AVX2 + FMA: micro-tiles of 6 x 16 (float) and 6 x 8 (double), 12 of the 16 registers hold sums.
#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <immintrin.h>

#include "gemm/driver.h"
#include "gemm/kernels.h"
#include "gemm/micro_kernel.h"
#include "gemm/transpose_avx.h"

namespace twophase {
namespace {

struct Float8 {
  using T = float;
  using Register = __m256;
  static constexpr int64_t width = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const T* p) { return _mm256_loadu_ps(p); }
  static void store(T* p, Register v) { _mm256_storeu_ps(p, v); }
  static Register broadcast(const T& x) { return _mm256_broadcast_ss(&x); }
  static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
};

struct Double4 {
  using T = double;
  using Register = __m256d;
  static constexpr int64_t width = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register load(const T* p) { return _mm256_loadu_pd(p); }
  static void store(T* p, Register v) { _mm256_storeu_pd(p, v); }
  static Register broadcast(const T& x) { return _mm256_broadcast_sd(&x); }
  static Register add(Register a, Register b) { return _mm256_add_pd(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_pd(a, b, c); }
};

template <class V>
struct Avx2Kernel {
  using T = typename V::T;
  static constexpr int64_t row_step = 2;
  static constexpr int64_t mr = 3 * row_step;
  static constexpr int64_t width = V::width;
  static constexpr int64_t nr = 2 * V::width;
  static constexpr int64_t depth = 256;
  static constexpr int64_t block = 1536 / sizeof(T);

  static void run(int rows, int vectors, int64_t k, const T* left, const T* right, T* c, int64_t ldc) {
    run_micro_kernel<V, row_step>(rows, vectors, k, left, right, c, ldc);
  }

  template <int64_t W>
  static void pack(int64_t rows, int64_t k, const T* source, int64_t row_stride, T* packed) {
    pack_rows<W>(rows, k, source, row_stride, packed);
  }
};

}  // namespace

const Gemm<float> gemm_avx2::f32 = table<Avx2Kernel<Float8>>();
const Gemm<double> gemm_avx2::f64 = table<Avx2Kernel<Double4>>();

}  // namespace twophase
#endif
