// The engine: recovery, the commit and apply loops, sessions' leases. Checkpoints and cuts: partition_checkpoint.cc.
#include "meta/partition.h"

#include <algorithm>

#include "base/fault_point.h"

namespace headrace {

namespace {
constexpr const char* kCountersRow = "counters";
constexpr const char* kOriginRow = "origin";
constexpr Nanos kNotYet{INT64_MAX / 2};  // the end of a lease that has not begun
constexpr size_t kManyRows = 1'000'000;  // sessions, results, prepared transactions: all bounded elsewhere

uint8_t journal_copies(const ClusterMap& map) {
  return static_cast<uint8_t>(1 + map.protection.parity);
}
}  // namespace

Partition::Partition(PartitionContext context, PartitionId id)
    : context_(std::move(context)),
      env_(context_.env),
      id_(id),
      journal_(env_, context_.targets, context_.coordinator,
               Journal::Options{.self = context_.self,
                                .partition = id,
                                .copies = journal_copies(context_.view.map()),
                                .append_timeout = context_.options.append_timeout}),
      grants_(env_, [this](SessionId session, Grant grant, GrantKind keep) { return recall(session, grant, keep); }) {}

Partition::~Partition() = default;

Task<Result<void>> Partition::start() {
  Result<void> done = co_await recover(std::nullopt);
  if (!done.ok()) state_ = done.error().text();
  co_return done;
}

Task<Result<void>> Partition::start_from(Origin origin) {
  Result<void> done = co_await recover(std::move(origin));
  if (!done.ok()) state_ = done.error().text();
  co_return done;
}

Task<Result<void>> Partition::recover(std::optional<Origin> origin) {
  state_ = "recovering";
  HR_CO_TRY(std::vector<JournalRecord> tail, co_await journal_.take_over());
  const PartitionRecord& record = journal_.record();
  first_slot_ = record.first_slot;
  last_slot_ = record.last_slot;
  std::string name = "p" + std::to_string(id_.value()) + "-" + std::to_string(record.epoch.value());
  bool from_origin = origin.has_value() && !record.checkpoint;
  if (from_origin) {
    HR_CO_TRY(store_, co_await context_.stores.import(name, origin->files, origin->fetch));
  } else if (record.checkpoint) {
    HR_CO_TRY(store_, co_await open_checkpoint());
  } else if (record.checkpoint_at.value() > 0) {
    co_return Error(
        Code::kCorrupt,
        "the partition began on a bucket's manifest and has no checkpoint of its own yet, but the coordinator "
        "no longer names that manifest: bring it back with `headrace rehydrate`");
  } else {
    HR_CO_TRY(store_, co_await context_.stores.create(name));
  }
  last_ = tail.empty() ? record.checkpoint_at : tail.back().position;
  durable_ = last_;
  applied_ = record.checkpoint_at;
  HR_CO_TRY(co_await replay(std::move(tail)));
  applied_ = last_;

  HR_CO_TRY(co_await load_state());
  started_ = env_.clock.now();
  last_checkpoint_ = started_;
  serving_ = true;
  state_ = "serving";
  scope_.spawn(commit_loop());
  scope_.spawn(apply_loop());
  if (new_epoch_) {
    HR_CO_TRY(co_await reset_for_new_epoch());
    queue_record({}, false);  // the counters of the new epoch
  }
  if (from_origin && !origin_taken_) {
    HR_CO_TRY(co_await take_locations(std::move(origin->locations)));
    // Behind all of them: a start that was cut short before it takes them again, a later one must not.
    OriginRow taken{context_.view.map().namespace_epoch};
    queue_record({{partition_row_key(first_slot(), kOriginRow), encode_durable(taken)}}, false);
    HR_CO_TRY(co_await wait_durable(last_));
  }
  // Its own checkpoint is made while it serves: how long that takes depends on how many files there are.
  if (from_origin) checkpoint_wanted_.set();
  scope_.spawn(work_finder());
  scope_.spawn(checkpoint_loop());
  awake_at_ = env_.clock.now();
  scope_.spawn(pulse());
  scope_.spawn(lease_loop());
  scope_.spawn(reap_loop());
  reap_soon();
  co_return {};
}

Task<Result<void>> Partition::replay(std::vector<JournalRecord> tail) {
  for (size_t i = 0; i < tail.size();) {
    std::vector<RowChange> changes;
    Position at;
    for (; i < tail.size() && changes.size() < 1024; ++i) {
      for (RowChange& change : tail[i].changes) changes.push_back(std::move(change));
      counters_.cut = std::max(counters_.cut, tail[i].cut);
      at = tail[i].position;
    }
    HR_CO_TRY(co_await store_->apply(std::move(changes), at));
  }
  co_return {};
}

Task<Result<void>> Partition::load_state() {
  Cut replayed = counters_.cut;
  Key counters_key = partition_row_key(first_slot(), kCountersRow);
  HR_CO_TRY(std::optional<RowValue> bytes, co_await store_->get(counters_key));
  if (bytes) {
    HR_CO_TRY(counters_, decode_durable<Counters>(*bytes));
  }
  counters_.cut = std::max(counters_.cut, replayed);
  HR_CO_TRY(std::optional<RowValue> origin, co_await store_->get(partition_row_key(first_slot(), kOriginRow)));
  if (origin) {
    HR_CO_TRY(OriginRow taken, decode_durable<OriginRow>(*origin));
    origin_taken_ = taken.namespace_epoch == context_.view.map().namespace_epoch;
  }
  // What the rows say of sessions, results and hot copies belongs to an earlier namespace epoch.
  NamespaceEpoch epoch = context_.view.map().namespace_epoch;
  new_epoch_ = counters_.namespace_epoch.value() != 0 && counters_.namespace_epoch != epoch;
  if (new_epoch_) {
    counters_.closed = false;
    counters_.namespace_epoch = context_.view.map().namespace_epoch;
    counters_.segment_mark = 1;
    counters_.next_object = 1;
    counters_.sums.hot_bytes = 0;  // placements of an earlier namespace epoch are void
  }
  if (counters_.namespace_epoch.value() == 0) counters_.namespace_epoch = context_.view.map().namespace_epoch;
  next_segment_ = segment_limit_ = counters_.segment_mark;

  Key from = KeyBuilder(first_slot(), Table::kPrepared).take();
  HR_CO_TRY(auto prepared, co_await store_->scan(from, prefix_end(from), kManyRows));
  for (auto& [key, value] : prepared) {
    HR_CO_TRY(PreparedRow row, decode_durable<PreparedRow>(value));
    for (const Key& locked_key : row.locks) locks_[locked_key] = transaction_of(key);
  }
  if (owns(kRootFile.slot())) {
    // Until resolve_loop() has told what was decided. Where a prepared transaction has it, the rename that was decided
    // before it had been told.
    from = KeyBuilder(first_slot(), Table::kDecision).take();
    HR_CO_TRY(auto decided, co_await store_->scan(from, prefix_end(from), 1));
    if (!decided.empty()) locks_.try_emplace(rename_lock_key(first_slot()), transaction_of(decided.front().first));
  }
  if (new_epoch_) co_return {};

  from = KeyBuilder(first_slot(), Table::kSession).take();
  HR_CO_TRY(auto rows, co_await store_->scan(from, prefix_end(from), kManyRows));
  for (auto& [key, value] : rows) {
    HR_CO_TRY(SessionRow row, decode_durable<SessionRow>(value));
    Session& session = sessions_.add(SessionId(key_number(key, kKeyPrefix, 8)), row.client);
    session.claimed = false;
    session.journaled = true;
    session.lease_end = kNotYet;
    ++claims_missing_;
  }
  from = KeyBuilder(first_slot(), Table::kResult).take();
  HR_CO_TRY(auto results, co_await store_->scan(from, prefix_end(from), kManyRows));
  for (auto& [key, value] : results) {
    Session* session = sessions_.find(SessionId(key_number(key, kKeyPrefix, 8)));
    if (session == nullptr) continue;
    HR_CO_TRY(ResultRow row, decode_durable<ResultRow>(value));
    session->results[key_number(key, kKeyPrefix + 8, 8)] = key;
    session->answered = std::max(session->answered, row.answered);
  }
  co_return {};
}

Task<Result<ObjectRow*>> Partition::object_of_origin(ObjectRef ref, OriginObjects* objects) {
  constexpr uint64_t kObjectTail = 40;  // behind an object's index (docs/formats/object.md)
  Key key = object_key(first_slot(), ref.object);
  objects->touched.insert(key);
  auto there = objects->rows.find(key);
  if (there != objects->rows.end()) co_return &there->second;
  HR_CO_TRY(std::optional<RowValue> value, co_await store_->get(key));
  ObjectRow row;
  if (value) {
    HR_CO_TRY(row, decode_durable<ObjectRow>(*value));
  } else {
    row.bytes = ref.index_offset + ref.index_length + kObjectTail;
    ++objects->sums.objects;
    objects->sums.object_bytes += static_cast<int64_t>(row.bytes);
  }
  co_return &(objects->rows[key] = row);
}

// Segments that came into objects after the manifest's cut was journaled: their locations, and the rows of those
// objects, which no record of the cut has. All that a location changes is in one record: a start that follows one that
// was cut short between two passes over those that are taken.
Task<Result<void>> Partition::take_locations(std::vector<Location> locations) {
  constexpr size_t kRows = 500;  // of locations, in one record; as many more of objects at most
  OriginObjects objects;
  for (size_t i = 0; i < locations.size();) {
    std::vector<RowChange> changes;
    for (; i < locations.size() && changes.size() < kRows; ++i) {
      const Location& location = locations[i];
      HR_CO_TRY(std::optional<RowValue> before, co_await store_->get(segment_key(location.segment, Table::kLocation)));
      if (!before) continue;  // it died before the manifest was published
      HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(*before));
      if (row.object.object == location.object.object) continue;
      if (row.object.object) {
        HR_CO_TRY(ObjectRow * old, co_await object_of_origin(row.object, &objects));
        old->live -= std::min(old->live, row.length);
      } else {
        objects.sums.bucket_bytes += static_cast<int64_t>(row.length);
      }
      HR_CO_TRY(ObjectRow * object, co_await object_of_origin(location.object, &objects));
      object->live += row.length;
      object->raw += row.length;
      object->death = kNever;
      row.bucket = location.bucket;
      row.object = location.object;
      changes.push_back({segment_key(location.segment, Table::kLocation), encode_durable(row)});
      changes.push_back({segment_key(location.segment, Table::kUploadable), std::nullopt});
    }
    for (const Key& key : std::exchange(objects.touched, {})) {
      ObjectRow& row = objects.rows[key];
      if (row.live == 0) row.death = cut().next();
      changes.push_back({key, encode_durable(row)});
    }
    counters_.sums.add(std::exchange(objects.sums, {}));
    if (!changes.empty()) queue_record(std::move(changes), false);
  }
  co_return {};
}

