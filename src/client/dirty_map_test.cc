#include "client/dirty_map.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "runtime/random.h"

namespace headrace {
namespace {

Buffer text(const std::string& s) {
  return Buffer::copy_of(bytes_of(s));
}

std::string all(const DirtyMap& map, uint64_t begin, uint64_t end) {
  std::string out(end - begin, '.');
  for (const DirtyPiece& piece : map.view(begin, end))
    out.replace(piece.offset - begin, piece.bytes.size(), piece.bytes.text());
  return out;
}

TEST(DirtyMap, ShowsTheNewestBytes) {
  DirtyMap map;
  map.write(0, text("aaaaaaaa"));
  map.write(2, text("bbb"));
  map.write(4, text("c"));
  EXPECT_EQ(all(map, 0, 10), "aabbcaaa..");
  EXPECT_EQ(map.bytes(), 8u);
}

TEST(DirtyMap, SaysWhereTheNextBytesAre) {
  DirtyMap map;
  EXPECT_EQ(map.next(0), std::nullopt);
  map.write(10, text("aaaa"));
  EXPECT_EQ(map.next(3), 10u);
  EXPECT_EQ(map.next(12), 12u) << "in the middle of a piece";
  EXPECT_EQ(map.next(14), std::nullopt);
}

TEST(DirtyMap, KeepsNewerBytesWhenAnOlderFlushFinishes) {
  DirtyMap map;
  map.write(0, text("aaaa"));
  auto taken = map.take(1, 100, 100);
  ASSERT_EQ(taken.size(), 1u);
  map.write(1, text("bb"));
  EXPECT_EQ(taken[0].bytes.text(), "aaaa");
  map.finished(1);
  EXPECT_EQ(all(map, 0, 4), ".bb.");
  EXPECT_EQ(map.free_bytes(), 2u);
}

TEST(DirtyMap, NeverBringsBackWhatWasOverwrittenDuringAFailedFlush) {
  DirtyMap map;
  map.write(0, text("aaaa"));
  (void)map.take(1, 100, 100);
  map.write(1, text("bb"));
  map.put_back(1);
  EXPECT_EQ(all(map, 0, 4), "abba");
  EXPECT_EQ(map.free_bytes(), 4u);
}

TEST(DirtyMap, SmallAppendsGrowIntoOnePiece) {
  DirtyMap map;
  for (int i = 0; i < 4096; ++i) map.write(i, text("x"));
  EXPECT_EQ(map.pieces(), 1u);
  EXPECT_EQ(map.bytes(), 4096u);
  EXPECT_EQ(map.memory(), 4096u);
}

TEST(DirtyMap, CountsWhatItHolds) {
  DirtyMap map;
  for (uint64_t i = 0; i < 10; ++i) map.write(i * 100'000, text("x"));
  EXPECT_EQ(map.bytes(), 10u);
  EXPECT_EQ(map.memory(), 10 * kBlock);
  (void)map.take(1, 4, 100);
  EXPECT_EQ(map.free_memory(), 6 * kBlock);
  map.put_back(1);
  EXPECT_EQ(map.free_memory(), 10 * kBlock);
  (void)map.take(2, 100, 100);
  map.finished(2);
  EXPECT_EQ(map.memory(), 0u);
}

TEST(DirtyMap, AnAppendDoesNotChangeBytesThatWereRead) {
  DirtyMap map;
  map.write(0, text("abcdef"));
  auto before = map.view(0, 6);
  map.write(3, text("XYZW"));  // cuts the piece: its room must not be filled again
  map.write(7, text("12"));
  EXPECT_EQ(before[0].bytes.text(), "abcdef");
  EXPECT_EQ(all(map, 0, 9), "abcXYZW12");
}

TEST(DirtyMap, TakesWholeUnitsOutOfLongRunsOnly) {
  DirtyMap map;
  map.write(100, text(std::string(25, 'a')));
  map.write(200, text(std::string(9, 'b')));
  auto taken = map.take_runs(1, 10, 1000);
  uint64_t bytes = 0;
  for (auto& piece : taken) bytes += piece.bytes.size();
  EXPECT_EQ(bytes, 20u);
  EXPECT_EQ(taken.front().offset, 100u);
  EXPECT_EQ(map.free_bytes(), 14u);
}

TEST(DirtyMap, BehavesAsAByteModel) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRandom random(seed);
    DirtyMap map;
    std::map<uint64_t, std::pair<char, uint64_t>> model;  // offset → byte, flush
    std::map<uint64_t, std::map<uint64_t, char>> flights;
    uint64_t next_flush = 1;
    for (int step = 0; step < 200; ++step) {
      switch (random.below(6)) {
        case 0:
        case 1:
        case 2: {
          uint64_t offset = random.below(300);
          std::string bytes(1 + random.below(60), static_cast<char>('a' + random.below(26)));
          for (uint64_t i = 0; i < bytes.size(); ++i) model[offset + i] = {bytes[i], 0};
          map.write(offset, text(bytes));
          break;
        }
        case 3: {
          uint64_t flush = next_flush++;
          bool runs = random.chance(1, 3);
          auto pieces =
              runs ? map.take_runs(flush, 16, 64) : map.take(flush, 1 + random.below(200), 1 + random.below(5));
          for (auto& piece : pieces) {
            for (uint64_t i = 0; i < piece.bytes.size(); ++i) {
              auto& [byte, owner] = model.at(piece.offset + i);
              ASSERT_EQ(owner, 0u) << "seed " << seed;
              ASSERT_EQ(byte, piece.bytes.text()[i]) << "seed " << seed;
              owner = flush;
            }
          }
          flights[flush];
          break;
        }
        default: {
          if (flights.empty()) break;
          uint64_t flush = flights.begin()->first;
          flights.erase(flush);
          if (random.chance(1, 2)) {
            map.finished(flush);
            std::erase_if(model, [&](const auto& item) { return item.second.second == flush; });
          } else {
            map.put_back(flush);
            for (auto& [offset, item] : model)
              if (item.second == flush) item.second = 0;
          }
        }
      }
      std::string expected(400, '.');
      uint64_t free = 0;
      for (const auto& [offset, item] : model) {
        expected[offset] = item.first;
        free += item.second == 0 ? 1 : 0;
      }
      ASSERT_EQ(all(map, 0, 400), expected) << "seed " << seed << " step " << step;
      ASSERT_EQ(map.bytes(), model.size());
      ASSERT_EQ(map.free_bytes(), free);
    }
  }
}

}  // namespace
}  // namespace headrace
