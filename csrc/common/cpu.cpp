#include "common/cpu.h"

#include <stdexcept>

#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <cpuid.h>
#endif

namespace twophase {
namespace {

constexpr Isa kTiers[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::amx};

#ifdef TWOPHASE_X86
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the wider registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

bool is_available(Isa isa) {
#ifdef TWOPHASE_X86
  if (isa == Isa::avx2) return has_avx2();
  if (isa == Isa::avx512) return has_avx512();
#endif
  return isa == Isa::scalar;
}

}  // namespace

const std::vector<Isa>& available_isas() {
  // Asked once: in a virtual machine the cpuid instruction costs tens of microseconds.
  static const std::vector<Isa> tiers = [] {
    std::vector<Isa> found;
    for (const Isa isa : kTiers) {
      if (is_available(isa)) found.push_back(isa);
    }
    return found;
  }();
  return tiers;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

Isa parse_isa(const std::string& name) {
  for (const Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument("instruction set '" + name + "' is unknown or not available on this processor");
}

}  // namespace twophase
