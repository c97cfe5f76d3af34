// Changes of names that clients made under directory write grants (ChangeNames): many in one transaction, in their
// order.
#pragma once

#include "meta/partition.h"

namespace headrace {

[[nodiscard]] Task<Result<ChangeNamesReply>> handle(Partition& partition, ChangeNames request, CallInfo info);
[[nodiscard]] Task<Result<ReserveFilesReply>> handle(Partition& partition, ReserveFiles request, CallInfo info);

}  // namespace headrace
