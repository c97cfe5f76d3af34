#include "coord/ports.h"

#include <algorithm>
#include <utility>

namespace headrace {

// ---- ClusterView ----

void ClusterView::update(ClusterMap map) {
  if (map.version <= map_->version) return;
  map_ = std::make_shared<ClusterMap>(std::move(map));
  for (TargetInfo& target : map_->targets)
    if (auto at = used_.find(target.id); at != used_.end()) target.used = at->second;
  if (!changed_.empty()) Scheduler::current().wake_all(changed_);
}

void ClusterView::note_used(TargetId target, uint64_t bytes) {
  used_[target] = bytes;
  for (TargetInfo& one : map_->targets)
    if (one.id == target) one.used = bytes;
}

Task<bool> ClusterView::wait_newer(Clock& clock, uint64_t version, Nanos deadline) {
  while (map_->version <= version) {
    bool woken = co_await ListWait(changed_, clock, deadline);
    if (!woken && map_->version <= version) co_return false;
  }
  co_return true;
}

// ---- TargetPort ----

namespace {
std::string target_name(const ClusterMap& map, TargetId id) {
  const TargetInfo* info = map.target(id);
  return info != nullptr ? "target t" + std::to_string(info->number) : "target " + to_string(id);
}
std::string node_name(NodeId id) {
  return "node " + std::to_string(id.value());
}
}  // namespace

Result<Address> TargetPort::address_of(TargetId target) const {
  const ClusterMap& map = view_.map();
  const TargetInfo* info = map.target(target);
  if (info == nullptr) {
    view_.want_refresh();
    return Error(Code::kUnavailable, target_name(map, target) + " is not in the cluster map");
  }
  if (!serves(info->state))
    return Error(Code::kUnavailable,
                 target_name(map, target) + (info->state == TargetState::kLost ? " is lost" : " is retired"));
  const NodeInfo* node = map.node(info->node);
  if (node == nullptr || !node->alive) {
    view_.want_refresh();
    return Error(Code::kUnavailable, target_name(map, target) + ": " + node_name(info->node) + " is down");
  }
  return node->address;
}

Error TargetPort::failed(TargetId target, Error error) const {
  if (error.code() == Code::kUnavailable || error.code() == Code::kDisconnected) view_.want_refresh();
  return std::move(error).within(target_name(view_.map(), target));
}

// ---- PartitionPort ----

Result<PartitionPort::Leader> PartitionPort::leader_of(const PartitionInfo& partition) const {
  const NodeInfo* node = view_.map().node(partition.leader);
  std::string name = "partition " + std::to_string(partition.id.value());
  if (node == nullptr) return Error(Code::kUnavailable, name + " has no leader");
  if (!node->alive) return Error(Code::kUnavailable, name + ": its leader, " + node_name(node->id) + ", is down");
  return Leader{node->address, partition.id, partition.epoch};
}

Result<PartitionPort::Leader> PartitionPort::leader_of(Slot slot) const {
  const PartitionInfo* partition = view_.map().partition_of(slot);
  if (partition == nullptr) return Error(Code::kUnavailable, "no partition has slot " + std::to_string(slot.value()));
  return leader_of(*partition);
}

Result<PartitionPort::Leader> PartitionPort::leader_of(PartitionId id) const {
  const PartitionInfo* partition = view_.map().partition(id);
  if (partition == nullptr)
    return Error(Code::kUnavailable, "partition " + std::to_string(id.value()) + " is not in the cluster map");
  return leader_of(*partition);
}

PartitionAttempts::PartitionAttempts(Env env, Hub& hub, ClusterView& view, Nanos timeout)
    : env_(env), hub_(hub), view_(view), timeout_(timeout), deadline_(env.clock.now() + timeout) {}

Nanos PartitionAttempts::next_timeout() const {
  Nanos left = std::max(deadline_ - env_.clock.now(), milliseconds(1));
  return std::min(left, std::max(timeout_ / 3, seconds(3)));
}

bool PartitionAttempts::worth_another(Code code, const Address& address) const {
  switch (code) {
    case Code::kNotLeader:
    case Code::kUnavailable:
    case Code::kDisconnected:
    case Code::kTimeout:
      return true;
    case Code::kCancelled:  // a leader that is shutting down; our own process's end is final
      return !hub_.is_own(address) && !hub_.closed();
    default:
      return false;
  }
}

Task<bool> PartitionAttempts::pause(uint64_t version, Error last) {
  if (last.retry() == Retry::kOutcomeUnknown || last.code() == Code::kCancelled) outcome_unknown_ = true;
  last_ = std::move(last);
  Nanos now = env_.clock.now();
  if (now >= deadline_) co_return false;
  view_.want_refresh();
  auto half = static_cast<uint64_t>(backoff_.count / 2);
  Nanos wait{static_cast<int64_t>(env_.random.between(half, 2 * half))};
  backoff_ = std::min(backoff_ * 2, milliseconds(500));
  // Another leader may be there as soon as the map says so; without a newer map the same one is asked again.
  (void)co_await view_.wait_newer(env_.clock, version, std::min(now + wait, deadline_));
  co_return env_.clock.now() < deadline_;
}

Error PartitionAttempts::give_up() const {
  std::string text = "no " + std::string(outcome_unknown_ ? "definite answer" : "leader that answers") + " within " +
                     std::to_string(timeout_.count / 1'000'000) + " ms; last: " + (last_ ? last_->text() : "nothing");
  return Error(outcome_unknown_ ? Code::kTimeout : Code::kUnavailable, std::move(text));
}

}  // namespace headrace
