// BlockCache: large blocks of memory, used again instead of being given back to the kernel.
//
// A fresh block of a megabyte costs 256 page faults, which is more than moving the megabyte through
// a socket. Process-wide, for Buffers die on any thread; keeps at most kMaxIdle bytes that nobody
// uses. Without effect under AddressSanitizer, which must see memory go.
#pragma once

#include <cstddef>

#include "base/bytes.h"

namespace headrace {

inline constexpr size_t kSmallestCachedBlock = 64 * kKiB;
inline constexpr size_t kLargestCachedBlock = 32 * kMiB;
inline constexpr size_t kMaxIdle = 256 * kMiB;

// At least `size` bytes, aligned to kBlock, uninitialised. Give it back with the same size. Throws
// bad_alloc.
[[nodiscard]] std::byte* take_block(size_t size);
void give_block(std::byte* block, size_t size);
[[nodiscard]] size_t idle_block_bytes();  // kept now, for status

}  // namespace headrace
