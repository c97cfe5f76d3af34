// CrcCache: checksums of fragments' blocks, least recently used first out, within a budget of
// bytes. Owner: Target. One core.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proto/target.h"

namespace headrace {

class CrcCache {
 public:
  using Crcs = std::shared_ptr<const std::vector<uint32_t>>;
  explicit CrcCache(uint64_t budget) : budget_(budget) {}

  [[nodiscard]] Crcs get(const FragmentName& name) {
    auto at = entries_.find(name);
    if (at == entries_.end()) return nullptr;
    order_.splice(order_.begin(), order_, at->second);
    return at->second->second;
  }
  void put(const FragmentName& name, Crcs crcs) {
    erase(name);
    bytes_ += cost(*crcs);
    order_.emplace_front(name, std::move(crcs));
    entries_[name] = order_.begin();
    while (bytes_ > budget_ && order_.size() > 1) {
      FragmentName oldest = order_.back().first;
      erase(oldest);
    }
  }
  void erase(const FragmentName& name) {
    auto at = entries_.find(name);
    if (at == entries_.end()) return;
    bytes_ -= cost(*at->second->second);
    order_.erase(at->second);
    entries_.erase(at);
  }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  using Order = std::list<std::pair<FragmentName, Crcs>>;
  struct Hash {
    size_t operator()(const FragmentName& name) const noexcept {
      return std::hash<SegmentId>{}(name.segment) + name.index * size_t{0x9e3779b97f4a7c15};
    }
  };
  static uint64_t cost(const std::vector<uint32_t>& crcs) { return crcs.size() * sizeof(uint32_t) + 160; }

  uint64_t budget_;
  uint64_t bytes_ = 0;
  Order order_;
  std::unordered_map<FragmentName, Order::iterator, Hash> entries_;
};

}  // namespace headrace
