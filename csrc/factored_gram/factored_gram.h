// Factored Gram block: inner products of per-sample gradients J_nc = sum_t g_nct a_nt^T without forming them.
//
//   full(n, m, c, e)  += sum_{t,s} <a(n,t), a2(m,s)> <g(n,c,t), g2(m,e,s)>
//   trace(n, m)       += sum_c full(n, m, c, c)          diagonal(n, m, c) += full(n, m, c, c)
//
// a [N, T, d], g [N, C, T, p] and their right counterparts [M, S, d], [M, E, S, p] have any strides and are
// only read; `out` has any strides. Element types float and double; products are summed in that type.
//
// In the symmetric case (right = left) only entries (n, c) <= (m, e) of the kernel matrix are defined
// afterwards.
//
// Three methods, FLOPs per pair of samples:
//   tiles      2TS(d + p * number of class products): blocks of A A^T and G G^T over (n,t) x (m,s) in cache,
//   multiplied
//              and summed per pair of samples. For trace the class products are one product of depth C p.
//   pointwise  full with T = S = 1: 2(d + C E p); rows are (n,c), and A A^T scales G G^T in registers as it
//   is added. half       full: M = a a2^T over positions, H = M g2, then <g, H>: 2TS(d + E p) + 2 T p C E.
// T x S is never in memory as a whole: blocks hold `rows` positions of the left side, and (half) all S.
//
// Every entry is summed in an order fixed by shapes, blocks and the number of threads, so repeats are bitwise
// equal.
#pragma once
#include <cstdint>

#include "common/cpu.h"
#include "common/gram_output.h"

namespace twophase {

enum class GramMethod { tiles, pointwise, half };

// One side's operands; strides count elements.
template <class T>
struct FactoredSide {
  const T* a;
  const T* g;
  int64_t samples, positions, classes;
  int64_t a_sample, a_position, a_input;
  int64_t g_sample, g_class, g_position, g_output;
};

template <class T>
struct FactoredGram {
  FactoredSide<T> left, right;
  bool symmetric;  // right is left
  int64_t inputs, outputs;
  GramOutput output;
  T* out;
  int64_t out_n, out_m, out_c, out_e;  // strides; trace uses two, diagonal three of them
};

// Sizes of cache blocks (config.py).
struct FactoredBlocks {
  int64_t rows;       // positions (or classes, for pointwise) per side of a block
  int64_t columns;    // half: columns of H held at once
  int64_t depth;      // terms summed in registers before they are added to a block
  int64_t workspace;  // elements of packed operands per side, before samples are cut into groups
};

// The scalar tier ignores method and blocks: it is the definition, loop by loop.
template <class T>
void factored_gram(const FactoredGram<T>& problem, GramMethod method, const FactoredBlocks& blocks, Isa isa,
                   int threads);

}  // namespace twophase
