// The blocked product around a micro-kernel. Included once by each tier's file, which is compiled with its
// own instruction set: everything is in an anonymous namespace, and no standard library template is used, so
// that no function with wide instructions can be shared with code that runs on a lesser processor.
//
// A Kernel has: using T; constants mr, nr (sides of its micro-tile), width (of a register: nr is a multiple),
// row_step (mr is a multiple), depth, block; and
//   static void run(int rows, int vectors, int64_t k, const T* left, const T* right, T* c, int64_t ldc);
//     c[rows, vectors * width] += left^T right, rows a multiple of row_step, on operands packed for mr and
//     nr;
//   static void pack<W>(int64_t rows, int64_t k, const T* source, int64_t row_stride, T* packed);
//     one group of at most W rows with contiguous elements, missing rows zero.
//
// Packed operand: for each panel of `depth` columns, for each group of W rows (W = mr or nr, the last group
// padded with zeros), for each column, W numbers.
#pragma once
#include <cstdint>

#include "common/sizes.h"
#include "gemm/gemm.h"

namespace twophase {
namespace {

template <class Kernel>
struct Driver {
  using T = typename Kernel::T;
  static constexpr int64_t mr = Kernel::mr;
  static constexpr int64_t nr = Kernel::nr;
  static constexpr int64_t depth = Kernel::depth;
  static constexpr int64_t block_m = Kernel::block / mr * mr;
  static constexpr int64_t block_n = Kernel::block / nr * nr;

  static int64_t left_size(int64_t m, int64_t k) { return up(m, mr) * k; }
  static int64_t right_size(int64_t n, int64_t k) { return up(n, nr) * k; }

  static int64_t left_block_size(int64_t m, int64_t k) {
    return up(left_size(smaller(m, block_m), smaller(k, depth)), 64);
  }

  static int64_t scratch_size(int64_t m, int64_t n, int64_t k) {
    return left_block_size(m, k) + right_size(smaller(n, block_n), smaller(k, depth));
  }

  template <int64_t W>
  static void pack_any(int64_t rows, int64_t k, View<const T> source, T* packed) {
    for (int64_t q = 0; q < k; ++q) {
      for (int64_t r = 0; r < W; ++r) {
        packed[q * W + r] = r < rows ? source.data[r * source.row_stride + q * source.col_stride] : T(0);
      }
    }
  }

  // W rows that lie next to one another in memory.
  template <int64_t W>
  static void pack_columns(int64_t k, View<const T> source, T* packed) {
    for (int64_t q = 0; q < k; ++q) {
      __builtin_memcpy(packed + q * W, source.data + q * source.col_stride, W * sizeof(T));
    }
  }

  template <int64_t W>
  static void pack_panel(int64_t rows, int64_t k, View<const T> source, T* packed) {
    for (int64_t r = 0; r < rows; r += W) {
      const View<const T> group{source.data + r * source.row_stride, source.row_stride, source.col_stride};
      if (source.col_stride == 1) {
        Kernel::template pack<W>(smaller(W, rows - r), k, group.data, group.row_stride, packed + r * k);
      } else if (source.row_stride == 1 && rows - r >= W) {
        pack_columns<W>(k, group, packed + r * k);
      } else {
        pack_any<W>(smaller(W, rows - r), k, group, packed + r * k);
      }
    }
  }

  template <int64_t W>
  static void pack(int64_t rows, int64_t k, View<const T> source, T* packed) {
    for (int64_t q = 0; q < k; q += depth) {
      const View<const T> panel{source.data + q * source.col_stride, source.row_stride, source.col_stride};
      pack_panel<W>(rows, smaller(depth, k - q), panel, packed + q * up(rows, W));
    }
  }

  static void pack_left(int64_t m, int64_t k, View<const T> a, T* packed) { pack<mr>(m, k, a, packed); }
  static void pack_right(int64_t n, int64_t k, View<const T> b, T* packed) { pack<nr>(n, k, b, packed); }

  // A tile of a C that it does not fill, or whose rows are not contiguous, goes by way of a tile of its own.
  static void run_tile(int64_t rows, int64_t cols, int64_t k, const T* left, const T* right, View<T> c) {
    const int64_t full_rows = up(rows, Kernel::row_step), full_cols = up(cols, Kernel::width);
    const int vectors = static_cast<int>(full_cols / Kernel::width);
    if (rows == full_rows && cols == full_cols && c.col_stride == 1) {
      return Kernel::run(static_cast<int>(rows), vectors, k, left, right, c.data, c.row_stride);
    }
    alignas(64) T tile[mr * nr] = {};
    Kernel::run(static_cast<int>(full_rows), vectors, k, left, right, tile, nr);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) c.data[i * c.row_stride + j * c.col_stride] += tile[i * nr + j];
    }
  }

  // One panel of at most `depth` columns: C += left right^T. A right group stays in L1 while left streams by.
  static void run_panel(const GemmShape& shape, const T* left, const T* right, View<T> c) {
    const int64_t k = shape.k;
    for (int64_t j = 0; j < shape.n; j += nr) {
      const int64_t end = smaller(j + nr, shape.n);
      const int64_t last = smaller(shape.m, end + shape.diagonal);  // rows from here on are not wanted
      for (int64_t i = 0; i < last; i += mr) {
        const int64_t below = i - shape.diagonal - j;  // so many columns of the tile are not wanted
        const int64_t skip = below < Kernel::width ? 0 : below / Kernel::width * Kernel::width;
        const int64_t col = j + skip;
        run_tile(smaller(mr, last - i), end - col, k, left + i * k, right + j * k + skip,
                 {c.data + i * c.row_stride + col * c.col_stride, c.row_stride, c.col_stride});
      }
    }
  }

  static void multiply_packed(const GemmShape& shape, const T* left, const T* right, View<T> c) {
    for (int64_t q = 0; q < shape.k; q += depth) {
      const GemmShape panel{shape.m, shape.n, smaller(depth, shape.k - q), shape.diagonal};
      run_panel(panel, left + q * up(shape.m, mr), right + q * up(shape.n, nr), c);
    }
  }

  static void multiply(const GemmShape& shape, View<const T> a, View<const T> b, View<T> c, T* scratch) {
    T* left = scratch;
    T* right = scratch + left_block_size(shape.m, shape.k);
    for (int64_t j = 0; j < shape.n; j += block_n) {
      const int64_t n = smaller(block_n, shape.n - j);
      for (int64_t q = 0; q < shape.k; q += depth) {
        const int64_t k = smaller(depth, shape.k - q);
        pack_right(n, k, {b.data + j * b.row_stride + q * b.col_stride, b.row_stride, b.col_stride}, right);
        for (int64_t i = 0; i < smaller(shape.m, j + n + shape.diagonal); i += block_m) {
          const int64_t m = smaller(block_m, shape.m - i);
          pack_left(m, k, {a.data + i * a.row_stride + q * a.col_stride, a.row_stride, a.col_stride}, left);
          T* corner = c.data + i * c.row_stride + j * c.col_stride;
          run_panel({m, n, k, shape.diagonal + j - i}, left, right, {corner, c.row_stride, c.col_stride});
        }
      }
    }
  }
};

template <class Kernel>
constexpr Gemm<typename Kernel::T> table() {
  using D = Driver<Kernel>;
  return {D::mr,        D::nr,         D::depth,     D::scratch_size, D::multiply,
          D::left_size, D::right_size, D::pack_left, D::pack_right,   D::multiply_packed};
}

}  // namespace
}  // namespace twophase
