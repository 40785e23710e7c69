// Hands the matrices of one sample and head to a thread, which packs the shared operand once.
#include <algorithm>
#include <memory>

#include "batched_product/batched_product.h"
#include "common/parallel.h"
#include "common/sizes.h"
#include "common/workspace.h"
#include "gemm/gemm.h"

namespace twophase {
namespace {

template <class T>
class BatchedDriver {
 public:
  BatchedDriver(const BatchedProduct<T>& f, const Gemm<T>& gemm) : f_(f), gemm_(gemm) {
    left_size_ = up(gemm.left_size(f.rows, f.terms), 64);
    right_size_ = gemm.right_size(f.columns, f.terms);
  }

  void run(int threads) const {
    const int64_t each = f_.classes * f_.rows * f_.terms * f_.columns, count = f_.samples * f_.heads;
    parallel_tasks(count, each * count < serial_work ? 1 : threads, [&] {
      auto scratch = std::make_shared<Workspace<T>>(left_size_ + right_size_);
      return [&, scratch](int64_t task) { run_one(task / f_.heads, task % f_.heads, scratch->data()); };
    });
  }

 private:
  template <class E>
  static View<E> view(const Matrices<E>& m, int64_t b, int64_t k, int64_t h) {
    const auto& s = m.strides;
    return {m.data + b * s[0] + k * s[1] + h * s[2], s[3], s[4]};
  }

  void run_one(int64_t b, int64_t h, T* left) const {
    T* right = left + left_size_;
    for (int64_t k = 0; k < f_.classes; ++k) {
      if (k == 0 || f_.left.strides[1] != 0) {
        gemm_.pack_left(f_.rows, f_.terms, view(f_.left, b, k, h), left);
      }
      if (k == 0 || f_.right.strides[1] != 0) {
        const View<const T> matrix = view(f_.right, b, k, h);
        gemm_.pack_right(f_.columns, f_.terms, {matrix.data, matrix.col_stride, matrix.row_stride}, right);
      }
      const View<T> out = view(f_.out, b, k, h);
      clear(out);
      gemm_.multiply_packed({f_.rows, f_.columns, f_.terms}, left, right, out);
    }
  }

  void clear(const View<T>& out) const {
    for (int64_t i = 0; i < f_.rows; ++i) {
      T* row = out.data + i * out.row_stride;
      if (out.col_stride == 1) {
        std::fill_n(row, f_.columns, T(0));
      } else {
        for (int64_t j = 0; j < f_.columns; ++j) row[j * out.col_stride] = T(0);
      }
    }
  }

  const BatchedProduct<T>& f_;
  const Gemm<T>& gemm_;
  int64_t left_size_, right_size_;
};

}  // namespace

template <class T>
void batched_product(const BatchedProduct<T>& problem, Isa isa, int threads) {
  BatchedDriver<T>(problem, gemm<T>(isa)).run(threads);
}

template void batched_product(const BatchedProduct<float>&, Isa, int);
template void batched_product(const BatchedProduct<double>&, Isa, int);

}  // namespace twophase