Task<Result<void>> Partition::reset_for_new_epoch() {
  // Sessions and results are void. (Files kept open by them are found by the reaper.) A start that is cut short between
  // the records leaves sessions, which end with their leases; results without a session would stay.
  for (Table table : {Table::kResult, Table::kSession}) {
    Key from = KeyBuilder(first_slot(), table).take();
    HR_CO_TRY(auto rows, co_await store_->scan(from, prefix_end(from), kManyRows));
    for (size_t i = 0; i < rows.size();) {
      std::vector<RowChange> changes;
      for (; i < rows.size() && changes.size() < 1000; ++i) changes.push_back({rows[i].first, std::nullopt});
      queue_record(std::move(changes), false);
    }
  }
  co_return {};
}

Task<void> Partition::stop() {
  stopping_ = true;
  fail("stopped");
  scope_.cancel();
  commit_wanted_.set();
  apply_wanted_.set();
  checkpoint_wanted_.set();
  reap_wanted_.set();
  co_await scope_.join();
}

void Partition::fail(std::string why) {
  serving_ = false;
  state_ = std::move(why);
  Scheduler& scheduler = Scheduler::current();
  scheduler.wake_all(durable_waiters_);
  scheduler.wake_all(applied_waiters_);
  scheduler.wake_all(lock_waiters_);
  scheduler.wake_all(claim_waiters_);
  for (auto& [file, seekers] : lock_seekers_) scheduler.wake_all(seekers.waiting);
}

