#include "meta/extents.h"

#include <gtest/gtest.h>

#include <array>

#include "runtime/random.h"

namespace headrace {
namespace {

SegmentId segment(uint64_t n) {
  return SegmentId(NamespaceId(7), Slot(3), NamespaceEpoch(1), n);
}

Extent in_segment(uint64_t offset, uint64_t length, uint64_t n, uint64_t segment_offset) {
  return {.offset = offset,
          .length = length,
          .kind = ExtentKind::kSegment,
          .segment = segment(n),
          .segment_offset = segment_offset};
}
Extent in_staged(uint64_t offset, uint64_t length, uint64_t id, uint64_t staged_offset = 0) {
  return {
      .offset = offset, .length = length, .kind = ExtentKind::kStaged, .segment_offset = staged_offset, .staged = id};
}

std::string text_of(const std::vector<Extent>& pieces) {
  std::string out;
  for (const Extent& p : pieces)
    out += std::to_string(p.offset) + "+" + std::to_string(p.length) + ":" + std::to_string(static_cast<int>(p.kind)) +
           "/" + std::to_string(p.segment.sequence() + p.staged) + "@" + std::to_string(p.segment_offset) + " ";
  return out;
}

// Where a unit of the file stands: {0, 0} hole, {id, offset} in a segment, {~id, offset} in a
// staged row.
using Source = std::pair<uint64_t, uint64_t>;

// A file as an array of units, each tagged with its source.
class Model {
 public:
  Model(uint64_t base, uint64_t span, uint64_t unit) : base_(base), unit_(unit), units_(span / unit) {}
  void put(uint64_t offset, uint64_t length, const std::vector<Extent>& pieces) {
    for (uint64_t at = offset; at < offset + length; at += unit_) unit(at) = {};
    for (const Extent& piece : pieces)
      for (uint64_t i = 0; i < piece.length; i += unit_) unit(piece.offset + i) = source(piece, i);
  }
  void repoint(const Extent& from, uint64_t to, uint64_t to_offset) {
    for (uint64_t i = 0; i < from.length; i += unit_)
      if (unit(from.offset + i) == source(from, i)) unit(from.offset + i) = {to, to_offset + i};
  }
  void expect(const std::vector<Extent>& slice, uint64_t offset, uint64_t end) const {
    uint64_t at = offset;
    for (const Extent& piece : slice) {
      ASSERT_EQ(piece.offset, at) << text_of(slice);
      ASSERT_GT(piece.length, 0u);
      for (uint64_t i = 0; i < piece.length; i += unit_)
        ASSERT_EQ(units_[(piece.offset + i - base_) / unit_], source(piece, i))
            << "at " << piece.offset + i << ": " << text_of(slice);
      at += piece.length;
    }
    ASSERT_EQ(at, std::max(offset, end));
  }

