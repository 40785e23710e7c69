#include "random_projection/random_projection.h"

#include <algorithm>
#include <array>
#include <memory>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/workspace.h"

namespace twophase {
namespace {

constexpr int64_t kPanel = 256;       // terms whose signs exist at a time
constexpr int64_t kRows = 512;        // rows of a task
constexpr int64_t kDirections = 128;  // directions of a task: the signs of one counter

using Words = std::array<uint32_t, 4>;

// Philox-4x32-10.
Words philox(Words c, uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p2 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p2 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(p2),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(p0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return c;
}

// The 128 signs of one row of S and one counter.
template <class T>
void fill_signs(uint64_t row, uint32_t counter, uint64_t seed, T* signs) {
  const Words words =
      philox({static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32), counter, 0}, seed);
  for (int64_t word = 0; word < 4; ++word) {
    for (int64_t bit = 0; bit < 32; ++bit) {
      signs[32 * word + bit] = static_cast<T>(static_cast<int32_t>(words[word] >> bit & 1) * 2 - 1);
    }
  }
}

template <class T>
class ProjectionTask {
 public:
  ProjectionTask(const RandomProjection<T>& problem, const Gemm<T>& gemm)
      : p_(problem),
        gemm_(gemm),
        signs_(kPanel * kDirections),
        scratch_(gemm.scratch_size(std::min(kRows, p_.rows), kDirections, kPanel)) {}

  // Adds to rows from `row` on and directions from `first` on, a multiple of kDirections.
  void run(int64_t row, int64_t first) {
    const int64_t columns = std::min(kDirections, p_.directions - first);
    for (int64_t q = 0; q < p_.depth; q += kPanel) {
      const int64_t terms = std::min(kPanel, p_.depth - q);
      for (int64_t i = 0; i < terms; ++i) {
        const auto counter = static_cast<uint32_t>(first / kDirections);
        fill_signs(p_.offset + static_cast<uint64_t>(q + i), counter, p_.seed,
                   signs_.data() + i * kDirections);
      }
      const GemmShape shape{std::min(kRows, p_.rows - row), columns, terms};
      gemm_.multiply(shape, at(p_.x, row, q), {signs_.data(), 1, kDirections}, at(p_.out, row, first),
                     scratch_.data());
    }
  }

 private:
  template <class Element>
  static View<Element> at(const View<Element>& view, int64_t row, int64_t column) {
    return {view.data + row * view.row_stride + column * view.col_stride, view.row_stride, view.col_stride};
  }

  const RandomProjection<T>& p_;
  const Gemm<T>& gemm_;
  Workspace<T> signs_;
  Workspace<T> scratch_;
};

}  // namespace

template <class T>
void random_projection(const RandomProjection<T>& problem, Isa isa, int threads) {
  const int64_t row_blocks = ceil_div(problem.rows, kRows);
  const int64_t blocks = ceil_div(problem.directions, kDirections);
  parallel_tasks(row_blocks * blocks, threads, [&] {
    return [&, task = std::make_unique<ProjectionTask<T>>(problem, gemm<T>(isa))](int64_t index) {
      task->run(index / blocks * kRows, index % blocks * kDirections);
    };
  });
}

template void random_projection(const RandomProjection<float>&, Isa, int);
template void random_projection(const RandomProjection<double>&, Isa, int);

}  // namespace twophase
