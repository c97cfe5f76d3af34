#include "meta/locks.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "base/fault_point.h"

namespace headrace {

namespace {

bool same_owner(const HeldLock& a, const HeldLock& b) {
  return a.session == b.session && a.lock.owner == b.lock.owner && a.lock.whole == b.lock.whole;
}

bool conflict(const HeldLock& held, const HeldLock& wanted) {
  const FileLock& lock = held.lock;
  if (wanted.lock.kind == LockKind::kUnlock || mutant("lock_beside_lock") || lock.whole != wanted.lock.whole ||
      same_owner(held, wanted))
    return false;
  bool exclusive = lock.kind == LockKind::kExclusive || wanted.lock.kind == LockKind::kExclusive;
  return exclusive && lock.begin < wanted.lock.end && wanted.lock.begin < lock.end;
}

auto order(const HeldLock& held) {
  return std::tuple(held.lock.whole, held.session.value(), held.lock.owner, held.lock.begin);
}

}  // namespace

std::vector<HeldLock> conflicting_locks(const std::vector<HeldLock>& locks, const HeldLock& wanted) {
  std::vector<HeldLock> out;
  std::ranges::copy_if(locks, std::back_inserter(out), [&](const HeldLock& held) { return conflict(held, wanted); });
  return out;
}

std::optional<FileLock> conflicting_lock(const std::vector<HeldLock>& locks, const HeldLock& wanted) {
  auto found = std::ranges::find_if(locks, [&](const HeldLock& held) { return conflict(held, wanted); });
  return found == locks.end() ? std::nullopt : std::optional(found->lock);
}

std::vector<HeldLock> with_lock(std::vector<HeldLock> locks, const HeldLock& change) {
  std::vector<HeldLock> out;
  out.reserve(locks.size() + 2);
  HeldLock added = change;
  for (HeldLock& held : locks) {
    FileLock& lock = held.lock;
    if (!same_owner(held, change)) {
      out.push_back(held);
      continue;
    }
    if (lock.kind == change.lock.kind && lock.begin <= added.lock.end && added.lock.begin <= lock.end) {
      added.lock.begin = std::min(added.lock.begin, lock.begin);
      added.lock.end = std::max(added.lock.end, lock.end);
      continue;
    }
    if (lock.end <= change.lock.begin || change.lock.end <= lock.begin) {
      out.push_back(held);
      continue;
    }
    if (lock.begin < change.lock.begin) {
      out.push_back(held);
      out.back().lock.end = change.lock.begin;
    }
    if (change.lock.end < lock.end) {
      out.push_back(held);
      out.back().lock.begin = change.lock.end;
    }
  }
  if (change.lock.kind != LockKind::kUnlock) out.push_back(added);
  std::sort(out.begin(), out.end(), [](const HeldLock& a, const HeldLock& b) { return order(a) < order(b); });
  return out;
}

}  // namespace headrace
