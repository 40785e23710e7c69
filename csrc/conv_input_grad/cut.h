// What both drivers cut their tasks by.
#pragma once
#include <cstdint>

namespace twophase {
namespace {

constexpr int64_t block_bytes = int64_t{512} << 10;  // of the scratch that a task goes through again
constexpr int64_t tasks_per_thread = 4;

// Planes and rows whose distance is a power of two would fall into the same places of the caches.
template <class T>
constexpr int64_t line_elements = 64 / static_cast<int64_t>(sizeof(T));

}  // namespace
}  // namespace twophase
