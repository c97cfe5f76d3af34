#include "tier/evictor.h"

#include <algorithm>

#include "base/bytes.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};

uint64_t bytes_on_targets(const Location& location) {
  const Protection& protection = location.placement.protection;
  uint64_t fragment =
      round_up(divide_up(location.length, std::max<uint64_t>(1, protection.data)), kBlock);
  return fragment * location.placement.targets.size();
}

}  // namespace

Evictor::Evictor(Env env, PartitionPort& partitions, std::function<HotUsage()> usage,
                 EvictorOptions options)
    : env_(env), partitions_(partitions), usage_(std::move(usage)), options_(options) {}

void Evictor::start() {
  scope_.spawn(loop());
}

Task<void> Evictor::stop() {
  scope_.cancel();
  co_await scope_.join();
}

Task<void> Evictor::loop() {
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, options_.interval);
    if (!slept) co_return;
    Result<void> done = co_await round();
    if (!done.ok()) progress_.last_error = done.error().text();
  }
}

Task<Result<void>> Evictor::round() {
  HotUsage usage = usage_();
  if (usage.capacity == 0 || usage.used <= usage.capacity / 100 * options_.high_percent) {
    progress_.short_of = false;
    co_return {};
  }
  uint64_t wanted = usage.used - usage.capacity / 100 * options_.low_percent;
  HR_CO_TRY(uint64_t dropped, co_await drop(wanted));
  progress_.short_of = dropped < wanted;
  co_return {};
}

Task<Result<uint64_t>> Evictor::drop(uint64_t bytes) {
  Mutex::Guard guard = co_await mutex_.lock();
  const std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
  uint64_t dropped = 0;
  std::set<PartitionId> done;
  std::map<PartitionId, SegmentId> after;
  // Page by page over all partitions, so that the burden is shared.
  while (dropped < bytes && done.size() < partitions.size()) {
    for (const PartitionInfo& partition : partitions) {
      if (dropped >= bytes || done.contains(partition.id)) continue;
      Droppable request{after[partition.id], 64};
      HR_CO_TRY(SegmentsReply page, co_await partitions_.call(partition.id, request, kBackground));
      if (!page.more || page.segments.empty()) done.insert(partition.id);
      Drop drop;
      uint64_t freed = 0;
      for (const Location& location : page.segments) {
        if (dropped + freed >= bytes) break;
        if (!location.object.object || !location.placement.hot()) continue;
        freed += bytes_on_targets(location);
        drop.segments.push_back(location.segment);
      }
      if (!page.segments.empty()) after[partition.id] = page.segments.back().segment;
      if (drop.segments.empty()) continue;
      uint64_t count = drop.segments.size();
      HR_CO_TRY(co_await partitions_.call(partition.id, std::move(drop), kBackground));
      dropped += freed;
      progress_.segments += count;
      progress_.bytes += freed;
    }
  }
  co_return dropped;
}

}  // namespace headrace
