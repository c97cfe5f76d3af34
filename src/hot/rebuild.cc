#include "hot/rebuild.h"

#include <algorithm>

#include "stripe/fragment.h"
#include "stripe/placement_policy.h"

namespace headrace {
namespace {

constexpr int kTargetsTried = 3;

std::string host_of(const std::string& domain) {
  size_t at = domain.rfind('/');
  return at == std::string::npos ? domain : domain.substr(0, at);
}

}  // namespace

RebuildWorker::RebuildWorker(Env env, WorkPort& work, FragmentPort& fragments, SegmentIo& io, RebuildOptions options)
    : env_(env),
      work_(work),
      fragments_(fragments),
      io_(io),
      options_(options),
      rate_(env.clock, options.bytes_per_s) {}

RebuildProgress RebuildWorker::progress() const {
  RebuildProgress out = progress_;
  double elapsed = (env_.clock.now() - began_).seconds();
  if (out.running && elapsed > 0) {
    out.bytes_per_s = static_cast<double>(out.bytes) / elapsed;
    if (out.segments_done > 0 && out.segments_total > out.segments_done)
      out.eta_s = elapsed * static_cast<double>(out.segments_total - out.segments_done) /
                  static_cast<double>(out.segments_done);
  }
  return out;
}

Task<Result<uint64_t>> RebuildWorker::count(TargetId lost) {
  uint64_t total = 0;
  std::vector<PartitionInfo> partitions = work_.map().partitions;
  for (const PartitionInfo& partition : partitions) {
    FragmentsOn request{lost, {}, 1024};
    bool more = true;
    while (more && !cancelled_) {
      HR_CO_TRY(SegmentsReply page, co_await work_.fragments_on(partition.id, request));
      total += page.segments.size();
      more = page.more && !page.segments.empty();
      if (more) request.after = page.segments.back().segment;
    }
  }
  co_return total;
}

Task<Result<void>> RebuildWorker::rebuild(TargetId lost) {
  HR_ASSERT(!progress_.running);
  cancelled_ = false;
  progress_ = RebuildProgress{.running = true, .target = lost};
  began_ = env_.clock.now();
  struct Stop {
    RebuildProgress& progress;
    ~Stop() { progress.running = false; }
  } stop{progress_};
  HR_CO_TRY(progress_.segments_total, co_await count(lost));
  std::vector<PartitionInfo> partitions = work_.map().partitions;
  for (const PartitionInfo& partition : partitions) {
    FragmentsOn request{lost, {}, options_.page};
    bool more = true;
    while (more && !cancelled_) {
      HR_CO_TRY(SegmentsReply page, co_await work_.fragments_on(partition.id, request));
      more = page.more && !page.segments.empty();
      if (more) request.after = page.segments.back().segment;
      auto slots = std::make_shared<Semaphore>(std::max<uint64_t>(1, options_.parallel));
      Scope scope;
      for (Location& location : page.segments) {
        co_await slots->acquire();
        if (cancelled_) break;
        scope.spawn(move_one(std::move(location), lost, slots));
      }
      co_await scope.join();
    }
  }
  if (cancelled_) co_return Error(Code::kCancelled, "rebuild was stopped");
  if (progress_.segments_failed > 0)
    co_return Error(Code::kUnavailable, "rebuild: " + std::to_string(progress_.segments_failed) + " of " +
                                            std::to_string(progress_.segments_total) +
                                            " segments could not be rebuilt yet: " + progress_.last_error);
  co_return Result<void>();
}

Task<void> RebuildWorker::move_one(Location location, TargetId lost, std::shared_ptr<Semaphore> slots) {
  Result<void> outcome;
  for (size_t i = 0; i < location.placement.targets.size() && outcome; ++i)
    if (location.placement.targets[i] == lost) outcome = co_await move(location, static_cast<uint8_t>(i), lost);
  if (outcome) {
    ++progress_.segments_done;
  } else {
    ++progress_.segments_failed;
    progress_.last_error = outcome.error().text();
  }
  slots->release();
}

// A target that the segment is not on, of another host than its other fragments where there is one.
Result<TargetId> RebuildWorker::choose(const Placement& placement, std::vector<TargetId> avoid) {
  const ClusterMap& map = work_.map();
  avoid.insert(avoid.end(), placement.targets.begin(), placement.targets.end());
  std::vector<TargetId> wider = avoid;
  for (const TargetInfo& target : map.targets) {
    for (TargetId used : placement.targets) {
      const TargetInfo* other = map.target(used);
      if (other != nullptr && other->state == TargetState::kLive && host_of(other->domain) == host_of(target.domain)) {
        wider.push_back(target.id);
        break;
      }
    }
  }
  Result<std::vector<TargetId>> found = choose_copies(map, 1, env_.random, wider);
  if (!found) found = choose_copies(map, 1, env_.random, avoid);
  if (!found)
    return Error(Code::kUnavailable,
                 "no target is left for the fragment: add one, or run `headrace target replace tN`");
  return found->front();
}

// What the target serves yet is copied; what it does not, or what does not verify, is made from the others.
Task<Result<FragmentWrite>> RebuildWorker::make(Location location, uint8_t index, TargetId from) {
  const TargetInfo* info = work_.map().target(from);
  if (info != nullptr && info->state == TargetState::kDraining) {
    FragmentRead request;
    request.target = from;
    request.segment = location.segment;
    request.index = index;
    request.length = fragment_size(location.length, location.placement.protection.data);
    Result<FragmentReadReply> there = co_await fragments_.read(request, Capability{});
    if (there && there->payload.size() == request.length && there->segment_length == location.length &&
        verify_blocks(location.segment, index, 0, there->payload.view(), there->crcs)) {
      FragmentWrite out;
      out.segment = location.segment;
      out.index = index;
      out.protection = location.placement.protection;
      out.segment_length = location.length;
      out.payload = std::move(there->payload);
      out.crcs = std::move(there->crcs);
      co_return out;
    }
  }
  co_return co_await io_.rebuild(location.segment, location.length, location.placement, index, Capability{});
}

Task<Result<void>> RebuildWorker::move(Location location, uint8_t index, TargetId lost) {
  // Nothing is read where there is no place to write it to.
  Result<TargetId> possible = choose(location.placement, std::vector<TargetId>(1, lost));
  if (!possible) co_return std::move(possible).error();
  HR_CO_TRY(FragmentWrite made, co_await make(location, index, lost));
  uint64_t bytes = made.payload.size();
  co_await rate_.take(bytes * (location.placement.protection.data + 1u));
  std::vector<TargetId> avoid(1, lost);
  Result<void> written = Error(Code::kUnavailable, "no target was tried");
  for (int i = 0; i < kTargetsTried && !written; ++i) {
    Result<TargetId> target = choose(location.placement, avoid);
    if (!target) co_return i == 0 ? std::move(target).error() : std::move(written).error();
    made.target = *target;
    avoid.push_back(*target);
    written = co_await fragments_.write(made, Capability{});
  }
  if (!written) co_return std::move(written).error();
  Result<void> told = co_await work_.placed({location.segment, index, lost, made.target});
  // Moved, dropped or deleted meanwhile: then ours is an orphan and goes as one.
  if (!told && told.code() != Code::kConflict && told.code() != Code::kNotFound) co_return std::move(told).error();
  progress_.bytes += bytes;
  co_return Result<void>();
}

Task<Result<void>> RebuildWorker::repair(Damage damage) {
  Result<Location> location = co_await work_.locate(damage.segment);
  if (!location && location.code() == Code::kNotFound) co_return Result<void>();
  if (!location) co_return std::move(location).error();
  const Placement& placement = location->placement;
  if (damage.index >= placement.targets.size() || placement.targets[damage.index] != damage.target)
    co_return Result<void>();
  const TargetInfo* info = work_.map().target(damage.target);
  if (info == nullptr || info->state != TargetState::kLive)
    co_return Error(Code::kUnavailable, "the target is lost: rebuild moves what it held");
  const PartitionInfo* home = work_.map().partition_of(damage.segment.home());
  if (home == nullptr) co_return Error(Code::kUnavailable, "the segment's home is not in the map");
  PartitionId partition = home->id;
  HR_CO_TRY(FragmentWrite made,
            co_await io_.rebuild(damage.segment, location->length, placement, damage.index, Capability{}));
  co_await rate_.take(made.payload.size() * (placement.protection.data + 1u));
  FragmentFree old;
  old.target = damage.target;
  old.fragments.push_back({damage.segment, damage.index});
  HR_CO_TRY(co_await work_.free(partition, std::move(old)));
  made.target = damage.target;
  co_return co_await fragments_.write(std::move(made), Capability{});
}

Task<uint64_t> RebuildWorker::repair_found() {
  uint64_t repaired = 0;
  for (const Damage& damage : io_.take_damage()) {
    Result<void> outcome = co_await repair(damage);
    if (outcome) {
      ++repaired;
    } else {
      progress_.last_error = outcome.error().text();
    }
  }
  co_return repaired;
}

}  // namespace headrace
