// What background workers (tier, rebuild, collection, node) ask of a partition. Header.partition addresses it.
#pragma once

#include <string>
#include <vector>

#include "proto/header.h"
#include "proto/placement.h"

namespace headrace {

// ---- tiering ----
struct SegmentsReply {
  std::vector<Location> segments;
  bool more = false;
  void fields(this auto& self, auto& v) { v(self.segments, self.more); }
};
struct Uploadable {  // live segments without an object, older than min_age, oldest first, after `after`
  static constexpr MessageType kType = MessageType::kUploadable;
  using Reply = SegmentsReply;
  SegmentId after;
  uint64_t min_age_ms = 0;
  uint32_t limit = 256;
  void fields(this auto& self, auto& v) { v(self.after, self.min_age_ms, self.limit); }
};
struct UploadedReply {
  uint32_t recorded = 0;  // segments that were still alive
  void fields(this auto& self, auto& v) { v(self.recorded); }
};
struct Uploaded {  // the object was verified in the bucket; journaled on reply
  static constexpr MessageType kType = MessageType::kUploaded;
  using Reply = UploadedReply;
  ObjectRef object;
  uint64_t object_bytes = 0;
  std::vector<SegmentId> segments;
  void fields(this auto& self, auto& v) { v(self.object, self.object_bytes, self.segments); }
};
struct Droppable {  // segments that are in the bucket and still hot, coldest first
  static constexpr MessageType kType = MessageType::kDroppable;
  using Reply = SegmentsReply;
  SegmentId after;
  uint32_t limit = 256;
  void fields(this auto& self, auto& v) { v(self.after, self.limit); }
};
struct Drop {  // their placements end (journaled), then their fragments are freed
  static constexpr MessageType kType = MessageType::kDrop;
  using Reply = Empty;
  std::vector<SegmentId> segments;
  void fields(this auto& self, auto& v) { v(self.segments); }
};
struct SegmentsOf {  // locations of a file's segments (or of all below a directory's own partition: file zero = all)
  static constexpr MessageType kType = MessageType::kSegmentsOf;
  using Reply = SegmentsReply;
  FileId file;
  SegmentId after;
  uint32_t limit = 1024;
  void fields(this auto& self, auto& v) { v(self.file, self.after, self.limit); }
};
// ---- into the hot tier again ----
struct PlaceAgainReply {
  Location location;
  Placement placement;  // where its fragments may be written
  std::vector<TargetId> spares;
  Capability capability;  // kRead | kWrite of the whole segment
  void fields(this auto& self, auto& v) { v(self.location, self.placement, self.spares, self.capability); }
};
// Targets for a segment that is in the bucket only. kExists: it is hot; kBusy: old fragments are being freed.
struct PlaceAgain {
  static constexpr MessageType kType = MessageType::kPlaceAgain;
  using Reply = PlaceAgainReply;
  SegmentId segment;
  void fields(this auto& self, auto& v) { v(self.segment); }
};
// All its fragments are durable there; journaled on reply. kConflict unless PlaceAgain was asked of this leader.
struct PlacedAgain {
  static constexpr MessageType kType = MessageType::kPlacedAgain;
  using Reply = Empty;
  SegmentId segment;
  Placement placement;
  void fields(this auto& self, auto& v) { v(self.segment, self.placement); }
};
// ---- pins ----
struct SetPin {  // a user's wish that what is at or below `file` stays hot, or the end of that wish; journaled on reply
  static constexpr MessageType kType = MessageType::kSetPin;
  using Reply = Empty;
  FileId file;
  bool pinned = false;
  std::string path;  // as the user named it, for people
  void fields(this auto& self, auto& v) { v(self.file, self.pinned, self.path); }
};
struct PinItem {
  FileId file;
  std::string path;
  int64_t since = 0;  // ns since 1970
  void fields(this auto& self, auto& v) { v(self.file, self.path, self.since); }
};
struct PinsReply {
  std::vector<PinItem> pins;
  void fields(this auto& self, auto& v) { v(self.pins); }
};
struct Pins {
  static constexpr MessageType kType = MessageType::kPins;
  using Reply = PinsReply;
  void fields(this auto&, auto&) {}
};

struct ObjectsReply {
  std::vector<ObjectId> objects;
  ObjectId last;  // of those that were looked at; none: nothing is behind them
  void fields(this auto& self, auto& v) { v(self.objects, self.last); }
};
// A page of the objects with no live segment at or after the published cut, nor in a retained one. Few or none of them
// may be among those that it looks at.
struct DeadObjects {
  static constexpr MessageType kType = MessageType::kDeadObjects;
  using Reply = ObjectsReply;
  Cut published;
  ObjectId after;  // the last of the page before; none: from the first on
  void fields(this auto& self, auto& v) { v(self.published, self.after); }
};
struct SparseObject {
  ObjectId object;
  uint64_t raw = 0;   // bytes of segments when it was written
  uint64_t live = 0;  // of those that are not dead
  void fields(this auto& self, auto& v) { v(self.object, self.raw, self.live); }
};
// Of two, which one holds less of what it held.
[[nodiscard]] inline bool emptier(const SparseObject& a, const SparseObject& b) {
  return a.live * b.raw < b.live * a.raw;
}
struct SparseObjectsReply {
  std::vector<SparseObject> objects;
  uint64_t raw = 0;  // of all objects with something live that were looked at
  uint64_t live = 0;
  ObjectId last;  // of those; none: nothing is behind them
  void fields(this auto& self, auto& v) { v(self.objects, self.raw, self.live, self.last); }
};
struct SparseObjects {  // a page of the objects with something live and something dead, the emptiest of it first
  static constexpr MessageType kType = MessageType::kSparseObjects;
  using Reply = SparseObjectsReply;
  uint32_t limit = 64;
  ObjectId after;  // the last of the page before; none: from the first on
  void fields(this auto& self, auto& v) { v(self.limit, self.after); }
};
struct KnownObjectsReply {
  std::vector<uint8_t> known;  // 1 for each that has a row, or whose making is not surely over
  void fields(this auto& self, auto& v) { v(self.known); }
};
struct KnownObjects {  // answered behind a journaled record where any is unknown: a deposed leader never does
  static constexpr MessageType kType = MessageType::kKnownObjects;
  using Reply = KnownObjectsReply;
  std::vector<ObjectId> objects;
  void fields(this auto& self, auto& v) { v(self.objects); }
};
struct ForgetObjects {  // they were deleted from the bucket
  static constexpr MessageType kType = MessageType::kForgetObjects;
  using Reply = Empty;
  std::vector<ObjectId> objects;
  void fields(this auto& self, auto& v) { v(self.objects); }
};

// ---- staged bytes and small segments → full segments ----
struct PackItem {  // one staged row, or a small segment, with the pieces that still name it
  FileId file;
  uint64_t staged = 0;
  Extent extent;  // the piece in the file
  Buffer bytes;   // staged: the piece's bytes
  void fields(this auto& self, auto& v) { v(self.file, self.staged, self.extent, self.bytes); }
};
struct PackableReply {
  std::vector<PackItem> items;
  void fields(this auto& self, auto& v) { v(self.items); }
};
struct Packable {  // the oldest staged pieces, up to max_bytes
  static constexpr MessageType kType = MessageType::kPackable;
  using Reply = PackableReply;
  uint64_t max_bytes = kMaxSegment;
  void fields(this auto& self, auto& v) { v(self.max_bytes); }
};
struct Packed {  // items[i] now stands in `segment` at offsets[i]: each piece that still names its row is replaced
  static constexpr MessageType kType = MessageType::kPacked;
  using Reply = Empty;
  SegmentId segment;
  uint64_t length = 0;
  Placement placement;
  std::vector<PackItem> items;  // bytes left empty
  std::vector<uint64_t> offsets;
  void fields(this auto& self, auto& v) { v(self.segment, self.length, self.placement, self.items, self.offsets); }
};

// ---- rebuild and orphans ----
struct FragmentsOn {  // segments with a fragment on the target, ascending
  static constexpr MessageType kType = MessageType::kFragmentsOn;
  using Reply = SegmentsReply;
  TargetId on;
  SegmentId after;
  uint32_t limit = 256;
  bool checkpoint = false;  // those that the partition's checkpoint is in, which are no rows, instead
  void fields(this auto& self, auto& v) { v(self.on, self.after, self.limit, self.checkpoint); }
};
struct Placed {  // fragment `index` is now (durable) on `target`. kConflict when the placement changed since
  static constexpr MessageType kType = MessageType::kPlaced;
  using Reply = Empty;
  SegmentId segment;
  uint8_t index = 0;
  TargetId was;
  TargetId target;
  void fields(this auto& self, auto& v) { v(self.segment, self.index, self.was, self.target); }
};
struct ClaimsReply {
  std::vector<uint8_t>
      claimed;  // 1 for each fragment that a row, reservation, checkpoint or running rebuild claims on that target
  void fields(this auto& self, auto& v) { v(self.claimed); }
};
struct Claims {
  static constexpr MessageType kType = MessageType::kClaims;
  using Reply = ClaimsReply;
  TargetId on;
  std::vector<SegmentId> segments;
  std::vector<uint8_t> indexes;
  std::vector<uint8_t> data;  // fragments of data that each segment was cut into; empty: not said
  void fields(this auto& self, auto& v) { v(self.on, self.segments, self.indexes, self.data); }
};

// ---- checkpoints and cuts ----
struct StoreFile {   // one immutable file of a store
  std::string name;  // unique within the partition's life
  uint64_t size = 0;
  uint32_t crc = 0;    // crc32c of the whole
  std::string import;  // what the store needs to take it in again (level, sequence numbers, key range), opaque
  void fields(this auto& self, auto& v) { v(self.name, self.size, self.crc, self.import); }
};
struct StoreFileCopy {  // and where a checkpoint keeps it: pieces of ≤ 16 MiB, mirrored segments
  StoreFile file;
  std::vector<Location> pieces;
  void fields(this auto& self, auto& v) { v(self.file, self.pieces); }
};
struct CheckpointRecord {  // durable, in R copies, named in the coordinator
  static constexpr uint8_t kFormat = 1;
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  PartitionId partition;
  uint16_t first_slot = 0;
  uint16_t last_slot = 0;
  PartitionEpoch epoch;
  Position at;               // contains the journal up to and including it
  Cut cut;                   // highest journaled
  std::string store_import;  // of the whole set, opaque
  std::vector<StoreFileCopy> files;
  void fields(this auto& self, auto& v) {
    v(self.name_space, self.namespace_epoch, self.partition, self.first_slot, self.last_slot, self.epoch, self.at,
      self.cut, self.store_import, self.files);
  }
};
struct TakeCutReply {
  Position at;
  std::string store_import;
  std::vector<StoreFile> files;  // readable by ReadCheckpoint until ReleaseCut
  uint64_t files_count = 0;      // inodes alive
  uint64_t bytes = 0;            // logical
  uint64_t unplaced = 0;         // live segments without an object: a manifest may not be published while > 0
  void fields(this auto& self, auto& v) {
    v(self.at, self.store_import, self.files, self.files_count, self.bytes, self.unplaced);
  }
};
struct TakeCut {  // journals the cut (if it is new), flushes the store exactly at it, and keeps those files
  static constexpr MessageType kType = MessageType::kTakeCut;
  using Reply = TakeCutReply;
  Cut cut;
  void fields(this auto& self, auto& v) { v(self.cut); }
};
struct ReadCheckpointReply {
  Buffer payload;
  void fields(this auto&, auto&) {}
};
struct ReadCheckpoint {
  static constexpr MessageType kType = MessageType::kReadCheckpoint;
  using Reply = ReadCheckpointReply;
  Cut cut;
  std::string name;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) { v(self.cut, self.name, self.offset, self.length); }
};
// Where segments were placed in the bucket since the cut was journaled: the manifest adds them to the cut's files.
struct CutLocations {
  static constexpr MessageType kType = MessageType::kCutLocations;
  using Reply = SegmentsReply;
  Cut cut;
  void fields(this auto& self, auto& v) { v(self.cut); }
};
struct ReleaseCut {  // published (or given up): the kept files may go; with published, dead objects may be found
  static constexpr MessageType kType = MessageType::kReleaseCut;
  using Reply = Empty;
  Cut cut;
  bool published = false;
  void fields(this auto& self, auto& v) { v(self.cut, self.published); }
};
struct CheckpointNow {  // protected checkpoint, then trim
  static constexpr MessageType kType = MessageType::kCheckpointNow;
  using Reply = Empty;
  void fields(this auto&, auto&) {}
};
enum class CloseStep : uint8_t { kClosing = 1, kClosed = 2, kUndo = 3 };
struct CloseReply {
  uint32_t grants = 0;  // still out
  uint32_t sessions = 0;
  std::vector<std::string> evicted;  // clients that did not answer
  void fields(this auto& self, auto& v) { v(self.grants, self.sessions, self.evicted); }
};
struct Close {  // spin-down. kClosing: no new grants, clients are told; kClosed: no mutation any more
  static constexpr MessageType kType = MessageType::kClose;
  using Reply = CloseReply;
  CloseStep step = CloseStep::kClosing;
  void fields(this auto& self, auto& v) { v(self.step); }
};
struct PartitionStatusReply {
  PartitionEpoch epoch;
  Position last;
  Position checkpoint_at;
  Cut cut;
  uint64_t inodes = 0;
  uint64_t bytes = 0;
  uint64_t segments = 0;
  uint64_t hot_bytes = 0;     // of segments with a placement
  uint64_t bucket_bytes = 0;  // of segments with an object
  uint64_t objects = 0;
  uint64_t staged_bytes = 0;
  uint64_t sessions = 0;
  uint64_t grants = 0;
  uint64_t reservations = 0;
  uint64_t operations = 0;
  bool serving = false;
  std::string state;  // "serving", "recovering", "closing", "closed", "read-only: …"
  void fields(this auto& self, auto& v) {
    v(self.epoch, self.last, self.checkpoint_at, self.cut, self.inodes, self.bytes, self.segments, self.hot_bytes,
      self.bucket_bytes, self.objects, self.staged_bytes, self.sessions, self.grants, self.reservations,
      self.operations, self.serving, self.state);
  }
};
struct PartitionStatus {
  static constexpr MessageType kType = MessageType::kPartitionStatus;
  using Reply = PartitionStatusReply;
  void fields(this auto&, auto&) {}
};

}  // namespace headrace
