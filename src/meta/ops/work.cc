#include "meta/ops/work.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/fault_point.h"
#include "meta/file_extents.h"
#include "meta/segments.h"
#include "runtime/when_all.h"
#include "stripe/placement_policy.h"

namespace headrace {

namespace {

constexpr uint32_t kMaxPage = 4096;
constexpr size_t kScan = 1024;  // rows per look at a work table
constexpr size_t kSegmentsPerRecord = 100;
constexpr size_t kMaxClaims = 65'536;
constexpr size_t kMaxPlacings = 64;
constexpr size_t kMaxPinPath = 4096;

NamespaceId namespace_of(Partition& partition) {
  return partition.context().view.map().name_space;
}

uint32_t page_of(uint32_t limit) {
  return std::clamp<uint32_t>(limit, 1, kMaxPage);
}

// What is in the rows of one segment.
struct SegmentState {
  std::optional<SegmentRow> segment;
  std::optional<LocationRow> row;
  Location location;  // zero when there is no row
};
struct StateOp {
  using Reply = std::vector<SegmentState>;
  std::vector<SegmentId> segments;
  Task<Result<Reply>> run(Transaction& txn) {
    Reply reply;
    for (SegmentId id : segments) {
      SegmentState state;
      HR_CO_TRY(state.segment, co_await txn.row<SegmentRow>(segment_key(id)));
      HR_CO_TRY(state.row, co_await txn.row<LocationRow>(segment_key(id, Table::kLocation)));
      if (state.row) state.location = location_of(txn.partition(), id, *state.row);
      reply.push_back(std::move(state));
    }
    co_return reply;
  }
};

// Pages through a work table whose keys end in a segment; keeps those that `wanted` says yes to.
template <class Wanted>
Task<Result<SegmentsReply>> list_segments(Partition& partition, Table table, Key after, uint32_t limit, Wanted wanted) {
  HR_CO_TRY(partition.may_work());
  co_await partition.work_known().wait();
  SegmentsReply reply;
  limit = page_of(limit);
  for (;;) {
    HR_CO_TRY(auto rows, co_await partition.scan_work(table, after, kScan));
    if (rows.empty()) co_return reply;
    for (size_t from = 0; from < rows.size(); from += kSegmentsPerRecord) {
      StateOp op;
      size_t to = std::min(rows.size(), from + kSegmentsPerRecord);
      for (size_t i = from; i < to; ++i) op.segments.push_back(segment_of(rows[i].first, namespace_of(partition)));
      HR_CO_TRY(std::vector<SegmentState> states, co_await partition.read(std::move(op)));
      for (size_t i = from; i < to; ++i) {
        SegmentState& state = states[i - from];
        if (!state.row || !wanted(state, rows[i].second)) continue;
        if (reply.segments.size() == limit) {
          reply.more = true;
          co_return reply;
        }
        reply.segments.push_back(std::move(state.location));
      }
    }
    after = rows.back().first;
  }
}

Key after_key(SegmentId after, Table table) {
  return after ? segment_key(after, table) : Key();
}

// ---- tiering ----

struct UploadedOp {
  using Reply = UploadedReply;
  Uploaded request;  // at most kSegmentsPerRecord segments
  Task<Result<UploadedReply>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    Key key = object_key(partition.first_slot(), request.object.object);
    std::map<Key, ObjectRow> objects;
    HR_CO_TRY(std::optional<ObjectRow> object, co_await txn.row<ObjectRow>(key));
    bool fresh = !object;
    if (fresh) {
      object.emplace();
      object->bytes = request.object_bytes;
      object->birth = kNever;
      ++txn.counters.objects;
      txn.counters.object_bytes += static_cast<int64_t>(request.object_bytes);
    }
    UploadedReply reply;
    std::vector<std::pair<SegmentId, LocationRow>> changed;
    for (SegmentId id : request.segments) {
      HR_CO_TRY(std::optional<SegmentRow> segment, co_await txn.row<SegmentRow>(segment_key(id)));
      HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(segment_key(id, Table::kLocation)));
      if (!segment || !row) continue;
      ++reply.recorded;
      if (row->object.object == request.object.object) continue;  // told before
      if (row->object.object) {
        Key old_key = object_key(partition.first_slot(), row->object.object);
        if (!objects.contains(old_key)) {
          HR_CO_TRY(std::optional<ObjectRow> old, co_await txn.row<ObjectRow>(old_key));
          if (old) objects[old_key] = *old;
        }
        auto old = objects.find(old_key);
        if (old != objects.end()) old->second.live -= std::min(old->second.live, row->length);
      } else {
        txn.counters.bucket_bytes += static_cast<int64_t>(row->length);
      }
      row->object = request.object;
      row->bucket = id.name_space();
      txn.put_row(segment_key(id, Table::kLocation), *row);
      txn.erase(segment_key(id, Table::kUploadable));
      object->live += row->length;
      object->raw += row->length;
      object->birth = std::min(object->birth, segment->birth);
      changed.emplace_back(id, *std::move(row));
    }
    if (!fresh && changed.empty()) co_return reply;
    if (object->birth == kNever) object->birth = partition.cut();
    if (object->live != 0) object->death = kNever;
    objects[key] = *object;
    for (auto& [object_row_key, row] : objects) put_object(txn, object_row_key, row);
    txn.on_commit([&partition, changed = std::move(changed)] {
      for (const auto& [id, row] : changed) partition.location_changed(id, row);
    });
    co_return reply;
  }
};

