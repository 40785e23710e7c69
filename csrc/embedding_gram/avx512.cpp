#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx512.h"
#include "embedding_gram/tier.h"

namespace twophase {

const EmbeddingKernels<float> embedding_avx512_f32 = embedding_kernels<Avx512F32>();
const EmbeddingKernels<double> embedding_avx512_f64 = embedding_kernels<Avx512F64>();

}  // namespace twophase
#endif
