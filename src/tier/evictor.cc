#include "tier/evictor.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"

namespace headrace {
namespace {

constexpr Nanos kDropPause = milliseconds(300);
constexpr Nanos kStuckPause = seconds(2);
constexpr int kHopelessAfter = 60;  // seconds without anything to drop
constexpr Nanos kNoHeadway = seconds(10);
const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};

uint64_t bytes_on_targets(const Location& location) {
  const Protection& protection = location.placement.protection;
  uint64_t fragment = round_up(divide_up(location.length, std::max<uint64_t>(1, protection.data)), kBlock);
  return fragment * location.placement.targets.size();
}

}  // namespace

Evictor::Evictor(Env env, PartitionPort& partitions, std::function<HotUsage()> usage, EvictorOptions options,
                 EvictorHelp help)
    : env_(env), partitions_(partitions), usage_(std::move(usage)), options_(options), help_(std::move(help)) {}

void Evictor::start() {
  scope_.spawn(loop());
}

Task<void> Evictor::stop() {
  scope_.cancel();
  kicked_.set();
  co_await scope_.join();
}

bool Evictor::below_low() const {
  HotUsage usage = usage_();
  return usage.capacity > 0 && usage.used < usage.capacity / 100 * options_.low_percent;
}

Task<void> Evictor::loop() {
  for (;;) {
    // Over the mark it goes on at once, as fast as the bucket takes it.
    Nanos pause = progress_.short_of ? std::min(options_.interval, seconds(1)) : options_.interval;
    bool kicked = co_await kicked_.wait_until(env_.clock, env_.clock.now() + pause);
    if (scope_.token().cancelled()) co_return;
    if (help_.ready && !help_.ready()) {
      (void)co_await scope_.token().sleep(env_.clock, milliseconds(100));
      continue;
    }
    kicked_.reset();
    Result<void> done = co_await round(kicked);
    progress_.last_error = done.ok() ? "" : done.error().text();
    // Who asked meanwhile has the room that it made, or asks again: else one more round drops what nobody needs gone.
    if (done.ok() && !progress_.short_of) kicked_.reset();
    // However often it is kicked, one look at all segments in a while.
    if (progress_.stuck) (void)co_await scope_.token().sleep(env_.clock, kStuckPause);
  }
}

Task<void> Evictor::push() {
  pushed_ = co_await help_.push();
  pushing_ = false;
}

Task<Result<void>> Evictor::round(bool wanted_anyway) {
  HotUsage usage = usage_();
  if (usage.capacity == 0 || (!wanted_anyway && usage.claimed() <= usage.capacity / 100 * options_.high_percent)) {
    progress_.short_of = false;
    progress_.stuck = false;
    co_return {};
  }
  const uint64_t low = usage.capacity / 100 * options_.low_percent;
  auto beyond = [](uint64_t is, uint64_t allowed) { return is > allowed ? is - allowed : 0; };
  // Someone waits although less is in use than the watermark says: a few segments make room.
  const uint64_t few = wanted_anyway ? usage.capacity / 100 * (100 - options_.high_percent) : 0;
  uint64_t wanted = std::max(beyond(usage.claimed(), low), few);
  uint64_t dropped = 0;
  // What others freed meanwhile need not be dropped any more. A claim that was given up is no freed byte, and makes no
  // room on a target that is full.
  auto left = [&]() -> uint64_t {
    const HotUsage now = usage_();
    const uint64_t elsewhere = beyond(usage.used, now.used + dropped);
    return std::min(beyond(wanted, dropped), std::max(beyond(now.claimed(), low), beyond(few, dropped + elsewhere)));
  };
  HR_CO_TRY(dropped, co_await drop(wanted));
  if (left() > 0 && help_.push) {
    if (!pushing_) {
      pushing_ = true;
      if (!scope_.spawn(push())) pushing_ = false;
    }
    // What is uploaded is dropped while the rest goes on.
    Nanos headway = env_.clock.now();
    while (left() > 0 && pushing_) {
      bool slept = co_await scope_.token().sleep(env_.clock, kDropPause);
      if (!slept) co_return {};
      HR_CO_TRY(uint64_t more, co_await drop(left()));
      dropped += more;
      if (more > 0) progress_.stuck = false;
      if (more > 0) headway = env_.clock.now();
      if (!help_.bucket_answers || env_.clock.now() - headway < kNoHeadway) continue;
      // A slow bucket is waited for. With one that is away, whoever waits for space is told; the push goes on trying.
      Result<void> answers = co_await help_.bucket_answers();
      if (!answers.ok()) {
        progress_.short_of = true;
        progress_.stuck = dropped == 0;
        co_return answers;
      }
      headway = env_.clock.now();
    }
    HR_CO_TRY(uint64_t more, co_await drop(left()));
    dropped += more;
  }
  // Nothing at all: what is being written right now is in use and is no segment yet. Only when that lasts is it
  // hopeless.
  for (int i = 0; dropped == 0 && left() > 0 && pushed_.ok() && i < kHopelessAfter; ++i) {
    bool slept = co_await scope_.token().sleep(env_.clock, seconds(1));
    if (!slept) co_return {};
    HotUsage now = usage_();
    if (now.claimed() <= now.capacity / 100 * options_.high_percent) {
      wanted = 0;
      break;
    }
    if (help_.push) pushed_ = co_await help_.push();
    HR_CO_TRY(dropped, co_await drop(left()));
  }
  progress_.short_of = left() > 0;
  progress_.stuck = dropped == 0 && left() > 0;
  if (progress_.short_of && help_.push && !pushing_ && !pushed_.ok()) co_return pushed_;
  co_return {};
}

Task<Result<uint64_t>> Evictor::drop(uint64_t bytes) {
  Mutex::Guard guard = co_await mutex_.lock();
  const std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
  struct Lap {
    SegmentId begin;       // behind it the lap began
    bool wrapped = false;  // it goes on from the first segment
  };
  std::map<PartitionId, Lap> laps;
  for (const PartitionInfo& partition : partitions) {
    laps[partition.id].begin = cursors_[partition.id];
    laps[partition.id].wrapped = !cursors_[partition.id];
  }
  uint64_t dropped = 0;
  // Page by page over all partitions, so that the burden is shared; at most one lap.
  while (dropped < bytes && !laps.empty()) {
    for (const PartitionInfo& partition : partitions) {
      auto lap = laps.find(partition.id);
      if (dropped >= bytes || lap == laps.end()) continue;
      SegmentId& cursor = cursors_[partition.id];
      HR_CO_TRY(SegmentsReply page, co_await partitions_.call(partition.id, Droppable{cursor, 64}, kBackground));
      Drop drop;
      uint64_t freed = 0;
      bool ended = false;
      for (const Location& location : page.segments) {
        if (dropped + freed >= bytes) break;
        if (lap->second.wrapped && lap->second.begin && location.segment > lap->second.begin) {
          ended = true;
          break;
        }
        cursor = location.segment;
        if (help_.pinned && help_.pinned(location.segment)) continue;
        freed += bytes_on_targets(location);
        drop.segments.push_back(location.segment);
      }
      if (dropped + freed < bytes && !page.more && !ended) {
        cursor = SegmentId();
        ended = std::exchange(lap->second.wrapped, true);
      }
      if (ended) laps.erase(lap);
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
