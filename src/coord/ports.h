// ClusterView, TargetPort, PartitionPort: how everything finds and calls targets and partitions, anywhere in the
// cluster.
//
// ClusterView is this process's copy of the cluster map. On a node it follows the coordinator; in a client it follows
// any node (GetMap): coord/map_follower.h. The ports resolve ids through it, call through the Hub, and on kNotLeader or
// a broken connection refresh the map and try again with backoff, within the caller's deadline, where the message
// allows it: targets' messages and partitions' reads are idempotent; mutations are because they carry a Ticket.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "proto/cluster.h"
#include "rpc/hub.h"

namespace headrace {

class ClusterView {
 public:
  [[nodiscard]] const ClusterMap& map() const { return *map_; }
  [[nodiscard]] std::shared_ptr<const ClusterMap> shared() const { return map_; }
  // Takes the map if it is newer; wakes whoever waits for one.
  void update(ClusterMap map);
  // What a target of this process holds now: kept over newer maps, which know less of it.
  void note_used(TargetId target, uint64_t bytes);
  // Until the map is newer than `version`. False at the deadline.
  [[nodiscard]] Task<bool> wait_newer(Clock& clock, uint64_t version, Nanos deadline);
  // A wish for a fresher map: whoever feeds the view (node or client) waits for it.
  void want_refresh() { wanted_.set(); }
  [[nodiscard]] Event& wanted() { return wanted_; }

 private:
  std::shared_ptr<ClusterMap> map_ = std::make_shared<ClusterMap>();
  std::map<TargetId, uint64_t> used_;
  WaitList changed_;
  Event wanted_;
};

class TargetPort {
 public:
  TargetPort(Hub& hub, ClusterView& view) : hub_(hub), view_(view) {}
  // Calls the node that serves request.target. One attempt: kUnavailable when the target is lost or unknown.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Req request, CallOptions options = {});
  [[nodiscard]] ClusterView& view() { return view_; }

 private:
  [[nodiscard]] Result<Address> address_of(TargetId target) const;
  [[nodiscard]] Error failed(TargetId target, Error error) const;

  Hub& hub_;
  ClusterView& view_;
};

// The attempts of one call to a partition: how long each may take, how long to wait between two, when to give up.
class PartitionAttempts {
 public:
  PartitionAttempts(Env env, Hub& hub, ClusterView& view, Nanos timeout);
  // Of the next attempt: what is left, but no more than a third of the whole (or 3 s): one that hangs on a machine that
  // vanished must not use up the time in which another leader could answer.
  [[nodiscard]] Nanos next_timeout() const;
  // Whether another attempt may answer differently. `address`: who answered.
  [[nodiscard]] bool worth_another(Code code, const Address& address) const;
  // Asks for a newer map than `version` and waits for it, at most for the backoff. False: give up.
  [[nodiscard]] Task<bool> pause(uint64_t version, Error last);
  // kTimeout where any attempt's outcome is unknown, otherwise kUnavailable; names the last error.
  [[nodiscard]] Error give_up() const;

 private:
  Env env_;
  Hub& hub_;
  ClusterView& view_;
  Nanos timeout_;
  Nanos deadline_;
  Nanos backoff_ = milliseconds(2);
  bool outcome_unknown_ = false;
  std::optional<Error> last_;
};

class PartitionPort {
 public:
  PartitionPort(Env env, Hub& hub, ClusterView& view) : env_(env), hub_(hub), view_(view) {}
  // Calls the leader of the partition that owns `slot`; sets Header.partition and epoch. Tries again (new leader,
  // restart) until options.timeout is over; the same request each time, so mutations must carry their Ticket.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Slot slot, Req request, CallOptions options = {}) {
    return call_leader<Slot, Req>(slot, std::move(request), options);
  }
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(PartitionId partition, Req request, CallOptions options = {}) {
    return call_leader<PartitionId, Req>(partition, std::move(request), options);
  }
  [[nodiscard]] ClusterView& view() { return view_; }

 private:
  struct Leader {
    Address address;
    PartitionId partition;
    PartitionEpoch epoch;
  };
  [[nodiscard]] Result<Leader> leader_of(Slot slot) const;
  [[nodiscard]] Result<Leader> leader_of(PartitionId partition) const;
  [[nodiscard]] Result<Leader> leader_of(const PartitionInfo& partition) const;
  template <class Key, class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call_leader(Key key, Req request, CallOptions options);

  Env env_;
  Hub& hub_;
  ClusterView& view_;
};

template <class Req>
Task<Result<typename Req::Reply>> TargetPort::call(Req request, CallOptions options) {
  TargetId target = request.target;
  HR_CO_TRY(Address address, address_of(target));
  Result<typename Req::Reply> reply = co_await hub_.call(std::move(address), std::move(request), options);
  if (!reply.ok()) co_return failed(target, std::move(reply).error());
  co_return reply;
}

template <class Key, class Req>
Task<Result<typename Req::Reply>> PartitionPort::call_leader(Key key, Req request, CallOptions options) {
  PartitionAttempts attempts(env_, hub_, view_, options.timeout);
  while (true) {
    uint64_t version = view_.map().version;
    std::optional<Error> last;
    Result<Leader> leader = leader_of(key);
    if (leader.ok()) {
      options.timeout = attempts.next_timeout();
      options.partition = leader->partition;
      options.partition_epoch = leader->epoch;
      Result<typename Req::Reply> reply = co_await hub_.call(leader->address, request, options);
      if (reply.ok() || !attempts.worth_another(reply.code(), leader->address)) co_return reply;
      last = std::move(reply).error();
    } else {
      last = std::move(leader).error();
    }
    bool again = co_await attempts.pause(version, *std::move(last));
    if (!again) co_return attempts.give_up();
  }
}

}  // namespace headrace
