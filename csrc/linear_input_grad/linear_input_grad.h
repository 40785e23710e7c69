// Cotangents pulled back through a linear layer, and through an element-wise function before it.
//
//   out(b, k, t, i) (+)= (sum over o of g(b, k, t, o) weight(o, i)) scale(b, t, i)
//
// The weight is packed once and shared by the threads; each row is scaled, and added, as it leaves the
// registers, so neither costs a pass. 2 B K T O I operations; up to a few outputs O, writing `out` is the
// work. Element types float and double; sums in that type: in registers for 768 bytes of terms at most, then
// block after block. Terms o that are zero for all outputs of a sample are left out where there are many (T =
// 1; common/active.h). The order follows from g alone: neither blocks of rows nor threads change a bit.
#pragma once
#include <cstdint>

#include "common/cpu.h"

namespace twophase {

template <class T>
struct LinearInputGrad {
  int64_t samples, classes, positions, outputs, inputs;
  const T* g;       // [samples, classes, positions, outputs], contiguous
  const T* weight;  // [outputs, inputs] with the two strides that follow
  int64_t weight_output, weight_input;
  const T* scale;  // [samples, positions, inputs], contiguous, or null
  T* out;          // [samples, classes, positions, inputs], contiguous
  bool add;        // to what out holds; otherwise that is never read
};

template <class T>
void linear_input_grad(const LinearInputGrad<T>& problem, Isa isa, int threads);

}  // namespace twophase
