#include "meta/lock_waits.h"

#include <set>

namespace headrace {

bool LockWaits::add(const Lock& request, const std::vector<HeldLock>& in_way) {
  Key key = key_of(request);
  const Owner& owner = key.first;
  Wait wait{request.file, {}};
  for (const HeldLock& held : in_way) {
    const bool itself = held.session == owner.session && held.lock.pid == owner.pid;
    if (!itself) wait.in_way.push_back({held.session, held.lock.pid, held.lock.owner});
  }
  if (closes_cycle(owner, wait.in_way)) return false;
  waits_.insert_or_assign(std::move(key), std::move(wait));
  return true;
}

void LockWaits::forget(FileId file) {
  std::erase_if(waits_, [file](const auto& item) { return item.second.file == file; });
}

bool LockWaits::closes_cycle(const Owner& last, std::vector<Owner> in_way) const {
  std::set<Owner> seen;
  std::vector<Owner>& next = in_way;
  while (!next.empty()) {
    const Owner owner = next.back();
    next.pop_back();
    if (owner == last) return true;
    if (!seen.insert(owner).second) continue;
    for (auto at = waits_.lower_bound(Key(owner, 0)); at != waits_.end() && at->first.first == owner; ++at)
      next.insert(next.end(), at->second.in_way.begin(), at->second.in_way.end());
  }
  return false;
}

}  // namespace headrace
