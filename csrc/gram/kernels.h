// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "gemm/gemm.h"

namespace twophase {

// A block on the diagonal of x x^T: packed once for both sides, in the same order of sums as gemm.h.
template <class T>
struct TriangleKernels {
  int64_t (*scratch_size)(int64_t n, int64_t depth);
  // out(i, j) += sum over q < k of x(i, q) x(j, q) for i <= j < n; `depth` terms are summed in registers.
  void (*add)(int64_t n, int64_t k, int64_t depth, View<const T> x, View<T> out, T* scratch);
};

extern const TriangleKernels<float> triangle_avx2_f32;
extern const TriangleKernels<double> triangle_avx2_f64;
extern const TriangleKernels<float> triangle_avx512_f32;
extern const TriangleKernels<double> triangle_avx512_f64;

}  // namespace twophase
