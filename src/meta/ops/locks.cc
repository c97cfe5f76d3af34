#include "meta/ops/locks.h"

#include <algorithm>

#include "meta/locks.h"
#include "meta/ops/steps.h"

namespace headrace {

namespace {

constexpr Nanos kLongestWait = seconds(5);

// What is held by sessions that live.
Task<Result<LockRow>> locks_of(Transaction& txn, FileId file) {
  HR_CO_TRY(std::optional<LockRow> row, co_await txn.row<LockRow>(lock_key(file)));
  if (!row) co_return LockRow{};
  std::erase_if(row->locks,
                [&txn](const HeldLock& held) { return txn.partition().sessions().find(held.session) == nullptr; });
  co_return *std::move(row);
}

// As in Linux (flock_lock_inode in fs/locks.c) whoever asks for a flock lock of the other kind has given up his own
// before he looks what is in the way: of two that both want theirs exclusive, one gets it.
bool changes_kind(const std::vector<HeldLock>& locks, const HeldLock& wanted) {
  return wanted.lock.whole && std::ranges::any_of(locks, [&wanted](const HeldLock& held) {
           return held.session == wanted.session && held.lock.whole && held.lock.owner == wanted.lock.owner;
         });
}

struct LockOp {
  using Reply = LockReply;
  Lock request;
  bool deadlock = false;  // to wait for what is in the way would be to wait for itself
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<LockReply>> run(Transaction& txn) {
    if (request.lock.begin >= request.lock.end || request.lock.end > kLockEnd)
      co_return Error(Code::kInvalid, "a lock on an empty range");
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    HR_CO_TRY(LockRow row, co_await locks_of(txn, request.file));
    HeldLock wanted{request.ticket.session, request.lock};
    const bool granted = !conflicting_lock(row.locks, wanted);
    if (!granted) {
      if (deadlock) co_return Error(Code::kDeadlock, "who has the lock waits for one of its seeker's");
      if (!changes_kind(row.locks, wanted)) co_return LockReply{false};
      wanted.lock.kind = LockKind::kUnlock;
    }
    row.locks = with_lock(std::move(row.locks), wanted);
    if (row.locks.size() > kMaxLocksOfFile) co_return Error(Code::kRange, "the file has too many locks");
    if (row.locks.empty())
      txn.erase(lock_key(request.file));
    else
      txn.put_row(lock_key(request.file), row);
    // A shared lock in the place of an exclusive one lets others in as well.
    if (wanted.lock.kind != LockKind::kExclusive)
      txn.on_commit([&p = txn.partition(), file = request.file] { p.lock_ended(file); });
    co_return LockReply{granted};
  }
};

struct FindLockOp {
  using Reply = FindLockReply;
  FindLock request;
  Task<Result<FindLockReply>> run(Transaction& txn) {
    HR_CO_TRY(LockRow row, co_await locks_of(txn, request.file));
    co_return FindLockReply{conflicting_lock(row.locks, HeldLock{request.session, request.lock})};
  }
};

struct InWay {
  std::vector<HeldLock> locks;
  bool changes_kind = false;
};
struct FindInWayOp {
  using Reply = InWay;
  SessionId session;
  FileId file;
  FileLock lock;
  Task<Result<InWay>> run(Transaction& txn) {
    HR_CO_TRY(LockRow row, co_await locks_of(txn, file));
    const HeldLock wanted{session, lock};
    co_return InWay{conflicting_locks(row.locks, wanted), headrace::changes_kind(row.locks, wanted)};
  }
};

class Seeking {
 public:
  Seeking(Partition& partition, FileId file) : all_(partition.lock_seekers()), at_(all_.try_emplace(file).first) {
    ++at_->second.count;
  }
  Seeking(const Seeking&) = delete;
  Seeking& operator=(const Seeking&) = delete;
  ~Seeking() {
    if (--at_->second.count == 0) all_.erase(at_);
  }
  Partition::LockSeekers* operator->() { return &at_->second; }

 private:
  std::map<FileId, Partition::LockSeekers>& all_;
  std::map<FileId, Partition::LockSeekers>::iterator at_;
};

struct KnownWait {
  LockWaits& waits;
  const Lock& request;
  ~KnownWait() { waits.remove(request); }
};

}  // namespace

Task<Result<LockReply>> handle(Partition& partition, Lock request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  Clock& clock = partition.context().env.clock;
  Nanos until = clock.now() + std::min(milliseconds(request.wait_ms), kLongestWait);
  bool waits = request.wait_ms > 0 && request.lock.kind != LockKind::kUnlock;
  bool deadlock = false;
  if (waits) {
    Seeking seekers(partition, request.file);
    for (;;) {
      uint64_t ended = seekers->ended;
      FindInWayOp find{request.ticket.session, request.file, request.lock};
      HR_CO_TRY(InWay in_way, co_await partition.read_as(request.ticket.session, std::move(find)));
      // Who gives up a lock does so at once, and asks again.
      if (in_way.locks.empty() || in_way.changes_kind || clock.now() >= until || !partition.serving()) break;
      if (seekers->ended != ended) continue;
      const Session* session = partition.sessions().find(request.ticket.session);
      if (session == nullptr || request.ticket.sequence < session->answered) break;  // nobody waits; refused below
      deadlock = !request.lock.whole && !partition.lock_waits().add(request, in_way.locks);
      if (deadlock) break;
      KnownWait known{partition.lock_waits(), request};
      (void)co_await ListWait(seekers->waiting, clock, until);
    }
  }
  co_return co_await partition.mutate(LockOp{std::move(request), deadlock});
}

Task<Result<FindLockReply>> handle(Partition& partition, FindLock request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.session, info));
  co_return co_await partition.read_as(request.session, FindLockOp{std::move(request)});
}

}  // namespace headrace
