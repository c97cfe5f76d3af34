// Keys of a partition's rows (fixed, DESIGN.md §6 "Keys"): slot:16 | table:8 | table's own, all big-endian, so that a
// range of slots is a range of keys and byte order is number order. docs/formats/rows.md has every table.
#pragma once

#include <string>
#include <string_view>

#include "base/ids.h"
#include "meta/store/store.h"
#include "proto/transaction.h"

namespace headrace {

enum class Table : uint8_t {
  kInode = 1,        // local:48                        → InodeRow
  kDentry = 2,       // dir local:48 | shard:16 | name  → DentryRow
  kCookie = 3,       // dir local:48 | shard:16 | cookie:64 → CookieRow
  kExtent = 4,       // file local:48 | leaf suffix     → extent leaf (meta/extents.h)
  kSegment = 5,      // epoch:16 | sequence:48          → SegmentRow
  kLocation = 6,     // epoch:16 | sequence:48          → LocationRow; outside the point in time
  kObject = 7,       // object id:64                    → ObjectRow
  kStaged = 8,       // staged id:64                    → StagedRow
  kXattr = 9,        // file local:48 | name            → bytes
  kSession = 10,     // session:64                      → SessionRow
  kResult = 11,      // session:64 | sequence:64        → ResultRow
  kPrepared = 12,    // transaction                     → PreparedRow
  kDecision = 13,    // transaction                     → DecisionRow
  kOrphan = 14,      // file local:48                   → OrphanRow: unlinked but open
  kOnTarget = 15,    // target:64 | epoch:16 | sequence:48 → empty: a fragment of the segment is there
  kUploadable = 16,  // epoch:16 | sequence:48          → UploadableRow: no object yet
  kDead = 17,        // epoch:16 | sequence:48          → empty: no referrer; to be reaped
  kKept = 18,        // file local:48 | session:64      → empty: a session has it open
  kRemoval = 19,     // file local:48                   → empty: the file is removed in steps; "trim": its end is
  kPin = 20,         // file local:48                   → PinRow: what is at or below the file stays hot
  kLock = 21,        // file local:48                   → LockRow: advisory locks on the file
  kPartition = 255,  // name                            → counters and other rows of it all, at its first slot
};

class KeyBuilder {
 public:
  KeyBuilder(Slot slot, Table table) { u16(slot.value()).u8(static_cast<uint8_t>(table)); }
  KeyBuilder& u8(uint8_t v) {
    key_.push_back(static_cast<char>(v));
    return *this;
  }
  KeyBuilder& u16(uint16_t v) { return u8(static_cast<uint8_t>(v >> 8)).u8(static_cast<uint8_t>(v)); }
  KeyBuilder& u48(uint64_t v) {
    return u16(static_cast<uint16_t>(v >> 32)).u16(static_cast<uint16_t>(v >> 16)).u16(static_cast<uint16_t>(v));
  }
  KeyBuilder& u64(uint64_t v) { return u16(static_cast<uint16_t>(v >> 48)).u48(v & 0xffff'ffff'ffff); }
  KeyBuilder& text(std::string_view v) {
    key_.append(v);
    return *this;
  }
  [[nodiscard]] Key take() { return std::move(key_); }

