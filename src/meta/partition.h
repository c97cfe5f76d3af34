// Partition: a range of slots with one leader, one journal, one store: a single-threaded state machine on one core.
//
// Life: start() takes leadership and recovers; then serve; a failure of the journal or of the store or a higher epoch
// ends serving for good (state() says why): the node starts a new Partition object.
// A change is: gathered and run in a Transaction → commit(): into the overlay and the pending batch → journaled on all
// copies → durable: replies go out → applied to the store → in a later checkpoint.
// Invariants: (1) no reply, reads included, leaves before the newest change it saw is durable; (2) the store never
// holds what is not durable in the journal; (3) the journal is trimmed only below a checkpoint that is in R copies and
// named in the coordinator; (4) a cut is one position: while the store flushes at it, later changes wait in the
// overlay.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coord/coordinator.h"
#include "coord/ports.h"
#include "meta/grants.h"
#include "meta/journal/journal.h"
#include "meta/lock_waits.h"
#include "meta/overlay.h"
#include "meta/rows.h"
#include "meta/sessions.h"
#include "meta/store/store.h"
#include "meta/transaction.h"
#include "proto/capability.h"
#include "proto/work.h"
#include "stripe/segment_io.h"

namespace headrace {

struct PartitionOptions {
  uint64_t checkpoint_bytes = 64 * kMiB;  // of journal since the last one
  Nanos checkpoint_interval = seconds(120);
  uint64_t batch_bytes = 1 * kMiB;
  uint64_t overlay_rows = 200'000;     // above it mutations wait
  uint64_t staged_bytes = 256 * kMiB;  // above it Stage waits for the packer (kUnavailable)
  Nanos lease = seconds(10);           // clients'
  Nanos append_timeout = seconds(10);  // of one journal copy; then the run ends and others hold the next
  Nanos cut_patience = seconds(30);    // how long a cut is held for a TakeCut
  Nanos cut_delay{};                   // fault point: a TakeCut comes up to this much late, as over a slow network
};

// What all partitions of a node share. All outlive the partitions.
struct PartitionContext {
  Env env;
  Hub& hub;
  ClusterView& view;
  TargetPort& targets;
  PartitionPort& partitions;
  Coordinator& coordinator;
  StoreFactory& stores;
  SegmentIo& segments;
  NamespaceSecret secret;
  NodeId self;
  PartitionOptions options;
  // How many more segments (at least one) the hot tier takes now; `crowded`: none before it made room. kBusy: none
  // before something of it went to the bucket; kNoSpace: none. Empty: any number.
  std::function<Result<uint32_t>(bool crowded)> admit = {};
  // The hot tier is full: what could be staged goes the way of segments, which waits or says so. Empty: never.
  std::function<bool()> full = {};
  // A client's session was ended against its will: who, and why. May be empty.
  std::function<void(PartitionId, const std::string&)> on_evicted = {};
};

class Partition {
 public:
  Partition(PartitionContext context, PartitionId id);
  ~Partition();

  // Leads from here on. The error says what is missing and the mend.
  [[nodiscard]] Task<Result<void>> start();
  // Like start(), but on the files of a cut of an earlier namespace epoch (re-hydrate): sessions, results, placements
  // and open-unlinked files of it are void; `locations` changed since the cut. Needed again at each start until
  // has_checkpoint(), which soon follows.
  struct Origin {
    StoreFiles files;
    FetchFile fetch;
    std::vector<Location> locations;
  };
  [[nodiscard]] Task<Result<void>> start_from(Origin origin);
  [[nodiscard]] Task<void> stop();  // no final checkpoint: as good as a crash

  [[nodiscard]] PartitionId id() const { return id_; }
  [[nodiscard]] bool serving() const { return serving_; }
  [[nodiscard]] const std::string& state() const { return state_; }
  [[nodiscard]] bool owns(Slot slot) const { return first_slot_ <= slot.value() && slot.value() <= last_slot_; }
  [[nodiscard]] Slot first_slot() const { return Slot(first_slot_); }
  [[nodiscard]] PartitionContext& context() { return context_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] const Journal& journal() const { return journal_; }
  // Until it has one, it starts from the cut that it began on.
  [[nodiscard]] bool has_checkpoint() const { return static_cast<bool>(journal_.record().checkpoint); }
  // Whether every copy of its checkpoint is on a live target; the record's and the files'.
  [[nodiscard]] bool checkpoint_whole() const;
  [[nodiscard]] const std::string& last_error() const { return last_error_; }  // of background work

