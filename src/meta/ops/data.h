// Operations on what files hold: reservations, commits, staged writes, extents, truncation, and removal in steps.
//
// A kRemoval row says that a file's extents go in steps: with value kTrim those at and behind its size (until they are
// gone it does not grow), otherwise all of them, its attributes and its inode.
#pragma once

#include "meta/partition.h"

namespace headrace {

inline constexpr uint64_t kLargestFile = uint64_t{1} << 62;
inline constexpr uint32_t kMaxReserved = 256;  // segments per session
inline constexpr uint64_t kMaxStageBytes = 64 * kKiB;
inline constexpr const char* kTrim = "trim";

// kRetryable where fewer than P + 1 targets are live. Not journaled: a new leader knows of none. A node's worker
// reserves without session; what it got is void after an hour, or when it abandons it (with `count` 0, nothing else).
[[nodiscard]] Task<Result<ReserveReply>> handle(Partition& partition, Reserve request, CallInfo info);
// Codes per file: kStale (grant or reservation has ended), kNotFound. Segments that no file took are given up.
[[nodiscard]] Task<Result<CommitReply>> handle(Partition& partition, Commit request, CallInfo info);
// kConflict when staged bytes are at their bound: write a segment instead.
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Stage request, CallInfo info);
// At most 1 GiB of the file, 4 MiB of staged bytes or 32,768 pieces: then the extents end early.
[[nodiscard]] Task<Result<GetExtentsReply>> handle(Partition& partition, GetExtents request, CallInfo info);
[[nodiscard]] Task<Result<LocateReply>> handle(Partition& partition, Locate request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Punch request, CallInfo info);
[[nodiscard]] Task<Result<CopyRangeReply>> handle(Partition& partition, CopyRange request, CallInfo info);
[[nodiscard]] Task<Result<EntryReply>> handle(Partition& partition, SetAttributes request, CallInfo info);

// kNotFound when the file is being removed, kBusy when it would grow over extents that are still being cut off.
[[nodiscard]] Task<Result<void>> check_removal(Transaction& txn, const Attributes& attributes, uint64_t new_size = 0);

// Does some of the removal that the file's kRemoval row asks for. True when there is nothing left of it.
[[nodiscard]] Task<Result<bool>> remove_some(Partition& partition, FileId file);

}  // namespace headrace
