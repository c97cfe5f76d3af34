// Partition to partition: two-phase commit of operations whose rows lie in several partitions.
//
// The coordinating partition (that of the parent directory) prepares the others, then commits its own changes together
// with a decision row, then finishes the others. A participant that has waited long asks for the decision; no decision
// row and no such transaction in progress there means abort. Prepared changes lock their rows: whoever meets one waits.
// A prepare never waits for a lock: it answers kBusy, and the coordinator aborts and tries again, so nothing deadlocks.
#pragma once

#include <string>
#include <vector>

#include "proto/meta.h"

namespace headrace {

struct TransactionId {
  PartitionId coordinator;
  PartitionEpoch epoch;
  uint64_t number = 0;
  void fields(this auto& self, auto& v) { v(self.coordinator, self.epoch, self.number); }
  auto operator<=>(const TransactionId&) const = default;
};

enum class StepKind : uint8_t {
  kNone = 0,
  // Allocates an inode for a new directory: attributes (mode, uid, gid, parent), slot; name: its parent's default ACL,
  // which it inherits ("": none). Replies with Attributes.
  kMakeDirectory = 1,
  // directory, name → file, type; expect = the id that it may replace (zero: must be absent → kExists).
  kInsertEntry = 2,
  kRemoveEntry = 3,  // directory, name; expect = id that must be there (kBusy otherwise)
  // file: links += delta; at 0 the file is unlinked (kept while open), from 0 to 1 it goes only where `unnamed` says
  // that it never had a name. Replies with Attributes.
  kLinkCount = 4,
  kRemoveDirectory = 5,  // file: must be an empty directory (kNotEmpty); it is gone
  kSetParent = 6,        // file (a directory): parent becomes `directory`
  kLockRename = 7,       // the namespace's lock for renames of directories between parents (root's slot)
};
struct Step {
  StepKind kind = StepKind::kNone;
  Slot slot;  // decides which partition runs it
  FileId file;
  FileId directory;
  std::string name;
  FileType type = FileType::kNone;
  FileId expect;
  int32_t delta = 0;
  Attributes attributes;
  int64_t now = 0;  // time stamp of the operation
  bool unnamed = false;
  void fields(this auto& self, auto& v) {
    v(self.kind, self.slot, self.file, self.directory, self.name, self.type, self.expect, self.delta, self.attributes,
      self.now, self.unnamed);
  }
};
struct StepsReply {
  std::vector<Attributes> attributes;  // one per step; zero where there is nothing to say
  void fields(this auto& self, auto& v) { v(self.attributes); }
};
struct Prepare {
  static constexpr MessageType kType = MessageType::kPrepare;
  using Reply = StepsReply;
  TransactionId transaction;
  std::vector<Step> steps;
  void fields(this auto& self, auto& v) { v(self.transaction, self.steps); }
};
struct Finish {
  static constexpr MessageType kType = MessageType::kFinish;
  using Reply = Empty;
  TransactionId transaction;
  bool commit = false;
  void fields(this auto& self, auto& v) { v(self.transaction, self.commit); }
};
struct DecisionReply {
  bool known = false;  // false: still being decided; ask again
  bool commit = false;
  void fields(this auto& self, auto& v) { v(self.known, self.commit); }
};
struct Decision {
  static constexpr MessageType kType = MessageType::kDecision;
  using Reply = DecisionReply;
  TransactionId transaction;
  void fields(this auto& self, auto& v) { v(self.transaction); }
};
struct ParentOfReply {
  FileId parent;
  void fields(this auto& self, auto& v) { v(self.parent); }
};
struct ParentOf {  // of a directory: for the ancestry check of renames
  static constexpr MessageType kType = MessageType::kParentOf;
  using Reply = ParentOfReply;
  FileId directory;
  void fields(this auto& self, auto& v) { v(self.directory); }
};

}  // namespace headrace