struct DropOp {
  using Reply = std::vector<Location>;  // as they were, hot
  std::vector<SegmentId> segments;
  Task<Result<Reply>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    Reply dropped;
    for (SegmentId id : segments) {
      Key key = segment_key(id, Table::kLocation);
      HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(key));
      if (!row || !row->placement.hot()) continue;
      if (!row->object.object && !mutant("drop_without_object")) continue;
      Location location = location_of(partition, id, *row);
      if (location.placement.hot()) {
        txn.counters.hot_bytes -= static_cast<int64_t>(row->length);
        dropped.push_back(std::move(location));
      }
      for (TargetId target : row->placement.targets) txn.erase(on_target_key(id, target));
      row->placement = Placement();
      txn.put_row(key, *row);
    }
    co_return dropped;
  }
};

// ---- into the hot tier again ----

struct PlacedAgainOp {
  using Reply = Empty;
  PlacedAgain request;
  Task<Result<Empty>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    if (!partition.sessions().reserved_for_work(request.segment))
      co_return Error(Code::kConflict, "the segment is not being placed");
    txn.needs_reservation(request.segment);
    Key key = segment_key(request.segment, Table::kLocation);
    HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(key));
    if (!row) co_return Error(Code::kNotFound, "segment " + to_string(request.segment) + " is dead");
    Location now = location_of(partition, request.segment, *row);
    if (now.placement.hot()) co_return Error(Code::kExists, "the segment is hot");
    for (TargetId target : row->placement.targets)
      txn.erase(on_target_key(request.segment, target));  // of an earlier epoch
    row->placed_in = partition.context().view.map().namespace_epoch;
    row->placement = request.placement;
    txn.put_row(key, *row);
    for (TargetId target : request.placement.targets) txn.put(on_target_key(request.segment, target), "");
    txn.counters.hot_bytes += static_cast<int64_t>(row->length);
    txn.on_commit([&partition, segment = request.segment] { partition.sessions().work_done(segment); });
    co_return Empty{};
  }
};

// ---- pins ----

struct SetPinOp {
  using Reply = Empty;
  SetPin request;
  Task<Result<Empty>> run(Transaction& txn) {
    Key key = pin_key(request.file);
    if (!request.pinned) {
      txn.erase(key);
      co_return Empty{};
    }
    HR_CO_TRY(std::optional<RowValue> inode, co_await txn.get(inode_key(request.file)));
    if (!inode) co_return Error(Code::kNotFound, "no such file or directory");
    txn.put_row(key, PinRow{request.path, txn.now()});
    co_return Empty{};
  }
};

