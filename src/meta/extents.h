// Extents: which bytes of a file stand where. Pure functions on pieces, leaves and a file's
// gathered leaves; no I/O.
//
// A file's pieces are kept in leaves, one row each: a whole leaf covers 16 MiB of the file. Over 64
// pieces it splits into parts of 1 MiB; its own row then only says which parts have rows. Bytes
// that no piece covers are holes (or end of file). Invariants of every piece in a leaf: of kind
// kSegment or kStaged, not empty, inside the leaf, ascending, disjoint, and never continuing its
// neighbour (those are one piece). A piece ends at its leaf's border. Format of a row:
// docs/formats/extent-leaf.md.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meta/keys.h"
#include "proto/placement.h"

namespace headrace {

// What a change does to what segments and staged rows are charged with: add it to SegmentRow::live
// and ::referrers, and to StagedRow::referrers. A piece cut in two is one more piece.
struct ExtentDelta {
  struct Change {
    int64_t bytes = 0;
    int64_t pieces = 0;
    bool operator==(const Change&) const = default;
  };
  std::map<SegmentId, Change> segments;
  std::map<uint64_t, Change> staged;
  int64_t bytes = 0;  // of the file that are no hole

  void count(const Extent& piece, int sign);
  void add(const ExtentDelta& other);
  void prune();  // drops what did not change
};

// The pieces of [base, base + span) of a file.
class ExtentMap {
 public:
  ExtentMap(uint64_t base, uint64_t span) : base_(base), span_(span) {}
  // Pieces as the invariants above have them (a decoded leaf's).
  ExtentMap(uint64_t base, uint64_t span, std::vector<Extent> pieces);

  [[nodiscard]] const std::vector<Extent>& pieces() const { return pieces_; }
  [[nodiscard]] bool empty() const { return pieces_.empty(); }
  [[nodiscard]] uint64_t base() const { return base_; }
  [[nodiscard]] uint64_t end() const { return base_ + span_; }

  // Makes [offset, offset + length) hold `pieces` and nothing else; what they leave uncovered, and
  // their kHole ones, are holes. The range lies inside the map; pieces ascend, are disjoint and are
  // cut to the range.
  ExtentDelta replace(uint64_t offset, uint64_t length, const std::vector<Extent>& pieces);
  // Nothing at or behind `size` of the file is left.
  ExtentDelta truncate(uint64_t size);
  // Each piece that still names the bytes that `from` named (wholly or what is left of it) names
  // `to` instead, where those bytes begin at to_offset. For the packer: what was overwritten since
  // stays.
  ExtentDelta repoint(const Extent& from, SegmentId to, uint64_t to_offset);
  // The pieces of the range, cut to it, with holes between them explicit, up to file_size.
  [[nodiscard]] std::vector<Extent> slice(uint64_t offset, uint64_t length, uint64_t file_size) const;

 private:
  uint64_t base_;
  uint64_t span_;
  std::vector<Extent> pieces_;
};

// --- Leaves ---

inline constexpr uint64_t kWholeLeaf = 16 * kMiB;
inline constexpr uint64_t kPartLeaf = kMiB;
inline constexpr size_t kMaxLeafPieces = 64;  // of a whole one; of a part: beyond it, it is due for rewriting
inline constexpr uint64_t kMaxFileSize = uint64_t{1} << 63;

struct Leaf {
  uint64_t index = 0;  // the 16 MiB of the file
  uint8_t part = 0;    // 0: whole; 1 to 16: the n-th MiB of it
  [[nodiscard]] uint64_t base() const { return index * kWholeLeaf + (part == 0 ? 0 : (part - 1) * kPartLeaf); }
  [[nodiscard]] uint64_t span() const { return part == 0 ? kWholeLeaf : kPartLeaf; }
  auto operator<=>(const Leaf&) const = default;
};
[[nodiscard]] inline Leaf whole_leaf_at(uint64_t offset) {
  return {.index = offset / kWholeLeaf};
}
[[nodiscard]] inline Leaf part_leaf_at(uint64_t offset) {
  return {.index = offset / kWholeLeaf, .part = static_cast<uint8_t>(1 + offset % kWholeLeaf / kPartLeaf)};
}
// slot | kExtent | file local:48 | index:40 | part:8. In the order of the file, a whole leaf before
// its parts.
[[nodiscard]] Key leaf_key(FileId file, Leaf leaf);
[[nodiscard]] Leaf leaf_of(std::string_view key);  // of a key that leaf_key() made

struct LeafValue {
  std::vector<Extent> pieces;  // file offsets
  uint16_t parts = 0;          // of a whole leaf that split: bit n: part n + 1 has a row. Then no pieces
};
[[nodiscard]] std::string encode_leaf(uint64_t file_offset_base, uint64_t span, const std::vector<Extent>& pieces);
[[nodiscard]] std::string encode_split_leaf(uint16_t parts);
// kCorrupt unless every byte is as encoded for this base and span.
// DECODER: extent_leaf
[[nodiscard]] Result<LeafValue> decode_leaf(uint64_t file_offset_base, uint64_t span, std::string_view bytes);

// --- A file's leaves, as an operation gathers and changes them ---
//
//     while (!(missing = leaves.missing(offset, length)).empty())
//       for (Leaf leaf : missing) HR_TRY(leaves.load(leaf, row of leaf_key(file, leaf)));   // at
//       most two rounds
//     delta = leaves.replace(offset, length, pieces);
//     for (auto& [leaf, value] : leaves.changes()) …                                         // a
//     row each
class FileLeaves {
 public:
  // Leaves whose rows must be loaded before anything touches the range.
  [[nodiscard]] std::vector<Leaf> missing(uint64_t offset, uint64_t length) const;
  // `row`: nothing when there is none. kCorrupt.
  [[nodiscard]] Result<void> load(Leaf leaf, std::optional<std::string_view> row);

  // As ExtentMap's, over any range that nothing is missing of. Leaves split where they must.
  ExtentDelta replace(uint64_t offset, uint64_t length, const std::vector<Extent>& pieces);
  ExtentDelta repoint(const Extent& from, SegmentId to, uint64_t to_offset);
  [[nodiscard]] std::vector<Extent> slice(uint64_t offset, uint64_t length, uint64_t file_size) const;

  // Rows that differ from what was loaded; nothing: to be deleted. Taken once.
  [[nodiscard]] std::vector<std::pair<Leaf, std::optional<std::string>>> changes();
  // Parts over kMaxLeafPieces.
  [[nodiscard]] std::vector<Leaf> crowded() const;

 private:
  struct Whole {
    bool split = false;
    uint16_t stored_parts = 0;  // as in the store, whether loaded or not
    bool stored = false;        // has a row in the store
    bool changed = false;
    ExtentMap map;                       // when not split
    std::map<uint8_t, ExtentMap> parts;  // when split: those loaded, and those known to be empty
    std::map<uint8_t, bool> part_changed;
  };
  [[nodiscard]] ExtentMap& part_at(Whole& whole, uint64_t index, uint8_t part);
  void split_if_crowded(uint64_t index, Whole& whole, ExtentDelta& delta);

  std::map<uint64_t, Whole> wholes_;
};

// Extents cut to [offset, offset + length).
[[nodiscard]] std::vector<Extent> clip_extents(const std::vector<Extent>& extents, uint64_t offset, uint64_t length);

}  // namespace headrace
