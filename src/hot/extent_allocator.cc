#include "hot/extent_allocator.h"

#include <algorithm>

#include "base/result.h"

namespace headrace {

void ExtentAllocator::add_free(uint32_t block, uint32_t blocks) {
  free_.emplace(block, blocks);
  by_size_.emplace(blocks, block);
}

void ExtentAllocator::remove_free(std::map<uint32_t, uint32_t>::iterator at) {
  by_size_.erase({at->second, at->first});
  free_.erase(at);
}

ExtentAllocator::Outcome ExtentAllocator::allocate(uint32_t blocks, Purpose purpose, uint32_t limit) {
  HR_ASSERT(blocks > 0);
  uint64_t usable = purpose == Purpose::kJournal ? blocks_ : blocks_ - reserve_;
  if (uint64_t{used_} + blocks > usable) return {};
  auto fit = by_size_.lower_bound({blocks, 0});
  if (fit != by_size_.end()) {
    auto [size, block] = *fit;
    remove_free(free_.find(block));
    if (size > blocks) add_free(block + blocks, size - blocks);
    used_ += blocks;
    return {block};
  }
  if (uint64_t{frontier_} + blocks > blocks_) return {};
  if (uint64_t{frontier_} + blocks > limit) return {std::nullopt, true};
  uint32_t block = frontier_;
  frontier_ += blocks;
  used_ += blocks;
  return {block};
}

ExtentAllocator::Outcome ExtentAllocator::extend(uint32_t blocks, uint32_t from, uint32_t limit) {
  HR_ASSERT(blocks > 0);
  const uint32_t block = std::max(frontier_, from);
  const uint64_t end = uint64_t{block} + blocks;
  if (uint64_t{used_} + blocks > uint64_t{blocks_} - reserve_ || end > blocks_) return {};
  if (end > limit) return {std::nullopt, true};
  if (block > frontier_) add_free(frontier_, block - frontier_);
  frontier_ = static_cast<uint32_t>(end);
  used_ += blocks;
  return {block};
}

bool ExtentAllocator::take(uint32_t block, uint32_t blocks) {
  uint64_t end = uint64_t{block} + blocks;
  if (blocks == 0 || end > blocks_) return false;
  if (block >= frontier_) {
    if (block > frontier_) add_free(frontier_, block - frontier_);
    frontier_ = static_cast<uint32_t>(end);
    used_ += blocks;
    return true;
  }
  auto at = free_.upper_bound(block);
  if (at == free_.begin()) return false;
  --at;
  auto [from, size] = *at;
  if (end > uint64_t{from} + size) return false;
  remove_free(at);
  if (block > from) add_free(from, block - from);
  if (end < uint64_t{from} + size) add_free(static_cast<uint32_t>(end), static_cast<uint32_t>(from + size - end));
  used_ += blocks;
  return true;
}

void ExtentAllocator::release(uint32_t block, uint32_t blocks) {
  HR_ASSERT(blocks > 0 && block + blocks <= frontier_ && used_ >= blocks);
  used_ -= blocks;
  auto next = free_.lower_bound(block);
  if (next != free_.end()) {
    HR_ASSERT(block + blocks <= next->first);
    if (block + blocks == next->first) {
      blocks += next->second;
      auto gone = next++;
      remove_free(gone);
    }
  }
  if (next != free_.begin()) {
    auto before = std::prev(next);
    HR_ASSERT(before->first + before->second <= block);
    if (before->first + before->second == block) {
      block = before->first;
      blocks += before->second;
      remove_free(before);
    }
  }
  if (block + blocks == frontier_) {
    frontier_ = block;
  } else {
    add_free(block, blocks);
  }
}

}  // namespace headrace
