#include "tier/packer.h"

#include "tier/abandon.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(30), .level = ServiceLevel::kBackground};

}  // namespace

Task<void> Packer::run(CancelToken& stop) {
  Nanos last_whole = env_.clock.now();
  while (co_await stop.sleep(env_.clock, options_.interval)) {
    bool everything = env_.clock.now() - last_whole > options_.patience;
    if (everything) last_whole = env_.clock.now();
    std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
    for (const PartitionInfo& partition : partitions) {
      for (;;) {
        Result<bool> packed = co_await pack(partition, everything);
        if (!packed.ok()) last_error_ = packed.error().text();
        if (!packed.ok() || !*packed || stop.cancelled()) break;
      }
    }
  }
}

Task<Result<bool>> Packer::pack(PartitionInfo partition, bool everything) {
  HR_CO_TRY(PackableReply found, co_await partitions_.call(partition.id, Packable{}, kBackground));
  uint64_t length = 0;
  for (const PackItem& item : found.items) length += item.bytes.size();
  if (length == 0 || (!everything && length < options_.least_bytes)) co_return false;
  HR_ASSERT(length <= kMaxSegment);
  Packed packed;
  Buffer data = Buffer::allocate(length);
  for (PackItem& item : found.items) {
    packed.offsets.push_back(packed.length);
    std::memcpy(data.data() + packed.length, item.bytes.data(), item.bytes.size());
    packed.length += item.bytes.size();
    item.bytes = Buffer();
  }
  packed.items = std::move(found.items);
  Reserve reserve;
  reserve.slot = packed.items.front().file.slot();
  HR_CO_TRY(ReserveReply reserved, co_await partitions_.call(partition.id, reserve, kBackground));
  if (reserved.reservations.empty()) co_return Error(Code::kUnavailable, "no segment was reserved");
  Reservation reservation = std::move(reserved.reservations.front());
  packed.segment = reservation.segment;
  Result<void> done = co_await fill(partition.id, std::move(packed), std::move(data), reservation);
  if (!done.ok()) {
    co_await abandon_work(partitions_, reservation.segment, kBackground);
    co_return std::move(done).error();
  }
  co_return true;
}

Task<Result<void>> Packer::fill(PartitionId partition, Packed packed, Buffer data, Reservation reservation) {
  HR_CO_TRY(packed.placement, co_await segments_.write(reservation.segment, std::move(data), reservation.placement,
                                                       reservation.spares, reservation.capability));
  HR_CO_TRY(co_await partitions_.call(partition, std::move(packed), kBackground));
  co_return {};
}

}  // namespace headrace
