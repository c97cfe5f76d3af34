// Values of a partition's rows. Each begins with its format version (encode_durable). docs/formats/rows.md.
#pragma once

#include <string>
#include <vector>

#include "base/codec.h"
#include "meta/counters.h"
#include "meta/store/store.h"
#include "proto/meta.h"
#include "proto/placement.h"
#include "proto/transaction.h"

namespace headrace {

struct InodeRow {
  static constexpr uint8_t kFormat = 1;
  Attributes attributes;
  QuotaId quota;
  std::string symlink;       // target
  uint8_t shard_bits = 0;    // directories: log2 of the number of shards; 0 now
  uint64_t entries = 0;      // directories
  uint64_t next_cookie = 3;  // directories; only grows ('.' and '..' are 1 and 2)
  uint8_t split_leaves = 0;  // reserved
  uint32_t xattrs = 0;       // how many it has
  void fields(this auto& self, auto& v) {
    v(self.attributes, self.quota, self.symlink, self.shard_bits, self.entries, self.next_cookie, self.split_leaves,
      self.xattrs);
  }
};
struct DentryRow {
  static constexpr uint8_t kFormat = 1;
  FileId file;
  FileType type = FileType::kNone;
  uint64_t cookie = 0;
  void fields(this auto& self, auto& v) { v(self.file, self.type, self.cookie); }
};
struct CookieRow {
  static constexpr uint8_t kFormat = 1;
  std::string name;
  FileId file;
  FileType type = FileType::kNone;
  void fields(this auto& self, auto& v) { v(self.name, self.file, self.type); }
};
struct SegmentRow {
  static constexpr uint8_t kFormat = 1;
  uint64_t length = 0;
  uint64_t live = 0;       // bytes that extents name
  uint32_t referrers = 0;  // pieces that name it
  Cut birth;               // first cut that contains it
  Cut death = kNever;      // first cut that does not
  uint8_t codec = 0;
  KeyId key;
  bool frame_table = false;  // for dedup, later
  void fields(this auto& self, auto& v) {
    v(self.length, self.live, self.referrers, self.birth, self.death, self.codec, self.key, self.frame_table);
  }
};
struct LocationRow {
  static constexpr uint8_t kFormat = 1;
  uint64_t length = 0;
  NamespaceEpoch placed_in;  // placement of an earlier namespace epoch is void
  Placement placement;
  NamespaceId bucket;
  ObjectRef object;
  void fields(this auto& self, auto& v) { v(self.length, self.placed_in, self.placement, self.bucket, self.object); }
};
struct ObjectRow {
  static constexpr uint8_t kFormat = 1;
  uint64_t bytes = 0;  // size of the object
  uint64_t live = 0;   // bytes of segments in it that are not dead
  Cut birth;
  Cut death = kNever;  // first cut that needs nothing of it
  uint64_t raw = 0;    // bytes of the segments that were recorded in it, dead ones included; 0: not known (older rows)
  void fields(this auto& self, auto& v) {
    v(self.bytes, self.live, self.birth, self.death);
    v.tail(self.raw);
  }
};
struct StagedRow {
  static constexpr uint8_t kFormat = 1;
  FileId file;
  uint64_t file_offset = 0;  // where it was written
  std::string bytes;
  uint32_t referrers = 0;
  void fields(this auto& self, auto& v) { v(self.file, self.file_offset, self.bytes, self.referrers); }
};
struct SessionRow {
  static constexpr uint8_t kFormat = 1;
  ClientId client;
  NamespaceEpoch namespace_epoch;
  void fields(this auto& self, auto& v) { v(self.client, self.namespace_epoch); }
};
struct OriginRow {  // the cut of an earlier namespace epoch that this partition began on is in the rows
  static constexpr uint8_t kFormat = 1;
  NamespaceEpoch namespace_epoch;  // of the one that took it
  void fields(this auto& self, auto& v) { v(self.namespace_epoch); }
};
struct ResultRow {  // what a mutation answered; at the partition's first slot
  static constexpr uint8_t kFormat = 1;
  Code code = Code::kOk;
  std::string message;
  std::string reply;      // encoded Reply when ok
  uint64_t answered = 0;  // the ticket's lowest unanswered sequence: what was below it when this was written
  void fields(this auto& self, auto& v) {
    v(self.code, self.message, self.reply);
    v.tail(self.answered);
  }
};
struct PreparedRow {
  static constexpr uint8_t kFormat = 1;
  std::vector<RowChange> changes;  // applied when committed
  std::vector<Key> locks;          // rows that wait for the outcome
  CountersDelta counters;
  std::vector<FileId> unlinked;  // files whose last link goes with the commit
  std::string reply;             // encoded StepsReply
  void fields(this auto& self, auto& v) { v(self.changes, self.locks, self.counters, self.unlinked, self.reply); }
};
struct DecisionRow {  // the transaction committed; deleted when all participants finished
  static constexpr uint8_t kFormat = 1;
  std::vector<PartitionId> participants;
  void fields(this auto& self, auto& v) { v(self.participants); }
};
struct PinRow {
  static constexpr uint8_t kFormat = 1;
  std::string path;   // as the user named it
  int64_t since = 0;  // ns since 1970
  void fields(this auto& self, auto& v) { v(self.path, self.since); }
};
struct HeldLock {
  SessionId session;
  FileLock lock;
  void fields(this auto& self, auto& v) { v(self.session, self.lock); }
  bool operator==(const HeldLock&) const = default;
};
struct LockRow {
  static constexpr uint8_t kFormat = 1;
  std::vector<HeldLock> locks;
  void fields(this auto& self, auto& v) { v(self.locks); }
};
struct UploadableRow {
  static constexpr uint8_t kFormat = 1;
  int64_t since = 0;  // partition's hybrid time of its commit, ns
  void fields(this auto& self, auto& v) { v(self.since); }
};

}  // namespace headrace
