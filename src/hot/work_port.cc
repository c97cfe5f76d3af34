#include "hot/work_port.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(30), .level = ServiceLevel::kBackground};

}  // namespace

Task<Result<SegmentsReply>> RpcWorkPort::fragments_on(PartitionId partition, FragmentsOn request) {
  return partitions_.call(partition, std::move(request), kBackground);
}

Task<Result<void>> RpcWorkPort::placed(Placed request) {
  Slot home = request.segment.home();
  HR_CO_TRY(co_await partitions_.call(home, std::move(request), kBackground));
  co_return Result<void>();
}

Task<Result<Location>> RpcWorkPort::locate(SegmentId segment) {
  HR_CO_TRY(LocateReply reply, co_await partitions_.call(segment.home(), Locate{segment}, kBackground));
  co_return std::move(reply.location);
}

Task<Result<ClaimsReply>> RpcWorkPort::claims(PartitionId partition, Claims request) {
  return partitions_.call(partition, std::move(request), kBackground);
}

Task<Result<InventoryReply>> RpcWorkPort::inventory(Inventory request) {
  return targets_.call(std::move(request), kBackground);
}

Task<Result<void>> RpcWorkPort::free(PartitionId partition, FragmentFree request) {
  const PartitionInfo* info = map().partition(partition);
  if (info == nullptr)
    co_return Error(Code::kUnavailable, "partition " + std::to_string(partition.value()) + " is not in the map");
  CallOptions options = kBackground;
  options.partition = partition;
  options.partition_epoch = info->epoch;
  HR_CO_TRY(co_await targets_.call(std::move(request), options));
  co_return Result<void>();
}

}  // namespace headrace
