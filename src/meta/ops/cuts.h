// Cuts, checkpoints and spin-down, as workers of the node ask for them (proto/work.h).
#pragma once

#include "meta/partition.h"

namespace headrace {

[[nodiscard]] Task<Result<TakeCutReply>> handle(Partition& partition, TakeCut request, CallInfo info);
[[nodiscard]] Task<Result<ReadCheckpointReply>> handle(Partition& partition, ReadCheckpoint request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, ReleaseCut request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, CheckpointNow request, CallInfo info);
[[nodiscard]] Task<Result<CloseReply>> handle(Partition& partition, Close request, CallInfo info);

}  // namespace headrace
