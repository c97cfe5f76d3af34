#include "hot/fragment_table.h"

#include <gtest/gtest.h>

#include <map>
#include <ranges>

#include "runtime/random.h"

namespace headrace {
namespace {

FragmentEntry entry(uint64_t sequence, uint8_t index, uint64_t ns = 7) {
  FragmentEntry out;
  out.name = {SegmentId(NamespaceId(ns), Slot(static_cast<uint16_t>(sequence * 31)), NamespaceEpoch(2), sequence),
              index};
  out.protection = {4, 2};
  out.segment_length = 1 + sequence % kMaxSegment;
  out.block = static_cast<uint32_t>(sequence * 3);
  out.birth = static_cast<uint32_t>(sequence % 1000);
  return out;
}

TEST(FragmentTable, BehavesLikeAMap) {
  SeededRandom random(1);
  FragmentTable table;
  std::map<FragmentName, FragmentEntry> model;
  for (int step = 0; step < 200'000; ++step) {
    FragmentEntry e = entry(random.below(3000), static_cast<uint8_t>(random.below(3)), 1 + random.below(3));
    if (random.chance(1, 2)) {
      ASSERT_EQ(table.insert(e), model.emplace(e.name, e).second);
    } else {
      auto gone = table.erase(e.name);
      ASSERT_EQ(gone.has_value(), model.erase(e.name) == 1);
      if (gone) {
        ASSERT_EQ(gone->block, e.block);
      }
    }
    ASSERT_EQ(table.size(), model.size());
  }
  for (const auto& [name, e] : model) {
    auto found = table.find(name);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->name, e.name);
    EXPECT_EQ(found->block, e.block);
    EXPECT_EQ(found->segment_length, e.segment_length);
    EXPECT_EQ(found->protection, e.protection);
    EXPECT_EQ(found->birth, e.birth);
  }
  uint64_t visited = 0;
  table.for_each([&](const FragmentEntry& e) { visited += model.contains(e.name) ? 1 : 0; });
  EXPECT_EQ(visited, model.size());
}

std::vector<FragmentName> pages_of(const FragmentTable& table, size_t limit) {
  std::vector<FragmentName> seen;
  bool more = true;
  while (more) {
    auto page = table.after(seen.empty() ? FragmentName{} : seen.back(), limit, more);
    EXPECT_LE(page.size(), limit);
    for (const FragmentEntry& e : page) seen.push_back(e.name);
  }
  return seen;
}

// A pass that was stopped goes on in another process, whose table came to be in another order.
TEST(FragmentTable, PagesListEachNameOnceInAnOrderThatStays) {
  FragmentTable table;
  FragmentTable other;
  std::map<FragmentName, bool> model;
  for (uint64_t i = 1; i <= 1000; ++i) {
    FragmentEntry e = entry(i, static_cast<uint8_t>(i % 4), 1 + i % 3);
    ASSERT_TRUE(table.insert(e));
    model[e.name] = true;
  }
  for (const auto& [name, there] : std::views::reverse(model)) ASSERT_TRUE(other.insert(*table.find(name)));
  const std::vector<FragmentName> seen = pages_of(table, 64);
  ASSERT_EQ(seen.size(), model.size());
  for (const FragmentName& name : seen) EXPECT_EQ(model.erase(name), 1u);
  EXPECT_EQ(pages_of(other, 1), seen);
  // Where the last one of a page is freed meanwhile, the next page goes on behind it.
  other.erase(seen[500]);
  bool more = false;
  ASSERT_FALSE(other.after(seen[500], 1, more).empty());
  EXPECT_EQ(other.after(seen[500], 1, more)[0].name, seen[501]);
}

TEST(FragmentTable, AnEmptyTableHasNoPage) {
  bool more = true;
  EXPECT_TRUE(FragmentTable().after({}, 10, more).empty());
  EXPECT_FALSE(more);
}

TEST(FragmentTable, TakesAtMost32BytesAFragment) {
  FragmentTable table;
  for (uint64_t i = 1; i <= 500'000; ++i) {
    ASSERT_TRUE(table.insert(entry(i, 0)));
    if (i > 200'000 && i % 10'000 == 0) {
      ASSERT_LE(table.memory_bytes(), i * 33) << i;
    }
  }
  EXPECT_LE(table.memory_bytes(), table.size() * 32);
}

}  // namespace
}  // namespace headrace
