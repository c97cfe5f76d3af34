// SegmentReader: bytes of segments, from wherever they are now: fragments, the bucket, or this
// client's piece cache.
//
// Locations are hints: a fragment that is not there sends the reader to the segment's home for the
// current placement, a segment without one to a node that reads the bucket. Segments never change,
// so that cached pieces are never stale; they are chunks of kChunk, kept by last use within a
// budget. Random reads fetch just what they need and leave no piece behind; sequential ones, and
// those of cold segments, fetch whole chunks. Owner: Client. One core.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "coord/ports.h"
#include "proto/meta.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"
#include "stripe/segment_io.h"

namespace headrace {

class SegmentReader {
 public:
  static constexpr uint64_t kChunk = 256 * kKiB;
  static constexpr uint64_t kMaxLoad = 4 * kMiB;  // in one request
  static constexpr size_t kMaxLocations = 100'000;
  static constexpr Nanos kPatience = seconds(60);

  SegmentReader(Env env, Hub& hub, PartitionPort& partitions, SegmentIo& io, Scope& scope, uint64_t cache_bytes)
      : env_(env), hub_(hub), partitions_(partitions), io_(io), scope_(scope), cache_limit_(cache_bytes) {}

  void learn(Location location, Capability capability);

  // Exactly [offset, offset + length), in order. whole_chunks: what is near will be wanted too.
  // kNotFound: the segment is dead, ask for the file's extents again. kIo: the bytes are lost.
  [[nodiscard]] Task<Result<std::vector<Buffer>>> read(SegmentId segment, uint64_t offset, uint64_t length,
                                                       bool whole_chunks);
  // Brings the range into the cache. Errors are met again by whoever reads.
  [[nodiscard]] Task<void> prefetch(SegmentId segment, uint64_t offset, uint64_t length);

  struct Counters {
    uint64_t hot_reads = 0;
    uint64_t cold_reads = 0;
    uint64_t relocated = 0;
    uint64_t cache_hits = 0;
    uint64_t cache_bytes = 0;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  struct Known {
    Location location;
    Capability capability;
    uint64_t next = 0;  // end of the last access
    uint32_t in_order = 0;
  };
  using Key = std::pair<SegmentId, uint64_t>;  // chunk number
  struct Chunk {
    Buffer bytes;  // empty while loading
    std::shared_ptr<Event> loading;
    std::list<Key>::iterator used;
  };

  [[nodiscard]] Task<Result<Known>> locate(SegmentId segment, bool again);
  [[nodiscard]] Task<Result<Buffer>> read_exact(SegmentId segment, uint64_t offset, uint64_t length);
  [[nodiscard]] Task<Result<Buffer>> read_cold(Location location, uint64_t offset, uint64_t length);
  void start_loads(SegmentId segment, uint64_t segment_length, uint64_t first, uint64_t last);
  [[nodiscard]] Task<void> load(SegmentId segment, uint64_t segment_length, uint64_t first, uint64_t count,
                                std::shared_ptr<Event> done);
  [[nodiscard]] bool expects_more(Known& known, uint64_t offset, uint64_t length) const;
  void evict();

  Env env_;
  Hub& hub_;
  PartitionPort& partitions_;
  SegmentIo& io_;
  Scope& scope_;
  uint64_t cache_limit_;
  std::unordered_map<SegmentId, Known> known_;
  std::map<Key, Chunk> chunks_;
  std::list<Key> used_;  // most recent first; loaded chunks only
  Counters counters_;
};

}  // namespace headrace
