#include "common/workspace.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace twophase {
namespace {

// Freed blocks, oldest first.
struct Pool {
  std::mutex guard;
  std::vector<WorkspaceBlock> blocks;
  size_t bytes = 0;

  void remove(size_t i) {
    bytes -= blocks[i].bytes;
    blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i));
  }
};

// Never destroyed: threads may still give blocks back while the process ends.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

// The smallest kept block that holds `bytes` without wasting more than half of itself, else none.
WorkspaceBlock take_kept(size_t bytes) {
  Pool& kept = pool();
  const std::unique_lock<std::mutex> lock(kept.guard, std::try_to_lock);
  if (!lock) return {nullptr, 0};
  size_t best = kept.blocks.size();
  for (size_t i = 0; i < kept.blocks.size(); ++i) {
    const size_t size = kept.blocks[i].bytes;
    if (size < bytes || size > 2 * bytes) continue;
    if (best == kept.blocks.size() || size < kept.blocks[best].bytes) best = i;
  }
  if (best == kept.blocks.size()) return {nullptr, 0};
  const WorkspaceBlock block = kept.blocks[best];
  kept.remove(best);
  return block;
}

}  // namespace

WorkspaceBlock take_block(size_t bytes) {
  const size_t rounded = (bytes / 64 + 1) * 64;
  const WorkspaceBlock kept = take_kept(rounded);
  if (kept.memory != nullptr) return kept;
  void* memory = std::aligned_alloc(64, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, rounded};
}

void give_back(const WorkspaceBlock& block) {
  Pool& kept = pool();
  const std::unique_lock<std::mutex> lock(kept.guard, std::try_to_lock);
  if (!lock || block.bytes > workspace_bound) return std::free(block.memory);
  while (kept.bytes + block.bytes > workspace_bound) {
    std::free(kept.blocks.front().memory);
    kept.remove(0);
  }
  kept.blocks.push_back(block);
  kept.bytes += block.bytes;
}

}  // namespace twophase
