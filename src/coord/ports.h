// ClusterView, TargetPort, PartitionPort: how everything finds and calls targets and partitions, anywhere in the cluster.
//
// ClusterView is this process's copy of the cluster map. On a node it follows the coordinator; in a client it follows
// any node (GetMap). The ports resolve ids through it, call through the Hub, and on kNotLeader or a broken connection
// refresh the map and try again with backoff, within the caller's deadline, where the message allows it: targets'
// messages and partitions' reads are idempotent; mutations are because they carry a Ticket.
#pragma once

#include <memory>

#include "proto/cluster.h"
#include "rpc/hub.h"

namespace headrace {

class ClusterView {
 public:
  [[nodiscard]] const ClusterMap& map() const { return *map_; }
  [[nodiscard]] std::shared_ptr<const ClusterMap> shared() const { return map_; }
  // Takes the map if it is newer; wakes whoever waits for one.
  void update(ClusterMap map);
  // False at the deadline.
  [[nodiscard]] Task<bool> wait_newer(Clock& clock, uint64_t version, Nanos deadline);
  // A wish for a fresher map: whoever feeds the view (node or client) waits for it.
  void want_refresh() { wanted_.set(); }
  [[nodiscard]] Event& wanted() { return wanted_; }

 private:
  std::shared_ptr<const ClusterMap> map_ = std::make_shared<ClusterMap>();
  Event changed_;
  Event wanted_;
};

class TargetPort {
 public:
  TargetPort(Env env, Hub& hub, ClusterView& view) : env_(env), hub_(hub), view_(view) {}
  // Calls the node that serves request.target. One attempt: kUnavailable when the target is lost or unknown.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Req request, CallOptions options = {});
  [[nodiscard]] ClusterView& view() { return view_; }

 private:
  Env env_;
  Hub& hub_;
  ClusterView& view_;
};

class PartitionPort {
 public:
  PartitionPort(Env env, Hub& hub, ClusterView& view) : env_(env), hub_(hub), view_(view) {}
  // Calls the leader of the partition that owns `slot`; sets Header.partition and epoch. Tries again (new leader, restart)
  // until options.timeout is over; the same request each time, so mutations must carry their Ticket.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Slot slot, Req request, CallOptions options = {});
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(PartitionId partition, Req request, CallOptions options = {});
  [[nodiscard]] ClusterView& view() { return view_; }

 private:
  Env env_;
  Hub& hub_;
  ClusterView& view_;
};

}  // namespace headrace