 private:
  static Source source(const Extent& piece, uint64_t i) {
    if (piece.kind == ExtentKind::kHole) return {};
    uint64_t id = piece.kind == ExtentKind::kSegment ? piece.segment.sequence() : ~piece.staged;
    return {id, piece.segment_offset + i};
  }
  Source& unit(uint64_t offset) { return units_[(offset - base_) / unit_]; }
  uint64_t base_;
  uint64_t unit_;
  std::vector<Source> units_;
};

ExtentDelta charged(const std::vector<Extent>& pieces) {
  ExtentDelta out;
  for (const Extent& piece : pieces) out.count(piece, +1);
  return out;
}

void expect_same(ExtentDelta a, ExtentDelta b) {
  a.prune();
  b.prune();
  EXPECT_EQ(a.segments, b.segments);
  EXPECT_EQ(a.staged, b.staged);
  EXPECT_EQ(a.bytes, b.bytes);
}

// A few pieces inside the range, at multiples of unit.
std::vector<Extent> random_pieces(Random& random, uint64_t offset, uint64_t length, uint64_t unit) {
  std::vector<Extent> out;
  uint64_t at = offset;
  while (at < offset + length) {
    uint64_t n = unit * random.between(1, (offset + length - at) / unit);
    uint64_t kind = random.below(4);
    uint64_t id = random.between(1, 6);
    // Often the displacement that an earlier write had, so that neighbours do continue each other.
    uint64_t source_offset = random.chance(1, 2) ? at % (4 * kMiB) : unit * random.below(8);
    if (n > 4 * kMiB) n = 4 * kMiB;
    if (kind == 0) out.push_back({.offset = at, .length = n});
    if (kind == 1) out.push_back(in_staged(at, n, id, source_offset));
    if (kind >= 2) out.push_back(in_segment(at, n, id, source_offset));
    at += n;
  }
  return out;
}

TEST(ExtentMap, BehavesLikeAnArrayOfBytesThatKnowTheirSource) {
  constexpr uint64_t kBase = 32 * kMiB;
  constexpr uint64_t kSpan = 256;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    ExtentMap map(kBase, kSpan);
    Model model(kBase, kSpan, 1);
    ExtentDelta total;
    for (int step = 0; step < 100; ++step) {
      uint64_t offset = kBase + random.below(kSpan);
      uint64_t length = random.between(1, std::min<uint64_t>(40, kBase + kSpan - offset));
      uint64_t what = random.below(10);
      if (what == 0) {
        total.add(map.truncate(offset));
        model.put(offset, kBase + kSpan - offset, {});
      } else if (what <= 2 && !map.empty()) {
        Extent from = map.pieces()[random.below(map.pieces().size())];
        uint64_t to = random.between(1, 9);
        total.add(map.repoint(from, segment(to), 77));
        model.repoint(from, to, 77);
      } else {
        auto pieces = what == 3 ? std::vector<Extent>() : random_pieces(random, offset, length, 1);
        total.add(map.replace(offset, length, pieces));
        model.put(offset, length, pieces);
      }
      model.expect(map.slice(kBase, kSpan, ~uint64_t{0}), kBase, kBase + kSpan);
      uint64_t size = kBase + random.below(kSpan);
      model.expect(map.slice(offset, length, size), offset, std::min(offset + length, size));
      expect_same(total, charged(map.pieces()));
      for (size_t i = 1; i < map.pieces().size(); ++i) {
        const Extent& a = map.pieces()[i - 1];
        const Extent& b = map.pieces()[i];
        EXPECT_FALSE(a.offset + a.length == b.offset && a.kind == b.kind && a.segment == b.segment &&
                     a.staged == b.staged && a.segment_offset + a.length == b.segment_offset)
            << "not coalesced: " << text_of(map.pieces());
      }
      auto decoded = decode_leaf(kBase, kSpan, encode_leaf(kBase, kSpan, map.pieces()));
      ASSERT_TRUE(decoded.ok()) << decoded.error().text();
      EXPECT_EQ(text_of(decoded->pieces), text_of(map.pieces()));
    }
    if (testing::Test::HasFailure()) break;
  }
}

TEST(ExtentMap, CuttingAPieceInTwoIsOneReferenceMore) {
  ExtentMap map(0, kWholeLeaf);
  (void)map.replace(0, 100, {in_segment(0, 100, 1, 0)});
  ExtentDelta delta = map.replace(40, 20, {in_staged(40, 20, 9)});
  EXPECT_EQ(delta.segments[segment(1)], (ExtentDelta::Change{.bytes = -20, .pieces = 1}));
  EXPECT_EQ(delta.staged[9], (ExtentDelta::Change{.bytes = 20, .pieces = 1}));
  EXPECT_EQ(delta.bytes, 0);
  delta = map.replace(40, 20, {in_segment(40, 20, 1, 40)});  // heals
  EXPECT_EQ(delta.segments[segment(1)], (ExtentDelta::Change{.bytes = 20, .pieces = -1}));
  EXPECT_EQ(map.pieces().size(), 1u);
}

TEST(ExtentMap, RepointLeavesWhatWasOverwrittenSince) {
  ExtentMap map(0, kWholeLeaf);
  Extent packed = in_staged(1000, 100, 5, 0);
  (void)map.replace(1000, 100, {packed});
  (void)map.replace(1030, 20, {in_segment(1030, 20, 2, 0)});
  (void)map.repoint(packed, segment(8), 5000);
  EXPECT_EQ(text_of(map.pieces()), "1000+30:1/8@5000 1030+20:1/2@0 1050+50:1/8@5050 ");
}

TEST(FileLeaves, BehaveLikeAnArrayOfBlocksThroughSplitsAndReloads) {
  constexpr uint64_t kSize = 48 * kMiB;
  constexpr uint64_t kUnit = 4 * kKiB;
  FileId file(Slot(4), 77);
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    std::map<Key, std::string> rows;
    Model model(0, kSize, kUnit);
    ExtentDelta total;
    bool any_split = false;
    for (int step = 0; step < 300; ++step) {
      uint64_t offset = kUnit * random.below((random.chance(3, 4) ? 18 * kMiB : kSize) / kUnit);
      uint64_t most = random.chance(1, 60) ? kSize : random.chance(1, 4) ? kMiB : 32 * kKiB;
      uint64_t length = kUnit * random.between(1, std::min(most, kSize - offset) / kUnit);
      FileLeaves leaves;
      auto load = [&](uint64_t from, uint64_t n) {
        for (int round = 0; round < 3; ++round) {
          std::vector<Leaf> missing = leaves.missing(from, n);
          EXPECT_TRUE(round < 2 || missing.empty());
          for (Leaf leaf : missing) {
            auto row = rows.find(leaf_key(file, leaf));
            EXPECT_EQ(leaf_of(leaf_key(file, leaf)), leaf);
            auto loaded =
                leaves.load(leaf, row == rows.end() ? std::nullopt : std::optional<std::string_view>(row->second));
            EXPECT_TRUE(loaded.ok()) << (loaded.ok() ? "" : loaded.error().text());
          }
        }
      };
      load(offset, length);
      uint64_t what = random.below(10);
      if (what == 0) {
        std::vector<Extent> here = leaves.slice(offset, length, kSize);
        Extent from = here[random.below(here.size())];
        if (from.kind != ExtentKind::kHole && from.segment_offset + from.length <= 4 * kMiB) {
          uint64_t to = random.between(1, 9);
          total.add(leaves.repoint(from, segment(to), 8 * kKiB));
          model.repoint(from, to, 8 * kKiB);
        }
      } else {
        auto pieces = what == 1 ? std::vector<Extent>() : random_pieces(random, offset, length, kUnit);
        total.add(leaves.replace(offset, length, pieces));
        model.put(offset, length, pieces);
      }
      for (auto& [leaf, value] : leaves.changes()) {
        any_split |= leaf.part != 0;
        if (value) {
          rows[leaf_key(file, leaf)] = *value;
        } else {
          EXPECT_EQ(rows.erase(leaf_key(file, leaf)), 1u);
        }
      }
      EXPECT_TRUE(leaves.changes().empty());
      leaves = FileLeaves();
      load(0, kSize);
      model.expect(leaves.slice(0, kSize, kSize), 0, kSize);
      ExtentDelta stored;
      for (const auto& [key, value] : rows) {
        Leaf leaf = leaf_of(key);
        auto decoded = decode_leaf(leaf.base(), leaf.span(), value);
        ASSERT_TRUE(decoded.ok()) << decoded.error().text();
        if (leaf.part == 0 && decoded->parts == 0) {
          EXPECT_LE(decoded->pieces.size(), kMaxLeafPieces);
        }
        stored.add(charged(decoded->pieces));
      }
      expect_same(total, stored);
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(any_split);
    FileLeaves leaves;  // the whole file punched: no row is left
    for (int round = 0; round < 2; ++round)
      for (Leaf leaf : leaves.missing(0, kSize)) {
        auto row = rows.find(leaf_key(file, leaf));
        ASSERT_TRUE(
            leaves.load(leaf, row == rows.end() ? std::nullopt : std::optional<std::string_view>(row->second)).ok());
      }
    total.add(leaves.replace(0, kSize, {}));
    for (auto& [leaf, value] : leaves.changes()) {
      EXPECT_FALSE(value.has_value());
      rows.erase(leaf_key(file, leaf));
    }
    EXPECT_TRUE(rows.empty());
    expect_same(total, ExtentDelta());
  }
}

TEST(ExtentLeaf, APieceTakesSixteenBytesAndAnEntryOfItsSource) {
  std::vector<Extent> pieces;
  for (uint64_t i = 0; i < 64; ++i) pieces.push_back(in_segment(i * 8192, 4096, 1 + i % 2, i * 4096));
  EXPECT_EQ(encode_leaf(0, kWholeLeaf, pieces).size(), 16 + 2 * 16 + 64 * 16u);
}

TEST(ExtentLeaf, BadInputIsRefusedOrMeansTheSameWhateverByteIsFlipped) {
  std::string good = encode_leaf(
      kWholeLeaf, kWholeLeaf,
      {in_segment(kWholeLeaf, 10, 1, 0), in_staged(kWholeLeaf + 10, 5, 3), in_segment(kWholeLeaf + 99, 1, 1, 50)});
  ASSERT_TRUE(decode_leaf(kWholeLeaf, kWholeLeaf, good).ok());
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(decode_leaf(kWholeLeaf, kWholeLeaf, good.substr(0, n)).ok());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x40);
    auto decoded = decode_leaf(kWholeLeaf, kWholeLeaf, bad);
    if (decoded.ok()) {
      EXPECT_EQ(encode_leaf(kWholeLeaf, kWholeLeaf, decoded->pieces), bad);
    }
  }
  EXPECT_EQ(decode_leaf(0, kPartLeaf, good).code(), Code::kCorrupt);
}

TEST(ExtentLeaf, KeysAreInTheOrderOfTheFile) {
  FileId file(Slot(1), 5);
  EXPECT_LT(leaf_key(file, {.index = 1}), leaf_key(file, {.index = 1, .part = 1}));
  EXPECT_LT(leaf_key(file, {.index = 1, .part = 16}), leaf_key(file, {.index = 2}));
  EXPECT_LT(leaf_key(file, {.index = 255}), leaf_key(file, {.index = 256}));
  EXPECT_TRUE(leaf_key(file, {.index = 3}).starts_with(extent_prefix(file)));
  EXPECT_EQ(part_leaf_at(17 * kMiB + 5).base(), 17 * kMiB);
}

}  // namespace
}  // namespace headrace
