// Instruction-set tiers and matrix units: which ones this machine has, which one a call was told to use.
#pragma once
#include <string>
#include <vector>

namespace twophase {

enum class Isa { scalar, avx2, avx512, amx };

// Tiers that are compiled in and supported by processor and operating system, ascending; scalar is always
// there.
const std::vector<Isa>& available_isas();

const char* isa_name(Isa isa);

// Who multiplies tiles of bfloat16 for the kernels on split operands (split_gram/split_gram.h). The emulated
// units compute what `amx` computes, bit by bit, in plain C++: `emulated` everywhere; `emulated_avx512` with
// the packing of `amx`, where the processor has AVX-512 with bfloat16.
enum class MatrixUnit { amx, emulated, emulated_avx512 };

// Units that work here, `amx` first if it is there.
const std::vector<MatrixUnit>& available_matrix_units();

const char* matrix_unit_name(MatrixUnit unit);

// The unit of that name. Throws std::invalid_argument if it is unknown or not available here.
MatrixUnit parse_matrix_unit(const std::string& name);

// Asks the operating system for the tile registers, once per process: a forked child asks again. Returns
// whether this process may use them. Call it before any tile instruction.
bool permit_tiles();

// The tier of that name. Throws std::invalid_argument if it is unknown or not available here.
Isa parse_isa(const std::string& name);

}  // namespace twophase
