// When to write past the caches.
#pragma once
#include <cstdint>

namespace twophase {

// Results of this size leave the caches before they are used. Measured: 1.5 to 2 times as fast for per-sample
// gradients with short sums.
constexpr int64_t stream_bytes = int64_t{24} << 20;

// Whether a result is large, and starts where whole registers of `lanes` elements can be written. So must its
// rows, which is for the caller to see to.
template <class T>
bool streams(const T* out, int64_t elements, int64_t lanes) {
  constexpr auto size = static_cast<int64_t>(sizeof(T));
  return elements * size >= stream_bytes &&
         reinterpret_cast<uintptr_t>(out) % static_cast<uintptr_t>(lanes * size) == 0;
}

}  // namespace twophase
