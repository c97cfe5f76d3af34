// ExtentAllocator: contiguous free space of a target's data space, in 4 KiB blocks.
//
// Everything from the frontier on is free; below it free extents are kept by size (best fit, lowest
// address among equals), neighbours always merged, none touching the frontier: so space is used
// from the front, and what must be prewritten grows slowly. Owner: Target. One core.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace headrace {

class ExtentAllocator {
 public:
  // `reserve` blocks can be had by journals only.
  ExtentAllocator(uint32_t blocks, uint32_t reserve) : blocks_(blocks), reserve_(reserve) {}

  enum class Purpose : uint8_t { kFragment, kJournal };
  struct Outcome {
    std::optional<uint32_t> block;
    bool beyond_limit = false;  // there is space, but not below `limit`
  };
  // Below `limit` (what is prewritten).
  [[nodiscard]] Outcome allocate(uint32_t blocks, Purpose purpose, uint32_t limit);
  // Behind everything that is in use, not before block `from`, for a fragment; what lies between becomes free.
  [[nodiscard]] Outcome extend(uint32_t blocks, uint32_t from, uint32_t limit);
  // False when a part of it is in use already.
  [[nodiscard]] bool take(uint32_t block, uint32_t blocks);
  void release(uint32_t block, uint32_t blocks);
  [[nodiscard]] uint32_t frontier() const { return frontier_; }
  [[nodiscard]] uint32_t used() const { return used_; }
  [[nodiscard]] uint32_t largest_free() const {  // below the frontier
    return by_size_.empty() ? 0 : by_size_.rbegin()->first;
  }
  [[nodiscard]] uint32_t blocks() const { return blocks_; }

 private:
  void add_free(uint32_t block, uint32_t blocks);
  void remove_free(std::map<uint32_t, uint32_t>::iterator at);

  uint32_t blocks_;
  uint32_t reserve_;
  uint32_t frontier_ = 0;
  uint32_t used_ = 0;
  std::map<uint32_t, uint32_t> free_;                // block → blocks
  std::set<std::pair<uint32_t, uint32_t>> by_size_;  // (blocks, block)
};

}  // namespace headrace