// Segments of a file behind `after`, ascending, at most `limit`. Some leaves at a time, and never again because the
// file changed meanwhile: what is written to it then is seen, or not.
Task<Result<SegmentsReply>> segments_of_file(Partition& partition, SegmentsOf request) {
  std::set<SegmentId> found;
  size_t limit = page_of(request.limit);
  Key from = extent_prefix(request.file);
  Key to = prefix_end(from);
  for (bool more = true; more;) {
    if (!partition.serving()) co_return Error(Code::kNotLeader, partition.state());
    Transaction txn(partition, SessionId());
    HR_CO_TRY(auto rows, co_await txn.scan(from, to, kScan));
    HR_CO_TRY(co_await partition.wait_durable(txn.seen()));
    for (const auto& [key, value] : rows) {
      Leaf leaf = leaf_of(key);
      HR_CO_TRY(LeafValue decoded, decode_leaf(leaf.base(), leaf.span(), value));
      for (const Extent& piece : decoded.pieces) {
        if (piece.kind != ExtentKind::kSegment || piece.segment <= request.after) continue;
        found.insert(piece.segment);
        if (found.size() > limit + 1) found.erase(std::prev(found.end()));
      }
    }
    more = rows.size() == kScan;
    if (more) from = rows.back().first + '\0';
  }
  SegmentsReply reply;
  reply.more = found.size() > limit;
  if (reply.more) found.erase(std::prev(found.end()));
  for (auto at = found.begin(); at != found.end();) {
    Transaction txn(partition, SessionId());
    for (size_t n = 0; n < kSegmentsPerRecord && at != found.end(); ++n, ++at) {
      HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(segment_key(*at, Table::kLocation)));
      if (row) reply.segments.push_back(location_of(partition, *at, *row));
    }
    HR_CO_TRY(co_await partition.wait_durable(txn.seen()));
  }
  co_return reply;
}

// The rows of objects behind `after`, at most kScan; `last`: where to go on.
Task<Result<std::vector<std::pair<ObjectId, ObjectRow>>>> objects_after(Transaction& txn, ObjectId after,
                                                                        ObjectId& last) {
  const Slot slot = txn.partition().first_slot();
  const Key table = KeyBuilder(slot, Table::kObject).take();
  HR_CO_TRY(auto rows,
            co_await txn.scan(after == ObjectId() ? table : object_key(slot, after) + '\0', prefix_end(table), kScan));
  std::vector<std::pair<ObjectId, ObjectRow>> out;
  for (const auto& [key, value] : rows) {
    HR_CO_TRY(ObjectRow row, decode_durable<ObjectRow>(value));
    out.emplace_back(ObjectId(key_number(key, kKeyPrefix, 8)), row);
  }
  last = rows.size() < kScan ? ObjectId() : out.back().first;
  co_return out;
}

struct DeadObjectsOp {
  using Reply = ObjectsReply;
  DeadObjects request;
  Task<Result<ObjectsReply>> run(Transaction& txn) {
    ObjectsReply reply;
    HR_CO_TRY(auto rows, co_await objects_after(txn, request.after, reply.last));
    for (const auto& [object, row] : rows) {
      const bool dead = (row.live == 0 && row.death <= request.published) || mutant("collect_live_objects");
      if (dead && !txn.partition().cut_pending(row.birth, row.death)) reply.objects.push_back(object);
    }
    co_return reply;
  }
};

struct SparseObjectsOp {
  using Reply = SparseObjectsReply;
  SparseObjects request;
  Task<Result<SparseObjectsReply>> run(Transaction& txn) {
    SparseObjectsReply reply;
    HR_CO_TRY(auto rows, co_await objects_after(txn, request.after, reply.last));
    for (const auto& [object, row] : rows) {
      if (row.live == 0) continue;
      reply.raw += std::max(row.raw, row.live);
      reply.live += row.live;
      if (row.raw > row.live) reply.objects.push_back({object, row.raw, row.live});
    }
    std::ranges::sort(reply.objects, emptier);
    reply.objects.resize(std::min<size_t>(reply.objects.size(), page_of(request.limit)));
    co_return reply;
  }
};

struct KnownObjectsOp {
  using Reply = KnownObjectsReply;
  std::vector<ObjectId> objects;
  Task<Result<KnownObjectsReply>> run(Transaction& txn) {
    KnownObjectsReply reply;
    for (ObjectId object : objects) {
      HR_CO_TRY(std::optional<RowValue> row, co_await txn.get(object_key(txn.partition().first_slot(), object)));
      reply.known.push_back(row ? 1 : 0);
    }
    co_return reply;
  }
};

