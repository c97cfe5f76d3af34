// What goes: sessions that ended, files without names, segments without referrers.
#include <algorithm>

#include "base/fault_point.h"
#include "meta/ops/data.h"
#include "meta/partition.h"

namespace headrace {

namespace {

constexpr size_t kBatch = 256;

struct EraseRows {
  using Reply = Empty;
  std::vector<Key> keys;
  Task<Result<Empty>> run(Transaction& txn) {
    for (const Key& key : keys) txn.erase(key);
    co_return Empty{};
  }
};

// An unlinked file that nobody has open (any more) is ready to be removed: its row moves to the removals.
struct OrphanOp {
  using Reply = Empty;
  FileId file;
  Task<Result<Empty>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    HR_CO_TRY(std::optional<RowValue> orphan, co_await txn.get(orphan_key(file)));
    if (!orphan) co_return Empty{};
    Key from = KeyBuilder(file.slot(), Table::kKept).u48(file.local()).take();
    HR_CO_TRY(auto kept, co_await txn.scan(from, prefix_end(from), 10'000));
    for (auto& [key, value] : kept) {
      bool open = partition.sessions().find(SessionId(key_number(key, kKeyPrefix + 6, 8))) != nullptr;
      if (open && !mutant("remove_open_file")) co_return Empty{};
      txn.erase(key);
    }
    txn.erase(orphan_key(file));
    txn.put(removal_key(file), "");
    co_return Empty{};
  }
};

// A dead segment that no cut in the making contains: its rows go now, its fragments when that is durable. An object
// that holds it keeps its own row: manifests may still need it.
struct ReapSegmentOp {
  using Reply = Location;
  SegmentId segment;
  Task<Result<Location>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    Location gone;
    HR_CO_TRY(std::optional<SegmentRow> row, co_await txn.row<SegmentRow>(segment_key(segment)));
    HR_CO_TRY(std::optional<RowValue> dead, co_await txn.get(segment_key(segment, Table::kDead)));
    if (!row || !dead || row->referrers != 0) co_return gone;
    if (partition.cut_pending(row->birth, row->death) && !mutant("reap_despite_cut")) co_return gone;
    HR_CO_TRY(std::optional<LocationRow> location,
              co_await txn.row<LocationRow>(segment_key(segment, Table::kLocation)));
    txn.erase(segment_key(segment));
    txn.erase(segment_key(segment, Table::kDead));
    txn.erase(segment_key(segment, Table::kUploadable));
    txn.erase(segment_key(segment, Table::kLocation));
    --txn.counters.segments;
    if (!location) co_return gone;
    gone.segment = segment;
    gone.length = location->length;
    if (location->placed_in == partition.context().view.map().namespace_epoch) {
      gone.placement = location->placement;
      if (location->placement.hot()) txn.counters.hot_bytes -= static_cast<int64_t>(location->length);
    }
    for (TargetId target : location->placement.targets) txn.erase(on_target_key(segment, target));
    if (location->object.object) {
      Key key = object_key(partition.first_slot(), location->object.object);
      HR_CO_TRY(std::optional<ObjectRow> object, co_await txn.row<ObjectRow>(key));
      if (object) {
        object->live -= std::min(object->live, location->length);
        if (object->live == 0) object->death = partition.cut().next();
        txn.put_row(key, *object);
      }
      txn.counters.bucket_bytes -= static_cast<int64_t>(location->length);
    }
    co_return gone;
  }
};

}  // namespace

Task<void> Partition::evict(SessionId id, std::string why) {
  Session* session = sessions_.find(id);
  if (session == nullptr) co_return;
  std::vector<RowChange> gone;
  if (session->journaled) gone.push_back({session_key(first_slot(), id), std::nullopt});
  for (const auto& [sequence, key] : session->results) gone.push_back({key, std::nullopt});
  if (!why.empty()) {
    const std::string who = hex(session->client.value()) + " " + why;
    if (evicted_.size() < 1000) evicted_.push_back(who);
    if (context_.on_evicted) context_.on_evicted(id_, who);
  }
  grants_.drop_session(id);
  claim_made(*session);  // that it has none
  sessions_ended_ = true;
  sessions_.remove(id);  // its mutations under way find it gone before they commit; its reservations are orphans now
  Scheduler::current().wake_all(lock_waiters_);
  lock_ended();
  reap_soon();
  // Also where changes are refused: what it held is given to others at once, and a session that a new leader found
  // again would claim it back. Without a leader here, the next one's lease loop ends it.
  if (gone.empty() || !serving_) co_return;
  Position at = queue_record(std::move(gone), false);
  Result<void> erased = co_await wait_durable(at);
  if (!erased.ok()) last_error_ = "ending a session: " + erased.error().text();
}

Task<void> Partition::reap_loop() {
  co_await work_known_.wait();
  for (;;) {
    reap_wanted_.reset();
    bool more = false;
    if (!stopping_ && may_work().ok()) {
      Result<bool> done = co_await reap_round();
      if (!done.ok() && serving_) last_error_ = "reaping: " + done.error().text();
      more = done.ok() && *done;
    }
    if (stopping_) co_return;
    if (!more) (void)co_await reap_wanted_.wait_until(env_.clock, env_.clock.now() + seconds(5));
    if (stopping_) co_return;
  }
}

// Sessions that ended have no file open any more.
Task<Result<void>> Partition::close_for_the_gone() {
  Key after;
  for (;;) {
    HR_CO_TRY(auto rows, co_await scan_work(Table::kKept, after, kBatch));
    if (rows.empty()) co_return {};
    after = rows.back().first;
    std::vector<Key> gone;
    for (auto& [key, value] : rows)
      if (sessions_.find(SessionId(key_number(key, kKeyPrefix + 6, 8))) == nullptr) gone.push_back(std::move(key));
    if (gone.empty()) continue;
    HR_CO_TRY(co_await change(EraseRows{std::move(gone)}));
  }
}

// True when it did something, so that there may be more.
Task<Result<bool>> Partition::reap_round() {
  bool did = false;
  if (sessions_ended_) {
    sessions_ended_ = false;
    Result<void> closed = co_await close_for_the_gone();
    if (!closed.ok()) {
      sessions_ended_ = true;
      co_return std::move(closed).error();
    }
  }
  // Page by page: those that are open stay, and must not stand before the others.
  HR_CO_TRY(auto orphans, co_await scan_work(Table::kOrphan, orphans_after_, kBatch));
  orphans_after_ = orphans.size() < kBatch ? Key() : orphans.back().first;
  did |= orphans.size() == kBatch;
  for (auto& [key, value] : orphans) {
    HR_CO_TRY(co_await change(OrphanOp{file_of(key)}));
  }
  HR_CO_TRY(auto removals, co_await scan_work(Table::kRemoval, "", kBatch));
  for (auto& [key, value] : removals) {
    HR_CO_TRY(bool whole, co_await remove_some(*this, file_of(key)));
    (void)whole;  // not yet: its row is still there for the next round
    did = true;
  }
  HR_CO_TRY(auto dead, co_await scan_work(Table::kDead, dead_after_, kBatch));
  dead_after_ = dead.size() < kBatch ? Key() : dead.back().first;
  did |= dead.size() == kBatch;
  std::vector<Location> gone;
  for (auto& [key, value] : dead) {
    HR_CO_TRY(Location location, co_await change(ReapSegmentOp{segment_of(key, context_.view.map().name_space)}));
    if (location.placement.hot()) gone.push_back(std::move(location));
  }
  if (!gone.empty()) {
    did = true;
    co_await free_segments(std::move(gone));
  }
  co_return did;
}

}  // namespace headrace
