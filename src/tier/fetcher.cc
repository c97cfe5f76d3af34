#include "tier/fetcher.h"

#include <algorithm>

#include "tier/abandon.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};
constexpr uint64_t kAtOnce = 4;  // each holds a segment twice while it is written
constexpr size_t kMaxRemembered = 1'000'000;

}  // namespace

Fetcher::Fetcher(Env env, PartitionPort& partitions, SegmentIo& segments, ColdReader& cold,
                 std::function<bool()> has_room)
    : env_(env),
      partitions_(partitions),
      segments_(segments),
      cold_(cold),
      has_room_(std::move(has_room)),
      at_once_(kAtOnce) {}

Task<Result<void>> Fetcher::fetch_one(Location segment) {
  struct UnderWay {  // also when the frame is destroyed
    Fetcher* fetcher;
    SegmentId segment;
    ~UnderWay() {
      fetcher->under_way_.erase(segment);
      if (Scheduler::present()) Scheduler::current().wake_all(fetcher->ended_);
    }
  };
  while (under_way_.contains(segment.segment)) co_await ListWait(ended_);
  under_way_.insert(segment.segment);
  const UnderWay under_way{this, segment.segment};
  co_return co_await fetch_alone(std::move(segment));
}

Task<Result<void>> Fetcher::fetch_alone(Location segment) {
  const Slot home = segment.segment.home();
  Result<PlaceAgainReply> place = co_await partitions_.call(home, PlaceAgain{segment.segment}, kBackground);
  if (place.code() == Code::kExists || place.code() == Code::kNotFound) co_return {};
  if (!place.ok()) co_return std::move(place).error();
  Result<void> done = co_await fetch_to(home, *std::move(place));
  if (!done.ok()) {
    co_await abandon_work(partitions_, segment.segment, kBackground);
    if (done.code() != Code::kExists && done.code() != Code::kNotFound) co_return done;
  }
  if (fetched_.size() >= kMaxRemembered) fetched_.clear();
  fetched_.insert(segment.segment);
  co_return {};
}

Task<Result<void>> Fetcher::fetch_to(Slot home, PlaceAgainReply place) {
  const SegmentId segment = place.location.segment;
  HR_CO_TRY(ColdReadReply bytes, co_await cold_.read(ColdRead{place.location, 0, place.location.length}));
  HR_CO_TRY(Placement placement, co_await segments_.write(segment, std::move(bytes.payload), place.placement,
                                                          place.spares, place.capability));
  HR_CO_TRY(co_await partitions_.call(home, PlacedAgain{segment, std::move(placement)}, kBackground));
  co_return {};
}

Task<void> Fetcher::fetch_counted(Location segment, std::shared_ptr<FetchProgress> into) {
  const Semaphore::Held held(at_once_);
  const uint64_t length = segment.length;
  Result<void> done = co_await fetch_one(std::move(segment));
  if (done.ok()) {
    ++into->segments;
    into->bytes += length;
    co_return;
  }
  if (done.code() == Code::kNoSpace) into->no_room = true;
  ++into->failed;
  into->last_error = done.error().text();
}

Task<Result<void>> Fetcher::fetch(std::vector<Location> segments, std::shared_ptr<FetchProgress> into,
                                  CancelToken* stop) {
  into->running = true;
  into->no_room = false;
  std::erase_if(segments, [&](const Location& location) {
    ++into->segments_total;
    into->bytes_total += location.length;
    return location.placement.hot();
  });
  // In the order in which they lie in objects, so that neighbours are had from one place.
  std::ranges::sort(segments, [](const Location& a, const Location& b) {
    return std::pair(a.object.object, a.segment) < std::pair(b.object.object, b.segment);
  });
  for (const Location& location : segments) {
    ++into->segments_cold;
    into->bytes_cold += location.length;
  }
  {
    Scope scope;
    for (Location& location : segments) {
      if (stop->cancelled()) break;
      co_await at_once_.acquire();
      if (!into->no_room && !has_room_()) into->no_room = true;
      if (into->no_room) {
        at_once_.release();
        break;
      }
      scope.spawn(fetch_counted(std::move(location), into));
    }
    co_await scope.join();
  }
  into->running = false;
  into->ended = env_.clock.now();
  if (stop->cancelled()) co_return Error(Code::kCancelled, "the node stops");
  co_return {};
}

}  // namespace headrace