Result<void> Partition::may_work() const {
  if (!serving_) return Error(Code::kNotLeader, "partition " + std::to_string(id_.value()) + ": " + state_);
  if (!read_only_.empty()) return Error(read_only_code_, read_only_);
  return {};
}

Task<Result<void>> Partition::set_closed(bool closed) {
  HR_CO_TRY(may_work());
  counters_.closed = closed;
  Position at = queue_record({}, false);
  co_return co_await wait_durable(at);
}

Result<void> Partition::may_mutate() const {
  HR_TRY(may_work());
  if (counters_.closed) return Error(Code::kReadOnly, "the namespace is spun down");
  return {};
}

void Partition::set_read_only(std::string why, Code code) {
  read_only_ = std::move(why);
  read_only_code_ = code;
}

void Partition::note_work(const RowChange& change) {
  if (!change.value) return;
  auto table = static_cast<Table>(change.key[2]);
  auto it = work_.find(table);
  if (it != work_.end()) it->second.insert(slot_of(change.key));
}

Task<Result<std::vector<std::pair<Key, RowValue>>>> Partition::scan_work(Table table, Key after, size_t limit) {
  std::vector<std::pair<Key, RowValue>> rows;
  std::set<Slot>& slots = work_[table];
  auto first = after.empty() ? slots.begin() : slots.lower_bound(slot_of(after));
  std::vector<Slot> order(first, slots.end());
  for (Slot slot : order) {
    if (rows.size() >= limit) break;
    Key from = KeyBuilder(slot, table).take();
    Key to = prefix_end(from);
    bool whole = from > after;
    if (!whole) from = after + '\0';
    Transaction txn(*this, SessionId());
    HR_CO_TRY(auto found, co_await txn.scan(from, to, limit - rows.size()));
    HR_CO_TRY(co_await wait_durable(txn.seen()));
    if (whole && found.empty() && !overlay_.range_changed_since(from, to, txn.start_version_)) slots.erase(slot);
    for (auto& row : found) rows.push_back(std::move(row));
  }
  co_return rows;
}

