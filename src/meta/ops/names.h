// Operations on names, directories and extended attributes. Those that touch several partitions are steps (ops/steps.h)
// run in two phases (ops/two_phase.h).
#pragma once

#include "meta/partition.h"
#include "proto/transaction.h"

namespace headrace {

[[nodiscard]] Task<Result<EntryReply>> handle(Partition& partition, Lookup request, CallInfo info);
[[nodiscard]] Task<Result<EntryReply>> handle(Partition& partition, GetAttributes request, CallInfo info);
[[nodiscard]] Task<Result<EntryReply>> handle(Partition& partition, Make request, CallInfo info);
[[nodiscard]] Task<Result<UnlinkReply>> handle(Partition& partition, Unlink request, CallInfo info);
[[nodiscard]] Task<Result<UnlinkReply>> handle(Partition& partition, Rename request, CallInfo info);
[[nodiscard]] Task<Result<EntryReply>> handle(Partition& partition, Link request, CallInfo info);
[[nodiscard]] Task<Result<ReadDirectoryReply>> handle(Partition& partition, ReadDirectory request, CallInfo info);
[[nodiscard]] Task<Result<TextReply>> handle(Partition& partition, GetXattr request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, SetXattr request, CallInfo info);
[[nodiscard]] Task<Result<ListXattrReply>> handle(Partition& partition, ListXattr request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, RemoveXattr request, CallInfo info);
[[nodiscard]] Task<Result<ParentOfReply>> handle(Partition& partition, ParentOf request, CallInfo info);
[[nodiscard]] Task<Result<StatisticsReply>> handle(Partition& partition, Statistics request, CallInfo info);

// The root directory's inode, put by the partition of slot 0 when it is not there yet.
[[nodiscard]] Task<Result<void>> make_root(Partition& partition);

}  // namespace headrace
