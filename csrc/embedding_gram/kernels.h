// What a vector tier provides to the driver (dispatch.cpp), single-threaded.
#pragma once
#include <cstdint>

#include "embedding_gram/embedding_gram.h"

namespace twophase {

// Rows that two samples share: left[i] and right[i] are classes x padded outputs of the same token.
template <class T>
struct SharedRows {
  int64_t count;
  const T* const* left;
  const T* const* right;
  int64_t padded_outputs;
  T* out;  // entry (n, m)
};

template <class T>
struct EmbeddingKernels {
  int64_t lanes;  // outputs are padded with zeros to a multiple of it
  void (*add)(const EmbeddingGram<T>& problem, const SharedRows<T>& shared);
};

extern const EmbeddingKernels<float> embedding_avx2_f32;
extern const EmbeddingKernels<double> embedding_avx2_f64;
extern const EmbeddingKernels<float> embedding_avx512_f32;
extern const EmbeddingKernels<double> embedding_avx512_f64;

template <class T>
void embedding_gram_scalar(const EmbeddingGram<T>& problem, int threads);

}  // namespace twophase
