#include "coord/map_follower.h"

#include <algorithm>
#include <utility>

#include "proto/meta.h"

namespace headrace {

namespace {
constexpr Nanos kAtMostEvery = milliseconds(20);
constexpr Nanos kAfterFailure = milliseconds(200);
}  // namespace

void CoordinatorMapFollower::start() {
  scope_ = std::make_unique<Scope>();
  scope_->spawn(follow_changes());
  scope_->spawn(follow_wishes());
}

Task<Result<void>> CoordinatorMapFollower::refresh() {
  HR_CO_TRY(CoordRecord record, co_await coordinator_.get(kMapKey));
  if (record.version == 0) co_return Result<void>();
  Result<ClusterMap> map = decode_durable<ClusterMap>(record.value);
  if (!map.ok()) co_return std::move(map).error().within("cluster map");
  view_.update(*std::move(map));
  co_return Result<void>();
}

Task<void> CoordinatorMapFollower::follow_changes() {
  uint64_t revision = 0;
  while (true) {
    Result<uint64_t> now = co_await coordinator_.changed_since(revision);
    Result<void> refreshed;
    if (now.ok() && *now != revision) refreshed = co_await refresh();
    if (now.ok() && refreshed.ok()) revision = *now;
    co_await env_.clock.sleep(now.ok() && refreshed.ok() ? kAtMostEvery : kAfterFailure);
  }
}

Task<void> CoordinatorMapFollower::follow_wishes() {
  while (true) {
    co_await view_.wanted().wait();
    view_.wanted().reset();
    Result<void> refreshed = co_await refresh();
    co_await env_.clock.sleep(refreshed.ok() ? kAtMostEvery : kAfterFailure);
  }
}

void NodeMapFollower::start() {
  scope_ = std::make_unique<Scope>();
  scope_->spawn(follow());
}

std::vector<Address> NodeMapFollower::candidates() const {
  std::vector<Address> out;
  auto add = [&out](const Address& address) {
    if (!address.empty() && std::find(out.begin(), out.end(), address) == out.end()) out.push_back(address);
  };
  add(last_good_);
  for (const NodeInfo& node : view_.map().nodes) {
    if (node.alive) add(node.address);
  }
  for (const Address& address : nodes_) add(address);
  return out;
}

Task<Result<void>> NodeMapFollower::refresh() {
  std::string failures;
  std::vector<Address> all = candidates();
  for (const Address& address : all) {
    GetMap request{.newer_than = view_.map().version};
    Result<GetMapReply> reply = co_await hub_.call(address, request, {.timeout = seconds(2)});
    if (!reply.ok()) {
      if (reply.code() == Code::kCancelled && hub_.closed()) co_return std::move(reply).error();
      failures += (failures.empty() ? "" : "; ") + address + ": " + reply.error().text();
      continue;
    }
    last_good_ = address;
    read_only_ = reply->read_only;
    why_ = reply->why;
    if (reply->map.empty()) co_return Result<void>();
    Result<ClusterMap> map = decode_durable<ClusterMap>(reply->map);
    if (!map.ok()) co_return std::move(map).error().within("cluster map from " + address);
    view_.update(*std::move(map));
    co_return Result<void>();
  }
  last_good_.clear();
  co_return Error(Code::kUnavailable, "no node answers (" + (failures.empty() ? "none is known" : failures) + ")");
}

Task<void> NodeMapFollower::follow() {
  while (true) {
    view_.wanted().reset();
    Result<void> refreshed = co_await refresh();
    co_await env_.clock.sleep(refreshed.ok() ? kAtMostEvery : kAfterFailure);
    (void)co_await view_.wanted().wait_until(env_.clock, env_.clock.now() + kPeriod);
  }
}

}  // namespace headrace
