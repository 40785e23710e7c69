// Memory for packed operands and scratch that outlives a call: fresh pages cost more than packing into them
// (a page fault per 4 KiB: 1.6 ms against 0.1 ms for 2.6 MB), so freed blocks are kept, up to a bound, for
// the next call.
#pragma once
#include <cstddef>
#include <cstdint>

namespace twophase {

// Bytes of freed blocks kept at most.
constexpr size_t workspace_bound = size_t{32} << 20;

struct WorkspaceBlock {
  void* memory;
  size_t bytes;
};

// A block of at least `bytes`, 64-byte aligned, contents undefined. Throws std::bad_alloc. Thread-safe; never
// waits.
WorkspaceBlock take_block(size_t bytes);

void give_back(const WorkspaceBlock& block);

// Uninitialised memory of one owner.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t size) : block_(take_block(static_cast<size_t>(size) * sizeof(T))) {}
  ~Workspace() { give_back(block_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* data() { return static_cast<T*>(block_.memory); }

 private:
  WorkspaceBlock block_;
};

}  // namespace twophase
