#include "client/extent_cache.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/random.h"

namespace headrace {
namespace {

TEST(ExtentCache, CutsWhatItIsAskedFor) {
  ExtentCache cache;
  SegmentId segment(1, 2);
  cache.replace(
      {.offset = 100, .length = 100, .kind = ExtentKind::kSegment, .segment = segment, .segment_offset = 1000});
  auto cover = cache.cover(150, 160);
  ASSERT_TRUE(cover.has_value());
  ASSERT_EQ(cover->size(), 1u);
  EXPECT_EQ(cover->front().offset, 150u);
  EXPECT_EQ(cover->front().length, 10u);
  EXPECT_EQ(cover->front().segment_offset, 1050u);
}

TEST(ExtentCache, SaysWhatItDoesNotKnow) {
  ExtentCache cache;
  cache.replace({.offset = 0, .length = 10});
  cache.replace({.offset = 20, .length = 10});
  uint64_t missing = 0;
  EXPECT_FALSE(cache.cover(5, 25, &missing).has_value());
  EXPECT_EQ(missing, 10u);
}

TEST(ExtentCache, KeepsOnlyStagedBytesThatSomeExtentNames) {
  ExtentCache cache;
  for (uint64_t id = 1; id <= 1000; ++id) {
    cache.replace({.offset = id % 4 * 10, .length = 10, .kind = ExtentKind::kStaged, .staged = id});
    cache.put_staged(id, Buffer::zeroed(10));
    EXPECT_LE(cache.staged_size(), 2 * cache.size() + 8);
    for (uint64_t named = id > 3 ? id - 3 : 1; named <= id; ++named) EXPECT_NE(cache.staged(named), nullptr);
  }
  for (uint64_t id = 1001; id <= 1100; ++id) {
    cache.replace({.offset = id * 10, .length = 10, .kind = ExtentKind::kStaged, .staged = id});
    cache.put_staged(id, Buffer::zeroed(10));
  }
  EXPECT_GE(cache.staged_size(), 104u);
  cache.forget(0, 10'990);
  EXPECT_LE(cache.staged_size(), 2 * cache.size() + 8);
  EXPECT_NE(cache.staged(1100), nullptr);
}

TEST(ExtentCache, BehavesAsAByteModel) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRandom random(seed);
    ExtentCache cache;
    struct Byte {
      bool known = false;
      uint64_t segment = 0;
      uint64_t at = 0;
    };
    std::vector<Byte> model(512);
    for (int step = 0; step < 100; ++step) {
      uint64_t begin = random.below(400);
      uint64_t length = 1 + random.below(100);
      if (random.chance(1, 3)) {
        cache.forget(begin, begin + length);
        for (uint64_t i = begin; i < begin + length; ++i) model[i] = {};
      } else {
        uint64_t segment = random.below(4);  // 0: a hole
        uint64_t at = segment == 0 ? 0 : random.below(1000);
        cache.replace({.offset = begin,
                       .length = length,
                       .kind = segment == 0 ? ExtentKind::kHole : ExtentKind::kSegment,
                       .segment = SegmentId(0, segment),
                       .segment_offset = at});
        for (uint64_t i = 0; i < length; ++i) model[begin + i] = {true, segment, segment == 0 ? 0 : at + i};
      }
      uint64_t from = random.below(400);
      uint64_t to = from + 1 + random.below(100);
      auto cover = cache.cover(from, to);
      bool known = true;
      for (uint64_t i = from; i < to; ++i) known &= model[i].known;
      ASSERT_EQ(cover.has_value(), known) << "seed " << seed;
      if (!cover) continue;
      uint64_t next = from;
      for (const Extent& extent : *cover) {
        ASSERT_EQ(extent.offset, next);
        for (uint64_t i = 0; i < extent.length; ++i) {
          ASSERT_EQ(extent.segment.low(), model[next + i].segment);
          if (extent.segment) ASSERT_EQ(extent.segment_offset + i, model[next + i].at) << "seed " << seed;
        }
        next += extent.length;
      }
      ASSERT_EQ(next, to);
    }
  }
}

}  // namespace
}  // namespace headrace
