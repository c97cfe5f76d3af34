#include "meta/extents.h"

#include <algorithm>
#include <bit>
#include <set>

#include "base/fault_point.h"

namespace headrace {

namespace {

constexpr uint8_t kFormat = 1;

uint64_t end_of(const Extent& piece) {
  return piece.offset + piece.length;
}

bool stored_kind(ExtentKind kind) {
  return kind == ExtentKind::kSegment || kind == ExtentKind::kStaged;
}

bool same_source(const Extent& a, const Extent& b) {
  if (mutant("repoint_newer_bytes")) return true;
  if (a.kind != b.kind) return false;
  return a.kind == ExtentKind::kSegment ? a.segment == b.segment : a.staged == b.staged;
}

// Whether b goes on where a ends, in the file and in its source.
bool continues(const Extent& a, const Extent& b) {
  if (end_of(a) != b.offset) return false;
  if (a.kind == ExtentKind::kHole) return b.kind == ExtentKind::kHole;
  return same_source(a, b) && a.segment_offset + a.length == b.segment_offset;
}

Extent cut(const Extent& piece, uint64_t from, uint64_t to) {
  Extent out = piece;
  out.offset = std::max(piece.offset, from);
  out.length = std::min(end_of(piece), to) - out.offset;
  if (piece.kind != ExtentKind::kHole) out.segment_offset += out.offset - piece.offset;
  if (mutant("split_off_by_one") && out.offset != piece.offset) --out.segment_offset;
  return out;
}

void append(std::vector<Extent>& pieces, const Extent& piece) {
  if (piece.length == 0) return;
  if (!pieces.empty() && continues(pieces.back(), piece)) {
    pieces.back().length += piece.length;
  } else {
    pieces.push_back(piece);
  }
}

Extent hole(uint64_t from, uint64_t to) {
  return {.offset = from, .length = to - from};
}

// First piece that ends behind `offset`.
std::vector<Extent>::const_iterator first_behind(const std::vector<Extent>& pieces, uint64_t offset) {
  return std::partition_point(pieces.begin(), pieces.end(),
                              [&](const Extent& piece) { return end_of(piece) <= offset; });
}

}  // namespace

std::vector<Extent> clip_extents(const std::vector<Extent>& extents, uint64_t offset, uint64_t length) {
  std::vector<Extent> out;
  for (const Extent& piece : extents)
    if (piece.offset < offset + length && end_of(piece) > offset) out.push_back(cut(piece, offset, offset + length));
  return out;
}

// --- ExtentDelta ---

void ExtentDelta::count(const Extent& piece, int sign) {
  HR_ASSERT(stored_kind(piece.kind));
  Change& change = piece.kind == ExtentKind::kSegment ? segments[piece.segment] : staged[piece.staged];
  int64_t length = sign * static_cast<int64_t>(piece.length);
  change.bytes += length;
  change.pieces += sign;
  bytes += length;
}

void ExtentDelta::add(const ExtentDelta& other) {
  for (const auto& [segment, change] : other.segments) {
    segments[segment].bytes += change.bytes;
    segments[segment].pieces += change.pieces;
  }
  for (const auto& [id, change] : other.staged) {
    staged[id].bytes += change.bytes;
    staged[id].pieces += change.pieces;
  }
  bytes += other.bytes;
}

void ExtentDelta::prune() {
  std::erase_if(segments, [](const auto& entry) { return entry.second == Change{}; });
  std::erase_if(staged, [](const auto& entry) { return entry.second == Change{}; });
}

// --- ExtentMap ---

ExtentMap::ExtentMap(uint64_t base, uint64_t span, std::vector<Extent> pieces)
    : base_(base), span_(span), pieces_(std::move(pieces)) {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    HR_ASSERT(stored_kind(pieces_[i].kind) && pieces_[i].length > 0);
    HR_ASSERT(pieces_[i].offset >= (i == 0 ? base_ : end_of(pieces_[i - 1])) && end_of(pieces_[i]) <= end());
  }
}

