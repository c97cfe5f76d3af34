#include "meta/overlay.h"

#include "base/fault_point.h"

namespace headrace {

void Overlay::add(const std::vector<RowChange>& changes, Position position) {
  ++version_;
  std::vector<Key>& keys = by_version_[version_];
  keys.reserve(changes.size());
  for (const RowChange& change : changes) {
    entries_[change.key] = Entry{change.value, version_, position};
    keys.push_back(change.key);
  }
}

const Overlay::Entry* Overlay::find(const Key& key) const {
  auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

void Overlay::applied(Position position) {
  applied_ = position;
  prune();
}

uint64_t Overlay::begin() {
  running_.insert(version_);
  return version_;
}

bool Overlay::end(uint64_t start_version) {
  auto it = running_.find(start_version);
  HR_ASSERT(it != running_.end());
  bool oldest = it == running_.begin();
  running_.erase(it);
  if (!oldest) return false;
  const size_t before = entries_.size();
  prune();
  return entries_.size() < before;
}

void Overlay::prune() {
  uint64_t oldest = running_.empty() ? version_ : *running_.begin();
  while (!by_version_.empty() && by_version_.begin()->first <= oldest) {
    auto first = by_version_.begin();
    bool all_applied = true;
    for (const Key& key : first->second) {
      auto it = entries_.find(key);
      if (it == entries_.end() || it->second.version != first->first) continue;  // superseded
      if (it->second.position > applied_) {
        all_applied = false;
        break;
      }
      entries_.erase(it);
    }
    if (!all_applied) return;
    by_version_.erase(first);
  }
}

bool Overlay::changed_since(const Key& key, uint64_t start_version) const {
  const Entry* entry = find(key);
  return entry != nullptr && entry->version > start_version && !mutant("ignore_conflict");
}

bool Overlay::range_changed_since(const Key& from, const Key& to, uint64_t start_version) const {
  for (auto it = entries_.lower_bound(from); it != entries_.end() && it->first < to; ++it)
    if (it->second.version > start_version) return true;
  return false;
}

}  // namespace headrace
