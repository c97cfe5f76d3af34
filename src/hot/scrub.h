// ScrubWorker: reads everything that a target holds, before somebody needs it, and says what is bad.
//
// Three questions of a target: is what its homes say is there, there (a fragment that a crash or a
// damaged log lost); does each fragment's header and every block verify, read from the device; and,
// for one stripe in `stripes`, others at each turn, is its parity what its data gives. Findings go to `found`, which
// repairs them; the worker changes nothing. A parity fragment counts as damaged only where another
// parity of the stripe does fit the data: otherwise nobody can say which of them is wrong, and it is
// reported only. Paced by set_rate(); one fragment in memory at a time, a stripe where parity is
// recomputed. Owner: the node's TargetKeeper. One core.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "hot/target.h"
#include "hot/token_rate.h"
#include "hot/work_port.h"
#include "stripe/segment_io.h"

namespace headrace {

struct ScrubOptions {
  uint32_t page = 256;
  uint32_t stripes = 16;  // one in so many, by its sequence and set_turn(), has its parity recomputed; 0: none
};

struct ScrubProgress {
  TargetId target;
  FragmentName at;               // the last fragment that was looked at: where to go on
  bool unasked = false;          // a home did not say yet what should be here
  uint64_t fragments_total = 0;  // on the target, when it began
  uint64_t fragments = 0;        // looked at
  uint64_t bytes = 0;            // read
  uint64_t damaged = 0;          // fragments that did not verify
  uint64_t missing = 0;          // that their home says are here, and are not
  uint64_t stripes = 0;          // whose parity was recomputed
  uint64_t parity_wrong = 0;     // of these, with parity that does not fit
  std::string last_error;        // what could not be judged
};

class ScrubWorker {
 public:
  // Returns when there is room for more. `misfit`: its own checksums hold, its stripe says that it is wrong.
  using Found = std::function<Task<void>(Damage damage, bool misfit)>;
  // All outlive the worker.
  ScrubWorker(Env env, WorkPort& work, FragmentPort& fragments, Found found, ScrubOptions options = {});

  // The fragments behind `after`, all of them where it is zero. kCancelled after cancel(): goes on
  // from progress().at, with progress().unasked. Any error but the target's own: every fragment was read, but what
  // should be there and is not could not be told. One at a time.
  [[nodiscard]] Task<Result<void>> scrub(std::shared_ptr<Target> target, FragmentName after, bool unasked = false);
  // Those that should be on the target and are not; part of scrub() where it begins from zero, or is `unasked`.
  [[nodiscard]] Task<Result<void>> find_missing(std::shared_ptr<Target> target);

  [[nodiscard]] const ScrubProgress& progress() const { return progress_; }
  void set_rate(uint64_t bytes_per_s) { rate_.set(bytes_per_s); }
  void set_turn(uint64_t turn) { turn_ = turn; }
  void cancel() { cancelled_ = true; }

 private:
  Task<Result<void>> find_missing(std::shared_ptr<Target> target, PartitionId partition, FragmentsOn request);
  Task<void> look_at(std::shared_ptr<Target> target, FragmentName name);
  Task<void> check_stripe(SegmentId segment);

  WorkPort& work_;
  FragmentPort& fragments_;
  Found found_;
  ScrubOptions options_;
  TokenRate rate_;
  ScrubProgress progress_;
  uint64_t turn_ = 0;
  bool cancelled_ = false;
};

}  // namespace headrace
