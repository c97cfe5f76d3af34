#include "hot/fragment_table.h"

#include <algorithm>
#include <ranges>

namespace headrace {

uint64_t FragmentTable::hash(const Packed& p) {
  uint64_t h = p.low * 0x9e3779b97f4a7c15 ^ (uint64_t{p.home} << 8 | p.index);
  h ^= h >> 32;
  h *= 0xff51afd7ed558ccd;
  h ^= h >> 29;
  h *= 0xc4ceb9fe1a85ec53;
  return h ^ h >> 32;
}

FragmentTable::Packed FragmentTable::name_of(const FragmentName& name) {
  Packed packed;
  packed.low = name.segment.low();
  packed.home = name.segment.home().value();
  packed.index = name.index;
  return packed;
}

std::optional<FragmentTable::Packed> FragmentTable::pack_name(const FragmentName& name) const {
  auto at = std::ranges::find(namespaces_, name.segment.name_space());
  if (at == namespaces_.end()) return std::nullopt;
  Packed packed = name_of(name);
  packed.name_space = static_cast<uint8_t>(at - namespaces_.begin());
  return packed;
}

FragmentEntry FragmentTable::unpack(const Packed& p) const {
  FragmentEntry out;
  out.name.segment = SegmentId(namespaces_[p.name_space].value() << 16 | p.home, p.low);
  out.name.index = p.index;
  out.protection = {static_cast<uint8_t>(p.length_data & 0xff), static_cast<uint8_t>(p.birth_parity >> 4 & 0xf)};
  out.segment_length = uint64_t{p.length_data >> 8} + 1;
  out.block = p.block;
  out.birth = p.birth_parity >> 8;
  return out;
}

void FragmentTable::place(Shard& shard, const Packed& packed) {
  size_t i = home_cell(shard, hash(packed));
  while (shard.cells[i].used()) i = i + 1 == shard.cells.size() ? 0 : i + 1;
  shard.cells[i] = packed;
}

bool FragmentTable::insert(const FragmentEntry& entry) {
  HR_ASSERT(entry.segment_length > 0 && entry.segment_length <= kMaxSegment && entry.protection.parity <= 15);
  if (find(entry.name)) return false;
  std::optional<Packed> packed = pack_name(entry.name);
  if (!packed) {
    if (namespaces_.size() == 255) return false;
    namespaces_.push_back(entry.name.segment.name_space());
    packed = pack_name(entry.name);
  }
  packed->block = entry.block;
  packed->length_data = static_cast<uint32_t>(entry.segment_length - 1) << 8 | entry.protection.data;
  packed->birth_parity = std::min<uint32_t>(entry.birth, 0xff'ffff) << 8 | uint32_t{entry.protection.parity} << 4 | 1;
  Shard& shard = shards_[shard_of(hash(*packed))];
  if ((shard.used + 1) * 10 > shard.cells.size() * 9) {
    Shard grown;
    grown.cells.resize(std::max<size_t>(8, shard.cells.size() + shard.cells.size() / 5));
    for (const Packed& cell : shard.cells)
      if (cell.used()) place(grown, cell);
    shard.cells = std::move(grown.cells);
  }
  place(shard, *packed);
  ++shard.used;
  ++size_;
  return true;
}

std::optional<FragmentEntry> FragmentTable::find(const FragmentName& name) const {
  std::optional<Packed> packed = pack_name(name);
  if (!packed) return std::nullopt;
  uint64_t h = hash(*packed);
  const Shard& shard = shards_[shard_of(h)];
  if (shard.used == 0) return std::nullopt;
  for (size_t i = home_cell(shard, h); shard.cells[i].used(); i = i + 1 == shard.cells.size() ? 0 : i + 1)
    if (shard.cells[i].same(*packed)) return unpack(shard.cells[i]);
  return std::nullopt;
}

std::optional<FragmentEntry> FragmentTable::erase(const FragmentName& name) {
  std::optional<Packed> packed = pack_name(name);
  if (!packed) return std::nullopt;
  uint64_t h = hash(*packed);
  Shard& shard = shards_[shard_of(h)];
  if (shard.used == 0) return std::nullopt;
  size_t n = shard.cells.size();
  size_t i = home_cell(shard, h);
  while (shard.cells[i].used() && !shard.cells[i].same(*packed)) i = i + 1 == n ? 0 : i + 1;
  if (!shard.cells[i].used()) return std::nullopt;
  FragmentEntry out = unpack(shard.cells[i]);
  // Close the gap: move back whatever could not be found across it.
  for (size_t j = i + 1 == n ? 0 : i + 1; shard.cells[j].used(); j = j + 1 == n ? 0 : j + 1) {
    size_t wants = home_cell(shard, hash(shard.cells[j]));
    bool stays = i <= j ? (i < wants && wants <= j) : (i < wants || wants <= j);
    if (stays) continue;
    shard.cells[i] = shard.cells[j];
    i = j;
  }
  shard.cells[i] = Packed();
  --shard.used;
  --size_;
  return out;
}

void FragmentTable::for_each(const std::function<void(const FragmentEntry&)>& visit) const {
  for (size_t shard = 0; shard < kShards; ++shard) for_each_of(shard, visit);
}

void FragmentTable::for_each_of(size_t shard, const std::function<void(const FragmentEntry&)>& visit) const {
  for (const Packed& cell : shards_[shard].cells)
    if (cell.used()) visit(unpack(cell));
}

std::vector<FragmentEntry> FragmentTable::after(const FragmentName& after, size_t limit, bool& more) const {
  HR_ASSERT(limit > 0);
  const auto less = [](const FragmentEntry& a, const FragmentEntry& b) { return a.name < b.name; };
  std::vector<FragmentEntry> out;
  const bool from_first = after == FragmentName{};
  const size_t first = from_first ? 0 : shard_of(hash(name_of(after)));
  for (size_t shard = first; shard < kShards; ++shard) {
    if (out.size() == limit) {
      more = std::ranges::any_of(shards_ | std::views::drop(shard), [](const Shard& s) { return s.used > 0; });
      return out;
    }
    std::vector<FragmentEntry> found;
    for_each_of(shard, [&](const FragmentEntry& entry) {
      if (from_first || shard > first || after < entry.name) found.push_back(entry);
    });
    const size_t take = std::min(limit - out.size(), found.size());
    std::ranges::partial_sort(found, found.begin() + static_cast<ptrdiff_t>(take), less);
    out.insert(out.end(), found.begin(), found.begin() + static_cast<ptrdiff_t>(take));
    if (take < found.size()) {
      more = true;
      return out;
    }
  }
  more = false;
  return out;
}

uint64_t FragmentTable::memory_bytes() const {
  uint64_t bytes = sizeof *this;
  for (const Shard& shard : shards_) bytes += shard.cells.capacity() * sizeof(Packed);
  return bytes;
}

}  // namespace headrace
