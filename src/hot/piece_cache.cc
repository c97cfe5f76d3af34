#include "hot/piece_cache.h"

namespace headrace {

void MemoryPieceCache::drop(PieceKey key) {
  auto at = entries_.find(key);
  if (at == entries_.end()) return;
  bytes_ -= at->second->second.size();
  order_.erase(at->second);
  entries_.erase(at);
}

void MemoryPieceCache::shrink() {
  while (bytes_ > budget_) {
    PieceKey oldest = order_.back().first;
    drop(oldest);
    ++counters_.evicted;
  }
}

void MemoryPieceCache::set_budget(uint64_t budget) {
  budget_ = budget;
  shrink();
}

Task<void> MemoryPieceCache::put(PieceKey key, Buffer piece) {
  drop(key);
  if (piece.size() > budget_) co_return;
  bytes_ += piece.size();
  order_.emplace_front(key, std::move(piece));
  entries_[key] = order_.begin();
  shrink();
}

Task<std::optional<Buffer>> MemoryPieceCache::get(PieceKey key) {
  auto at = entries_.find(key);
  if (at == entries_.end()) {
    ++counters_.misses;
    co_return std::nullopt;
  }
  ++counters_.hits;
  order_.splice(order_.begin(), order_, at->second);
  co_return at->second->second;
}

}  // namespace headrace