ExtentDelta ExtentMap::replace(uint64_t offset, uint64_t length, const std::vector<Extent>& pieces) {
  HR_ASSERT(offset >= base_ && length <= end() - offset);
  ExtentDelta delta;
  if (length == 0) return delta;
  uint64_t to = offset + length;
  // From the neighbour that touches the range on the left to the one that does on the right: they
  // may merge.
  auto first =
      std::partition_point(pieces_.begin(), pieces_.end(), [&](const Extent& p) { return end_of(p) < offset; });
  auto last = std::partition_point(first, pieces_.end(), [&](const Extent& p) { return p.offset <= to; });
  std::vector<Extent> changed;
  for (auto at = first; at != last; ++at) {
    delta.count(*at, -1);
    if (at->offset < offset) append(changed, cut(*at, 0, offset));
  }
  uint64_t done = offset;
  for (const Extent& piece : pieces) {
    HR_ASSERT(piece.offset >= done && end_of(piece) <= to);
    done = end_of(piece);
    if (piece.kind == ExtentKind::kHole) continue;
    HR_ASSERT(stored_kind(piece.kind));
    append(changed, piece);
  }
  for (auto at = first; at != last; ++at)
    if (end_of(*at) > to) append(changed, cut(*at, to, end_of(*at)));
  for (const Extent& piece : changed) delta.count(piece, +1);
  auto hint = pieces_.erase(first, last);
  pieces_.insert(hint, changed.begin(), changed.end());
  delta.prune();
  return delta;
}

ExtentDelta ExtentMap::truncate(uint64_t size) {
  uint64_t from = std::max(size, base_);
  return from >= end() ? ExtentDelta() : replace(from, end() - from, {});
}

ExtentDelta ExtentMap::repoint(const Extent& from, SegmentId to, uint64_t to_offset) {
  ExtentDelta delta;
  // In the same place of the file, and the same bytes of the source there.
  auto touches = [&from](const Extent& piece) {
    return piece.offset < end_of(from) && end_of(piece) > from.offset && same_source(piece, from) &&
           piece.segment_offset + from.offset == from.segment_offset + piece.offset;
  };
  auto begin = std::ranges::find_if(pieces_, touches);
  if (begin == pieces_.end()) return delta;
  auto stop = begin;
  for (auto at = begin; at != pieces_.end() && at->offset < end_of(from); ++at)
    if (touches(*at)) stop = at + 1;
  // And their neighbours, with which they may grow together.
  if (begin != pieces_.begin()) --begin;
  if (stop != pieces_.end()) ++stop;
  std::vector<Extent> after;
  for (const Extent& piece : std::ranges::subrange(begin, stop)) {
    delta.count(piece, -1);
    if (!touches(piece)) {
      append(after, piece);
      continue;
    }
    Extent moved = cut(piece, from.offset, end_of(from));
    if (piece.offset < moved.offset) append(after, cut(piece, 0, moved.offset));
    uint64_t tail = end_of(moved);
    moved.kind = ExtentKind::kSegment;
    moved.segment = to;
    moved.staged = 0;
    moved.segment_offset = to_offset + (moved.offset - from.offset);
    append(after, moved);
    if (tail < end_of(piece)) append(after, cut(piece, tail, end_of(piece)));
  }
  for (const Extent& piece : after) delta.count(piece, +1);
  auto at = pieces_.erase(begin, stop);
  pieces_.insert(at, after.begin(), after.end());
  delta.prune();
  return delta;
}

std::vector<Extent> ExtentMap::slice(uint64_t offset, uint64_t length, uint64_t file_size) const {
  std::vector<Extent> out;
  uint64_t to = std::min({offset + length, file_size, end()});
  uint64_t at = std::max(offset, base_);
  if (at >= to) return out;
  for (auto piece = first_behind(pieces_, at); piece != pieces_.end() && piece->offset < to; ++piece) {
    if (piece->offset > at) append(out, hole(at, piece->offset));
    append(out, cut(*piece, at, to));
    at = std::min(end_of(*piece), to);
  }
  if (at < to) append(out, hole(at, to));
  return out;
}

