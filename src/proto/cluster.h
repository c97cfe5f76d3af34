// The cluster map and what the coordinator keeps: durable records, format 1.
#pragma once

#include <string>
#include <vector>

#include "base/codec.h"
#include "base/ids.h"
#include "proto/placement.h"

namespace headrace {

// Lost: fenced, its fragments are rebuilt elsewhere. Retired: another one is in its place, or it goes. Draining: it
// serves what it holds, takes nothing new, and what it holds is moved elsewhere; then it goes.
enum class TargetState : uint8_t { kLive = 0, kLost = 1, kRetired = 2, kDraining = 3 };
[[nodiscard]] constexpr bool serves(TargetState state) {
  return state == TargetState::kLive || state == TargetState::kDraining;
}
// It leaves the map once nothing names it.
[[nodiscard]] constexpr bool leaves(TargetState state) {
  return state == TargetState::kRetired || state == TargetState::kDraining;
}
// What becomes of one that serves no more.
[[nodiscard]] constexpr TargetState when_lost(TargetState state) {
  return leaves(state) ? TargetState::kRetired : TargetState::kLost;
}

struct TargetInfo {
  TargetId id;
  NodeId node;
  uint32_t number = 0;  // 'tN' on its node: STATE/targets/tN
  std::string domain;   // 'zone/rack/host'; `up` gives every target its own last label
  TargetState state = TargetState::kLive;
  uint64_t capacity = 0;  // bytes of data space
  uint64_t used = 0;      // as last reported; a hint for placement
  void fields(this auto& self, auto& v) {
    v(self.id, self.node, self.number, self.domain, self.state, self.capacity, self.used);
  }
};

struct NodeInfo {
  NodeId id;
  std::string address;  // where its rpc service listens
  bool alive = true;
  void fields(this auto& self, auto& v) { v(self.id, self.address, self.alive); }
};

struct PartitionInfo {
  PartitionId id;
  uint16_t first_slot = 0;
  uint16_t last_slot = 0;  // included
  NodeId leader;
  PartitionEpoch epoch;
  void fields(this auto& self, auto& v) { v(self.id, self.first_slot, self.last_slot, self.leader, self.epoch); }
};

struct ClusterMap {
  static constexpr uint8_t kFormat = 1;
  uint64_t version = 0;
  ClusterId cluster;
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  Protection protection;  // of new segments, where no directory says otherwise
  std::vector<NodeInfo> nodes;
  std::vector<TargetInfo> targets;
  std::vector<PartitionInfo> partitions;
  void fields(this auto& self, auto& v) {
    v(self.version, self.cluster, self.name_space, self.namespace_epoch, self.protection, self.nodes, self.targets,
      self.partitions);
  }
  [[nodiscard]] const TargetInfo* target(TargetId id) const {
    for (const TargetInfo& t : targets)
      if (t.id == id) return &t;
    return nullptr;
  }
  [[nodiscard]] const NodeInfo* node(NodeId id) const {
    for (const NodeInfo& n : nodes)
      if (n.id == id) return &n;
    return nullptr;
  }
  [[nodiscard]] const PartitionInfo* partition(PartitionId id) const {
    for (const PartitionInfo& p : partitions)
      if (p.id == id) return &p;
    return nullptr;
  }
  [[nodiscard]] const PartitionInfo* partition_of(Slot slot) const {
    for (const PartitionInfo& p : partitions)
      if (p.first_slot <= slot.value() && slot.value() <= p.last_slot) return &p;
    return nullptr;
  }
};

// One run of a journal: the same records on each of `copies`.
struct RunRecord {
  RunId run;
  Position first;  // first position that it may hold
  std::vector<TargetId> copies;
  Position end;  // last position, once closed; 0 while open
  void fields(this auto& self, auto& v) { v(self.run, self.first, self.copies, self.end); }
};

// What the coordinator holds of a partition (key "partition/N"), replaced by compare-and-swap on epoch.
struct PartitionRecord {
  static constexpr uint8_t kFormat = 1;
  PartitionId id;
  uint16_t first_slot = 0;
  uint16_t last_slot = 0;
  NodeId leader;
  PartitionEpoch epoch;
  std::vector<RunRecord> runs;  // oldest first; trimmed ones are gone
  Position sealed_end;          // last position of the previous leader's journal
  SegmentId checkpoint;         // mirrored segment that holds the CheckpointRecord; zero: none yet
  uint64_t checkpoint_length = 0;
  std::vector<TargetId> checkpoint_copies;
  Position checkpoint_at;  // journal position that the checkpoint contains
  void fields(this auto& self, auto& v) {
    v(self.id, self.first_slot, self.last_slot, self.leader, self.epoch, self.runs, self.sealed_end, self.checkpoint,
      self.checkpoint_length, self.checkpoint_copies, self.checkpoint_at);
  }
};

}  // namespace headrace
