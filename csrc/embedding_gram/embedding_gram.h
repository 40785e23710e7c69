// Embedding Gram block: inner products of the gradients of an embedding table, by matching equal tokens.
//
//   full(n, m, c, e)  += sum_{t,s} [tokens(n,t) = tokens2(m,s)] <g(n,c,t), g2(m,e,s)>
//   trace(n, m)       += sum_c full(n, m, c, c)          diagonal(n, m, c) += full(n, m, c, c)
//
// Tokens equal to `padding` contribute nothing. In the symmetric case (right = left) only pairs n <= m are
// added.
//
// The cotangents of equal tokens of a sample are added first, in ascending t; two samples then share at most
// as many rows as they have different tokens, found by merging the sorted tokens: 2 p C E FLOPs per shared
// token, for trace 2 p C. Beside the operands there is a padded copy of the cotangents of at most `workspace`
// elements per side (one sample at least). Every entry is summed in an order fixed by the shapes and the
// tokens, for any number of threads.
#pragma once
#include <cstdint>

#include "common/cpu.h"
#include "common/gram_output.h"

namespace twophase {

// One side's operands; strides count elements.
template <class T>
struct TokenSide {
  const int64_t* tokens;
  const T* g;
  int64_t samples, positions, classes;
  int64_t token_sample, token_position;
  int64_t g_sample, g_class, g_position, g_output;
};

template <class T>
struct EmbeddingGram {
  TokenSide<T> left, right;
  bool symmetric;  // right is left
  int64_t outputs;
  int64_t padding;  // token that is left out; the least int64 for none
  GramOutput output;
  T* out;
  int64_t out_n, out_m, out_c, out_e;  // strides; trace uses two, diagonal three of them
};

template <class T>
void embedding_gram(const EmbeddingGram<T>& problem, int64_t workspace, Isa isa, int threads);

}  // namespace twophase
