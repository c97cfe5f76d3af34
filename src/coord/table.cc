#include "coord/table.h"

#include <algorithm>

namespace headrace {

namespace {
bool before(const CoordEntry& entry, std::string_view key) {
  return entry.key < key;
}
}  // namespace

CoordRecord CoordTable::get(std::string_view key) const {
  auto at = std::lower_bound(entries.begin(), entries.end(), key, before);
  if (at == entries.end() || at->key != key) return {};
  return {at->value, at->version};
}

Result<uint64_t> CoordTable::put(std::string_view key, std::string value, uint64_t expected) {
  auto at = std::lower_bound(entries.begin(), entries.end(), key, before);
  bool there = at != entries.end() && at->key == key;
  uint64_t version = there ? at->version : 0;
  if (version != expected)
    return Error(Code::kConflict, "'" + std::string(key) + "' is at version " + std::to_string(version) + ", not " +
                                      std::to_string(expected));
  if (!there) at = entries.insert(at, CoordEntry{.key = std::string(key)});
  at->value = std::move(value);
  at->version = version + 1;
  ++revision;
  return at->version;
}

std::vector<std::pair<std::string, CoordRecord>> CoordTable::list(std::string_view prefix) const {
  std::vector<std::pair<std::string, CoordRecord>> out;
  for (const CoordEntry& entry : entries) {
    if (entry.key.starts_with(prefix)) out.emplace_back(entry.key, CoordRecord{entry.value, entry.version});
  }
  return out;
}

Result<void> Leases::renew(const std::string& holder, uint64_t incarnation, Nanos now) {
  Lease& lease = leases_[holder];
  if (lease.incarnation != incarnation) {
    if (std::find(lease.replaced.begin(), lease.replaced.end(), incarnation) != lease.replaced.end())
      return Error(Code::kStale, "lease of '" + holder + "': another incarnation has replaced this one");
    if (lease.incarnation != 0 && now < lease.end)
      return Error(Code::kStale, "lease of '" + holder + "': another incarnation holds it for " +
                                     std::to_string((lease.end - now).count / 1'000'000) + " ms more");
    if (lease.incarnation != 0) lease.replaced.push_back(lease.incarnation);
    if (lease.replaced.size() > 64) lease.replaced.erase(lease.replaced.begin());
    lease.incarnation = incarnation;
  }
  lease.end = now + kLease;
  return {};
}

bool Leases::alive(const std::string& holder, Nanos now) const {
  auto at = leases_.find(holder);
  return at != leases_.end() && at->second.incarnation != 0 && now < at->second.end;
}

}  // namespace headrace