 private:
  Key key_;
};

inline Key inode_key(FileId f) {
  return KeyBuilder(f.slot(), Table::kInode).u48(f.local()).take();
}
inline Key dentry_key(FileId dir, std::string_view name) {
  return KeyBuilder(dir.slot(), Table::kDentry).u48(dir.local()).u16(0).text(name).take();
}
inline Key cookie_key(FileId dir, uint64_t cookie) {
  return KeyBuilder(dir.slot(), Table::kCookie).u48(dir.local()).u16(0).u64(cookie).take();
}
inline Key extent_prefix(FileId f) {
  return KeyBuilder(f.slot(), Table::kExtent).u48(f.local()).take();
}
inline Key segment_key(SegmentId s, Table table = Table::kSegment) {
  return KeyBuilder(s.home(), table).u64(s.low()).take();
}
inline Key object_key(Slot slot, ObjectId o) {
  return KeyBuilder(slot, Table::kObject).u64(o.packed()).take();
}
inline Key staged_key(Slot slot, uint64_t staged) {
  return KeyBuilder(slot, Table::kStaged).u64(staged).take();
}
inline Key xattr_key(FileId f, std::string_view name) {
  return KeyBuilder(f.slot(), Table::kXattr).u48(f.local()).text(name).take();
}
inline Key session_key(Slot slot, SessionId s) {
  return KeyBuilder(slot, Table::kSession).u64(s.value()).take();
}
inline Key result_key(Slot slot, SessionId s, uint64_t sequence) {
  return KeyBuilder(slot, Table::kResult).u64(s.value()).u64(sequence).take();
}
inline Key transaction_key(Slot slot, Table table, const TransactionId& t) {
  return KeyBuilder(slot, table).u16(t.coordinator.value()).u64(t.epoch.value()).u64(t.number).take();
}
inline Key orphan_key(FileId f) {
  return KeyBuilder(f.slot(), Table::kOrphan).u48(f.local()).take();
}
inline Key removal_key(FileId f) {
  return KeyBuilder(f.slot(), Table::kRemoval).u48(f.local()).take();
}
inline Key pin_key(FileId f) {
  return KeyBuilder(f.slot(), Table::kPin).u48(f.local()).take();
}
inline Key lock_key(FileId f) {
  return KeyBuilder(f.slot(), Table::kLock).u48(f.local()).take();
}
inline Key kept_key(FileId f, SessionId s) {
  return KeyBuilder(f.slot(), Table::kKept).u48(f.local()).u64(s.value()).take();
}
inline Key on_target_key(SegmentId s, TargetId t) {
  return KeyBuilder(s.home(), Table::kOnTarget).u64(t.value()).u64(s.low()).take();
}
inline Key partition_row_key(Slot first_slot, std::string_view name) {
  return KeyBuilder(first_slot, Table::kPartition).text(name).take();
}
// At the root's partition: whoever commits a rename of a directory between parents changes it, so that two of them
// conflict.
inline Key rename_lock_key(Slot first_slot) {
  return partition_row_key(first_slot, "rename");
}

// The first key behind every key that begins with `prefix`. (Behind the rows of the last slot's last table come only
// the store's own.)
[[nodiscard]] inline Key prefix_end(Key prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return Key(kStoreReservedPrefix);
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}
// Reads a big-endian number of `bytes` bytes at `offset` of a key; asserts that it is there.
[[nodiscard]] inline uint64_t key_number(std::string_view key, size_t offset, size_t bytes) {
  HR_ASSERT(offset + bytes <= key.size());
  uint64_t v = 0;
  for (size_t i = 0; i < bytes; ++i) v = v << 8 | static_cast<uint8_t>(key[offset + i]);
  return v;
}
inline constexpr size_t kKeyPrefix = 3;  // slot and table

// The parts of keys that workers walk.
[[nodiscard]] inline Slot slot_of(std::string_view key) {
  return Slot(static_cast<uint16_t>(key_number(key, 0, 2)));
}
[[nodiscard]] inline FileId file_of(std::string_view key) {  // of the tables whose keys begin with one
  return FileId(slot_of(key), key_number(key, kKeyPrefix, 6));
}
[[nodiscard]] inline SegmentId segment_of(std::string_view key, NamespaceId ns, size_t offset = kKeyPrefix) {
  return SegmentId(ns, slot_of(key), NamespaceEpoch(static_cast<uint16_t>(key_number(key, offset, 2))),
                   key_number(key, offset + 2, 6));
}
[[nodiscard]] inline TransactionId transaction_of(std::string_view key) {
  TransactionId id;
  id.coordinator = PartitionId(static_cast<uint16_t>(key_number(key, kKeyPrefix, 2)));
  id.epoch = PartitionEpoch(key_number(key, kKeyPrefix + 2, 8));
  id.number = key_number(key, kKeyPrefix + 10, 8);
  return id;
}

}  // namespace headrace
