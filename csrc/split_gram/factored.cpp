// Factored Gram blocks over all samples and threads.
#include "split_gram/split_factored.h"

#include <memory>
#include <utility>
#include <vector>

#include "split_gram/packed_samples.h"

namespace twophase {
namespace {

constexpr int64_t kChunk = 256;  // positions per side: two chunks of products fit L2 beside their operands
constexpr GramWeights kNoWeights{};

// A block of left samples against a block of right ones, chunk by chunk.
class BlockPair {
 public:
  BlockPair(const FactoredGram<float>& f, const SplitKernels& kernels, PackedSamples& left,
            PackedSamples& right, float* scratch)
      : f_(f), kernels_(kernels), left_(left), right_(right), scratch_(scratch) {}

  static int64_t scratch_size() { return 2 * kChunk * kChunk + kChunk; }

  void run(int64_t i, int64_t j) {
    const int64_t rows = left_.positions_of(i), columns = right_.positions_of(j);
    for (int64_t row = 0; row < rows; row += kChunk) {
      for (int64_t column = 0; column < columns; column += kChunk) {
        run_chunk({i, j, row, std::min(kChunk, rows - row), column, std::min(kChunk, columns - column)});
      }
    }
  }

 private:
  struct Chunk {
    int64_t i, j, row, rows, column, columns;

    int64_t stride() const { return up(columns, kTileRows); }
  };

  void run_chunk(const Chunk& chunk) {
    clear(weights(), chunk);
    multiply(chunk, left_.a(), chunk.i, right_.a(), chunk.j, left_.a_round(), true, weights());
    if (f_.output != GramOutput::trace) return classes(chunk);
    clear(products(), chunk);
    for (int64_t c = 0; c < f_.left.classes; ++c) add_class(chunk, c, c);
    reduce(chunk, f_.out);
  }

  void classes(const Chunk& chunk) {
    const bool full = f_.output == GramOutput::full;
    for (int64_t c = 0; c < f_.left.classes; ++c) {
      for (int64_t e = full ? 0 : c; e < (full ? f_.right.classes : c + 1); ++e) {
        clear(products(), chunk);
        add_class(chunk, c, e);
        reduce(chunk, f_.out + c * f_.out_c + (full ? e * f_.out_e : 0));
      }
    }
  }

  float* weights() const { return scratch_; }
  float* products() const { return scratch_ + kChunk * kChunk; }

  static void clear(float* to, const Chunk& chunk) { std::fill_n(to, chunk.rows * chunk.stride(), 0.0f); }

  void add_class(const Chunk& chunk, int64_t c, int64_t e) {
    multiply(chunk, left_.g(), left_.matrix_of(chunk.i, c), right_.g(), right_.matrix_of(chunk.j, e),
             left_.g_round(), false, products());
  }

  // Both sides are as deep, so their panels and groups are of one size.
  void multiply(const Chunk& chunk, PackedRows& left, int64_t i, PackedRows& right, int64_t j,
                const Round& depth, bool all, float* to) {
    const int64_t group = left.group_size();
    for (int64_t panel = 0; panel < depth.panels(); ++panel) {
      kernels_.multiply({left.left(depth, i, panel) + chunk.row / kTileRows * group,
                         right.right(depth, j, panel) + chunk.column / kTileRows * group,
                         group,
                         depth.steps(panel),
                         0,
                         chunk.rows,
                         0,
                         chunk.columns,
                         false,
                         all,
                         {to, chunk.stride(), 1},
                         &kNoWeights});
    }
  }

  void reduce(const Chunk& chunk, float* out) {
    kernels_.reduce(
        {weights(),
         products(),
         chunk.stride(),
         chunk.row,
         chunk.rows,
         chunk.column,
         chunk.columns,
         f_.left.positions,
         f_.right.positions,
         {out + left_.first_of(chunk.i) * f_.out_n + right_.first_of(chunk.j) * f_.out_m, f_.out_n, f_.out_m},
         scratch_ + 2 * kChunk * kChunk});
  }

