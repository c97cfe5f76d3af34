// PartitionService: the partitions that this node leads, and the way from a message to them.
//
// A message goes to Header.partition. Before it is acted on: an older namespace epoch is refused (kStale), and a cut
// that the partition has not seen is journaled. A partition that is not here is kNotLeader: the caller asks for the map
// again. Before open() only this process is answered: whoever else asks waits (kUnavailable) until the node knows
// whether it may change anything. Owner: the node. Handlers hold the partition while they run, so that a deposed one
// ends after its last handler.
#pragma once

#include <map>
#include <memory>

#include "meta/partition.h"

namespace headrace {

class PartitionService {
 public:
  // Registers all handlers; both outlive the hub's serving.
  PartitionService(Handlers& handlers, Identity& identity);

  void add(std::shared_ptr<Partition> partition) {
    if (open_) partition->clients_may_come();
    const PartitionId id = partition->id();
    partitions_[id] = std::move(partition);
  }
  void remove(PartitionId id) { partitions_.erase(id); }
  [[nodiscard]] std::shared_ptr<Partition> find(PartitionId id) const {
    auto it = partitions_.find(id);
    return it == partitions_.end() ? nullptr : it->second;
  }
  [[nodiscard]] const std::map<PartitionId, std::shared_ptr<Partition>>& all() const { return partitions_; }
  // From now on others are answered too, as set_read_only() has it.
  void open() {
    open_ = true;
    for (auto& [id, partition] : partitions_) partition->clients_may_come();
  }
  // Another cluster owns the namespace now: no mutation is taken any more.
  void set_read_only(const std::string& why, Code code = Code::kReadOnly) {
    for (auto& [id, partition] : partitions_) partition->set_read_only(why, code);
  }

 private:
  template <class Req>
  void route(Handlers& handlers);
  template <class Req>
  Task<Result<typename Req::Reply>> deliver(Req request, CallInfo info);

  Identity& identity_;
  bool open_ = false;
  std::map<PartitionId, std::shared_ptr<Partition>> partitions_;
};

}  // namespace headrace