struct ForgetObjectsOp {
  using Reply = Empty;
  std::vector<ObjectId> objects;
  Task<Result<Empty>> run(Transaction& txn) {
    for (ObjectId id : objects) {
      Key key = object_key(txn.partition().first_slot(), id);
      HR_CO_TRY(std::optional<ObjectRow> row, co_await txn.row<ObjectRow>(key));
      if (!row) continue;
      if (row->live != 0) co_return Error(Code::kConflict, "object " + to_string(id) + " has live segments");
      txn.erase(key);
      --txn.counters.objects;
      txn.counters.object_bytes -= static_cast<int64_t>(row->bytes);
    }
    co_return Empty{};
  }
};

// ---- packing ----

struct PackableOp {
  using Reply = PackableReply;
  Slot slot;
  uint64_t staged = 0;
  // The pieces that still name one staged row.
  Task<Result<PackableReply>> run(Transaction& txn) {
    PackableReply reply;
    HR_CO_TRY(std::optional<StagedRow> row, co_await txn.row<StagedRow>(staged_key(slot, staged)));
    if (!row) co_return reply;
    FileExtents extents(txn, row->file);
    HR_CO_TRY(auto pieces, co_await extents.slice(row->file_offset, row->bytes.size(), kMaxFileSize));
    for (const Extent& piece : pieces) {
      if (piece.kind != ExtentKind::kStaged || piece.staged != staged) continue;
      if (piece.segment_offset + piece.length > row->bytes.size())
        co_return Error(Code::kCorrupt, "an extent reaches behind its staged bytes");
      std::string_view bytes = std::string_view(row->bytes).substr(piece.segment_offset, piece.length);
      reply.items.push_back({row->file, staged, piece, Buffer::copy_of(bytes_of(bytes))});
    }
    co_return reply;
  }
};

struct PackedOp {
  using Reply = Empty;
  Packed request;
  Task<Result<Empty>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    if (!partition.sessions().reserved_for_work(request.segment))
      co_return Error(Code::kConflict, "the segment is not reserved");
    txn.needs_reservation(request.segment);
    HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(segment_key(request.segment)));
    if (there) co_return Error(Code::kConflict, "the segment is recorded already");
    std::map<FileId, std::vector<size_t>> files;
    for (size_t i = 0; i < request.items.size(); ++i) files[request.items[i].file].push_back(i);
    ExtentDelta delta;
    for (const auto& [file, items] : files) {
      FileExtents extents(txn, file);
      for (size_t i : items) {
        HR_CO_TRY(co_await extents.repoint(request.items[i].extent, request.segment, request.offsets[i]));
      }
      HR_CO_TRY(ExtentDelta change, co_await extents.write());
      delta.add(change);
    }
    delta.prune();
    if (delta.segments.contains(request.segment)) {
      put_new_segment(txn, request.segment, request.length, request.placement);
      HR_CO_TRY(co_await charge_segments(txn, std::move(delta)));
    }
    txn.on_commit([&partition, segment = request.segment] { partition.sessions().work_done(segment); });
    co_return Empty{};
  }
};

Result<void> check_packed(const Packed& request, const ClusterMap& map) {
  if (request.items.empty() || request.items.size() > kMaxPackItems)
    return Error(Code::kInvalid, "pack 1 to 300 pieces at once");
  if (request.offsets.size() != request.items.size()) return Error(Code::kInvalid, "one offset per piece");
  if (request.length == 0 || request.length > kMaxSegment)
    return Error(Code::kInvalid, "a segment has 1 byte to 16 MiB");
  HR_TRY(check_placement(request.placement, map));
  for (size_t i = 0; i < request.items.size(); ++i) {
    const Extent& extent = request.items[i].extent;
    if (extent.kind != ExtentKind::kStaged || extent.staged != request.items[i].staged)
      return Error(Code::kInvalid, "only staged pieces are packed");
    if (extent.length == 0 || extent.length > request.length || request.offsets[i] > request.length - extent.length ||
        extent.segment_offset > kMaxSegment - extent.length)
      return Error(Code::kInvalid, "a piece reaches behind its source or its segment");
    if (extent.offset > kMaxFileSize - kMaxSegment)
      return Error(Code::kInvalid, "a piece behind the end of every file");
  }
  return {};
}

// ---- rebuild and orphans ----

