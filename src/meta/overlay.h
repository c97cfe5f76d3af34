// Overlay: row changes that are decided but not yet in the store, newest first to be seen.
//
// A change enters with a version (grows by one per commit) and the journal position that makes it durable. It leaves
// when it is applied to the store, is still the newest of its key, and no running transaction began before it: running
// transactions find conflicts here.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "meta/store/store.h"

namespace headrace {

class Overlay {
 public:
  struct Entry {
    std::optional<RowValue> value;  // nothing: deleted
    uint64_t version = 0;
    Position position;  // of its journal record
  };
  using Entries = std::map<Key, Entry, std::less<>>;

  [[nodiscard]] uint64_t version() const { return version_; }
  // Takes one commit's changes.
  void add(const std::vector<RowChange>& changes, Position position);
  [[nodiscard]] const Entry* find(const Key& key) const;
  [[nodiscard]] const Entries& entries() const { return entries_; }
  // The store now contains everything up to `position`.
  void applied(Position position);

  // A running transaction: conflicts with what is newer than its start.
  [[nodiscard]] uint64_t begin();
  bool end(uint64_t start_version);  // true: others' changes may have left with it
  [[nodiscard]] bool changed_since(const Key& key, uint64_t start_version) const;
  [[nodiscard]] bool range_changed_since(const Key& from, const Key& to, uint64_t start_version) const;
  [[nodiscard]] size_t size() const { return entries_.size(); }

 private:
  void prune();
  Entries entries_;
  std::multiset<uint64_t> running_;
  std::map<uint64_t, std::vector<Key>> by_version_;  // keys each commit changed, oldest first, until pruned
  uint64_t version_ = 0;
  Position applied_;
};

}  // namespace headrace
