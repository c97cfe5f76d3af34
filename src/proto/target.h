// What a target is asked. Header.partition and Header.partition_epoch name the partition on whose behalf.
#pragma once

#include <vector>

#include "proto/header.h"
#include "proto/placement.h"

namespace headrace {

// Durable on reply. The same (segment, index) with the same bytes again is success, with others kExists.
// The payload is the fragment: ⌈length/D⌉ rounded up to kBlock (zero-padded); crcs one per block (stripe/fragment.h).
struct FragmentWrite {
  static constexpr MessageType kType = MessageType::kFragmentWrite;
  using Reply = Empty;
  TargetId target;
  SegmentId segment;
  uint8_t index = 0;
  Protection protection;
  uint64_t segment_length = 0;
  KeyId key;
  std::vector<uint32_t> crcs;
  Buffer payload;
  void fields(this auto& self, auto& v) {
    v(self.target, self.segment, self.index, self.protection, self.segment_length, self.key, self.crcs);
  }
};

// Block-aligned range of one fragment. The target verifies each block before it answers; so does the reader.
// kNoFragment: not here. kCorrupt: a block does not verify (the reader goes on degraded).
struct FragmentReadReply {
  std::vector<uint32_t> crcs;  // of the blocks in the payload
  uint64_t segment_length = 0;
  Protection protection{0, 0};  // how the segment was cut; no data: not said
  Buffer payload;
  void fields(this auto& self, auto& v) { v(self.crcs, self.segment_length, self.protection); }
};
struct FragmentRead {
  static constexpr MessageType kType = MessageType::kFragmentRead;
  using Reply = FragmentReadReply;
  TargetId target;
  SegmentId segment;
  uint8_t index = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) { v(self.target, self.segment, self.index, self.offset, self.length); }
};

struct FragmentName {
  SegmentId segment;
  uint8_t index = 0;
  void fields(this auto& self, auto& v) { v(self.segment, self.index); }
  auto operator<=>(const FragmentName&) const = default;
};
// Durable on reply; absent ones are success. Refused (kDeposed) below the highest epoch seen for the slot.
struct FragmentFree {
  static constexpr MessageType kType = MessageType::kFragmentFree;
  using Reply = Empty;
  TargetId target;
  std::vector<FragmentName> fragments;
  void fields(this auto& self, auto& v) { v(self.target, self.fragments); }
};

struct InventoryItem {
  FragmentName fragment;
  uint64_t bytes = 0;
  uint64_t age_ms = 0;  // since it was written, on the target's boot clock; large after a restart is not known: 0
  void fields(this auto& self, auto& v) { v(self.fragment, self.bytes, self.age_ms); }
};
struct InventoryReply {
  std::vector<InventoryItem> items;
  bool more = false;
  void fields(this auto& self, auto& v) { v(self.items, self.more); }
};
// A page of what the target holds, each fragment once in an order of the target's own, the same in every run of it.
struct Inventory {
  static constexpr MessageType kType = MessageType::kInventory;
  using Reply = InventoryReply;
  TargetId target;
  FragmentName after;     // the last one of the page before, there or not; none: from the first on
  uint32_t limit = 1000;  // 1 … 10,000
  void fields(this auto& self, auto& v) { v(self.target, self.after, self.limit); }
};

struct TargetStatusReply {
  uint64_t capacity = 0;  // bytes of data space
  uint64_t used = 0;      // fragments, journals; cache entries not counted
  uint64_t cached = 0;    // bytes of cache entries
  uint64_t fragments = 0;
  uint64_t corrupt_blocks = 0;  // found since start
  bool fenced = false;          // a write or flush failed: serves nothing
  std::string reason;           // why fenced
  void fields(this auto& self, auto& v) {
    v(self.capacity, self.used, self.cached, self.fragments, self.corrupt_blocks, self.fenced, self.reason);
  }
};
struct TargetStatus {
  static constexpr MessageType kType = MessageType::kTargetStatus;
  using Reply = TargetStatusReply;
  TargetId target;
  void fields(this auto& self, auto& v) { v(self.target); }
};

// Opens a run for appends. Raises the promise of the partition to Header.partition_epoch; kDeposed below it.
// `about` is kept with the run: partition, slots, predecessor (an encoded JournalAbout), for `headrace recover`.
struct JournalAbout {
  static constexpr uint8_t kFormat = 1;
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  PartitionId partition;
  uint16_t first_slot = 0;
  uint16_t last_slot = 0;
  PartitionEpoch epoch;
  RunId run;
  RunId predecessor;
  Position first;
  std::vector<TargetId> copies;
  void fields(this auto& self, auto& v) {
    v(self.name_space, self.namespace_epoch, self.partition, self.first_slot, self.last_slot, self.epoch, self.run,
      self.predecessor, self.first, self.copies);
  }
};
struct JournalOpen {
  static constexpr MessageType kType = MessageType::kJournalOpen;
  using Reply = Empty;
  TargetId target;
  RunId run;
  Position first;
  std::string about;
  void fields(this auto& self, auto& v) { v(self.target, self.run, self.first, self.about); }
};

// One batch of records with consecutive positions [first, last]. Durable on reply. Batches of a run arrive in order:
// `first` must follow what the run holds (kInvalid otherwise; the same batch again is success).
struct JournalAppend {
  static constexpr MessageType kType = MessageType::kJournalAppend;
  using Reply = Empty;
  TargetId target;
  RunId run;
  Position first;
  Position last;
  Buffer payload;  // encoded records (meta/journal), opaque to the target
  void fields(this auto& self, auto& v) { v(self.target, self.run, self.first, self.last); }
};

struct RunSummary {
  RunId run;
  Position first;
  Position last;         // of the longest valid prefix; first - 1 when empty
  bool damaged = false;  // an unreadable batch follows: bytes were lost or torn
  std::string about;
  void fields(this auto& self, auto& v) { v(self.run, self.first, self.last, self.damaged, self.about); }
};
struct JournalSealReply {
  std::vector<RunSummary> runs;
  void fields(this auto& self, auto& v) { v(self.runs); }
};
// Promises Header.partition_epoch for Header.partition: no append, open, free or trim below it is taken any more
// (durable on reply), and says what runs of the partition are here.
struct JournalSeal {
  static constexpr MessageType kType = MessageType::kJournalSeal;
  using Reply = JournalSealReply;
  TargetId target;
  void fields(this auto& self, auto& v) { v(self.target); }
};

struct JournalBatch {
  Position first;
  Position last;
  Buffer bytes;
  void fields(this auto& self, auto& v) { v(self.first, self.last, self.bytes); }
};
struct JournalReadReply {
  std::vector<JournalBatch> batches;  // empty: the end
  void fields(this auto& self, auto& v) { v(self.batches); }
};
struct JournalRead {
  static constexpr MessageType kType = MessageType::kJournalRead;
  using Reply = JournalReadReply;
  TargetId target;
  RunId run;
  Position from;  // the batch that contains it and later ones
  uint32_t max_bytes = 4 << 20;
  void fields(this auto& self, auto& v) { v(self.target, self.run, self.from, self.max_bytes); }
};

// Forgets whole runs, and space of the run in use wholly below a position. Durable on reply.
struct JournalTrim {
  static constexpr MessageType kType = MessageType::kJournalTrim;
  using Reply = Empty;
  TargetId target;
  std::vector<RunId> forget;
  RunId run;  // zero: none
  Position below;
  void fields(this auto& self, auto& v) { v(self.target, self.forget, self.run, self.below); }
};

}  // namespace headrace