struct PlacedOp {
  using Reply = Empty;
  Placed request;
  Task<Result<Empty>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    Key key = segment_key(request.segment, Table::kLocation);
    HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(key));
    if (!row) co_return Error(Code::kNotFound, "segment " + to_string(request.segment) + " is dead");
    bool current = row->placed_in == partition.context().view.map().namespace_epoch;
    std::vector<TargetId>& targets = row->placement.targets;
    if (!current || request.index >= targets.size()) co_return Error(Code::kConflict, "the placement changed");
    if (targets[request.index] == request.target) co_return Empty{};  // told before
    if (targets[request.index] != request.was || std::ranges::find(targets, request.target) != targets.end())
      co_return Error(Code::kConflict, "the placement changed");
    if (partition.context().view.map().target(request.target) == nullptr)
      co_return Error(Code::kInvalid, "an unknown target");
    targets[request.index] = request.target;
    txn.put_row(key, *row);
    txn.erase(on_target_key(request.segment, request.was));
    txn.put(on_target_key(request.segment, request.target), "");
    co_return Empty{};
  }
};

struct ClaimsOp {
  using Reply = ClaimsReply;
  TargetId on;
  struct Fragment {
    SegmentId segment;
    uint8_t index = 0;
    uint8_t data = 0;  // fragments that the segment was cut into; 0: not said
  };
  std::vector<Fragment> fragments;

  Task<Result<ClaimsReply>> run(Transaction& txn) {
    ClaimsReply reply;
    for (const Fragment& fragment : fragments) {
      bool claimed = false;
      HR_CO_TRY(claimed, co_await is_claimed(txn, fragment.segment, fragment.index, fragment.data));
      reply.claimed.push_back(claimed ? 1 : 0);
    }
    co_return reply;
  }
  Task<Result<bool>> is_claimed(Transaction& txn, SegmentId segment, uint8_t index, uint8_t data) {
    Partition& partition = txn.partition();
    const ClusterMap& map = partition.context().view.map();
    // What is not ours to judge is claimed.
    if (segment.name_space() != map.name_space || !partition.owns(segment.home())) co_return true;
    HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(segment_key(segment, Table::kLocation)));
    // Behind the look at the row: a commit takes the reservation and leaves the row in one step.
    if (partition.sessions().reserved(segment) || partition.checkpoint_claims(segment)) co_return true;
    if (!row || row->placed_in != partition.context().view.map().namespace_epoch) co_return false;
    const std::vector<TargetId>& targets = row->placement.targets;
    if (index >= targets.size() || (data != 0 && data != row->placement.protection.data)) co_return false;
    if (targets[index] == on) co_return true;
    // The recorded copy is lost or about to be: this may be the one that a rebuild has written and not told of yet.
    const TargetInfo* recorded = partition.context().view.map().target(targets[index]);
    co_return recorded == nullptr || recorded->state != TargetState::kLive;
  }
};

struct TouchOp {
  using Reply = Empty;
  Task<Result<Empty>> run(Transaction& txn) {
    txn.put(partition_row_key(txn.partition().first_slot(), "claims"), "");
    co_return Empty{};
  }
};

}  // namespace

Task<Result<SegmentsReply>> handle(Partition& partition, Uploadable request, CallInfo) {
  int64_t age = static_cast<int64_t>(std::min<uint64_t>(request.min_age_ms, 1'000'000'000'000)) * 1'000'000;
  int64_t until = partition.context().env.clock.wall().count - age;
  Partition* at = &partition;
  return list_segments(partition, Table::kUploadable, after_key(request.after, Table::kUploadable), request.limit,
                       [at, until, age](const SegmentState& state, const RowValue& value) {
                         if (!state.segment || state.row->object.object) return false;
                         bool dead = state.segment->death != kNever;
                         if (dead && !at->cut_pending(state.segment->birth, state.segment->death)) return false;
                         Result<UploadableRow> row = decode_durable<UploadableRow>(value);
                         return age == 0 || !row.ok() || row->since <= until;
                       });
}

Task<Result<UploadedReply>> handle(Partition& partition, Uploaded request, CallInfo) {
  if (!request.object.object) co_return Error(Code::kInvalid, "an object without id");
  UploadedReply reply;
  size_t from = 0;
  do {
    UploadedOp op;
    op.request.object = request.object;
    op.request.object_bytes = request.object_bytes;
    for (; from < request.segments.size() && op.request.segments.size() < kSegmentsPerRecord; ++from) {
      SegmentId id = request.segments[from];
      if (id.name_space() == namespace_of(partition) && partition.owns(id.home())) op.request.segments.push_back(id);
    }
    HR_CO_TRY(UploadedReply part, co_await partition.change(std::move(op)));
    reply.recorded += part.recorded;
  } while (from < request.segments.size());
  co_return reply;
}