// --- Leaves ---

Key leaf_key(FileId file, Leaf leaf) {
  HR_ASSERT(leaf.index < kMaxFileSize / kWholeLeaf && leaf.part <= 16);
  return KeyBuilder(file.slot(), Table::kExtent).u48(file.local()).u48(leaf.index << 8 | leaf.part).take();
}

Leaf leaf_of(std::string_view key) {
  uint64_t suffix = key_number(key, kKeyPrefix + 6, 6);
  return {.index = suffix >> 8, .part = static_cast<uint8_t>(suffix)};
}

namespace {

struct LeafHeader {
  uint8_t format = kFormat;
  uint8_t span_log2 = 0;
  uint16_t parts = 0;
  uint32_t pieces = 0;
  uint32_t segments = 0;
  uint32_t staged = 0;
  void fields(this auto& self, auto& v) {
    v(self.format, self.span_log2, self.parts, self.pieces, self.segments, self.staged);
  }
};
constexpr size_t kHeaderBytes = 16;
constexpr size_t kSegmentBytes = 16;
constexpr size_t kStagedBytes = 8;
constexpr size_t kPieceBytes = 16;

// A source's number in its table: tables are in the order in which pieces first name them.
template <class T>
uint32_t number_of(std::vector<T>& table, std::map<T, uint32_t>& numbers, const T& source) {
  auto [at, added] = numbers.emplace(source, static_cast<uint32_t>(table.size()));
  if (added) table.push_back(source);
  return at->second;
}

template <class T>
bool all_different(const std::vector<T>& table) {
  return std::set<T>(table.begin(), table.end()).size() == table.size();
}

Error corrupt(const char* what) {
  return {Code::kCorrupt, std::string("extent leaf: ") + what};
}

}  // namespace

std::string encode_leaf(uint64_t base, uint64_t span, const std::vector<Extent>& pieces) {
  HR_ASSERT(std::has_single_bit(span) && span <= kWholeLeaf && base % span == 0);
  std::vector<SegmentId> segments;
  std::vector<uint64_t> staged;
  std::map<SegmentId, uint32_t> segment_numbers;
  std::map<uint64_t, uint32_t> staged_numbers;
  Writer packed(pieces.size() * kPieceBytes);
  uint64_t done = base;
  for (const Extent& piece : pieces) {
    HR_ASSERT(stored_kind(piece.kind) && piece.length > 0 && piece.offset >= done && end_of(piece) <= base + span);
    HR_ASSERT(piece.segment_offset + piece.length <= kMaxSegment);
    done = end_of(piece);
    uint32_t source = piece.kind == ExtentKind::kSegment ? number_of(segments, segment_numbers, piece.segment)
                                                         : number_of(staged, staged_numbers, piece.staged);
    packed(static_cast<uint32_t>((piece.offset - base) << 8 | static_cast<uint8_t>(piece.kind)),
           static_cast<uint32_t>(piece.length - 1), source, static_cast<uint32_t>(piece.segment_offset));
  }
  Writer writer(kHeaderBytes + segments.size() * kSegmentBytes + staged.size() * kStagedBytes + packed.size());
  writer(LeafHeader{.span_log2 = static_cast<uint8_t>(std::countr_zero(span)),
                    .pieces = static_cast<uint32_t>(pieces.size()),
                    .segments = static_cast<uint32_t>(segments.size()),
                    .staged = static_cast<uint32_t>(staged.size())});
  for (const SegmentId& segment : segments) writer(segment);
  for (uint64_t id : staged) writer(id);
  writer.raw(packed.bytes().data(), packed.size());
  return writer.take();
}