Task<void> Partition::work_finder() {
  Result<void> found = co_await find_work();
  if (!found.ok()) fail("store: " + found.error().text());
}

// Which slots have rows in the work tables: one seek per occupied slot and table, once after recovery.
Task<Result<void>> Partition::find_work() {
  for (auto& [table, slots] : work_) {
    uint32_t slot = first_slot_;
    while (slot <= last_slot_ && !stopping_) {
      Key from = KeyBuilder(Slot(static_cast<uint16_t>(slot)), table).take();
      HR_CO_TRY(auto rows,
                co_await store_->scan(from, prefix_end(KeyBuilder(Slot(last_slot_), Table::kPartition).take()), 1));
      if (rows.empty()) break;
      auto found = static_cast<uint32_t>(key_number(rows[0].first, 0, 2));
      auto found_table = static_cast<Table>(rows[0].first[2]);
      if (found_table == table) slots.insert(Slot(static_cast<uint16_t>(found)));
      // Nothing of this table in slots before `found`; in `found` itself only if the row lies before the table.
      slot = found == slot || found_table == table || found_table > table ? found + 1 : found;
      if (found > slot && found_table > table) slot = found + 1;
    }
  }
  work_known_.set();
  reap_soon();
  co_return {};
}

void Partition::observe(Cut cut) {
  if (!serving_ || cut <= counters_.cut) return;
  counters_.cut = cut;
  queue_record({}, true);
  Identity& identity = context_.hub.identity();
  identity.cut = std::max(identity.cut, cut);
}

Position Partition::queue_record(std::vector<RowChange> changes, bool is_cut) {
  last_ = Position(last_.value() + 1);
  changes.push_back({partition_row_key(first_slot(), kCountersRow), encode_durable(counters_)});
  Pending pending;
  pending.record.partition = id_;
  pending.record.epoch = journal_.epoch();
  pending.record.position = last_;
  pending.record.cut = counters_.cut;
  pending.record.is_cut = is_cut;
  overlay_.add(changes, last_);
  for (const RowChange& change : changes) note_work(change);
  unapplied_rows_ += changes.size();
  pending.record.changes = std::move(changes);
  if (is_cut) {
    KeptCut kept;
    kept.cut = counters_.cut;
    kept.at = last_;
    kept.since = env_.clock.now();
    cuts_.push_back(std::move(kept));
  }
  pending_.push_back(std::move(pending));
  commit_wanted_.set();
  return last_;
}