Task<Result<SegmentsReply>> handle(Partition& partition, Droppable request, CallInfo) {
  return list_segments(partition, Table::kLocation, after_key(request.after, Table::kLocation), request.limit,
                       [](const SegmentState& state, const RowValue&) {
                         return (state.location.object.object || mutant("drop_without_object")) &&
                                state.location.placement.hot();
                       });
}

Task<Result<Empty>> handle(Partition& partition, Drop request, CallInfo) {
  for (size_t from = 0; from < request.segments.size(); from += kSegmentsPerRecord) {
    DropOp op;
    size_t to = std::min(request.segments.size(), from + kSegmentsPerRecord);
    op.segments.assign(request.segments.begin() + static_cast<ptrdiff_t>(from),
                       request.segments.begin() + static_cast<ptrdiff_t>(to));
    Sessions& sessions = partition.sessions();
    std::vector<SegmentId> marked;
    for (SegmentId id : op.segments)
      if (sessions.freeing(id)) marked.push_back(id);
    Result<std::vector<Location>> dropped = co_await partition.change(std::move(op));
    std::set<SegmentId> left;
    if (dropped.ok()) left = co_await partition.free_segments(*dropped);
    // Those stay marked: a free that was sent may still arrive. (A new leader's writes outrank it.)
    const Nanos until = partition.context().env.clock.now() + seconds(3600);
    for (SegmentId id : marked) {
      if (left.contains(id))
        sessions.maybe_freeing(id, until);
      else
        sessions.freed(id);
    }
    if (!dropped.ok()) co_return std::move(dropped).error();
  }
  co_return Empty{};
}

Task<Result<SegmentsReply>> handle(Partition& partition, SegmentsOf request, CallInfo) {
  if (!request.file)
    return list_segments(partition, Table::kLocation, after_key(request.after, Table::kLocation), request.limit,
                         [](const SegmentState&, const RowValue&) { return true; });
  return segments_of_file(partition, request);
}

Task<Result<PlaceAgainReply>> handle(Partition& partition, PlaceAgain request, CallInfo info) {
  HR_CO_TRY(partition.may_mutate());
  if (!partition.owns(request.segment.home())) co_return Error(Code::kNotLeader, "the segment's home is not here");
  StateOp op;
  op.segments.push_back(request.segment);
  HR_CO_TRY(std::vector<SegmentState> states, co_await partition.read(std::move(op)));
  const SegmentState& state = states.front();
  if (!state.row || !state.segment || state.segment->death != kNever)
    co_return Error(Code::kNotFound, "segment " + to_string(request.segment) + " is dead");
  if (state.location.placement.hot()) co_return Error(Code::kExists, "the segment is hot");
  if (!state.location.object.object) co_return Error(Code::kIo, "the segment is neither hot nor in the bucket");
  Nanos now = partition.context().env.clock.now();
  if (partition.sessions().is_freeing(request.segment))
    co_return Error(Code::kBusy, "old fragments of the segment are being freed");
  if (partition.sessions().work_reserved() >= kMaxPlacings)
    co_return Error(Code::kUnavailable, "too many segments are reserved for this node's work");
  const ClusterMap& map = partition.context().view.map();
  HR_CO_TRY(Choice choice, choose_targets(map, map.protection, partition.context().env.random));
  partition.sessions().reserve_for_work(request.segment, now + seconds(3600), info.channel.get());
  co_return PlaceAgainReply{state.location, std::move(choice.placement), std::move(choice.spares),
                            partition.capability(request.segment, kMaxSegment, true)};
}

Task<Result<Empty>> handle(Partition& partition, PlacedAgain request, CallInfo) {
  HR_CO_TRY(check_placement(request.placement, partition.context().view.map()));
  if (!partition.owns(request.segment.home())) co_return Error(Code::kNotLeader, "the segment's home is not here");
  co_return co_await partition.change(PlacedAgainOp{std::move(request)});
}