std::string encode_split_leaf(uint16_t parts) {
  HR_ASSERT(parts != 0);
  Writer writer(kHeaderBytes);
  writer(LeafHeader{.span_log2 = static_cast<uint8_t>(std::countr_zero(kWholeLeaf)), .parts = parts});
  return writer.take();
}

Result<LeafValue> decode_leaf(uint64_t base, uint64_t span, std::string_view bytes) {
  Reader reader(bytes);
  LeafHeader header;
  reader(header);
  if (!reader.ok() || header.format == 0) return corrupt("truncated");
  if (header.format > kFormat)
    return Error(Code::kUnsupportedFormat,
                 "extent leaf of format " + std::to_string(header.format) + ": upgrade headrace");
  if (header.span_log2 != std::countr_zero(span)) return corrupt("covers another span than its key says");
  uint64_t rest = uint64_t{header.segments} * kSegmentBytes + uint64_t{header.staged} * kStagedBytes +
                  uint64_t{header.pieces} * kPieceBytes;
  if (rest != reader.left()) return corrupt("its size does not fit its counts");
  LeafValue out;
  out.parts = header.parts;
  if (header.parts != 0) {
    if (span != kWholeLeaf || rest != 0) return corrupt("only a whole leaf splits, and has no pieces then");
    return out;
  }
  std::vector<SegmentId> segments(header.segments);
  std::vector<uint64_t> staged(header.staged);
  for (SegmentId& segment : segments) reader(segment);
  for (uint64_t& id : staged) reader(id);
  if (!all_different(segments) || !all_different(staged)) return corrupt("a source is listed twice");
  uint32_t next_segment = 0;
  uint32_t next_staged = 0;
  uint64_t done = base;
  for (uint32_t i = 0; i < header.pieces; ++i) {
    uint32_t place = 0;
    uint32_t length = 0;
    uint32_t source = 0;
    uint32_t source_offset = 0;
    reader(place, length, source, source_offset);
    Extent piece{.offset = base + (place >> 8),
                 .length = uint64_t{length} + 1,
                 .kind = static_cast<ExtentKind>(place & 0xff),
                 .segment_offset = source_offset};
    if (piece.offset < done || end_of(piece) > base + span) return corrupt("a piece overlaps another or the border");
    if (piece.segment_offset + piece.length > kMaxSegment) return corrupt("a piece reaches behind its source");
    done = end_of(piece);
    if (!stored_kind(piece.kind)) return corrupt("a piece is of a kind that leaves do not hold");
    bool is_segment = piece.kind == ExtentKind::kSegment;
    uint32_t& next = is_segment ? next_segment : next_staged;
    if (source > next || source >= (is_segment ? header.segments : header.staged))
      return corrupt("a piece names no listed source");
    if (source == next) ++next;
    if (is_segment) {
      piece.segment = segments[source];
    } else {
      piece.staged = staged[source];
    }
    if (!out.pieces.empty() && continues(out.pieces.back(), piece)) return corrupt("a piece is cut for no reason");
    out.pieces.push_back(piece);
  }
  if (next_segment != header.segments || next_staged != header.staged) return corrupt("a listed source has no piece");
  return out;
}

// --- FileLeaves ---

namespace {

uint16_t bit_of(uint8_t part) {
  return static_cast<uint16_t>(1u << (part - 1));
}

// Calls f(from, to) for each stretch of [from, to) between multiples of unit.
template <class F>
void each_unit(uint64_t from, uint64_t to, uint64_t unit, F f) {
  while (from < to) {
    uint64_t border = std::min(to, round_down(from, unit) + unit);
    f(from, border);
    from = border;
  }
}

}  // namespace

