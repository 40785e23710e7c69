// AVX-512: micro-tiles of 12 x 32 (float) and 12 x 16 (double), 24 of the 32 registers hold sums.
#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <immintrin.h>

#include "gemm/driver.h"
#include "gemm/kernels.h"
#include "gemm/micro_kernel.h"
#include "gemm/transpose_avx.h"

namespace twophase {
namespace {

struct Float16 {
  using T = float;
  using Register = __m512;
  static constexpr int64_t width = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const T* p) { return _mm512_loadu_ps(p); }
  static void store(T* p, Register v) { _mm512_storeu_ps(p, v); }
  static Register broadcast(const T& x) { return _mm512_set1_ps(x); }
  static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

struct Double8 {
  using T = double;
  using Register = __m512d;
  static constexpr int64_t width = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register load(const T* p) { return _mm512_loadu_pd(p); }
  static void store(T* p, Register v) { _mm512_storeu_pd(p, v); }
  static Register broadcast(const T& x) { return _mm512_set1_pd(x); }
  static Register add(Register a, Register b) { return _mm512_add_pd(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }
};

template <class V>
struct Avx512Kernel {
  using T = typename V::T;
  static constexpr int64_t row_step = 4;
  static constexpr int64_t mr = 3 * row_step;
  static constexpr int64_t width = V::width;
  static constexpr int64_t nr = 2 * V::width;
  static constexpr int64_t depth = 768 / sizeof(T);
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

const Gemm<float> gemm_avx512::f32 = table<Avx512Kernel<Float16>>();
const Gemm<double> gemm_avx512::f64 = table<Avx512Kernel<Double8>>();

}  // namespace twophase
#endif
