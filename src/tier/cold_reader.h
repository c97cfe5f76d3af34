// ColdReader: answers ColdRead: bytes of segments that are only in the bucket, through this node's
// piece cache.
//
// Ranged GETs of whole pieces (1 MiB: four frames), neighbours that are missing together in one
// GET; every frame is verified before it is cached or answered. Requests for a piece that is on its
// way wait for it. Objects' indexes are kept, least recently used first out. Nothing here is the
// only copy of anything. Owner: TierService. One core.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>

#include "hot/piece_cache.h"
#include "object/object_store.h"
#include "proto/meta.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "tier/packed_object.h"

namespace headrace {

struct ColdReaderOptions {
  uint64_t index_budget = 64 * kMiB;
  uint64_t max_get = 8 * kMiB;  // of one ranged GET
  uint32_t gets = 32;           // at once
};

struct ColdReadCounters {
  uint64_t reads = 0;
  uint64_t bytes = 0;  // answered
  uint64_t gets = 0;
  uint64_t got_bytes = 0;  // from the bucket
  uint64_t piece_hits = 0;
  uint64_t piece_misses = 0;
  uint64_t joined = 0;   // pieces that were on their way already
  uint64_t corrupt = 0;  // frames or indexes that did not verify
  std::string last_error;
};

class ColdReader {
 public:
  static constexpr Nanos kPatient{INT64_MAX};
  // All outlive this.
  ColdReader(Env env, ObjectStore& store, PieceCache& cache, ColdReaderOptions options = {});

  // kNoFragment: the object is gone, ask the home for the current location. kCorrupt: it does not
  // verify, even when asked again. kInvalid: not a range of the segment. kUnavailable: the bucket has not answered by
  // `deadline`; what was asked of it goes on, for the next reader. What was not asked yet is not asked any more.
  [[nodiscard]] Task<Result<ColdReadReply>> read(ColdRead request, Nanos deadline = kPatient);
  [[nodiscard]] Task<void> stop();
  void set_namespace(NamespaceId name_space) { name_space_ = name_space; }
  [[nodiscard]] const ColdReadCounters& counters() const { return counters_; }

 private:
  using Index = std::shared_ptr<const ObjectIndex>;
  struct KeyLess {
    bool operator()(const PieceKey& a, const PieceKey& b) const {
      return a.segment != b.segment ? a.segment < b.segment : a.piece < b.piece;
    }
  };
  struct Flight {
    Once<Result<Buffer>> piece;
    Nanos wanted_until{};  // the latest deadline of those who wait
  };
  [[nodiscard]] Task<Result<Index>> index_of(ObjectRef ref, Nanos deadline);
  template <class T>
  [[nodiscard]] Task<Result<T>> by(Nanos deadline, Once<Result<T>>* flight);  // the caller holds it
  [[nodiscard]] Task<Result<Index>> load_index(ObjectRef ref);
  Task<void> load_index_into(ObjectRef ref, std::shared_ptr<Once<Result<Index>>> into);
  void keep(Index index);
  // Pieces [first, first + flights.size()) of the segment, by one GET.
  Task<void> fetch(ObjectId object, Index index, const PackedSegment* segment, uint32_t first,
                   std::vector<std::shared_ptr<Flight>> flights);
  [[nodiscard]] Task<Result<std::vector<Buffer>>> fetch_pieces(ObjectId object, Index index,
                                                               const PackedSegment* segment, uint32_t first,
                                                               size_t count);
  // When a piece does not verify: the range by the frames that it lies in, since the damage may be
  // in others. Not cached.
  [[nodiscard]] Task<Result<Buffer>> read_frames(Index index, SegmentId id, uint64_t offset, uint64_t length,
                                                 Nanos deadline);
  Task<void> read_frames_into(Index index, SegmentId id, uint64_t offset, uint64_t length, Nanos deadline,
                              std::shared_ptr<Once<Result<Buffer>>> into);

  Env env_;
  ObjectStore& store_;
  PieceCache& cache_;
  ColdReaderOptions options_;
  NamespaceId name_space_;
  ColdReadCounters counters_;
  std::list<Index> indexes_;  // most recently used first
  std::map<ObjectId, std::list<Index>::iterator> by_object_;
  uint64_t index_bytes_ = 0;
  std::map<ObjectId, std::shared_ptr<Once<Result<Index>>>> index_flights_;
  std::map<PieceKey, std::shared_ptr<Flight>, KeyLess> flights_;
  Semaphore gets_;
  Scope scope_;  // last
};

}  // namespace headrace
