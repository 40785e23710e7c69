// The choice among the vector tiers of an op; only a dispatch.cpp makes it.
#pragma once
#include <type_traits>

#include "common/cpu.h"
#include "common/x86.h"

namespace twophase {

// What the vector tiers of an op provide; null where the compiler cannot build them.
template <class Kernels>
struct VectorTiers {
  const Kernels *avx2 = nullptr, *avx512 = nullptr;

  // The widest that `isa` allows; null for the scalar tier.
  const Kernels* of(Isa isa) const {
    if (isa >= Isa::avx512) return avx512;
    return isa >= Isa::avx2 ? avx2 : nullptr;
  }

  const Kernels& of(Isa isa, const Kernels& scalar) const {
    const Kernels* vector = of(isa);
    return vector ? *vector : scalar;
  }
};

// The same for ops with kernels of either element type.
template <template <class> class Kernels>
struct TypedTiers {
  VectorTiers<Kernels<float>> f32;
  VectorTiers<Kernels<double>> f64;

  template <class T>
  const Kernels<T>* of(Isa isa) const {
    if constexpr (std::is_same_v<T, float>) {
      return f32.of(isa);
    } else {
      return f64.of(isa);
    }
  }
};

}  // namespace twophase
