// PieceCache: verified copies of pieces of bucket segments, evictable at any time, never the only
// copy of anything. MemoryPieceCache: in memory, least recently used first out. (One on targets'
// unused space will stand beside it.)
//
// Whoever puts a piece has verified it; a Buffer is immutable, so what is got is as it was put.
// Owner: the node. One core.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>

#include "base/bytes.h"
#include "base/ids.h"
#include "runtime/task.h"

namespace headrace {

inline constexpr uint64_t kPieceBytes = kMiB;  // the last piece of a segment may be shorter

struct PieceKey {
  SegmentId segment;
  uint32_t piece = 0;  // number of the piece in the segment
  bool operator==(const PieceKey&) const = default;
};

class PieceCache {
 public:
  virtual ~PieceCache() = default;
  // Takes a reference; may keep it or not.
  [[nodiscard]] virtual Task<void> put(PieceKey key, Buffer piece) = 0;
  [[nodiscard]] virtual Task<std::optional<Buffer>> get(PieceKey key) = 0;
  virtual void drop(PieceKey key) = 0;
  [[nodiscard]] virtual bool contains(PieceKey key) const = 0;  // changes nothing about its age
  [[nodiscard]] virtual uint64_t bytes() const = 0;
};

struct PieceCacheCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t evicted = 0;
};

class MemoryPieceCache final : public PieceCache {
 public:
  explicit MemoryPieceCache(uint64_t budget) : budget_(budget) {}
  [[nodiscard]] Task<void> put(PieceKey key, Buffer piece) override;
  [[nodiscard]] Task<std::optional<Buffer>> get(PieceKey key) override;
  void drop(PieceKey key) override;
  [[nodiscard]] bool contains(PieceKey key) const override { return entries_.contains(key); }
  [[nodiscard]] uint64_t bytes() const override { return bytes_; }
  void set_budget(uint64_t budget);
  [[nodiscard]] const PieceCacheCounters& counters() const { return counters_; }

 private:
  struct Hash {
    size_t operator()(const PieceKey& key) const noexcept {
      return std::hash<SegmentId>{}(key.segment) ^ key.piece * size_t{0x9e3779b97f4a7c15};
    }
  };
  using Order = std::list<std::pair<PieceKey, Buffer>>;
  void shrink();

  uint64_t budget_;
  uint64_t bytes_ = 0;
  Order order_;  // most recently used first
  std::unordered_map<PieceKey, Order::iterator, Hash> entries_;
  PieceCacheCounters counters_;
};

}  // namespace headrace
