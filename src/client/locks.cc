#include "client/locks.h"

#include <utility>

#include "base/fault_point.h"

namespace headrace {

Task<Result<bool>> Locks::lock(FileId file, FileLock lock, Nanos wait) {
  // The partition may not have the file yet.
  HR_CO_TRY(co_await changes_.flush(files_.get(file)));
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file.slot()));
  const Key key(file, lock.owner, lock.whole);
  if (lock.kind != LockKind::kUnlock) {
    while (unlocking_ == key) co_await ListWait(unlocked_);
    late_.erase(key);
  }
  // Before it is asked for: an answer that is lost must not leave a lock that nobody ends.
  if (lock.kind != LockKind::kUnlock) held_[key] = session;
  const uint32_t wait_ms = static_cast<uint32_t>(wait.count / 1'000'000);
  HR_CO_TRY(LockReply reply,
            co_await sessions_.mutate_under(session, Lock{.file = file, .lock = lock, .wait_ms = wait_ms}));
  // Its owner may have given all up while it waited: there is something to end again.
  if (lock.kind != LockKind::kUnlock && reply.granted) held_[key] = session;
  co_return reply.granted;
}

Task<Result<std::optional<FileLock>>> Locks::find(FileId file, FileLock lock) {
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file.slot()));
  HR_CO_TRY(FindLockReply reply, co_await sessions_.ask_under(session, FindLock{.file = file, .lock = lock}));
  co_return std::move(reply.lock);
}

Task<Result<void>> Locks::unlock_all(FileId file, uint64_t owner, bool whole) {
  const Key key(file, owner, whole);
  auto held = held_.find(key);
  if (held == held_.end()) co_return Result<void>();
  ClientSessionRef session = std::exchange(held->second, nullptr);
  held_.erase(held);
  co_return co_await unlock(key, std::move(session));
}

Task<Result<void>> Locks::unlock(Key key, ClientSessionRef session) {
  if (session->lost) co_return Result<void>();
  const auto& [file, owner, whole] = key;
  const FileLock all{.owner = owner, .pid = 0, .whole = whole, .kind = LockKind::kUnlock, .begin = 0, .end = kLockEnd};
  Result<LockReply> reply = co_await sessions_.mutate_under(session, Lock{.file = file, .lock = all});
  if (reply.ok() || reply.code() == Code::kNotFound) co_return Result<void>();
  if (!session->lost && !held_.contains(key) && !mutant("unlock_given_up")) late_[key] = session;
  co_return std::move(reply).error();
}

Task<void> Locks::unlock_late() {
  std::erase_if(held_, [](const auto& item) { return item.second->lost; });
  while (!late_.empty() && !unlocking_) {
    auto [key, session] = *late_.begin();
    late_.erase(late_.begin());
    unlocking_ = key;
    Result<void> done = co_await unlock(key, std::move(session));
    unlocking_.reset();
    if (!unlocked_.empty()) Scheduler::current().wake_all(unlocked_);
    if (!done.ok()) co_return;  // later
  }
}

std::vector<ClientHandover::Locker> Locks::hand_over() const {
  std::vector<ClientHandover::Locker> out;
  for (const auto& [key, session] : held_) {
    const auto& [file, owner, whole] = key;
    if (!session->lost) out.push_back({file, owner, whole});
  }
  return out;
}

void Locks::go_on(const ClientHandover::Locker& locker, ClientSessionRef session) {
  held_[Key(locker.file, locker.owner, locker.whole)] = std::move(session);
}

}  // namespace headrace
