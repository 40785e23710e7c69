// Factored Gram blocks (factored_gram/factored_gram.h) of float32 operands split into two bfloat16 parts.
//
// Method tiles: A A^T and G G^T of a chunk of 256 x 256 positions on the matrix unit, kept in L2, multiplied
// entry by entry and summed per pair of samples. A A^T is made of all four products of parts, G G^T of three
// (split_gram.h), so that the errors of both together stay near those of one. Where the operands of two
// groups of samples leave the range given there, the groups are multiplied in float32.
//
// Every order follows from shapes and blocks. `blocks` as in factored_gram.h; rows and depth have no part.
#pragma once
#include "factored_gram/factored_gram.h"

namespace twophase {

// Throws std::runtime_error if the operating system refuses this process the tile registers.
void split_factored_gram(const FactoredGram<float>& problem, const FactoredBlocks& blocks, MatrixUnit unit,
                         int threads);

}  // namespace twophase
