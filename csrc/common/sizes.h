// Small integer steps for drivers and kernels alike: in an anonymous namespace and without the standard
// library, as all that files with wide instructions include (csrc/README.md).
#pragma once
#include <cstdint>

namespace twophase {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

inline int64_t ceil_div(int64_t size, int64_t by) { return (size + by - 1) / by; }

// The next multiple of `to`.
inline int64_t up(int64_t size, int64_t to) { return ceil_div(size, to) * to; }

}  // namespace
}  // namespace twophase