std::vector<Leaf> FileLeaves::missing(uint64_t offset, uint64_t length) const {
  HR_ASSERT(offset <= kMaxFileSize && length <= kMaxFileSize - offset);
  std::vector<Leaf> out;
  each_unit(offset, offset + length, kWholeLeaf, [&](uint64_t from, uint64_t to) {
    Leaf leaf = whole_leaf_at(from);
    auto whole = wholes_.find(leaf.index);
    if (whole == wholes_.end()) {
      out.push_back(leaf);
      return;
    }
    if (!whole->second.split) return;
    each_unit(from, to, kPartLeaf, [&](uint64_t at, uint64_t) {
      Leaf part = part_leaf_at(at);
      bool in_store = (whole->second.stored_parts & bit_of(part.part)) != 0;
      if (in_store && !whole->second.parts.contains(part.part)) out.push_back(part);
    });
  });
  return out;
}

Result<void> FileLeaves::load(Leaf leaf, std::optional<std::string_view> row) {
  LeafValue value;
  if (row) {
    HR_TRY(value, decode_leaf(leaf.base(), leaf.span(), *row));
  }
  if (leaf.part == 0) {
    HR_ASSERT(!wholes_.contains(leaf.index));
    wholes_.emplace(leaf.index, Whole{.split = value.parts != 0,
                                      .stored_parts = value.parts,
                                      .stored = row.has_value(),
                                      .map = ExtentMap(leaf.base(), leaf.span(), std::move(value.pieces))});
    return {};
  }
  auto whole = wholes_.find(leaf.index);
  HR_ASSERT(whole != wholes_.end() && whole->second.split);
  if (!row) return corrupt("a part that its whole leaf names is not there");
  whole->second.parts.emplace(leaf.part, ExtentMap(leaf.base(), leaf.span(), std::move(value.pieces)));
  return {};
}

ExtentMap& FileLeaves::part_at(Whole& whole, uint64_t index, uint8_t part) {
  auto at = whole.parts.find(part);
  if (at != whole.parts.end()) return at->second;
  HR_ASSERT((whole.stored_parts & bit_of(part)) == 0);  // else it was missing()
  Leaf leaf{.index = index, .part = part};
  return whole.parts.emplace(part, ExtentMap(leaf.base(), leaf.span())).first->second;
}

void FileLeaves::split_if_crowded(uint64_t index, Whole& whole, ExtentDelta& delta) {
  if (whole.split || whole.map.pieces().size() <= kMaxLeafPieces) return;
  std::vector<Extent> pieces = whole.map.pieces();
  delta.add(whole.map.replace(whole.map.base(), kWholeLeaf, {}));
  whole.split = true;
  for (uint8_t part = 1; part <= kWholeLeaf / kPartLeaf; ++part) {
    ExtentMap& map = part_at(whole, index, part);
    std::vector<Extent> cut_pieces = clip_extents(pieces, map.base(), kPartLeaf);
    if (cut_pieces.empty()) continue;
    delta.add(map.replace(map.base(), kPartLeaf, cut_pieces));
    whole.part_changed[part] = true;
  }
}

ExtentDelta FileLeaves::replace(uint64_t offset, uint64_t length, const std::vector<Extent>& pieces) {
  HR_ASSERT(missing(offset, length).empty());
  ExtentDelta delta;
  each_unit(offset, offset + length, kWholeLeaf, [&](uint64_t from, uint64_t to) {
    uint64_t index = from / kWholeLeaf;
    Whole& whole = wholes_.at(index);
    whole.changed = true;
    if (!whole.split) {
      delta.add(whole.map.replace(from, to - from, clip_extents(pieces, from, to - from)));
      split_if_crowded(index, whole, delta);
      return;
    }
    each_unit(from, to, kPartLeaf, [&](uint64_t begin, uint64_t end) {
      uint8_t part = part_leaf_at(begin).part;
      delta.add(part_at(whole, index, part).replace(begin, end - begin, clip_extents(pieces, begin, end - begin)));
      whole.part_changed[part] = true;
    });
  });
  delta.prune();
  return delta;
}

