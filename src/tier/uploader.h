// Uploader: hot segments into packed objects in the bucket, partition by partition.
//
// A partition is asked for segments without an object, oldest first; they are read (degraded where
// need be), packed in that order, put under a fresh id, verified in the bucket, and only then
// recorded (Uploaded). It remembers nothing: interrupted, it finds the same segments again, and at
// worst an object that nobody names stays in the bucket. Owner: TierService. One core. Bounded:
// `parallel` objects at once over all partitions, one per partition.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coord/ports.h"
#include "object/object_store.h"
#include "proto/work.h"
#include "runtime/scope.h"
#include "stripe/segment_io.h"
#include "tier/cold_reader.h"
#include "tier/go_on.h"
#include "tier/packed_object.h"

namespace headrace {

struct UploaderOptions {
  Nanos min_age = seconds(300);  // upload-after
  Nanos interval = seconds(5);
  uint64_t object_bytes = kMaxObjectData;  // raw bytes of one object; at least one segment goes in
  uint32_t parallel = 2;                   // objects being packed at once: each takes up to twice kMaxObject of memory
  uint32_t reads = 4;                      // segments read at once for one object
  uint32_t rewrite_over_percent = 13;      // dead bytes of a partition's objects: rewriting begins
  uint32_t rewrite_under_percent = 7;      // and ends
};

struct UploadProgress {
  uint64_t objects = 0;  // since start
  uint64_t segments = 0;
  uint64_t bytes = 0;         // raw
  uint64_t stored_bytes = 0;  // in the bucket
  uint64_t rewritten = 0;     // raw bytes moved out of objects that were partly dead
  uint64_t failed = 0;        // segments that could not be read or put, this pass or the last
  std::string last_error;
};

class Uploader {
 public:
  // All outlive this.
  Uploader(Env env, PartitionPort& partitions, SegmentIo& segments, ObjectStore& store, ColdReader& cold,
           UploaderOptions options = {});

  void start();  // the loop
  [[nodiscard]] Task<void> stop();
  void cancel() { scope_.cancel(); }  // no new work; stop() still joins
  void set_min_age(Nanos age) { options_.min_age = age; }

  // Every segment of at least that age that has no object yet, until a whole pass finds none.
  // Recorded on return. Errors: what kept the last failed segment (the others were uploaded).
  // `go_on` is asked before each object.
  [[nodiscard]] Task<Result<void>> push(PartitionId partition, Nanos min_age, GoOn go_on = {});
  // All partitions at once.
  [[nodiscard]] Task<Result<void>> push_all(Nanos min_age = {}, GoOn go_on = {});
  // Where too much of a partition's objects is dead, moves what lives in the emptiest of them into new ones, until
  // little enough is (hysteresis), or `most` raw bytes were moved. The old ones are then without live bytes, and
  // collected like others. Returns the bytes moved. Errors: what kept the last object (the others were moved).
  [[nodiscard]] Task<Result<uint64_t>> rewrite(PartitionId partition, uint64_t most = 256 * kMiB);
  // Objects that were put, or are being put, and are not recorded yet: nobody may take them for strays.
  [[nodiscard]] bool in_flight(ObjectId object) const { return in_flight_.contains(object); }
  [[nodiscard]] const UploadProgress& progress() const { return progress_; }

 private:
  [[nodiscard]] Task<Result<uint64_t>> pass(PartitionId partition, Nanos min_age, GoOn go_on);  // how many were found
  [[nodiscard]] Task<Result<void>> upload(PartitionId partition, std::vector<Location> group);
  [[nodiscard]] Task<Result<std::vector<Location>>> living_in(ObjectId object);
  [[nodiscard]] Task<Result<SparseObjectsReply>> sparsest(PartitionId partition);
  [[nodiscard]] Task<Result<EncodedSegment>> read(Location location, std::shared_ptr<Semaphore> slots);
  Task<void> loop();
  std::shared_ptr<Mutex> mutex_of(PartitionId partition);

  Env env_;
  PartitionPort& partitions_;
  SegmentIo& segments_;
  ObjectStore& store_;
  ColdReader& cold_;
  UploaderOptions options_;
  UploadProgress progress_;
  std::set<ObjectId> in_flight_;
  std::map<PartitionId, bool> rewriting_;  // over the upper mark, and not under the lower one since
  Semaphore packing_;
  std::map<PartitionId, std::shared_ptr<Mutex>> mutexes_;
  Scope scope_;  // last
};

}  // namespace headrace
