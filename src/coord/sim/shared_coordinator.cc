#include "coord/sim/shared_coordinator.h"

#include <utility>

namespace headrace {

bool SharedCoordinator::unavailable(const std::string& machine) const {
  for (const std::string& name : {machine, std::string()}) {
    auto at = unavailable_until_.find(name);
    if (at != unavailable_until_.end() && clock_.now() < at->second) return true;
  }
  return false;
}

Clock::Sleep SharedCoordinator::delay() {
  auto nanos =
      random_.between(static_cast<uint64_t>(options.min_delay.count), static_cast<uint64_t>(options.max_delay.count));
  return clock_.sleep(Nanos{static_cast<int64_t>(nanos)});
}

bool SharedCoordinator::lose(uint32_t per_mille) {
  if (per_mille == 0 || !random_.chance(per_mille, 1000)) return false;
  ++lost_;
  return true;
}

Task<Result<void>> SharedCoordinatorHandle::there() {
  co_await shared_.delay();
  if (shared_.unavailable(machine_)) {
    ++shared_.refused_;
    co_return Error(Code::kUnavailable, "the coordinator cannot be reached from " + machine_);
  }
  co_return Result<void>();
}

Task<Result<CoordRecord>> SharedCoordinatorHandle::get(std::string key) {
  HR_CO_TRY(co_await there());
  CoordRecord record = shared_.table_.get(key);
  co_await shared_.delay();
  co_return record;
}

Task<Result<uint64_t>> SharedCoordinatorHandle::put(std::string key, std::string value, uint64_t expected) {
  HR_CO_TRY(co_await there());
  bool request_lost = shared_.lose(shared_.options.lost_request_per_mille);
  if (!request_lost) {
    Result<uint64_t> version = shared_.table_.put(key, std::move(value), expected);
    if (version.ok() && !shared_.changed_.empty()) Scheduler::current().wake_all(shared_.changed_);
    bool reply_lost = shared_.lose(shared_.options.lost_reply_per_mille);
    if (!reply_lost) {
      co_await shared_.delay();
      co_return version;
    }
  }
  co_await shared_.clock_.sleep(seconds(1));
  co_return Error(Code::kTimeout, "no answer from the coordinator within 1 s");
}

Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> SharedCoordinatorHandle::list(std::string prefix) {
  HR_CO_TRY(co_await there());
  auto records = shared_.table_.list(prefix);
  co_await shared_.delay();
  co_return records;
}

Task<Result<uint64_t>> SharedCoordinatorHandle::changed_since(uint64_t revision) {
  HR_CO_TRY(co_await there());
  Nanos deadline = shared_.clock_.now() + seconds(5);
  while (shared_.table_.revision == revision) {
    bool woken = co_await ListWait(shared_.changed_, shared_.clock_, deadline);
    if (!woken) break;
  }
  uint64_t now = shared_.table_.revision;
  HR_CO_TRY(co_await there());  // the way back: an outage holds up the news too
  co_return now;
}

Task<Result<void>> SharedCoordinatorHandle::renew_lease(std::string holder, uint64_t incarnation) {
  HR_CO_TRY(co_await there());
  Result<void> renewed = shared_.leases_.renew(holder, incarnation, shared_.clock_.now());
  co_await shared_.delay();
  co_return renewed;
}

Task<Result<bool>> SharedCoordinatorHandle::lease_alive(std::string holder) {
  HR_CO_TRY(co_await there());
  bool alive = shared_.leases_.alive(holder, shared_.clock_.now());
  co_await shared_.delay();
  co_return alive;
}

}  // namespace headrace