bool Partition::outdated(const Transaction& txn) const {
  if (txn.outlived_reads_) return true;
  for (const Key& key : txn.reads_)
    if (overlay_.changed_since(key, txn.start_version_)) return true;
  for (const auto& [from, to] : txn.ranges_)
    if (overlay_.range_changed_since(from, to, txn.start_version_)) return true;
  return false;
}

Task<void> Partition::a_while() {
  co_await env_.clock.sleep(milliseconds(1 + static_cast<int64_t>(env_.random.below(10))));
}

Task<void> Partition::before_again(Transaction& txn) {
  txn.abandon();
  if (!outdated(txn)) co_await a_while();
}

bool Partition::commit(Transaction& txn, Position& at) {
  HR_ASSERT(!txn.beneath_locks_ || txn.writes_.empty());
  // What finishes a prepared one holds all that it writes; a new leader holds the rename lock for others as well.
  auto blocked = [&](const Key& key) { return !txn.finishing_ && !txn.beneath_locks_ && locks_.contains(key); };
  if (outdated(txn)) return false;
  for (const Key& key : txn.reads_)
    if (blocked(key)) return false;
  for (const auto& [key, value] : txn.writes_)
    if (blocked(key)) return false;
  for (FileId file : txn.shared_)
    if (grants_.conflict(file, txn.session_, GrantKind::kRead)) return false;
  for (FileId file : txn.excluded_)
    if (grants_.conflict(file, txn.session_, GrantKind::kWrite)) return false;
  for (const SegmentId& segment : txn.reservations_) {
    const Session* session = sessions_.find(txn.session_);
    const bool held =
        txn.session_ ? session != nullptr && session->reserved.contains(segment) : sessions_.reserved_for_work(segment);
    if (!held) return false;
  }
  if (txn.lists_session_) list_session(txn);
  for (auto& action : txn.on_commit_) action();
  if (txn.writes_.empty()) {
    at = txn.seen_;
    return true;
  }
  counters_.sums.add(txn.counters);
  std::vector<RowChange> changes;
  changes.reserve(txn.writes_.size() + 1);
  for (auto& [key, value] : txn.writes_) changes.push_back({key, std::move(value)});
  at = queue_record(std::move(changes), false);
  return true;
}

void Partition::list_session(Transaction& txn) {
  Session* session = sessions_.find(txn.session_);
  if (session == nullptr) return;
  if (!session->journaled) {
    // Nothing more is journaled: no grant, then. Where the node refuses changes, who reads needs grants all the same,
    // and which sessions there are is of this cluster alone.
    if (txn.writes_.empty() && counters_.closed) return;
    if (!mutant("session_not_journaled"))
      txn.put_row(session_key(first_slot(), session->id), SessionRow{session->client, counters_.namespace_epoch});
    session->journaled = true;
    session->journaled_at = next_position();
  }
  txn.seen_ = std::max(txn.seen_, session->journaled_at);
}

Task<Result<void>> Partition::wait_durable(Position at) {
  while (durable_ < at && !mutant("reply_before_durable")) {
    if (!serving_) co_return Error(Code::kNotLeader, state_);
    co_await ListWait(durable_waiters_);
  }
  co_return {};
}

Task<void> Partition::commit_loop() {
  for (;;) {
    while (pending_.empty() && !stopping_) {
      commit_wanted_.reset();
      co_await commit_wanted_.wait();
    }
    if (stopping_ || !serving_) co_return;
    // Everything that is ready to run may still add to this batch.
    co_await yield();
    std::string batch;
    std::vector<Pending> taken;
    while (!pending_.empty() && batch.size() < context_.options.batch_bytes) {
      pending_.front().record.acknowledged = durable_;
      append_record(pending_.front().record, batch);
      taken.push_back(std::move(pending_.front()));
      pending_.pop_front();
    }
    Position first = taken.front().record.position;
    Position last = taken.back().record.position;
    Result<void> done = co_await journal_.append(std::move(batch), first, last);
    if (!done.ok()) {
      fail("journal: " + done.error().text());
      co_return;
    }
    durable_ = last;
    for (Pending& pending : taken) to_apply_.push_back(std::move(pending));
    Scheduler::current().wake_all(durable_waiters_);
    apply_wanted_.set();
    if (journal_.bytes_since_checkpoint() > context_.options.checkpoint_bytes ||
        (!journal_.fully_copied() && !mutant("skip_recopy")))
      checkpoint_wanted_.set();
  }
}

