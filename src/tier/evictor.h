// Evictor: frees hot space when the high watermark is passed, down to the low one, coldest segments
// first.
//
// Only what a partition calls droppable (verified in the bucket) is dropped, and the partition
// frees the fragments. Owner: TierService. One core; one round at a time.
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
};

struct EvictorOptions {
  Nanos interval = seconds(5);
  uint32_t high_percent = 95;
  uint32_t low_percent = 90;
};

struct EvictProgress {
  uint64_t segments = 0;  // since start
  uint64_t bytes = 0;     // of fragments
  bool short_of = false;  // over the mark, and nothing droppable was left
  std::string last_error;
};

class Evictor {
 public:
  Evictor(Env env, PartitionPort& partitions, std::function<HotUsage()> usage,
          EvictorOptions options = {});
  void start();
  [[nodiscard]] Task<void> stop();
  void cancel() { scope_.cancel(); }
  // One look at the watermarks.
  [[nodiscard]] Task<Result<void>> round();
  // At least so many bytes of fragments, or all that is droppable; returns how many.
  [[nodiscard]] Task<Result<uint64_t>> drop(uint64_t bytes);
  [[nodiscard]] const EvictProgress& progress() const { return progress_; }

 private:
  Task<void> loop();

  Env env_;
  PartitionPort& partitions_;
  std::function<HotUsage()> usage_;
  EvictorOptions options_;
  EvictProgress progress_;
  Mutex mutex_;
  Scope scope_;  // last
};

}  // namespace headrace
