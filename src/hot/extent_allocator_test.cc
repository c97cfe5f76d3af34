#include "hot/extent_allocator.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/random.h"

namespace headrace {
namespace {

using Purpose = ExtentAllocator::Purpose;

TEST(ExtentAllocator, NeverGivesABlockTwiceAndFindsWhatIsFree) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SeededRandom random(seed);
    constexpr uint32_t kBlocks = 500;
    ExtentAllocator space(kBlocks, 0);
    std::vector<bool> model(kBlocks, false);
    std::vector<std::pair<uint32_t, uint32_t>> held;
    for (int step = 0; step < 2000; ++step) {
      if (held.empty() || random.chance(55, 100)) {
        uint32_t size = static_cast<uint32_t>(random.between(1, 40));
        auto got = space.allocate(size, Purpose::kFragment, kBlocks);
        uint32_t longest = 0;
        uint32_t stretch = 0;
        for (bool used : model) longest = std::max(longest, stretch = used ? 0 : stretch + 1);
        ASSERT_EQ(got.block.has_value(), longest >= size) << seed;
        if (!got.block) continue;
        for (uint32_t i = 0; i < size; ++i) {
          ASSERT_FALSE(model[*got.block + i]);
          model[*got.block + i] = true;
        }
        held.emplace_back(*got.block, size);
      } else {
        size_t i = random.below(held.size());
        auto [block, size] = held[i];
        for (uint32_t b = 0; b < size; ++b) model[block + b] = false;
        space.release(block, size);
        held[i] = held.back();
        held.pop_back();
      }
      uint32_t used = static_cast<uint32_t>(std::count(model.begin(), model.end(), true));
      ASSERT_EQ(space.used(), used);
    }
    // The same state, built from what is held in any order.
    ExtentAllocator again(kBlocks, 0);
    for (auto [block, size] : held) ASSERT_TRUE(again.take(block, size));
    EXPECT_EQ(again.used(), space.used());
    EXPECT_EQ(again.frontier(), space.frontier());
    for (auto [block, size] : held) EXPECT_FALSE(again.take(block, size));
    for (auto [block, size] : held) again.release(block, size);
    EXPECT_EQ(again.frontier(), 0u);
  }
}

TEST(ExtentAllocator, KeepsTheReserveForJournals) {
  ExtentAllocator space(100, 10);
  EXPECT_TRUE(space.allocate(90, Purpose::kFragment, 100).block);
  EXPECT_FALSE(space.allocate(1, Purpose::kFragment, 100).block);
  EXPECT_TRUE(space.allocate(10, Purpose::kJournal, 100).block);
}

TEST(ExtentAllocator, SaysWhenOnlyTheLimitIsInTheWay) {
  ExtentAllocator space(100, 0);
  auto got = space.allocate(20, Purpose::kFragment, 10);
  EXPECT_FALSE(got.block);
  EXPECT_TRUE(got.beyond_limit);
  EXPECT_FALSE(space.allocate(101, Purpose::kFragment, 100).beyond_limit);
}

}  // namespace
}  // namespace headrace
