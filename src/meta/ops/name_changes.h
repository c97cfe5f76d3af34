// What clients did by themselves and tell afterwards, many in one transaction: changes of names under directory write
// grants, in their order; times at which they read.
#pragma once

#include "meta/partition.h"

namespace headrace {

[[nodiscard]] Task<Result<ChangeNamesReply>> handle(Partition& partition, ChangeNames request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, NoteAccess request, CallInfo info);
[[nodiscard]] Task<Result<ReserveFilesReply>> handle(Partition& partition, ReserveFiles request, CallInfo info);

}  // namespace headrace
