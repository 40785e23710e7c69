// Instruction-set tiers: which one this machine has, which one a call was told to use.
#pragma once
#include <string>
#include <vector>

namespace twophase {

enum class Isa { scalar, avx2, avx512, amx };

// Tiers that are compiled in and supported by processor and operating system, ascending; scalar is always
// there.
const std::vector<Isa>& available_isas();

const char* isa_name(Isa isa);

// The tier of that name. Throws std::invalid_argument if it is unknown or not available here.
Isa parse_isa(const std::string& name);

}  // namespace twophase
