// The different tokens of some samples, sorted, each with the sum of its cotangents; part of the driver.
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "common/parallel.h"
#include "common/sizes.h"
#include "common/workspace.h"
#include "embedding_gram/embedding_gram.h"

namespace twophase {
namespace {

template <class T>
class TokenRows {
 public:
  // Samples first ... last - 1 of a side; outputs are padded with zeros to a multiple of `lanes`.
  TokenRows(const EmbeddingGram<T>& f, const TokenSide<T>& side, int64_t lanes, int64_t first, int64_t last,
            int threads)
      : side_(side),
        outputs_(f.outputs),
        padded_(up(f.outputs, lanes)),
        padding_(f.padding),
        first_(first),
        tokens_(static_cast<size_t>(last - first)),
        sums_((last - first) * side.positions * row_size()) {
    parallel_tasks(last - first, threads, [&] { return [&](int64_t i) { collect(i); }; });
  }

  int64_t first() const { return first_; }
  int64_t samples() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t padded_outputs() const { return padded_; }
  const std::vector<int64_t>& tokens(int64_t i) const { return tokens_[static_cast<size_t>(i)]; }

  // Sum of the cotangents of token number k of sample i: classes x padded outputs.
  const T* row(int64_t i, size_t k) { return place(i, static_cast<int64_t>(k)); }

 private:
  int64_t row_size() const { return side_.classes * padded_; }
  T* place(int64_t i, int64_t k) { return sums_.data() + (i * side_.positions + k) * row_size(); }

  void collect(int64_t i) {
    std::vector<std::pair<int64_t, int64_t>> found;  // (token, position)
    const int64_t* tokens = side_.tokens + (first_ + i) * side_.token_sample;
    for (int64_t t = 0; t < side_.positions; ++t) {
      if (tokens[t * side_.token_position] != padding_)
        found.emplace_back(tokens[t * side_.token_position], t);
    }
    std::sort(found.begin(), found.end());
    std::vector<int64_t>& different = tokens_[static_cast<size_t>(i)];
    for (const auto& [token, t] : found) {
      const bool is_new = different.empty() || different.back() != token;
      if (is_new) different.push_back(token);
      add_position(i, t, place(i, static_cast<int64_t>(different.size()) - 1), is_new);
    }
  }

  void add_position(int64_t i, int64_t t, T* row, bool is_new) const {
    for (int64_t c = 0; c < side_.classes; ++c, row += padded_) {
      const T* g = side_.g + (first_ + i) * side_.g_sample + c * side_.g_class + t * side_.g_position;
      if (is_new) std::fill(row, row + padded_, T(0));
      for (int64_t p = 0; p < outputs_; ++p) row[p] += g[p * side_.g_output];
    }
  }

  const TokenSide<T>& side_;
  const int64_t outputs_, padded_, padding_, first_;
  std::vector<std::vector<int64_t>> tokens_;
  Workspace<T> sums_;
};

}  // namespace
}  // namespace twophase
