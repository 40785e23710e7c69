#include "common/cpu.h"

#include <atomic>
#include <stdexcept>

#include "common/x86.h"

#ifdef TWOPHASE_X86
#include <cpuid.h>
#endif

#if defined(TWOPHASE_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace twophase {
namespace {

constexpr Isa kTiers[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::amx};
constexpr MatrixUnit kUnits[] = {MatrixUnit::amx, MatrixUnit::emulated, MatrixUnit::emulated_avx512};

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

#ifdef TWOPHASE_AMX
bool cpuid_bits(unsigned subleaf, bool in_edx, unsigned bits) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx) != 0 && ((in_edx ? edx : eax) & bits) == bits;
}

bool has_avx512_bf16() { return has_avx512() && cpuid_bits(1, false, 1u << 5); }

// Whether the operating system saves the tile configuration and the tiles (bits 17 and 18 of XCR0).
bool saves_tiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return false;
  constexpr unsigned tiles = 3u << 17;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (eax & tiles) == tiles;
}

bool has_amx() {
  constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
  return has_avx512_bf16() && cpuid_bits(0, true, amx_bf16 | amx_tile) && saves_tiles() && permit_tiles();
}
#endif

bool is_available(Isa isa) {
#ifdef TWOPHASE_X86
  if (isa == Isa::avx2) return has_avx2();
  if (isa == Isa::avx512) return has_avx512();
#endif
#ifdef TWOPHASE_AMX
  if (isa == Isa::amx) return has_amx();
#endif
  return isa == Isa::scalar;
}

bool is_available(MatrixUnit unit) {
#ifdef TWOPHASE_AMX
  if (unit == MatrixUnit::amx) return available_isas().back() == Isa::amx;
  if (unit == MatrixUnit::emulated_avx512) return has_avx512_bf16();
#endif
  return unit == MatrixUnit::emulated;
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

const std::vector<MatrixUnit>& available_matrix_units() {
  static const std::vector<MatrixUnit> units = [] {
    std::vector<MatrixUnit> found;
    for (const MatrixUnit unit : kUnits) {
      if (is_available(unit)) found.push_back(unit);
    }
    return found;
  }();
  return units;
}

const char* matrix_unit_name(MatrixUnit unit) {
  switch (unit) {
    case MatrixUnit::amx:
      return "amx";
    case MatrixUnit::emulated:
      return "amx-emulated";
    case MatrixUnit::emulated_avx512:
      return "amx-emulated-avx512";
  }
  return "unknown";
}

MatrixUnit parse_matrix_unit(const std::string& name) {
  for (const MatrixUnit unit : available_matrix_units()) {
    if (name == matrix_unit_name(unit)) return unit;
  }
  throw std::invalid_argument("matrix unit '" + name + "' is unknown or not available on this processor");
}

bool permit_tiles() {
#if defined(TWOPHASE_AMX) && defined(__linux__)
  static std::atomic<pid_t> permitted{0};
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  const pid_t self = getpid();
  if (permitted == self) return true;
  if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return false;
  permitted = self;
  return true;
#else
  return false;
#endif
}

Isa parse_isa(const std::string& name) {
  for (const Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument("instruction set '" + name + "' is unknown or not available on this processor");
}

}  // namespace twophase
