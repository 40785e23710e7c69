// The oracle: plain loops, no intrinsics.
#include "gemm/driver.h"
#include "gemm/kernels.h"

namespace twophase {
namespace {

template <class Number>
struct ScalarKernel {
  using T = Number;
  static constexpr int64_t mr = 4;
  static constexpr int64_t row_step = 1;
  static constexpr int64_t nr = 8;
  static constexpr int64_t width = 4;
  static constexpr int64_t depth = 256;
  static constexpr int64_t block = 192;

  static void run(int rows, int vectors, int64_t k, const T* left, const T* right, T* c, int64_t ldc) {
    T sum[mr][nr] = {};
    const int64_t cols = vectors * width;
    for (int64_t q = 0; q < k; ++q) {
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) sum[i][j] += left[q * mr + i] * right[q * nr + j];
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) c[i * ldc + j] += sum[i][j];
    }
  }

  template <int64_t W>
  static void pack(int64_t rows, int64_t k, const T* source, int64_t row_stride, T* packed) {
    for (int64_t q = 0; q < k; ++q) {
      for (int64_t r = 0; r < W; ++r) packed[q * W + r] = r < rows ? source[r * row_stride + q] : T(0);
    }
  }
};

}  // namespace

const Gemm<float> gemm_scalar::f32 = table<ScalarKernel<float>>();
const Gemm<double> gemm_scalar::f64 = table<ScalarKernel<double>>();

}  // namespace twophase
