// The kernels of one vector tier, written once; included once by each tier's file.
#pragma once
#include "common/dot.h"
#include "embedding_gram/kernels.h"

namespace twophase {
namespace {

// The rows of some classes of shared tokens.
template <class T>
struct ListedRows {
  const T* const* rows;
  int64_t offset;
  const T* operator[](int64_t i) const { return rows[i] + offset; }
};

template <class S>
inline void add_shared(const EmbeddingGram<typename S::T>& f, const SharedRows<typename S::T>& shared) {
  using T = typename S::T;
  const int64_t p = shared.padded_outputs, classes = f.left.classes;
  if (f.output == GramOutput::full) {
    const ClassDots<T> dots{p, p, shared.count, p, shared.out, f.out_c, f.out_e};
    dot_classes<S>(dots, ListedRows<T>{shared.left, 0}, ListedRows<T>{shared.right, 0}, classes,
                   f.right.classes);
  } else if (f.output == GramOutput::trace) {
    const ClassDots<T> dots{0, 0, shared.count, p * classes, shared.out, 0, 0};
    dot_classes<S>(dots, ListedRows<T>{shared.left, 0}, ListedRows<T>{shared.right, 0}, 1, 1);
  } else {
    for (int64_t c = 0; c < classes; ++c) {
      const ClassDots<T> dots{0, 0, shared.count, p, shared.out + c * f.out_c, 0, 0};
      dot_classes<S>(dots, ListedRows<T>{shared.left, c * p}, ListedRows<T>{shared.right, c * p}, 1, 1);
    }
  }
}

template <class S>
constexpr EmbeddingKernels<typename S::T> embedding_kernels() {
  return {S::lanes, add_shared<S>};
}

}  // namespace
}  // namespace twophase
