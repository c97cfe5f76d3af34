// Journal: a partition's replicated log and its leader's standing in the coordinator.
//
// The log is a sequence of runs; a run is the same batches on each of its copies. append() returns when ALL copies of
// the current run have the batch durably. A copy that fails ends the run at the last acknowledged position; the next
// run opens on other targets, and is in the coordinator's record before anything in it is acknowledged.
// Invariants: (1) every acknowledged record is on every copy of its run; (2) a run's copies refuse appends below the
// epoch they promised; (3) after take_over() nothing of an earlier leader can be acknowledged any more, since at least
// one copy of its open run was sealed.
// One core; one append at a time.
#pragma once

#include <vector>

#include "coord/coordinator.h"
#include "coord/ports.h"
#include "meta/journal/record.h"
#include "proto/cluster.h"
#include "proto/target.h"
#include "runtime/env.h"
#include "runtime/sync.h"

namespace headrace {

class Journal {
 public:
  struct Options {
    NodeId self;
    PartitionId partition;
    uint8_t copies = 3;               // R = 1 + the namespace's largest P
    uint64_t batch_bytes = 4 * kMiB;  // of a read during recovery
    Nanos append_timeout = seconds(10);
  };
  Journal(Env env, TargetPort& targets, Coordinator& coordinator, Options options);

  // Takes the next epoch, seals, reads everything behind the checkpoint, writes it to a new run of R copies and records
  // that. Returns the records behind checkpoint_at, oldest first. kUnavailable when no copy of some run answers, or one
  // that was sealed cannot be read now, kCorrupt when what may be acknowledged cannot be read from any copy, kConflict
  // when another node won.
  [[nodiscard]] Task<Result<std::vector<JournalRecord>>> take_over();

  // Durable on all copies on return. kDeposed: another leader was promised; stop. Retries on other targets by itself
  // for up to 60 s, then kUnavailable: outcome unknown, the partition must stop.
  [[nodiscard]] Task<Result<void>> append(std::string batch, Position first, Position last);

  // The checkpoint named in `change` is protected: record it (compare-and-swap on this leader's record), then trim what
  // lies below it. Returns when the record is durable; trimming failures are left for the next time.
  struct CheckpointPointer {
    SegmentId segment;
    uint64_t length = 0;
    std::vector<TargetId> copies;
    Position at;
  };
  [[nodiscard]] Task<Result<void>> checkpointed(CheckpointPointer pointer);

  [[nodiscard]] const PartitionRecord& record() const { return record_; }
  [[nodiscard]] PartitionEpoch epoch() const { return record_.epoch; }
  [[nodiscard]] uint64_t bytes_since_checkpoint() const { return bytes_; }
  // Every run has all the copies it should.
  [[nodiscard]] bool fully_copied() const { return !degraded_; }
  // The present run is short of copies, and there are targets for more: the next append opens a wider one.
  [[nodiscard]] bool may_widen() const;

 private:
  struct Sealed {  // what the copies of the old runs hold
    TargetId target;
    std::vector<RunSummary> runs;
  };
  struct Copy {  // of one of them
    TargetId target;
    Position first;
    Position last;
    bool damaged = false;  // behind `last`
    Result<void> failed;   // why not all of it was read
  };
  Task<Result<void>> put_record(PartitionRecord next);
  Task<Result<std::vector<JournalRecord>>> read_tail(std::vector<Sealed> sealed);
  Task<Result<void>> read_run(RunRecord run, const std::vector<Sealed>& sealed, Position& next, Position& acknowledged,
                              std::vector<JournalRecord>& out);
  Task<Result<void>> read_copy(RunRecord run, Copy copy, Position& next, Position& acknowledged,
                               std::vector<JournalRecord>& out);
  Task<Result<RunRecord>> open_run(Position first, RunId predecessor, std::vector<TargetId> avoid);
  Task<Result<void>> append_to(RunRecord run, Buffer batch, Position first, Position last,
                               std::vector<TargetId>& failed);
  Task<Result<void>> write_tail(RunRecord run, const std::vector<JournalRecord>& tail, std::vector<TargetId>& failed);
  Task<Result<void>> close_and_reopen(Position first, std::vector<TargetId> failed);
  Task<void> trim(std::vector<RunRecord> dead, Position below);
  Task<void> forget_unnamed(const std::vector<Sealed>& sealed);
  void forget_later(RunRecord run);
  [[nodiscard]] CallOptions call_options(Nanos timeout) const;

  Env env_;
  TargetPort& targets_;
  Coordinator& coordinator_;
  Options options_;
  PartitionRecord record_;
  Mutex recording_;       // from a copy of record_ to its put: a lost race with oneself would look like being deposed
  uint64_t version_ = 0;  // of the coordinator's record
  uint32_t next_run_ = 1;
  uint64_t bytes_ = 0;
  bool degraded_ = false;             // a closed run has fewer copies than it should: checkpoint soon
  Nanos widen_at_{};                  // not before
  std::vector<RunRecord> untrimmed_;  // that no record names (any more), on targets that may still hold them
};

}  // namespace headrace
