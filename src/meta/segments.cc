#include "meta/segments.h"

#include <set>

#include "base/fault_point.h"
#include "meta/partition.h"

namespace headrace {

Result<void> check_placement(const Placement& placement, const ClusterMap& map) {
  std::set<TargetId> targets(placement.targets.begin(), placement.targets.end());
  if (!placement.valid() || targets.size() != placement.targets.size())
    return Error(Code::kInvalid, "a placement has one target per fragment, each its own");
  for (TargetId target : targets)
    if (map.target(target) == nullptr) return Error(Code::kInvalid, "a placement names an unknown target");
  return {};
}

void put_new_segment(Transaction& txn, SegmentId segment, uint64_t length, const Placement& placement) {
  Partition& partition = txn.partition();
  SegmentRow row;
  row.length = length;
  // A cut that comes before the commit makes it too early: kept longer, never shorter.
  row.birth = partition.cut().next();
  txn.put_row(segment_key(segment), row);
  LocationRow location;
  location.length = length;
  location.placed_in = partition.context().view.map().namespace_epoch;
  location.placement = placement;
  location.bucket = segment.name_space();
  txn.put_row(segment_key(segment, Table::kLocation), location);
  txn.put_row(segment_key(segment, Table::kUploadable), UploadableRow{txn.now()});
  for (TargetId target : placement.targets) txn.put(on_target_key(segment, target), "");
  ++txn.counters.segments;
  txn.counters.hot_bytes += static_cast<int64_t>(length);
}

Task<Result<void>> charge_segments(Transaction& txn, ExtentDelta delta) {
  delta.prune();
  for (const auto& [segment, change] : delta.segments) {
    Key key = segment_key(segment);
    HR_CO_TRY(std::optional<SegmentRow> row, co_await txn.row<SegmentRow>(key));
    if (!row) co_return Error(Code::kCorrupt, "extents name segment " + to_string(segment) + ", which has no row");
    int64_t live = static_cast<int64_t>(row->live) + change.bytes;
    int64_t referrers = static_cast<int64_t>(row->referrers) + change.pieces;
    if (live < 0 || referrers < 0 || (referrers == 0) != (live == 0) || row->death != kNever)
      co_return Error(Code::kCorrupt, "segment " + to_string(segment) + " has other references than extents say");
    row->live = static_cast<uint64_t>(live);
    row->referrers = static_cast<uint32_t>(referrers);
    txn.put_row(key, *row);
    if (referrers > (mutant("dead_with_a_referrer") ? 1 : 0)) continue;
    txn.put(segment_key(segment, Table::kDead), "");
    txn.on_commit([&txn, key, dead = *row]() mutable {
      // Only now: a cut journaled since the row was read still contains the segment.
      dead.death = txn.partition().cut().next();
      txn.put_row(key, dead);
      txn.partition().reap_soon();
    });
  }
  co_return {};
}

Task<Result<void>> charge_staged(Transaction& txn, Slot slot, ExtentDelta delta) {
  delta.prune();
  for (const auto& [id, change] : delta.staged) {
    Key key = staged_key(slot, id);
    HR_CO_TRY(std::optional<StagedRow> row, co_await txn.row<StagedRow>(key));
    if (!row) co_return Error(Code::kCorrupt, "an extent names staged bytes that have no row");
    int64_t referrers = static_cast<int64_t>(row->referrers) + change.pieces;
    if (referrers < 0) co_return Error(Code::kCorrupt, "a staged row has fewer references than extents say");
    row->referrers = static_cast<uint32_t>(referrers);
    if (referrers == 0 || mutant("drop_staged_early")) {
      txn.counters.staged_bytes -= static_cast<int64_t>(row->bytes.size());
      txn.erase(key);
    } else {
      txn.put_row(key, *row);
    }
  }
  co_return {};
}

void put_object(Transaction& txn, Key key, ObjectRow row) {
  txn.put_row(key, row);
  if (row.live != 0) return;
  txn.on_commit([&txn, key, row]() mutable {
    row.death = txn.partition().cut().next();
    txn.put_row(key, row);
  });
}

Location location_of(Partition& partition, SegmentId segment, const LocationRow& row) {
  Location location;
  location.segment = segment;
  location.length = row.length;
  location.bucket = row.bucket;
  location.object = row.object;
  if (row.placed_in == partition.context().view.map().namespace_epoch) location.placement = row.placement;
  return location;
}

}  // namespace headrace
