// Segments' rows: made when a first extent names them, charged with every piece that does, dead with the last.
//
// Invariants: SegmentRow::referrers is the number of pieces in leaves that name it, ::live their bytes. A segment is
// dead from the record on in which referrers became 0: it has a kDead row, its death is the first cut behind that
// record, and nothing names it again. A staged row goes in the record that takes its last piece.
#pragma once

#include "meta/extents.h"
#include "meta/transaction.h"
#include "proto/cluster.h"

namespace headrace {

// kInvalid: not what a writer may say of a segment: one known target for each fragment, each its own.
[[nodiscard]] Result<void> check_placement(const Placement& placement, const ClusterMap& map);

// A segment as written whole, all fragments durable, not in the bucket: puts all its rows, with no referrer yet.
// charge_segments() in the same transaction must give it some. 3 rows and one per fragment.
void put_new_segment(Transaction& txn, SegmentId segment, uint64_t length, const Placement& placement);

// Charges the segments with what a transaction did to extents: once per transaction, with all of it (the death of a
// segment is known only when the transaction commits). kCorrupt when rows and extents disagree.
[[nodiscard]] Task<Result<void>> charge_segments(Transaction& txn, ExtentDelta delta);
// The same for staged rows, which lie in the file's slot; may be called again.
[[nodiscard]] Task<Result<void>> charge_staged(Transaction& txn, Slot slot, ExtentDelta delta);

// Puts an object's row when the transaction commits; without live bytes it dies in that record. Once per object.
void put_object(Transaction& txn, Key key, ObjectRow row);

// What others are told: a placement of an earlier namespace epoch is void.
[[nodiscard]] Location location_of(Partition& partition, SegmentId segment, const LocationRow& row);

}  // namespace headrace
