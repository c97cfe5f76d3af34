#include "base/block_cache.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace headrace {
namespace {

TEST(BlockCache, BlocksOfEverySizeHoldWhatWasAskedForAndAreAligned) {
  for (size_t size = kBlock; size <= 2 * kLargestCachedBlock; size = size * 9 / 8 + 1) {
    std::byte* block = take_block(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % kBlock, 0u);
    block[0] = block[size - 1] = std::byte{1};  // ASan looks on
    give_block(block, size);
  }
  for (size_t size : {kSmallestCachedBlock, kSmallestCachedBlock + 1, kLargestCachedBlock}) {
    std::byte* block = take_block(size);
    block[size - 1] = std::byte{1};
    give_block(block, size);
  }
}

TEST(BlockCache, UsesABlockAgainAndNeverTwiceAtOnce) {
  std::byte* first = take_block(kMiB);
  std::byte* second = take_block(kMiB);
  EXPECT_NE(first, second);
  give_block(first, kMiB);
  give_block(second, kMiB);
  if (idle_block_bytes() == 0) GTEST_SKIP() << "no cache in this build";
  std::byte* again = take_block(kMiB);
  EXPECT_EQ(again, second);
  give_block(again, kMiB);
}

TEST(BlockCache, KeepsNoMoreThanItsBound) {
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(take_block(16 * kMiB));
  for (std::byte* block : blocks) give_block(block, 16 * kMiB);
  EXPECT_LE(idle_block_bytes(), kMaxIdle);
}

TEST(BlockCache, ServesThreads) {
  std::vector<std::thread> threads;
  for (unsigned char name = 1; name <= 4; ++name) {
    threads.emplace_back([name] {
      for (int i = 0; i < 2000; ++i) {
        Buffer buffer = Buffer::allocate(kSmallestCachedBlock + static_cast<size_t>(i % 7) * kBlock * 4);
        buffer.data()[0] = std::byte{name};
        buffer.data()[buffer.size() - 1] = std::byte{name};
        std::this_thread::yield();
        EXPECT_EQ(buffer.data()[0], std::byte{name});
        EXPECT_EQ(buffer.data()[buffer.size() - 1], std::byte{name});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace headrace
