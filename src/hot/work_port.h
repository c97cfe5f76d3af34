// WorkPort: what rebuild and orphan collection ask of partitions and targets. RpcWorkPort: over
// rpc. Tests have fakes.
#pragma once

#include "coord/ports.h"
#include "proto/meta.h"
#include "proto/target.h"
#include "proto/work.h"

namespace headrace {

class WorkPort {
 public:
  virtual ~WorkPort() = default;
  [[nodiscard]] virtual const ClusterMap& map() const = 0;
  [[nodiscard]] virtual Task<Result<SegmentsReply>> fragments_on(PartitionId partition, FragmentsOn request) = 0;
  [[nodiscard]] virtual Task<Result<void>> placed(Placed request) = 0;         // at the segment's home
  [[nodiscard]] virtual Task<Result<Location>> locate(SegmentId segment) = 0;  // at its home
  [[nodiscard]] virtual Task<Result<ClaimsReply>> claims(PartitionId partition, Claims request) = 0;
  [[nodiscard]] virtual Task<Result<InventoryReply>> inventory(Inventory request) = 0;
  // In the name of that partition, at its present epoch.
  [[nodiscard]] virtual Task<Result<void>> free(PartitionId partition, FragmentFree request) = 0;
};

class RpcWorkPort final : public WorkPort {
 public:
  RpcWorkPort(PartitionPort& partitions, TargetPort& targets) : partitions_(partitions), targets_(targets) {}
  [[nodiscard]] const ClusterMap& map() const override { return partitions_.view().map(); }
  [[nodiscard]] Task<Result<SegmentsReply>> fragments_on(PartitionId partition, FragmentsOn request) override;
  [[nodiscard]] Task<Result<void>> placed(Placed request) override;
  [[nodiscard]] Task<Result<Location>> locate(SegmentId segment) override;
  [[nodiscard]] Task<Result<ClaimsReply>> claims(PartitionId partition, Claims request) override;
  [[nodiscard]] Task<Result<InventoryReply>> inventory(Inventory request) override;
  [[nodiscard]] Task<Result<void>> free(PartitionId partition, FragmentFree request) override;

 private:
  PartitionPort& partitions_;
  TargetPort& targets_;
};

}  // namespace headrace
