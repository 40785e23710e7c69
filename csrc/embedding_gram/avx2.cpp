#include "common/x86.h"

#ifdef TWOPHASE_X86
#include "common/simd_avx2.h"
#include "embedding_gram/tier.h"

namespace twophase {

const EmbeddingKernels<float> embedding_avx2_f32 = embedding_kernels<Avx2F32>();
const EmbeddingKernels<double> embedding_avx2_f64 = embedding_kernels<Avx2F64>();

}  // namespace twophase
#endif