  const FactoredGram<float>& f_;
  const SplitKernels& kernels_;
  PackedSamples &left_, &right_;
  float* scratch_;
};

class SplitFactoredRun {
 public:
  SplitFactoredRun(const FactoredGram<float>& f, const FactoredBlocks& blocks, MatrixUnit unit, int threads)
      : f_(f), blocks_(blocks), kernels_(split_kernels(unit)), threads_(threads) {}

  void run() {
    const int64_t right_block = size_of_block(f_.right), left_block = size_of_block(f_.left);
    const int64_t right_step = group_size(f_, f_.right, right_block, blocks_.workspace);
    const int64_t left_step = group_size(f_, f_.left, left_block, blocks_.workspace);
    for (int64_t m = 0; m < f_.right.samples; m += right_step) {
      PackedSamples right(f_, f_.right, right_block, m, std::min(f_.right.samples, m + right_step),
                          f_.symmetric, true);
      right.pack(kernels_, threads_);
      for (int64_t n = 0; n < (f_.symmetric ? m : f_.left.samples); n += left_step) {
        PackedSamples left(f_, f_.left, left_block, n, std::min(f_.left.samples, n + left_step), true, false);
        left.pack(kernels_, threads_);
        multiply(left, right, false);
      }
      if (f_.symmetric) multiply(right, right, true);
    }
  }

 private:
  static int64_t size_of_block(const FactoredSide<float>& side) {
    return block_size(side, side.positions, kChunk);
  }

  void multiply(PackedSamples& left, PackedSamples& right, bool upper) {
    const bool safe = in_range(left.a().largest(), right.a().largest()) &&
                      in_range(left.g().largest(), right.g().largest());
    safe ? multiply_split(left, right, upper) : multiply_in_float32(left, right, upper);
  }

  void multiply_split(PackedSamples& left, PackedSamples& right, bool upper) {
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t j = 0; j < right.blocks(); ++j) {
      for (int64_t i = 0; i < (upper ? j + 1 : left.blocks()); ++i) pairs.emplace_back(i, j);
    }
    parallel_tasks(static_cast<int64_t>(pairs.size()), threads_, [&] {
      return [&, scratch = std::make_unique<Workspace<float>>(BlockPair::scratch_size()),
              scope = std::make_unique<TileScope>(kernels_)](int64_t index) {
        const auto& [i, j] = pairs[static_cast<size_t>(index)];
        BlockPair(f_, kernels_, left, right, scratch->data()).run(i, j);
      };
    });
  }

  void multiply_in_float32(const PackedSamples& left, const PackedSamples& right, bool upper) const {
    FactoredGram<float> part = f_;
    part.symmetric = upper;
    restrict(part.left, left);
    restrict(part.right, right);
    part.out += left.first() * f_.out_n + right.first() * f_.out_m;
    factored_gram(part, GramMethod::tiles, blocks_, available_isas().back(), threads_);
  }

  static void restrict(FactoredSide<float>& side, const PackedSamples& samples) {
    side.a += samples.first() * side.a_sample;
    side.g += samples.first() * side.g_sample;
    side.samples = samples.last() - samples.first();
  }

  const FactoredGram<float>& f_;
  const FactoredBlocks& blocks_;
  const SplitKernels& kernels_;
  const int threads_;
};

bool is_empty(const FactoredGram<float>& f) {
  return f.left.samples * f.left.positions * f.left.classes == 0 ||
         f.right.samples * f.right.positions * f.right.classes == 0 || f.inputs * f.outputs == 0;
}

}  // namespace

void split_factored_gram(const FactoredGram<float>& problem, const FactoredBlocks& blocks, MatrixUnit unit,
                         int threads) {
  if (is_empty(problem)) return;
  require_tiles(unit);
  SplitFactoredRun(problem, blocks, unit, threads).run();
}

}  // namespace twophase
