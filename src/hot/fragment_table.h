// FragmentTable: which fragments a target holds and where, in ≤ 32 bytes a fragment once there are
// many.
//
// Open addressing with linear probing in 64 shards, each between 3/4 and 9/10 full: 24 bytes an
// entry. Growing, a page of all and the walk for a table on the device look at one shard at a time:
// nothing waits for ten million entries. Which shard a name is in never changes. At most 255
// namespaces on one target. Owner: Target. One core.
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
  static constexpr size_t kShards = 64;

  FragmentTable() = default;
  // False, nothing changed, when the name is there or no further namespace fits.
  bool insert(const FragmentEntry& entry);
  [[nodiscard]] std::optional<FragmentEntry> find(const FragmentName& name) const;
  std::optional<FragmentEntry> erase(const FragmentName& name);
  // In no order. The table must not change meanwhile.
  void for_each(const std::function<void(const FragmentEntry&)>& visit) const;
  void for_each_of(size_t shard, const std::function<void(const FragmentEntry&)>& visit) const;
  // The next `limit` (at least 1) behind `after`, which need not be there (the default: from the first on): ascending
  // by shard, then by name, in every run of every process the same. Walks the shards that it takes from.
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
  // Not of the namespace, whose index depends on what came first.
  static uint64_t hash(const Packed& packed);
  static size_t shard_of(uint64_t hash) { return hash >> 58; }
  static size_t home_cell(const Shard& shard, uint64_t hash) {
    return static_cast<size_t>((hash & 0xffff'ffff) * shard.cells.size() >> 32);
  }
  static void place(Shard& shard, const Packed& packed);
  static Packed name_of(const FragmentName& name);  // without its namespace
  [[nodiscard]] std::optional<Packed> pack_name(const FragmentName& name) const;
  [[nodiscard]] FragmentEntry unpack(const Packed& packed) const;

  std::array<Shard, kShards> shards_;
  std::vector<NamespaceId> namespaces_;
  uint64_t size_ = 0;
};

}  // namespace headrace