// What the store does not take is in the journal only, and the next leader replays that. Nothing may follow into the
// store behind it: serving ends.
Task<Result<void>> Partition::apply_up_to(Position at) {
  while (!to_apply_.empty() && to_apply_.front().record.position <= at) {
    if (!serving_) co_return Error(Code::kNotLeader, state_);
    HR_ASSERT(to_apply_.front().record.position == Position(applied_.value() + 1));
    std::vector<RowChange> changes;
    Position last;
    while (!to_apply_.empty() && to_apply_.front().record.position <= at && changes.size() < 1024) {
      last = to_apply_.front().record.position;
      for (RowChange& change : to_apply_.front().record.changes) changes.push_back(std::move(change));
      to_apply_.pop_front();
    }
    unapplied_rows_ -= changes.size();
    Result<void> done = co_await store_->apply(std::move(changes), last);
    if (!done.ok()) {
      fail("store: " + done.error().text());
      co_return done;
    }
    applied_ = last;
    overlay_.applied(last);
    Scheduler::current().wake_all(applied_waiters_);
  }
  co_return {};
}

Task<void> Partition::apply_loop() {
  for (;;) {
    apply_wanted_.reset();
    co_await apply_wanted_.wait();
    if (stopping_) co_return;
    Mutex::Guard guard = co_await checkpointing_.lock();
    // An untaken cut is a barrier: the store must be able to flush exactly at it.
    Position until = durable_;
    Nanos now = env_.clock.now();
    for (KeptCut& kept : cuts_)
      if (!kept.taken && now - kept.since < context_.options.cut_patience) until = std::min(until, kept.at);
    Result<void> done = co_await apply_up_to(until);
    if (!done.ok()) co_return;
  }
}

// While this process stood still (a paused machine) it heard nobody: that is no client's silence.
void Partition::mind_pause() {
  constexpr Nanos kPause = seconds(3);
  const Nanos now = env_.clock.now();
  const Nanos still = now - std::exchange(awake_at_, now);
  if (still <= kPause) return;
  for (SessionId id : sessions_.ids()) {
    Nanos& lease_end = sessions_.find(id)->lease_end;
    lease_end = lease_end + still;
  }
}

void Partition::clients_may_come() {
  awake_at_ = env_.clock.now();
  for (SessionId id : sessions_.ids()) {
    Session* session = sessions_.find(id);
    if (session->lease_end >= kNotYet) session->lease_end = awake_at_ + context_.options.lease;
  }
}

Task<void> Partition::pulse() {
  while (co_await scope_.token().sleep(env_.clock, seconds(1))) mind_pause();
}

Task<void> Partition::lease_loop() {
  while (co_await scope_.token().sleep(env_.clock, seconds(1))) {
    mind_pause();
    Nanos now = env_.clock.now();
    for (SessionId id : sessions_.ids()) {
      Session* session = sessions_.find(id);
      // Who has not come back is in the way of those who only read, too.
      const bool may_end = session != nullptr && (read_only_.empty() || !session->claimed);
      if (may_end && session->lease_end < now && serving_)
        co_await evict(id, session->claimed ? "did not renew its lease" : "did not come back after a leader change");
    }
    if (serving_ && pending_.empty() && journal_.may_widen()) queue_record({}, false);
    sessions_.forget_old(now);
    // A cut that nobody takes must not hold the store for ever.
    apply_wanted_.set();
    std::erase_if(cuts_, [&](const KeptCut& k) {
      return !k.taken && !k.in_work && now - k.since > context_.options.cut_patience * 2;
    });
  }
}

