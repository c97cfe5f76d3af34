// Transaction: one operation on a partition's rows: gather, then run.
//
// An operation is a coroutine over a Transaction: it awaits reads, then puts. Nothing is seen by others before
// Partition::commit(), which is synchronous: it checks that no row that was read has changed since (else the whole
// operation runs again, now from memory), applies the changes to the overlay and queues one journal record.
// Rows locked by a prepared transaction of another partition: a read waits for its outcome, or answers kBusy when
// `no_wait` (as prepares must, so that nothing deadlocks).
// The reply must wait for durable(seen()): the newest change that any read saw.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "meta/counters.h"
#include "meta/keys.h"
#include "meta/overlay.h"
#include "meta/rows.h"

namespace headrace {

class Partition;

class Transaction {
 public:
  Transaction(Partition& partition, SessionId session, bool no_wait = false);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // Own puts are seen.
  [[nodiscard]] Task<Result<std::optional<RowValue>>> get(Key key);
  template <class Row>
  [[nodiscard]] Task<Result<std::optional<Row>>> row(Key key) {
    Result<std::optional<RowValue>> bytes = co_await get(std::move(key));
    if (!bytes.ok()) co_return std::move(bytes).error();
    if (!bytes->has_value()) co_return std::optional<Row>();
    Result<Row> row = decode_durable<Row>(**bytes);
    if (!row.ok()) co_return std::move(row).error().within("metadata row");
    co_return std::optional<Row>(*std::move(row));
  }
  // Rows in [from, to), ascending, at most limit; own puts are seen. A change in the range by another is a conflict;
  // where `limit` ends it, up to the last row that it gives.
  [[nodiscard]] Task<Result<std::vector<std::pair<Key, RowValue>>>> scan(Key from, Key to, size_t limit);

  void put(Key key, RowValue value);
  template <class Row>
  void put_row(Key key, const Row& row) {
    put(std::move(key), encode_durable(row));
  }
  void erase(Key key);
  CountersDelta counters;  // added when committed

  // Grants. After share(f) no other session holds a write grant on f (its dirty data has come in); after exclude(f) no
  // other session holds any grant on f. Both recall and wait, and are checked again at commit.
  [[nodiscard]] Task<Result<void>> share(FileId file);
  [[nodiscard]] bool may_share(FileId file) const;  // nobody has to give anything back for it
  [[nodiscard]] Task<Result<void>> exclude(FileId file);

  // The partition's hybrid time for this operation, ns since 1970: after every time it gave before.
  [[nodiscard]] int64_t now();
  [[nodiscard]] FileId new_file(Slot slot);  // a FileId never used before
  // Whether new_file() gave it out ever; of any slot of the partition.
  [[nodiscard]] bool given_out(FileId file) const;
  [[nodiscard]] uint64_t new_staged();
  [[nodiscard]] SessionId session() const { return session_; }
  [[nodiscard]] Partition& partition() { return partition_; }
  [[nodiscard]] bool changed() const { return !writes_.empty(); }
  [[nodiscard]] Position seen() const { return seen_; }

  // From here on a locked row is kBusy: this transaction holds locks elsewhere, and whoever holds this one may wait for
  // them.
  void must_not_wait() { no_wait_ = true; }
  // Reads see what is committed although a prepared transaction may change it. Only for facts that it cannot change.
  void look_beneath_locks() { beneath_locks_ = true; }
  // This transaction finishes a prepared one: the locks of that are no obstacle to it.
  void finishes(const TransactionId& prepared) { finishing_ = prepared; }
  // Turns what was put so far into a prepared row's contents; nothing of it is written then.
  [[nodiscard]] PreparedRow take_prepared();

  // Its session is journaled with it, unless it was before; what commits waits for that.
  void lists_session() { lists_session_ = true; }

  // The segment must still be reserved to the session (none: for this node's work) when this commits; otherwise it runs
  // again.
  void needs_reservation(const SegmentId& segment) { reservations_.push_back(segment); }

  // Called when the operation failed or must run again, not in commit(): gives back what was done elsewhere for it.
  void on_abandon(std::move_only_function<void()> action) { on_abandon_.push_back(std::move(action)); }
  void abandon();
  // Called in commit(), after the check, before anything is visible: side effects on in-memory state.
  void on_commit(std::move_only_function<void()> action) { on_commit_.push_back(std::move(action)); }

 private:
  friend class Partition;
  [[nodiscard]] Task<void> wait_for_grants(FileId file, GrantKind kind);
  void unpin();
  Partition& partition_;
  SessionId session_;
  bool no_wait_;
  bool beneath_locks_ = false;
  bool lists_session_ = false;
  uint64_t start_version_;
  Position seen_;
  std::set<Key> reads_;
  bool pinned_ = true;           // the overlay keeps what is newer than its start
  bool outlived_reads_ = false;  // it waited for others since: what it has read may be of any time
  std::vector<std::pair<Key, Key>> ranges_;
  std::map<Key, std::optional<RowValue>> writes_;
  std::vector<FileId> shared_;
  std::vector<FileId> excluded_;
  std::vector<SegmentId> reservations_;
  std::vector<std::move_only_function<void()>> on_commit_;
  std::vector<std::move_only_function<void()>> on_abandon_;
  std::optional<TransactionId> finishing_;
};

}  // namespace headrace
