// RebuildWorker: makes lost fragments again, from D others, on targets that the segment is not on
// yet.
//
// A target that is to be removed is emptied the same way: what it still serves is copied, not made
// from the others.
// A target is rebuilt by asking each partition, page by page, which of its segments had a fragment
// there; the home is told where each went, once it is durable. Whatever the home no longer wants
// (kConflict) becomes an orphan and is collected as one. A damaged fragment on a live target is
// made again in place. Nothing is remembered here: a worker that was interrupted starts over and
// finds less to do. Owner: the node. One core. Bounded: `parallel` segments at once, one page of
// segments in memory.
#pragma once

#include <memory>
#include <vector>

#include "hot/token_rate.h"
#include "hot/work_port.h"
#include "runtime/scope.h"
#include "stripe/segment_io.h"

namespace headrace {

struct RebuildOptions {
  uint64_t parallel = 4;
  uint64_t bytes_per_s = 0;  // read and written; 0: no limit
  uint32_t page = 256;
};

struct RebuildProgress {
  bool running = false;
  TargetId target;
  uint64_t segments_total = 0;  // counted before it begins
  uint64_t segments_done = 0;
  uint64_t segments_failed = 0;  // tried, and waiting for the next round
  uint64_t bytes = 0;            // of fragments made
  double bytes_per_s = 0;
  double eta_s = 0;  // 0: not known
  std::string last_error;
};

class RebuildWorker {
 public:
  RebuildWorker(Env env, WorkPort& work, FragmentPort& fragments, SegmentIo& io, RebuildOptions options = {});

  // Every fragment that was on `lost`. Ok when none is left there; kUnavailable when some could not
  // be made (ask again later: progress().last_error says why). One at a time.
  [[nodiscard]] Task<Result<void>> rebuild(TargetId lost);
  // One damaged fragment on a target that lives. Ok also where the home says that there is nothing
  // to repair.
  [[nodiscard]] Task<Result<void>> repair(Damage damage);
  // All that `io` found since the last call; returns how many were repaired.
  [[nodiscard]] Task<uint64_t> repair_found();

  [[nodiscard]] RebuildProgress progress() const;
  void cancel() { cancelled_ = true; }  // rebuild() returns kCancelled soon
  void set_rate(uint64_t bytes_per_s) { rate_.set(bytes_per_s); }

 private:
  [[nodiscard]] Task<Result<uint64_t>> count(TargetId lost);
  Task<void> move_one(Location location, TargetId lost, std::shared_ptr<Semaphore> slots);
  [[nodiscard]] Task<Result<void>> move(Location location, uint8_t index, TargetId lost);
  [[nodiscard]] Task<Result<FragmentWrite>> make(Location location, uint8_t index, TargetId from);
  [[nodiscard]] Result<TargetId> choose(const Placement& placement, std::vector<TargetId> avoid);

  Env env_;
  WorkPort& work_;
  FragmentPort& fragments_;
  SegmentIo& io_;
  RebuildOptions options_;
  TokenRate rate_;
  RebuildProgress progress_;
  Nanos began_{};
  bool cancelled_ = false;
};

}  // namespace headrace
