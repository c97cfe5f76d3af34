// Advisory locks of programs. A row of the file holds all of them, journaled: they outlive a leader, not their session.
#pragma once

#include "meta/partition.h"

namespace headrace {

// Not granted where another's is in the way for longer than wait_ms. kRange: the file has too many locks.
// kDeadlock: who waits would wait for itself (meta/lock_waits).
[[nodiscard]] Task<Result<LockReply>> handle(Partition& partition, Lock request, CallInfo info);
[[nodiscard]] Task<Result<FindLockReply>> handle(Partition& partition, FindLock request, CallInfo info);

}  // namespace headrace
