// Register-tiled product of two operands in k-major panels, for the vector tiers; templates over a SIMD trait
// S.
//
//   C(i, j) = sum over q < k of A(i, q) * B(j, q)
//
// Each register tile is handed to an epilogue, which stores, adds, scales or reduces it: fusion costs no
// extra pass. A tile sums its k terms in ascending order in registers, so an element's value depends on k
// alone, never on the position of the element or the size of the product.
#pragma once
#include <cstdint>

namespace twophase {
namespace {

// Element (i, q) is at data[(i / W) * panel_stride + q * k_stride + i % W], W = the trait's panel width.
// Packed operands (pack.h) have k_stride = W; a matrix whose rows are q and whose columns i are contiguous
// has panel_stride = W.
template <class T>
struct Operand {
  const T* data;
  int64_t panel_stride;
  int64_t k_stride;
};

template <class S>
constexpr int64_t panel_width = S::vectors * S::lanes;

template <class S, int R, int V>
__attribute__((always_inline)) inline void accumulate_tile(const typename S::T* a, int64_t a_stride,
                                                           const typename S::T* b, int64_t b_stride,
                                                           int64_t k, typename S::Reg (&sum)[R][V]) {
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = S::zero();
  for (int64_t q = 0; q < k; ++q, a += a_stride, b += b_stride) {
    typename S::Reg right[V];
    for (int v = 0; v < V; ++v) right[v] = S::load(b + v * S::lanes);
    for (int r = 0; r < R; ++r) {
      const typename S::Reg left = S::fill(a[r]);
      for (int v = 0; v < V; ++v) sum[r][v] = S::fma(left, right[v], sum[r][v]);
    }
  }
}

// Rows i ... last - 1 in tiles of R; what remains in tiles of R / 2, and so on down to 1. R divides the panel
// width.
template <class S, int R, int V, class Epilogue>
inline void product_rows(int64_t i, int64_t last, int64_t j, int64_t k, const Operand<typename S::T>& a,
                         const Operand<typename S::T>& b, const Epilogue& epilogue) {
  constexpr int64_t width = panel_width<S>;
  const typename S::T* right = b.data + j / width * b.panel_stride;
  for (; i + R <= last; i += R) {
    const typename S::T* left = a.data + i / width * a.panel_stride + i % width;
    typename S::Reg sum[R][V];
    accumulate_tile<S, R, V>(left, a.k_stride, right, b.k_stride, k, sum);
    for (int r = 0; r < R; ++r) epilogue.template row<V>(i + r, j, sum[r]);
  }
  if constexpr (R > 1) {
    if (i < last) product_rows<S, R / 2, V>(i, last, j, k, a, b, epilogue);
  }
}

// Rows i ... last - 1 against the panel of columns from j on, of which `columns` are wanted.
template <class S, int V, class Epilogue>
inline void product_panel(int64_t columns, int64_t i, int64_t last, int64_t j, int64_t k,
                          const Operand<typename S::T>& a, const Operand<typename S::T>& b,
                          const Epilogue& epilogue) {
  if (columns > (V - 1) * S::lanes) {
    product_rows<S, S::rows, V>(i, last, j, k, a, b, epilogue);
  } else if constexpr (V > 1) {
    product_panel<S, V - 1>(columns, i, last, j, k, a, b, epilogue);
  }
}

constexpr int64_t all_rows = int64_t{1} << 62;

// All tiles of C[m, n], panel by panel: a right panel stays in L1 while the left operand streams by. The
// right operand must be readable up to the next multiple of `lanes` columns. With `diagonal` = d only entries
// i <= j + d are wanted, and tiles without any are left out.
template <class S, class Epilogue>
inline void product(int64_t m, int64_t n, int64_t k, const Operand<typename S::T>& a,
                    const Operand<typename S::T>& b, const Epilogue& epilogue, int64_t diagonal = all_rows) {
  for (int64_t j = 0; j < n; j += panel_width<S>) {
    const int64_t wanted = j + panel_width<S> + diagonal;
    product_panel<S, S::vectors>(n - j, 0, wanted < m ? wanted : m, j, k, a, b, epilogue);
  }
}

// The same tiles row by row, so that rows of C are written from end to end: for short k, where writing is the
// work.
template <class S, class Epilogue>
inline void product_by_rows(int64_t m, int64_t n, int64_t k, const Operand<typename S::T>& a,
                            const Operand<typename S::T>& b, const Epilogue& epilogue) {
  for (int64_t i = 0; i < m; i += S::rows) {
    const int64_t last = m - i < S::rows ? m : i + S::rows;
    for (int64_t j = 0; j < n; j += panel_width<S>) {
      product_panel<S, S::vectors>(n - j, i, last, j, k, a, b, epilogue);
    }
  }
}

// C[i * stride + j] = tile, or += tile; columns are padded to a multiple of `lanes`, so whole registers are
// written.
template <class S, bool add>
struct StorePadded {
  typename S::T* c;
  int64_t stride;
  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    typename S::T* to = c + i * stride + j;
    for (int v = 0; v < V; ++v) {
      S::store(to + v * S::lanes, add ? S::add(S::load(to + v * S::lanes), sum[v]) : sum[v]);
    }
  }
};

// Another epilogue, and a request for the operands of the next block of terms: while a panel of columns is
// multiplied, for that panel of either operand, spread over the rows. The processor by itself would not
// foresee these blocks, which lie a panel apart.
template <class S, class Epilogue>
struct Fetching {
  Epilogue epilogue;
  Operand<typename S::T> left, right;  // from the next term on
  int64_t step;                        // elements of a panel asked for per row

  template <int V>
  void row(int64_t i, int64_t j, const typename S::Reg (&sum)[V]) const {
    epilogue.template row<V>(i, j, sum);
    __builtin_prefetch(left.data + j / panel_width<S> * left.panel_stride + i * step);
    __builtin_prefetch(right.data + j / panel_width<S> * right.panel_stride + i * step);
  }
};

// The whole depth k in blocks, into a padded buffer.
template <class S>
inline void product_blocked(int64_t m, int64_t n, int64_t k, int64_t block, Operand<typename S::T> a,
                            Operand<typename S::T> b, typename S::T* c, int64_t stride) {
  for (int64_t q = 0; q == 0 || q < k; q += block) {
    const int64_t depth = k - q < block ? k - q : block;
    if (q == 0) {
      product<S>(m, n, depth, a, b, StorePadded<S, false>{c, stride});
    } else {
      product<S>(m, n, depth, a, b, StorePadded<S, true>{c, stride});
    }
    a.data += depth * a.k_stride;
    b.data += depth * b.k_stride;
  }
}

}  // namespace
}  // namespace twophase
