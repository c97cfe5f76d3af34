// FragmentTable: which fragments a target holds and where, in ≤ 32 bytes a fragment once there are
// many.
//
// Open addressing with linear probing in 64 shards, each between 3/4 and 9/10 full: 24 bytes an
// entry. Growing moves one shard at a time, so that no insert waits for all. At most 255 namespaces
// on one target. Owner: Target. One core.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "proto/placement.h"
#include "proto/target.h"

namespace headrace {

struct FragmentEntry {
  FragmentName name;
  Protection protection;        // parity ≤ 15
  uint64_t segment_length = 0;  // 1 … kMaxSegment
  uint32_t block = 0;           // of the header, in the data space
  uint32_t birth = 0;           // ticks of the target since it was opened; kept in 24 bits
};

class FragmentTable {
 public:
  FragmentTable() = default;
  // False, nothing changed, when the name is there or no further namespace fits.
  bool insert(const FragmentEntry& entry);
  [[nodiscard]] std::optional<FragmentEntry> find(const FragmentName& name) const;
  std::optional<FragmentEntry> erase(const FragmentName& name);
  // In no order. The table must not change meanwhile.
  void for_each(const std::function<void(const FragmentEntry&)>& visit) const;
  // The `limit` smallest names above `after`, ascending. Walks the whole table.
  [[nodiscard]] std::vector<FragmentEntry> after(const FragmentName& after, size_t limit, bool& more) const;
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  struct Packed {
    uint64_t low = 0;  // of the segment's id
    uint32_t block = 0;
    uint16_t home = 0;
    uint8_t name_space = 0;  // index in namespaces_
    uint8_t index = 0;
    uint32_t length_data = 0;   // segment length - 1: 24 bits | D: 8 bits
    uint32_t birth_parity = 0;  // birth: 24 bits | P: 4 bits | used: 1 bit
    [[nodiscard]] bool used() const { return (birth_parity & 1) != 0; }
    [[nodiscard]] bool same(const Packed& o) const {
      return low == o.low && home == o.home && name_space == o.name_space && index == o.index;
    }
  };
  static_assert(sizeof(Packed) == 24);
  struct Shard {
    std::vector<Packed> cells;
    size_t used = 0;
  };
  static uint64_t hash(const Packed& packed);
  static size_t home_cell(const Shard& shard, uint64_t hash) {
    return static_cast<size_t>((hash & 0xffff'ffff) * shard.cells.size() >> 32);
  }
  static void place(Shard& shard, const Packed& packed);
  [[nodiscard]] std::optional<Packed> pack_name(const FragmentName& name) const;
  [[nodiscard]] FragmentEntry unpack(const Packed& packed) const;

  std::array<Shard, 64> shards_;
  std::vector<NamespaceId> namespaces_;
  uint64_t size_ = 0;
};

}  // namespace headrace
