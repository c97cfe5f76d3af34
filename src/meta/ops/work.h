// What background workers (tier, packer, rebuild, orphan sweep) ask of a partition: proto/work.h.
//
// Pages are in the order of slots and segment numbers, not of age. A reply's `more` means: ask again behind its last
// segment.
#pragma once

#include "meta/partition.h"

namespace headrace {

// Segments that a checkpoint in the making needs are listed even when they are dead.
[[nodiscard]] Task<Result<SegmentsReply>> handle(Partition& partition, Uploadable request, CallInfo info);
// May come again. Segments that an older object held count there no longer.
[[nodiscard]] Task<Result<UploadedReply>> handle(Partition& partition, Uploaded request, CallInfo info);
[[nodiscard]] Task<Result<SegmentsReply>> handle(Partition& partition, Droppable request, CallInfo info);
// Segments that are not in the bucket, or not hot, are left as they are. Fragments on targets that are away are
// orphans.
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Drop request, CallInfo info);
[[nodiscard]] Task<Result<SegmentsReply>> handle(Partition& partition, SegmentsOf request, CallInfo info);
[[nodiscard]] Task<Result<PlaceAgainReply>> handle(Partition& partition, PlaceAgain request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, PlacedAgain request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, SetPin request, CallInfo info);
[[nodiscard]] Task<Result<PinsReply>> handle(Partition& partition, Pins request, CallInfo info);
[[nodiscard]] Task<Result<SparseObjectsReply>> handle(Partition& partition, SparseObjects request, CallInfo info);
[[nodiscard]] Task<Result<KnownObjectsReply>> handle(Partition& partition, KnownObjects request, CallInfo info);
[[nodiscard]] Task<Result<ObjectsReply>> handle(Partition& partition, DeadObjects request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, ForgetObjects request, CallInfo info);

inline constexpr size_t kMaxPackItems = 300;  // a Packed is one transaction
[[nodiscard]] Task<Result<PackableReply>> handle(Partition& partition, Packable request, CallInfo info);
// kConflict unless the segment was reserved without session (Reserve) on this leader.
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Packed request, CallInfo info);

[[nodiscard]] Task<Result<SegmentsReply>> handle(Partition& partition, FragmentsOn request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Placed request, CallInfo info);
// Answers 'not claimed' only after a record was journaled behind the look: a deposed leader never does.
[[nodiscard]] Task<Result<ClaimsReply>> handle(Partition& partition, Claims request, CallInfo info);

[[nodiscard]] Task<Result<SegmentsReply>> handle(Partition& partition, CutLocations request, CallInfo info);
[[nodiscard]] Task<Result<PartitionStatusReply>> handle(Partition& partition, PartitionStatus request, CallInfo info);

}  // namespace headrace