  // ---- running operations ----
  // An Op has `using Reply`, `Ticket ticket() const` and `Task<Result<Reply>> run(Transaction&)`, which may run several
  // times.
  template <class Op>
  [[nodiscard]] Task<Result<typename Op::Reply>> mutate(Op op);
  // Without ticket or result: for work of this node, or of a session, whose repetition is harmless. kBusy is the
  // caller's to repeat.
  template <class Op>
  [[nodiscard]] Task<Result<typename Op::Reply>> change(Op op, SessionId session = SessionId());
  template <class Op>
  [[nodiscard]] Task<Result<typename Op::Reply>> read(Op op) {
    return read_as(SessionId(), std::move(op));
  }
  // The session's own grants are not in its way.
  template <class Op>
  [[nodiscard]] Task<Result<typename Op::Reply>> read_as(SessionId session, Op op);

  // Checks, applies to the overlay, queues the record. False: run the operation again. Nothing to write is a commit
  // too.
  [[nodiscard]] bool commit(Transaction& txn, Position& at);
  // What it read has changed since: its answer, an error too, may be of no point in time. Run it again.
  [[nodiscard]] bool outdated(const Transaction& txn) const;
  // It could not commit, and is abandoned. Where rows that it only writes are locked, it is not run again before a
  // while.
  [[nodiscard]] Task<void> before_again(Transaction& txn);
  [[nodiscard]] Task<void> a_while();
  [[nodiscard]] Task<Result<void>> wait_durable(Position at);
  // kNotLeader / kReadOnly when mutations are not taken.
  [[nodiscard]] Result<void> may_mutate() const;
  [[nodiscard]] Result<void> may_work() const;  // the same for this node's own work, which goes on after `closed`
  // They can reach it from now on. Until then nobody's silence counts.
  void clients_may_come();
  // A message carried this cut: journal it before acting on the message.
  void observe(Cut cut);
  // "" ends it. `code`: what refused mutations answer; kUnavailable makes clients wait, kReadOnly give up.
  void set_read_only(std::string why, Code code = Code::kReadOnly);

  // ---- prepared transactions (ops/two_phase) ----
  [[nodiscard]] bool locked(const Key& key) const { return locks_.contains(key); }
  [[nodiscard]] Task<void> wait_unlocked(Key key);
  void lock(const Key& key, const TransactionId& by) { locks_[key] = by; }
  void unlock(const TransactionId& by);
  [[nodiscard]] bool locked_by(const Key& key, const TransactionId& by) const {
    auto found = locks_.find(key);
    return found != locks_.end() && found->second == by;
  }
  [[nodiscard]] std::set<TransactionId> prepared_transactions() const {
    std::set<TransactionId> out;
    for (const auto& [key, by] : locks_) out.insert(by);
    return out;
  }
  [[nodiscard]] Position next_position() const { return Position(last_.value() + 1); }  // of the next record
  [[nodiscard]] TransactionId new_transaction();
  // Transactions that this leader coordinates and has not decided: Decision answers 'ask again'.
  std::set<TransactionId>& deciding() { return deciding_; }

  // ---- checkpoints and cuts ----
  [[nodiscard]] Task<Result<void>> checkpoint_now();
  [[nodiscard]] Task<Result<TakeCutReply>> take_cut(Cut cut);
  [[nodiscard]] Task<Result<Buffer>> read_cut_file(Cut cut, std::string name, uint64_t offset, uint64_t length);
  [[nodiscard]] Task<Result<void>> release_cut(Cut cut, bool published);
  [[nodiscard]] bool cut_pending(Cut birth, Cut death) const;  // a taken, unreleased cut contains [birth, death)
  [[nodiscard]] Cut cut() const { return counters_.cut; }
  [[nodiscard]] Result<std::vector<Location>> cut_locations(Cut cut) const;  // kConflict: the cut is not kept
  void location_changed(SegmentId segment, const LocationRow& row);

  // Local parts of FileIds for a client to give out: the first of `count` in a row. Durable, so that no id is ever
  // given twice.
  [[nodiscard]] Task<Result<uint64_t>> reserve_files(uint32_t count);