Task<Result<Empty>> handle(Partition& partition, SetPin request, CallInfo) {
  HR_CO_TRY(partition.may_mutate());
  if (!partition.owns(request.file.slot()))
    co_return Error(Code::kNotLeader, "the file's slot is not of this partition");
  if (request.path.size() > kMaxPinPath) co_return Error(Code::kNameTooLong, "a pin's path has at most 4096 bytes");
  co_return co_await partition.change(SetPinOp{std::move(request)});
}

Task<Result<PinsReply>> handle(Partition& partition, Pins, CallInfo) {
  HR_CO_TRY(partition.may_work());
  co_await partition.work_known().wait();
  PinsReply reply;
  Key after;
  for (;;) {
    HR_CO_TRY(auto rows, co_await partition.scan_work(Table::kPin, after, kScan));
    if (rows.empty()) co_return reply;
    for (const auto& [key, value] : rows) {
      HR_CO_TRY(PinRow row, decode_durable<PinRow>(value));
      reply.pins.push_back({file_of(key), std::move(row.path), row.since});
    }
    after = rows.back().first;
  }
}

Task<Result<SparseObjectsReply>> handle(Partition& partition, SparseObjects request, CallInfo) {
  return partition.read(SparseObjectsOp{request});
}

Task<Result<KnownObjectsReply>> handle(Partition& partition, KnownObjects request, CallInfo) {
  if (request.objects.size() > kMaxClaims) co_return Error(Code::kInvalid, "at most 65536 objects at once");
  KnownObjectsReply reply;
  for (size_t from = 0; from < request.objects.size(); from += kScan) {
    KnownObjectsOp op;
    size_t to = std::min(request.objects.size(), from + kScan);
    op.objects.assign(request.objects.begin() + static_cast<ptrdiff_t>(from),
                      request.objects.begin() + static_cast<ptrdiff_t>(to));
    HR_CO_TRY(KnownObjectsReply part, co_await partition.read(std::move(op)));
    reply.known.insert(reply.known.end(), part.known.begin(), part.known.end());
  }
  if (std::ranges::find(reply.known, 0) == reply.known.end()) co_return reply;
  // An answer of 'unknown' deletes: locations have the last word.
  std::map<ObjectId, size_t> unknown;
  for (size_t i = 0; i < reply.known.size(); ++i)
    if (reply.known[i] == 0) unknown[request.objects[i]] = i;
  co_await partition.work_known().wait();
  Key after;
  for (;;) {
    HR_CO_TRY(auto rows, co_await partition.scan_work(Table::kLocation, after, kScan));
    if (rows.empty()) break;
    for (const auto& [key, value] : rows) {
      HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(value));
      auto named = unknown.find(row.object.object);
      if (named != unknown.end()) reply.known[named->second] = 1;
    }
    after = rows.back().first;
  }
  HR_CO_TRY(co_await partition.change(TouchOp{}));
  co_return reply;
}

Task<Result<ObjectsReply>> handle(Partition& partition, DeadObjects request, CallInfo) {
  return partition.read(DeadObjectsOp{request});
}

Task<Result<Empty>> handle(Partition& partition, ForgetObjects request, CallInfo) {
  for (size_t from = 0; from < request.objects.size(); from += kSegmentsPerRecord) {
    ForgetObjectsOp op;
    size_t to = std::min(request.objects.size(), from + kSegmentsPerRecord);
    op.objects.assign(request.objects.begin() + static_cast<ptrdiff_t>(from),
                      request.objects.begin() + static_cast<ptrdiff_t>(to));
    HR_CO_TRY(co_await partition.change(std::move(op)));
  }
  co_return Empty{};
}

Task<Result<PackableReply>> handle(Partition& partition, Packable request, CallInfo) {
  HR_CO_TRY(partition.may_work());
  co_await partition.work_known().wait();
  PackableReply reply;
  uint64_t bytes = 0;
  uint64_t limit = std::min(request.max_bytes, kMaxSegment);
  HR_CO_TRY(auto rows, co_await partition.scan_work(Table::kStaged, "", kMaxPackItems));
  for (auto& [key, value] : rows) {
    PackableOp op;
    op.slot = slot_of(key);
    op.staged = key_number(key, kKeyPrefix, 8);
    HR_CO_TRY(PackableReply row, co_await partition.read(op));
    uint64_t size = 0;
    for (const PackItem& item : row.items) size += item.bytes.size();
    if (!reply.items.empty() && (bytes + size > limit || reply.items.size() + row.items.size() > kMaxPackItems)) break;
    bytes += size;
    for (PackItem& item : row.items)
      if (reply.items.size() < kMaxPackItems) reply.items.push_back(std::move(item));
  }
  co_return reply;
}

