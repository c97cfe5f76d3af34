// Fetcher: brings segments that are in the bucket only back into the hot tier.
//
// A segment gets targets from its home (PlaceAgain), its bytes from the bucket, verified; its fragments are written,
// then recorded (PlacedAgain). Interrupted anywhere, the segment is in the bucket as before, and what was written is an
// orphan. Two wishes never place the same segment at once: who gives it up would give it up for the other, too.
// Owner: TierService. One core. Bounded: kAtOnce segments.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "coord/ports.h"
#include "proto/work.h"
#include "runtime/scope.h"
#include "stripe/segment_io.h"
#include "tier/cold_reader.h"

namespace headrace {

// Of one wish: a fetch, or the filling of a pin. Bytes are of segments.
struct FetchProgress {
  uint64_t segments_total = 0;  // at or below the path
  uint64_t bytes_total = 0;
  uint64_t segments_cold = 0;  // of these, to be fetched
  uint64_t bytes_cold = 0;
  uint64_t segments = 0;  // fetched
  uint64_t bytes = 0;
  uint64_t failed = 0;
  bool no_room = false;  // the hot tier is full: the rest stays in the bucket
  Nanos began{};
  Nanos ended{};
  bool running = false;
  std::string last_error;
};

class Fetcher {
 public:
  // All outlive this. `has_room`: whether the hot tier takes more.
  Fetcher(Env env, PartitionPort& partitions, SegmentIo& segments, ColdReader& cold, std::function<bool()> has_room);

  // Those of them that are cold. Ok also when some failed or found no room: `into` says so, and it may be looked at
  // meanwhile. kCancelled when `stop` fires.
  [[nodiscard]] Task<Result<void>> fetch(std::vector<Location> segments, std::shared_ptr<FetchProgress> into,
                                         CancelToken* stop);
  // Fetched by this process, perhaps dropped again since: readers who think that it is cold may be helped.
  [[nodiscard]] bool perhaps_hot(const SegmentId& segment) const { return fetched_.contains(segment); }

 private:
  [[nodiscard]] Task<Result<void>> fetch_one(Location segment);
  [[nodiscard]] Task<Result<void>> fetch_to(Slot home, PlaceAgainReply place);
  [[nodiscard]] Task<Result<void>> fetch_alone(Location segment);
  Task<void> fetch_counted(Location segment, std::shared_ptr<FetchProgress> into);

  Env env_;
  PartitionPort& partitions_;
  SegmentIo& segments_;
  ColdReader& cold_;
  std::function<bool()> has_room_;
  std::unordered_set<SegmentId> fetched_;
  std::unordered_set<SegmentId> under_way_;
  WaitList ended_;  // one that was under way
  Semaphore at_once_;
};

}  // namespace headrace
