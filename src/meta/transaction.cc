#include "meta/transaction.h"

#include "meta/partition.h"

namespace headrace {

Transaction::Transaction(Partition& partition, SessionId session, bool no_wait)
    : partition_(partition), session_(session), no_wait_(no_wait), start_version_(partition.overlay_.begin()) {}

Transaction::~Transaction() {
  unpin();
}

void Transaction::unpin() {
  if (!std::exchange(pinned_, false)) return;
  // Whoever waits for a smaller overlay waits for what was kept there for this one, too.
  const bool smaller = partition_.overlay_.end(start_version_);
  if (smaller && !partition_.applied_waiters_.empty() && Scheduler::present())
    Scheduler::current().wake_all(partition_.applied_waiters_);
}

bool Transaction::may_share(FileId file) const {
  return partition_.claims_missing_ == 0 && !partition_.grants_.conflict(file, session_, GrantKind::kRead);
}

Task<void> Transaction::wait_for_grants(FileId file, GrantKind kind) {
  if (partition_.claims_missing_ == 0 && !partition_.grants_.conflict(file, session_, kind)) co_return;
  // Others may take as long as they like: the overlay must not keep all their changes for us meanwhile, since what we
  // wait for may have to wait for a smaller one.
  unpin();
  co_await partition_.wait_claims();
  co_await partition_.grants_.clear(file, session_, kind);
  start_version_ = partition_.overlay_.begin();
  pinned_ = true;
  outlived_reads_ |= !reads_.empty() || !ranges_.empty();
}

Task<Result<std::optional<RowValue>>> Transaction::get(Key key) {
  auto own = writes_.find(key);
  if (own != writes_.end()) co_return own->second;
  while (!beneath_locks_ && partition_.locked(key)) {
    if (no_wait_) co_return Error(Code::kBusy, "a row is held by another transaction");
    if (!partition_.serving()) co_return Error(Code::kNotLeader, partition_.state());
    co_await partition_.wait_unlocked(key);
  }
  reads_.insert(key);
  if (const Overlay::Entry* entry = partition_.overlay_.find(key)) {
    seen_ = std::max(seen_, entry->position);
    co_return entry->value;
  }
  RowValue value;
  switch (partition_.store_->get_now(key, value)) {
    case Found::kRow:
      co_return std::optional<RowValue>(std::move(value));
    case Found::kAbsent:
      co_return std::optional<RowValue>();
    case Found::kNeedsDisk:
      break;
  }
  // A change that commits while this waits is a conflict, found at commit.
  co_return co_await partition_.store_->get(std::move(key));
}

Task<Result<std::vector<std::pair<Key, RowValue>>>> Transaction::scan(Key from, Key to, size_t limit) {
  const size_t range = ranges_.size();
  ranges_.emplace_back(from, to);
  // Rows of the overlay hide those of the store, so the store is asked for as many more as the overlay may hide. Behind
  // `limit` of them that are there nothing is of interest.
  std::map<Key, std::optional<RowValue>> merged;
  size_t hidden = 0;
  size_t there = 0;
  const Overlay::Entries& entries = partition_.overlay_.entries();
  for (auto it = entries.lower_bound(from); it != entries.end() && it->first < to; ++it) {
    merged[it->first] = it->second.value;
    seen_ = std::max(seen_, it->second.position);
    ++hidden;
    if (it->second.value && !writes_.contains(it->first)) ++there;
    if (there == limit) {
      to = it->first + '\0';
      break;
    }
  }
  for (auto it = writes_.lower_bound(from); it != writes_.end() && it->first < to; ++it) {
    merged[it->first] = it->second;
    ++hidden;
  }
  Result<std::vector<std::pair<Key, RowValue>>> stored = co_await partition_.store_->scan(from, to, limit + hidden);
  if (!stored.ok()) co_return std::move(stored).error();
  for (auto& [key, value] : *stored) merged.emplace(key, std::move(value));
  std::vector<std::pair<Key, RowValue>> rows;
  for (auto& [key, value] : merged) {
    if (rows.size() >= limit) break;
    if (value) rows.emplace_back(key, std::move(*value));
  }
  // What is behind them was not asked for.
  if (!rows.empty() && rows.size() == limit) ranges_[range].second = rows.back().first + '\0';
  co_return rows;
}

void Transaction::put(Key key, RowValue value) {
  writes_[std::move(key)] = std::move(value);
}
void Transaction::erase(Key key) {
  writes_[std::move(key)] = std::nullopt;
}

Task<Result<void>> Transaction::share(FileId file) {
  co_await wait_for_grants(file, GrantKind::kRead);
  shared_.push_back(file);
  co_return {};
}

Task<Result<void>> Transaction::exclude(FileId file) {
  co_await wait_for_grants(file, GrantKind::kWrite);
  excluded_.push_back(file);
  co_return {};
}

PreparedRow Transaction::take_prepared() {
  PreparedRow row;
  std::set<Key> locks = std::exchange(reads_, {});
  for (auto& [key, value] : writes_) {
    locks.insert(key);
    row.changes.push_back({key, std::move(value)});
  }
  writes_.clear();
  reads_ = locks;  // still checked at commit
  row.locks.assign(locks.begin(), locks.end());
  row.counters = std::exchange(counters, {});
  return row;
}

void Transaction::abandon() {
  for (auto& action : std::exchange(on_abandon_, {})) action();
}

int64_t Transaction::now() {
  int64_t& time = partition_.counters_.time;
  time = std::max(time + 1, partition_.env_.clock.wall().count);
  return time;
}

FileId Transaction::new_file(Slot slot) {
  return FileId(slot, partition_.counters_.next_local++);
}
bool Transaction::given_out(FileId file) const {
  return file.local() > 1 && file.local() < partition_.counters_.next_local;
}
uint64_t Transaction::new_staged() {
  return partition_.counters_.next_staged++;
}

}  // namespace headrace