Task<void> Partition::wait_claims() {
  if (mutant("claims_not_awaited")) claims_missing_ = 0;
  while (claims_missing_ > 0 && serving_) co_await ListWait(claim_waiters_);  // the lease loop bounds the wait
}

void Partition::claim_made(Session& session) {
  if (std::exchange(session.claimed, true) || claims_missing_ == 0) return;
  if (--claims_missing_ == 0) Scheduler::current().wake_all(claim_waiters_);
}

Task<void> Partition::flush_clients() {
  constexpr size_t kAtOnce = 256;
  co_await wait_claims();
  // Twice: what comes in from a directory's writer in the first round are files, with writers of their own.
  for (int round = 0; round < 2; ++round) {
    std::vector<FileId> files = grants_.written();
    for (size_t i = 0; i < files.size();) {
      Scope scope;
      for (size_t n = 0; n < kAtOnce && i < files.size(); ++n, ++i)
        scope.spawn(grants_.clear(files[i], SessionId(), GrantKind::kRead));
      co_await scope.join();
    }
  }
}

Task<Result<Session*>> Partition::session(SessionId id, const CallInfo& info) {
  Session* session = sessions_.find(id);
  if (session == nullptr) co_return Error(Code::kStale, "no such session: it has ended");
  session->lease_end = env_.clock.now() + context_.options.lease;
  if (info.channel) session->channel = info.channel;
  co_return session;
}

Task<void> Partition::recall(SessionId id, Grant grant, GrantKind keep) {
  Nanos pause = milliseconds(10);
  for (;;) {
    Session* session = sessions_.find(id);
    if (session == nullptr) co_return;
    std::shared_ptr<Channel> channel = session->channel.lock();
    if (channel) {
      Recall request;
      request.session = id;
      request.grant = grant;
      request.keep = keep;
      CallOptions options;
      // One whose lease ends meanwhile is evicted, and holds up nobody longer than that. Others are asked again.
      options.timeout = std::max(seconds(1), session->lease_end - env_.clock.now());
      options.partition = id_;
      Result<Empty> answer = co_await context_.hub.call(channel, request, options);
      if (answer.ok()) co_return;
    }
    session = sessions_.find(id);
    if (session == nullptr) co_return;
    const Grant* held = grants_.held(id, grant.file);
    if (held == nullptr || held->id != grant.id || held->kind <= keep) co_return;  // released of its own
    mind_pause();
    if (session->lease_end < env_.clock.now()) {
      co_await evict(id, "did not answer a recall within its lease");
      co_return;
    }
    co_await env_.clock.sleep(pause);
    pause = std::min(pause * 2, milliseconds(500));
  }
}

Task<void> Partition::wait_unlocked(Key key) {
  while (locks_.contains(key) && serving_) co_await ListWait(lock_waiters_);
}

void Partition::lock_ended(std::optional<FileId> file) {
  const auto ended = [](LockSeekers& seekers) {
    ++seekers.ended;
    Scheduler::current().wake_all(seekers.waiting);
  };
  if (!file) {
    lock_waits_.clear();
    for (auto& [each, seekers] : lock_seekers_) ended(seekers);
  } else if (auto sought = lock_seekers_.find(*file); sought != lock_seekers_.end()) {
    lock_waits_.forget(*file);
    ended(sought->second);
  }
}

void Partition::unlock(const TransactionId& by) {
  std::erase_if(locks_, [&](const auto& item) { return item.second == by; });
  Scheduler::current().wake_all(lock_waiters_);
}

TransactionId Partition::new_transaction() {
  return TransactionId{id_, journal_.epoch(), counters_.next_transaction++};
}

Task<Result<std::optional<ResultRow>>> Partition::saved_result(Session& session, Ticket ticket) {
  if (auto known = session.unchanged.find(ticket.sequence); known != session.unchanged.end()) co_return known->second;
  Key key = result_key(first_slot(), ticket.session, ticket.sequence);
  if (!session.results.contains(ticket.sequence)) co_return std::optional<ResultRow>();
  Transaction txn(*this, ticket.session);
  Result<std::optional<ResultRow>> row = co_await txn.row<ResultRow>(key);
  if (row.ok() && row->has_value()) {
    HR_CO_TRY(co_await wait_durable(txn.seen()));
  }
  co_return row;
}

