#include "base/block_cache.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace headrace {

namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEADRACE_NO_BLOCK_CACHE
#endif
#endif

#ifdef HEADRACE_NO_BLOCK_CACHE
constexpr bool kCaching = false;
#else
constexpr bool kCaching = true;
#endif

// Four sizes per doubling: at most a quarter of a block is unused, and what is never touched costs
// nothing.
struct SizeClass {
  size_t index;
  size_t size;
};
SizeClass class_of(size_t size) {
  constexpr int kFirst = std::countr_zero(kSmallestCachedBlock);
  int power = std::bit_width(size - 1) - 1;  // 2^power < size ≤ 2^(power + 1)
  size_t step = (size_t{1} << power) / 4;
  size_t steps = (size - (size_t{1} << power) + step - 1) / step;  // 1..4
  return {static_cast<size_t>(power - (kFirst - 1)) * 4 + steps - 1, (size_t{1} << power) + steps * step};
}
constexpr size_t kClasses = (std::countr_zero(kLargestCachedBlock) - std::countr_zero(kSmallestCachedBlock) + 1) * 4;

struct Shelf {
  std::mutex mutex;
  std::vector<std::byte*> blocks;
};

struct Cache {
  std::array<Shelf, kClasses> shelves;
  std::atomic<size_t> idle{0};
};

// Never destroyed: Buffers in static objects may outlive any of ours.
Cache& cache() {
  static Cache& instance = *new Cache;
  return instance;
}

[[nodiscard]] bool is_cached(size_t size) {
  return kCaching && size >= kSmallestCachedBlock && size <= kLargestCachedBlock;
}

// Large blocks lie on huge pages where the kernel gives some: one fault for 2 MiB, and one pin when a device reads
// them.
constexpr size_t kHugePage = 2 * kMiB;

std::byte* allocate(size_t size) {
  const size_t alignment = size >= kHugePage ? kHugePage : kBlock;
  auto* block = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(size, alignment)));
  if (block == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) (void)madvise(block, round_down(size, kHugePage), MADV_HUGEPAGE);
  return block;
}

}  // namespace

std::byte* take_block(size_t size) {
  if (!is_cached(size)) return allocate(size);
  SizeClass wanted = class_of(size);
  Shelf& shelf = cache().shelves[wanted.index];
  {
    std::lock_guard lock(shelf.mutex);
    if (!shelf.blocks.empty()) {
      std::byte* block = shelf.blocks.back();
      shelf.blocks.pop_back();
      cache().idle -= wanted.size;
      return block;
    }
  }
  return allocate(wanted.size);
}

void give_block(std::byte* block, size_t size) {
  if (is_cached(size)) {
    SizeClass kept = class_of(size);
    if (cache().idle.fetch_add(kept.size) + kept.size <= kMaxIdle) {
      Shelf& shelf = cache().shelves[kept.index];
      std::lock_guard lock(shelf.mutex);
      shelf.blocks.push_back(block);
      return;
    }
    cache().idle -= kept.size;
  }
  std::free(block);
}

size_t idle_block_bytes() {
  return kCaching ? cache().idle.load() : 0;
}

}  // namespace headrace
