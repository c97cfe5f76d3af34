// Evictor: frees hot space when the high watermark is passed, down to the low one.
//
// Only what a partition calls droppable (verified in the bucket) is dropped, and the partition frees the fragments.
// What is hot only is uploaded first when there is not enough else, however young it is. Segments under a pin stay.
// Order: round and round through each partition's segments, so that what was written or fetched since the last lap is
// the last to go. Owner: TierService. One core; one round at a time.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "coord/ports.h"
#include "proto/work.h"
#include "runtime/scope.h"

namespace headrace {

struct HotUsage {
  uint64_t used = 0;      // bytes of fragments, parity included
  uint64_t capacity = 0;  // that may be used: the NVMe budget, or the targets' space
  uint64_t reserved = 0;  // that writers may fill any moment: counts as used for the watermarks
  [[nodiscard]] uint64_t claimed() const { return used + reserved; }
};

struct EvictorOptions {
  Nanos interval = seconds(5);
  uint32_t high_percent = 95;
  uint32_t low_percent = 90;
};

struct EvictProgress {
  uint64_t segments = 0;  // since start
  uint64_t bytes = 0;     // of fragments
  bool short_of = false;  // over the mark, and not enough could be dropped
  bool stuck = false;     // and the last round freed nothing at all
  std::string last_error;
};

// What else an evictor goes by. Either may be empty.
struct EvictorHelp {
  // Makes what is hot only droppable: uploads it. An error: what keeps the bucket from taking it.
  std::function<Task<Result<void>>()> push;
  std::function<bool(const SegmentId&)> pinned;
  std::function<Task<Result<void>>()> bucket_answers;  // asked when a push makes no headway
  std::function<bool()> ready;  // whether pinned() can be relied on; until then nothing is dropped
};

class Evictor {
 public:
  Evictor(Env env, PartitionPort& partitions, std::function<HotUsage()> usage, EvictorOptions options = {},
          EvictorHelp help = {});
  void start();
  [[nodiscard]] Task<void> stop();
  void cancel() { scope_.cancel(); }
  // A writer waits for space: a round now, whatever the watermarks say.
  void kick() { kicked_.set(); }
  [[nodiscard]] bool below_low() const;
  // One look at the watermarks; `wanted_anyway`: someone waits. May take as long as an upload.
  [[nodiscard]] Task<Result<void>> round(bool wanted_anyway = false);
  // At least so many bytes of fragments, or all that is droppable; returns how many.
  [[nodiscard]] Task<Result<uint64_t>> drop(uint64_t bytes);
  [[nodiscard]] const EvictProgress& progress() const { return progress_; }

 private:
  Task<void> loop();
  Task<void> push();

  Env env_;
  PartitionPort& partitions_;
  std::function<HotUsage()> usage_;
  EvictorOptions options_;
  EvictorHelp help_;
  EvictProgress progress_;
  std::map<PartitionId, SegmentId> cursors_;  // where each partition's next lap goes on
  bool pushing_ = false;
  Result<void> pushed_;
  Event kicked_;
  Mutex mutex_;
  Scope scope_;  // last
};

}  // namespace headrace
