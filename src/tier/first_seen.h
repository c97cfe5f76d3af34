// FirstSeen: since when each key has been met in every look, by the clock of whoever looks. What may be deleted only
// when nothing has named it for a horizon is remembered so; the memory is this process's alone.
#pragma once

#include <map>
#include <utility>

#include "runtime/timers.h"

namespace headrace {

template <class Key>
class FirstSeen {
 public:
  // A look begins: one that broke off before its end() counts for nothing.
  void begin() { met_.clear(); }
  // Since when it has been met; now at the latest.
  Nanos meet(const Key& key, Nanos now) {
    auto before = known_.find(key);
    return met_.emplace(key, before == known_.end() ? now : before->second).first->second;
  }
  [[nodiscard]] size_t met() const { return met_.size(); }
  void unmeet(const Key& key) { met_.erase(key); }
  // A look is over: what it did not meet is forgotten.
  void end() { known_ = std::exchange(met_, {}); }

  void forget(const Key& key) { known_.erase(key); }
  [[nodiscard]] bool empty() const { return known_.empty(); }

 private:
  std::map<Key, Nanos> known_;
  std::map<Key, Nanos> met_;  // by the look that is under way
};

}  // namespace headrace