ExtentDelta FileLeaves::repoint(const Extent& from, SegmentId to, uint64_t to_offset) {
  HR_ASSERT(missing(from.offset, from.length).empty());
  ExtentDelta delta;
  each_unit(from.offset, end_of(from), kPartLeaf, [&](uint64_t begin, uint64_t end) {
    uint64_t index = begin / kWholeLeaf;
    Whole& whole = wholes_.at(index);
    Extent piece = cut(from, begin, end);
    uint64_t target = to_offset + (begin - from.offset);
    uint8_t part = part_leaf_at(begin).part;
    ExtentMap& map = whole.split ? part_at(whole, index, part) : whole.map;
    ExtentDelta change = map.repoint(piece, to, target);
    if (change.segments.empty() && change.staged.empty()) return;
    whole.changed = true;
    if (whole.split) whole.part_changed[part] = true;
    delta.add(change);
  });
  for (auto& [index, whole] : wholes_) split_if_crowded(index, whole, delta);
  delta.prune();
  return delta;
}

std::vector<Extent> FileLeaves::slice(uint64_t offset, uint64_t length, uint64_t file_size) const {
  if (offset >= file_size) return {};
  length = std::min(length, file_size - offset);
  HR_ASSERT(missing(offset, length).empty());
  std::vector<Extent> out;
  each_unit(offset, offset + length, kWholeLeaf, [&](uint64_t from, uint64_t to) {
    const Whole& whole = wholes_.at(from / kWholeLeaf);
    if (!whole.split) {
      for (const Extent& piece : whole.map.slice(from, to - from, file_size)) append(out, piece);
      return;
    }
    each_unit(from, to, kPartLeaf, [&](uint64_t begin, uint64_t end) {
      auto part = whole.parts.find(part_leaf_at(begin).part);
      if (part == whole.parts.end()) {
        append(out, hole(begin, end));
        return;
      }
      for (const Extent& piece : part->second.slice(begin, end - begin, file_size)) append(out, piece);
    });
  });
  return out;
}

std::vector<std::pair<Leaf, std::optional<std::string>>> FileLeaves::changes() {
  std::vector<std::pair<Leaf, std::optional<std::string>>> out;
  for (auto& [index, whole] : wholes_) {
    if (!whole.changed) continue;
    whole.changed = false;
    Leaf leaf{.index = index};
    if (!whole.split) {
      if (!whole.map.empty()) {
        out.emplace_back(leaf, encode_leaf(leaf.base(), leaf.span(), whole.map.pieces()));
      } else if (whole.stored) {
        out.emplace_back(leaf, std::nullopt);
      }
      whole.stored = !whole.map.empty();
      continue;
    }
    uint16_t parts = whole.stored_parts;
    std::vector<std::pair<Leaf, std::optional<std::string>>> rows;
    for (const auto& [number, changed] : whole.part_changed) {
      const ExtentMap& map = whole.parts.at(number);
      Leaf part{.index = index, .part = number};
      if (!map.empty()) {
        parts |= bit_of(number);
        rows.emplace_back(part, encode_leaf(part.base(), part.span(), map.pieces()));
      } else if ((parts & bit_of(number)) != 0) {
        parts &= static_cast<uint16_t>(~bit_of(number));
        rows.emplace_back(part, std::nullopt);
      }
    }
    whole.part_changed.clear();
    if (parts == 0) {
      // The last piece went: it may grow as a whole leaf again.
      if (whole.stored) out.emplace_back(leaf, std::nullopt);
      whole.stored = false;
      whole.split = false;
      whole.parts.clear();
    } else {
      if (!whole.stored || parts != whole.stored_parts) out.emplace_back(leaf, encode_split_leaf(parts));
      whole.stored = true;
    }
    whole.stored_parts = parts;
    out.insert(out.end(), std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
  }
  return out;
}

std::vector<Leaf> FileLeaves::crowded() const {
  std::vector<Leaf> out;
  for (const auto& [index, whole] : wholes_)
    for (const auto& [number, map] : whole.parts)
      if (map.pieces().size() > kMaxLeafPieces) out.push_back({.index = index, .part = number});
  return out;
}

}  // namespace headrace