void Partition::remember_unchanged(Ticket ticket, ResultRow row) {
  Session* session = sessions_.find(ticket.session);
  if (session != nullptr && ticket.sequence >= session->answered)
    session->unchanged.insert_or_assign(ticket.sequence, std::move(row));
}

void Partition::remember_result(Transaction& txn, Ticket ticket, ResultRow row) {
  Session* session = sessions_.find(ticket.session);
  HR_ASSERT(session != nullptr);
  Key key = result_key(first_slot(), ticket.session, ticket.sequence);
  txn.lists_session();
  for (auto it = session->results.begin(); it != session->results.end() && it->first < ticket.lowest_unanswered; ++it)
    txn.erase(it->second);
  row.answered = ticket.lowest_unanswered;
  if (mutant("forget_result")) return;
  txn.put_row(key, row);
  txn.on_commit([this, id = ticket.session, sequence = ticket.sequence, lowest = ticket.lowest_unanswered, key] {
    Session* s = sessions_.find(id);
    s->results.erase(s->results.begin(), s->results.lower_bound(lowest));
    s->results[sequence] = key;
  });
}

Capability Partition::capability(SegmentId segment, uint64_t length, bool write) {
  uint8_t rights = static_cast<uint8_t>(Right::kRead) | (write ? static_cast<uint8_t>(Right::kWrite) : 0);
  // Rounded to the hour, so that the same segment's capability repeats and targets' caches of verified ones hit.
  auto now_s = static_cast<uint32_t>(env_.clock.wall().count / 1'000'000'000);
  return sign_capability(context_.secret, segment, 0, length, rights, (now_s / 3600 + 25) * 3600);
}

Task<Result<std::vector<SegmentId>>> Partition::new_segments(Slot home, uint32_t count) {
  // Ids below the limit are given out only once a mark at or above it is durable: no id is ever given twice.
  constexpr uint64_t kMarkStep = 4096;
  if (next_segment_ + count > segment_limit_) {
    Mutex::Guard guard = co_await segment_mark_.lock();
    if (next_segment_ + count > segment_limit_) {
      uint64_t mark = std::max(counters_.segment_mark, next_segment_) + std::max<uint64_t>(kMarkStep, count);
      if (!mutant("reissue_id")) counters_.segment_mark = mark;
      Position at = queue_record({}, false);
      HR_CO_TRY(co_await wait_durable(at));
      segment_limit_ = mark;
    }
  }
  std::vector<SegmentId> ids;
  const ClusterMap& map = context_.view.map();
  for (uint32_t i = 0; i < count; ++i) ids.emplace_back(map.name_space, home, map.namespace_epoch, next_segment_++);
  co_return ids;
}

Task<Result<uint64_t>> Partition::reserve_files(uint32_t count) {
  HR_CO_TRY(may_mutate());
  const uint64_t first = counters_.next_local;
  counters_.next_local += count;
  Position at = queue_record({}, false);
  HR_CO_TRY(co_await wait_durable(at));
  co_return first;
}

PartitionStatusReply Partition::status() const {
  PartitionStatusReply s;
  s.epoch = journal_.epoch();
  s.last = last_;
  s.checkpoint_at = journal_.record().checkpoint_at;
  s.cut = counters_.cut;
  auto positive = [](int64_t n) { return n > 0 ? static_cast<uint64_t>(n) : 0; };
  s.inodes = positive(counters_.sums.inodes);
  s.bytes = positive(counters_.sums.bytes);
  s.segments = positive(counters_.sums.segments);
  s.hot_bytes = positive(counters_.sums.hot_bytes);
  s.bucket_bytes = positive(counters_.sums.object_bytes);
  s.objects = positive(counters_.sums.objects);
  s.staged_bytes = positive(counters_.sums.staged_bytes);
  s.sessions = sessions_.size();
  s.grants = grants_.count();
  s.reservations = sessions_.reservations();
  s.operations = operations_;
  s.serving = serving_;
  s.state = !serving_             ? state_
            : !read_only_.empty() ? "read-only: " + read_only_
            : counters_.closed    ? "closed"
            : closing_            ? "closing"
                                  : "serving";
  return s;
}

}  // namespace headrace
