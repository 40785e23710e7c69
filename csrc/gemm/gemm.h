// Single-threaded, cache-blocked product on packed operands: the inner engine of the ops, not an op itself.
//
//   C(i, j) += sum over q < k of A(i, q) * B(j, q)          i < m, j < n
//
// Every operand has two strides, so B is given by its rows ("nt"); for a row-major B[k, n] ("nn") swap its
// strides: {b, 1, ld}. Element types float and double, arithmetic in that type.
//
// Each element of C is accumulated in one fixed order: ascending q, in panels of `depth`, each panel summed
// in registers and then added to C. The order depends neither on m, n nor on the position of the element, so
// cutting C into tiles, in any way and on any thread, does not change a bit of the result.
//
// Nothing here starts threads or allocates; call it inside a parallel region with scratch of the thread's
// own:
//
//   const Gemm<float>& g = gemm<float>(isa);
//   Workspace<float> scratch(g.scratch_size(m, n, k));                 // common/workspace.h, 64-byte aligned
//   g.multiply({m, n, k}, {a, lda, 1}, {b, ldb, 1}, {c, ldc, 1}, scratch.data());
//
// To use an operand many times, pack it once: pack_left / pack_right, then multiply_packed (no scratch).
#pragma once
#include <cstdint>
#include <limits>

#include "common/cpu.h"

namespace twophase {

// A matrix in memory; strides count elements.
template <class T>
struct View {
  T* data;
  int64_t row_stride;
  int64_t col_stride;
};

// Sizes of one product, and which part of C is wanted: with `diagonal` = d, only entries i <= j + d;
// micro-tiles that hold none of them are skipped, the others are updated whole.
struct GemmShape {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t diagonal = std::numeric_limits<int64_t>::max() / 2;
};

template <class T>
struct Gemm {
  int64_t mr;     // rows of a micro-tile: left operands are padded to a multiple of it
  int64_t nr;     // columns of a micro-tile: right operands are padded to a multiple of it
  int64_t depth;  // elements of k summed in registers before they are added to C

  // Elements of T that `multiply` needs as scratch (bounded: it does not grow beyond the cache blocks).
  int64_t (*scratch_size)(int64_t m, int64_t n, int64_t k);
  void (*multiply)(const GemmShape& shape, View<const T> a, View<const T> b, View<T> c, T* scratch);

  // Packed operands: opaque, of left_size(m, k) and right_size(n, k) elements, 64-byte aligned.
  int64_t (*left_size)(int64_t m, int64_t k);
  int64_t (*right_size)(int64_t n, int64_t k);
  void (*pack_left)(int64_t m, int64_t k, View<const T> a, T* packed);
  void (*pack_right)(int64_t n, int64_t k, View<const T> b, T* packed);
  void (*multiply_packed)(const GemmShape& shape, const T* left, const T* right, View<T> c);
};

// The product for a tier; the best compiled one at or below `isa`. T is float or double.
template <class T>
const Gemm<T>& gemm(Isa isa);

}  // namespace twophase