Task<Result<Empty>> handle(Partition& partition, Packed request, CallInfo) {
  HR_CO_TRY(check_packed(request, partition.context().view.map()));
  if (!partition.owns(request.segment.home())) co_return Error(Code::kNotLeader, "the segment's home is not here");
  for (const PackItem& item : request.items)
    if (!partition.owns(item.file.slot())) co_return Error(Code::kInvalid, "a file of another partition");
  co_return co_await partition.change(PackedOp{std::move(request)});
}

Task<Result<SegmentsReply>> handle(Partition& partition, FragmentsOn request, CallInfo) {
  HR_CO_TRY(partition.may_work());
  if (request.checkpoint) co_return partition.checkpoint_on(request.on, request.after, page_of(request.limit));
  co_await partition.work_known().wait();
  SegmentsReply reply;
  uint32_t limit = page_of(request.limit);
  uint64_t wanted = request.on.value();
  Key after = request.after ? on_target_key(request.after, request.on) : Key();
  for (;;) {
    HR_CO_TRY(auto rows, co_await partition.scan_work(Table::kOnTarget, after, limit));
    if (rows.empty()) co_return reply;
    StateOp op;
    after = rows.back().first;
    for (const auto& [key, value] : rows) {
      uint64_t target = key_number(key, kKeyPrefix, 8);
      if (target != wanted) {
        // Straight to the target's rows of this slot, or behind this slot's. (A key is longer than its target's
        // prefix.)
        bool before = target < wanted;
        after = KeyBuilder(slot_of(key), Table::kOnTarget).u64(before ? wanted : ~uint64_t{0}).take();
        if (!before) after.append(8, '\xff');
        break;
      }
      op.segments.push_back(segment_of(key, namespace_of(partition), kKeyPrefix + 8));
    }
    if (op.segments.empty()) continue;
    HR_CO_TRY(std::vector<SegmentState> states, co_await partition.read(std::move(op)));
    for (SegmentState& state : states) {
      const std::vector<TargetId>& targets = state.location.placement.targets;
      if (!state.row || std::ranges::find(targets, request.on) == targets.end()) continue;
      if (reply.segments.size() == limit) {
        reply.more = true;
        co_return reply;
      }
      reply.segments.push_back(std::move(state.location));
    }
  }
}

Task<Result<Empty>> handle(Partition& partition, Placed request, CallInfo) {
  if (!partition.owns(request.segment.home())) co_return Error(Code::kNotLeader, "the segment's home is not here");
  co_return co_await partition.change(PlacedOp{request});
}

Task<Result<ClaimsReply>> handle(Partition& partition, Claims request, CallInfo) {
  if (request.segments.size() != request.indexes.size() || request.segments.size() > kMaxClaims ||
      (!request.data.empty() && request.data.size() != request.segments.size()))
    co_return Error(Code::kInvalid, "one index per segment, at most 65536");
  ClaimsReply reply;
  for (size_t from = 0; from < request.segments.size(); from += kScan) {
    ClaimsOp op;
    op.on = request.on;
    size_t to = std::min(request.segments.size(), from + kScan);
    for (size_t i = from; i < to; ++i)
      op.fragments.push_back(
          {request.segments[i], request.indexes[i], request.data.empty() ? uint8_t{0} : request.data[i]});
    HR_CO_TRY(ClaimsReply part, co_await partition.read(std::move(op)));
    reply.claimed.insert(reply.claimed.end(), part.claimed.begin(), part.claimed.end());
  }
  if (std::ranges::find(reply.claimed, 0) != reply.claimed.end()) {
    HR_CO_TRY(co_await partition.change(TouchOp{}));
  }
  co_return reply;
}

Task<Result<SegmentsReply>> handle(Partition& partition, CutLocations request, CallInfo) {
  if (!partition.serving()) co_return Error(Code::kNotLeader, partition.state());
  SegmentsReply reply;
  HR_CO_TRY(reply.segments, partition.cut_locations(request.cut));
  co_return reply;
}

Task<Result<PartitionStatusReply>> handle(Partition& partition, PartitionStatus, CallInfo) {
  co_return partition.status();
}

}  // namespace headrace