  // ---- segments ----
  [[nodiscard]] Task<Result<std::vector<SegmentId>>> new_segments(Slot home, uint32_t count);
  [[nodiscard]] Capability capability(SegmentId segment, uint64_t length, bool write);
  // Their fragments, where they are recorded to be; nothing may name them any more. Those of which a target was asked
  // and may free one yet.
  Task<std::set<SegmentId>> free_segments(std::vector<Location> dead);
  // Of a segment that the newest checkpoint is in: no row names those.
  [[nodiscard]] std::optional<Location> checkpoint_location(const SegmentId& segment) const;
  // Of those, what has a fragment on the target, behind `after`.
  [[nodiscard]] SegmentsReply checkpoint_on(TargetId target, const SegmentId& after, size_t limit) const;
  [[nodiscard]] bool checkpoint_claims(const SegmentId& segment) const {
    return checkpoint_segments_.contains(segment);
  }

  [[nodiscard]] Sessions& sessions() { return sessions_; }
  [[nodiscard]] Grants& grants() { return grants_; }
  [[nodiscard]] Task<Result<Session*>> session(SessionId id,
                                               const CallInfo& info);  // kStale; keeps its lease and channel
  [[nodiscard]] Task<void> evict(SessionId id, std::string why);
  // What clients had written when this was called is here when it returns: every writer is recalled to a reader.
  [[nodiscard]] Task<void> flush_clients();
  [[nodiscard]] Task<void> wait_claims();  // until every listed session came back or its lease has run out
  void claim_made(Session& session);       // it has said what it holds
  void begin_closing() { closing_ = true; }
  // Journals that no client mutation is taken any more (or again), in this namespace epoch.
  [[nodiscard]] Task<Result<void>> set_closed(bool closed);
  void undo_closing() { closing_ = false; }
  [[nodiscard]] bool closing() const { return closing_; }
  [[nodiscard]] std::vector<std::string> take_evicted() { return std::exchange(evicted_, {}); }
  [[nodiscard]] PartitionStatusReply status() const;
  [[nodiscard]] Scope& scope() { return scope_; }
  [[nodiscard]] Store& store() { return *store_; }
  void reap_soon() { reap_wanted_.set(); }
  void checkpoint_soon() { checkpoint_wanted_.set(); }
  // Advisory locks (ops/locks): who seeks one of a file, how often one of it ended meanwhile, and who waits for whom.
  struct LockSeekers {
    WaitList waiting;
    uint64_t ended = 0;
    uint32_t count = 0;
  };
  [[nodiscard]] std::map<FileId, LockSeekers>& lock_seekers() { return lock_seekers_; }
  [[nodiscard]] LockWaits& lock_waits() { return lock_waits_; }
  void lock_ended(std::optional<FileId> file = std::nullopt);  // nothing: of any file
  // Rows of a work table behind key `after` ("": from the start), over all slots of the partition that have any.
  [[nodiscard]] Task<Result<std::vector<std::pair<Key, RowValue>>>> scan_work(Table table, Key after, size_t limit);
  [[nodiscard]] Event& work_known() { return work_known_; }  // set once scan_work() is complete

 private:
  friend class Transaction;
  struct Pending {
    JournalRecord record;
  };
  struct KeptCut {
    Cut cut;
    Position at;
    StoreFiles files;
    bool taken = false;
    bool in_work = false;  // the store is being flushed at it
    Nanos since{};
    std::map<SegmentId, Location> locations;  // changed since
  };

  Task<Result<void>> recover(std::optional<Origin> origin);
  Task<Result<std::unique_ptr<Store>>> open_checkpoint();
  Task<Result<void>> replay(std::vector<JournalRecord> tail);
  Task<Result<void>> load_state();
  Task<Result<void>> reset_for_new_epoch();
  struct OriginObjects {
    std::map<Key, ObjectRow> rows;
    std::set<Key> touched;  // since the last record
    CountersDelta sums;     // since then
  };
  [[nodiscard]] Task<Result<ObjectRow*>> object_of_origin(ObjectRef ref, OriginObjects* objects);
  [[nodiscard]] Task<Result<void>> take_locations(std::vector<Location> locations);
  Position queue_record(std::vector<RowChange> changes, bool is_cut);
  void list_session(Transaction& txn);
  void fail(std::string why);
  Task<void> commit_loop();
  Task<void> apply_loop();
  Task<void> checkpoint_loop();
  Task<void> lease_loop();
  Task<void> pulse();
  void mind_pause();
  Task<void> reap_loop();
  Task<Result<bool>> reap_round();
  Task<Result<void>> close_for_the_gone();
  Task<Result<void>> apply_up_to(Position at);
  Task<Result<StoreFiles>> flush_at(Cut cut, Position at);
  Task<Result<void>> ship(StoreFiles files, uint64_t tag, Position at, Cut cut);
  Task<Result<StoreFileCopy>> ship_file(StoreFile file, uint64_t tag);
  Task<Result<Location>> write_mirrored(Buffer bytes, uint8_t parity);
  static Task<Result<Buffer>> read_pieces(SegmentIo& io, std::vector<Location> pieces, uint64_t offset,
                                          uint64_t length);
  Task<void> recall(SessionId session, Grant grant, GrantKind keep);
  Task<Result<std::optional<ResultRow>>> saved_result(Session& session, Ticket ticket);
  void remember_result(Transaction& txn, Ticket ticket, ResultRow row);
  void remember_unchanged(Ticket ticket, ResultRow row);
  void note_work(const RowChange& change);
  Task<Result<void>> find_work();
  Task<void> work_finder();

