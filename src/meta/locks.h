// The advisory locks of one file, as POSIX and flock(2) want them. Pure: no rows, no waiting (ops/locks).
//
// Invariants of a set: locks of one owner and kind do not overlap; touching ones of the same kind are one. Owners are
// told apart by session and number; fcntl's and flock's locks (FileLock::whole) do not see each other.
#pragma once

#include <optional>
#include <vector>

#include "meta/rows.h"

namespace headrace {

inline constexpr size_t kMaxLocksOfFile = 1024;

// What is in the way of `wanted`; nothing for kUnlock. Or the first of it.
[[nodiscard]] std::vector<HeldLock> conflicting_locks(const std::vector<HeldLock>& locks, const HeldLock& wanted);
[[nodiscard]] std::optional<FileLock> conflicting_lock(const std::vector<HeldLock>& locks, const HeldLock& wanted);

// The set after `change` (which conflicts with none): its range has its kind now, what the owner had there is replaced,
// split where it stands out. Sorted.
[[nodiscard]] std::vector<HeldLock> with_lock(std::vector<HeldLock> locks, const HeldLock& change);

}  // namespace headrace