  PartitionContext context_;
  Env env_;
  PartitionId id_;
  uint16_t first_slot_ = 0;
  uint16_t last_slot_ = 0;
  Journal journal_;
  std::unique_ptr<Store> store_;
  Overlay overlay_;
  Counters counters_;
  Sessions sessions_;
  Grants grants_;
  std::map<Key, TransactionId> locks_;
  WaitList lock_waiters_;
  Nanos awake_at_{};  // this process ran then
  std::map<FileId, LockSeekers> lock_seekers_;
  LockWaits lock_waits_;
  std::set<TransactionId> deciding_;

  bool serving_ = false;
  bool stopping_ = false;
  bool closing_ = false;
  std::string state_ = "starting";
  std::string read_only_;
  Code read_only_code_ = Code::kReadOnly;
  std::vector<std::string> evicted_;

  Position last_;  // of the newest queued record
  Position durable_;
  std::deque<Pending> pending_;   // not yet journaled
  std::deque<Pending> to_apply_;  // durable, not yet in the store
  uint64_t unapplied_rows_ = 0;
  Event commit_wanted_;
  Event apply_wanted_;
  Event checkpoint_wanted_;
  Event reap_wanted_;
  WaitList durable_waiters_;
  WaitList applied_waiters_;
  Position applied_;
  uint64_t next_segment_ = 0;   // in memory; below segment_limit_
  uint64_t segment_limit_ = 0;  // a mark at or above it is durable
  size_t claims_missing_ = 0;   // listed sessions that have not come back
  WaitList claim_waiters_;
  bool sessions_ended_ = true;  // files may still be marked open by sessions that are gone
  bool new_epoch_ = false;      // the rows are of an earlier namespace epoch
  bool origin_taken_ = false;   // what start_from() was given is in the rows
  Mutex segment_mark_;
  Mutex checkpointing_;  // the store is being applied to or flushed
  Mutex shipping_;       // one checkpoint at a time
  uint64_t next_tag_ = 1;
  CheckpointRecord checkpoint_;
  std::set<SegmentId> checkpoint_segments_;
  SegmentId checkpoint_record_segment_;
  std::vector<KeptCut> cuts_;
  // Tables that background work walks, with the slots that may have rows.
  std::map<Table, std::set<Slot>> work_{{Table::kDead, {}},     {Table::kUploadable, {}}, {Table::kStaged, {}},
                                        {Table::kOrphan, {}},   {Table::kRemoval, {}},    {Table::kKept, {}},
                                        {Table::kOnTarget, {}}, {Table::kLocation, {}},   {Table::kPin, {}}};
  Event work_known_;
  Nanos last_checkpoint_{};
  Nanos started_{};
  uint64_t operations_ = 0;
  Cut published_;      // highest cut known to be in a manifest
  Key orphans_after_;  // where the reaper goes on; empty: from the first
  Key dead_after_;
  std::string last_error_;  // of background work, for status
  Scope scope_;             // last
};

// ---- templates ----

template <class Op>
Task<Result<typename Op::Reply>> Partition::read_as(SessionId session, Op op) {
  using Reply = typename Op::Reply;
  for (;;) {
    if (!serving_) co_return Error(Code::kNotLeader, state_);
    Transaction txn(*this, session);
    Result<Reply> reply = co_await op.run(txn);
    Position at;
    if (!commit(txn, at)) continue;
    HR_CO_TRY(co_await wait_durable(txn.seen()));
    ++operations_;
    co_return reply;
  }
}

template <class Op>
Task<Result<typename Op::Reply>> Partition::change(Op op, SessionId session) {
  using Reply = typename Op::Reply;
  for (;;) {
    HR_CO_TRY(session ? may_mutate() : may_work());
    Transaction txn(*this, session);
    Result<Reply> reply = co_await op.run(txn);
    if (!reply.ok()) {
      txn.abandon();
      if (outdated(txn)) continue;
      co_return reply;
    }
    Position at;
    if (!commit(txn, at)) {
      co_await before_again(txn);
      continue;
    }
    HR_CO_TRY(co_await wait_durable(at));
    co_return reply;
  }
}

template <class Op>
Task<Result<typename Op::Reply>> Partition::mutate(Op op) {
  using Reply = typename Op::Reply;
  Ticket ticket = op.ticket();
  // What was done before is answered also where changes are refused now.
  if (!serving_) HR_CO_TRY(may_mutate());
  std::shared_ptr<Event> mine;
  for (;;) {  // until nobody else runs this ticket
    Session* session = sessions_.find(ticket.session);
    if (session == nullptr) co_return Error(Code::kStale, "no such session");
    session->answered = std::max(session->answered, ticket.lowest_unanswered);
    session->unchanged.erase(session->unchanged.begin(), session->unchanged.lower_bound(session->answered));
    if (ticket.sequence < session->answered) co_return Error(Code::kStale, "a late duplicate of an answered mutation");
    auto running = session->running.find(ticket.sequence);
    if (running == session->running.end()) {
      HR_CO_TRY(std::optional<ResultRow> saved, co_await saved_result(*session, ticket));
      if (saved) {
        if (saved->code != Code::kOk) co_return Error(saved->code, saved->message);
        co_return decode<Reply>(saved->reply);
      }
      session = sessions_.find(ticket.session);
      if (session == nullptr) co_return Error(Code::kStale, "no such session");
      if (ticket.sequence < session->answered) continue;  // its result went while it was looked for
      if (session->running.contains(ticket.sequence)) continue;
      mine = std::make_shared<Event>();
      session->running[ticket.sequence] = mine;
      break;
    }
    std::shared_ptr<Event> other = running->second;
    co_await other->wait();
  }
  struct Ran {  // also when the frame is destroyed
    Sessions* sessions;
    Ticket ticket;
    std::shared_ptr<Event> event;
    ~Ran() {
      if (Session* s = sessions->find(ticket.session)) s->running.erase(ticket.sequence);
      if (Scheduler::present()) event->set();
    }
  } ran{&sessions_, ticket, mine};

  for (;;) {
    HR_CO_TRY(may_mutate());
    while (overlay_.size() > context_.options.overlay_rows && serving_) co_await ListWait(applied_waiters_);
    Transaction txn(*this, ticket.session);
    Result<Reply> reply = co_await op.run(txn);
    const Session* waiting = sessions_.find(ticket.session);
    if (waiting == nullptr) {
      txn.abandon();
      co_return Error(Code::kStale, "the session has ended");
    }
    if (ticket.sequence < waiting->answered) {
      txn.abandon();
      co_return Error(Code::kStale, "its client has given this operation up");
    }
    Position at;
    if (!reply.ok()) {
      txn.abandon();
      if (reply.code() == Code::kBusy) {  // a prepared transaction in the way
        co_await a_while();
        continue;
      }
      if (outdated(txn)) continue;
      HR_CO_TRY(co_await wait_durable(txn.seen()));
      // kStale is asked again once grants are claimed, kConflict in smaller steps, what may pass by the caller.
      bool final =
          reply.error().retry() == Retry::kFinal && reply.code() != Code::kStale && reply.code() != Code::kConflict;
      if (final) remember_unchanged(ticket, ResultRow{reply.code(), reply.error().message(), ""});
      co_return reply;
    }
    const bool changed = txn.changed();
    if (changed) remember_result(txn, ticket, ResultRow{Code::kOk, "", encode(*reply)});
    if (!commit(txn, at)) {
      co_await before_again(txn);
      continue;
    }
    if (!changed) remember_unchanged(ticket, ResultRow{Code::kOk, "", encode(*reply)});
    HR_CO_TRY(co_await wait_durable(std::max(at, txn.seen())));
    ++operations_;
    co_return reply;
  }
}

}  // namespace headrace
