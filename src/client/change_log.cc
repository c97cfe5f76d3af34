#include "client/change_log.h"

#include <algorithm>
#include <utility>

#include "base/fault_point.h"

namespace headrace {

namespace {
constexpr Nanos kTick = milliseconds(500);
constexpr Nanos kRetry = milliseconds(100);

void record(const FileRef& file, const Error& error) {
  if (file != nullptr) file->lost.add(error);
}
}  // namespace

Task<Result<void>> ChangeLog::admit() {
  const Nanos deadline = env_.clock.now() + ClientSessions::kPatience;
  while (!admits()) {
    for (auto& [id, queue] : queues_) queue->kicked.set();
    bool woken = co_await ListWait(room_, env_.clock, deadline);
    if (!woken && !admits()) co_return Error(Code::kTimeout, "changes could not be sent for 60 s: is the node up?");
  }
  co_return Result<void>();
}

void ChangeLog::add(const ClientSessionRef& session, NameChange change, FileRef directory, FileRef file,
                    FileRef replaced) {
  QueueRef& queue = queues_[session->id];
  if (queue == nullptr) {
    queue = std::make_shared<ChangeQueue>(session);
    scope_.spawn(sender(queue));
  }
  auto unsent = std::make_shared<UnsentChange>();
  unsent->change = std::move(change);
  unsent->number = queue->next_number++;
  unsent->since = env_.clock.now();
  unsent->reopened = session->reopened;
  for (const FileRef& named : {directory, file, replaced}) {
    if (named == nullptr) continue;
    ++named->unsent;
    named->changes = queue;
    named->last_change = unsent->number;
    files_.bump(*named);
  }
  const NameChangeKind kind = unsent->change.kind;
  if (kind == NameChangeKind::kMake) {
    file->unborn = true;
    file->making = unsent;
  } else if (kind == NameChangeKind::kUnlink) {
    ++file->unlinking;
  } else if (kind == NameChangeKind::kRename && replaced != nullptr) {
    ++replaced->unlinking;
  } else if (kind == NameChangeKind::kTouch) {
    directory->touching = unsent;
  }
  unsent->directory = std::move(directory);
  unsent->file = std::move(file);
  unsent->replaced = std::move(replaced);
  queue->waiting.push_back(std::move(unsent));
  ++unsent_;
  ++counters_.changes;
  if (queue->waiting.size() >= options_.send_at) queue->kicked.set();
}

void ChangeLog::forget(UnsentChange& unsent) {
  for (const FileRef& named : {unsent.directory, unsent.file, unsent.replaced}) {
    if (named == nullptr) continue;
    HR_ASSERT(named->unsent > 0);
    --named->unsent;
    files_.bump(*named);  // what was asked for before may or may not have seen it
  }
  const NameChangeKind kind = unsent.change.kind;
  if (kind == NameChangeKind::kMake) {
    unsent.file->making.reset();
    unsent.file->unborn = false;
  } else if (kind == NameChangeKind::kUnlink) {
    --unsent.file->unlinking;
  } else if (kind == NameChangeKind::kRename && unsent.replaced != nullptr) {
    --unsent.replaced->unlinking;
  }
  HR_ASSERT(unsent_ > 0);
  --unsent_;
  if (!room_.empty()) Scheduler::current().wake_all(room_);
}

bool ChangeLog::take_back(const FileRef& file) {
  UnsentRef making = file->making.lock();
  if (making == nullptr || making->taken || file->unsent != 1) return false;
  QueueRef queue = file->changes.lock();
  if (queue == nullptr) return false;
  auto at = std::lower_bound(queue->waiting.begin(), queue->waiting.end(), making->number,
                             [](const UnsentRef& unsent, uint64_t number) { return unsent->number < number; });
  HR_ASSERT(at != queue->waiting.end() && *at == making);
  queue->waiting.erase(at);
  forget(*making);
  ++counters_.taken_back;
  if (!queue->answered.empty()) Scheduler::current().wake_all(queue->answered);
  // A new leader may have been told of the grant meanwhile.
  const ClientSessionRef& session = queue->session;
  if (session->reopened != making->reopened || session->reopening.locked())
    scope_.spawn(release(session, making->change.file_grant));
  return true;
}

Task<void> ChangeLog::release(ClientSessionRef session, GrantId grant) {
  {
    const Mutex::Guard claimed = co_await session->reopening.lock();
  }
  if (session->lost) co_return;
  GrantRelease request;
  request.grants = {grant};
  (void)co_await sessions_.ask_under(session, std::move(request));
}

void ChangeLog::touch(const FileRef& directory) {
  const int64_t time = directory->attributes->mtime;
  if (UnsentRef touching = directory->touching.lock(); touching != nullptr && !touching->taken) {
    touching->change.time = time;
    return;
  }
  NameChange change;
  change.kind = NameChangeKind::kTouch;
  change.directory = directory->id;
  change.directory_grant = directory->held.id;
  change.time = time;
  add(directory->session, std::move(change), directory, nullptr);
}

// ---- sending ----

bool ChangeLog::due(const ChangeQueue& queue) const {
  if (queue.waiting.empty()) return false;
  return queue.wanted > queue.done() || queue.waiting.size() >= options_.send_at || !admits() ||
         queue.waiting.front()->since + options_.send_after - kTick <= env_.clock.now();
}

Task<void> ChangeLog::sender(QueueRef queue) {
  while (!queue->lost && !scope_.token().cancelled()) {
    if (!due(*queue)) {
      (void)co_await queue->kicked.wait_until(env_.clock, env_.clock.now() + kTick);
      queue->kicked.reset();
      continue;
    }
    std::vector<UnsentRef> batch;
    ChangeNames request;
    for (const UnsentRef& unsent : queue->waiting) {
      if (batch.size() == ChangeNames::kMaxChanges) break;
      unsent->taken = true;
      request.changes.push_back(unsent->change);
      batch.push_back(unsent);
    }
    ++counters_.messages;
    Result<ChangeNamesReply> reply = co_await send(queue, std::move(request));
    if (queue->lost) co_return;
    if (reply.ok() && reply->codes.size() != batch.size())
      reply = Error(Code::kIo, "changes of names were answered for others");
    if (!reply.ok()) {
      if (scope_.token().cancelled()) co_return;
      give_up(queue->session, reply.error());
      co_return;
    }
    for (size_t i = 0; i < batch.size(); ++i) {
      HR_ASSERT(queue->waiting.front() == batch[i]);
      queue->waiting.pop_front();
      answered(*batch[i], static_cast<Code>(reply->codes[i]));
    }
    Scheduler::current().wake_all(queue->answered);
  }
}

// Until it is known whether they took effect: the same ticket all the time. Once they are given up they must not: they
// are not sent again, the ticket goes, and with it the partition refuses what of them is still under way.
Task<Result<ChangeNamesReply>> ChangeLog::send(QueueRef queue, ChangeNames request) {
  const ClientSessionRef session = queue->session;
  co_await session->free_tickets.acquire();
  Sequence sequence(session);
  request.ticket = sequence.ticket();
  for (Refusals refusals;;) {
    if (queue->lost) co_return *queue->lost;
    std::optional<Result<ChangeNamesReply>> reply;
    {
      Scope calling;
      calling.spawn(call(queue, request, &reply));
      while (!reply && !queue->lost) co_await ListWait(queue->answered);
    }
    if (!reply) co_return *queue->lost;
    if (reply->ok() || session->lost || queue->lost || scope_.token().cancelled()) co_return *std::move(reply);
    if (reply->code() == Code::kStale) {
      // A new leader knows of no grant before it was claimed.
      bool alive = co_await sessions_.reopen(session);
      if (!alive || refusals.too_often(session->epoch)) co_return *std::move(reply);
    } else if (reply->error().retry() == Retry::kFinal) {
      co_return *std::move(reply);
    }
    co_await env_.clock.sleep(kRetry);
  }
}

// A child of whoever waits for the reply.
Task<void> ChangeLog::call(QueueRef queue, ChangeNames request, std::optional<Result<ChangeNamesReply>>* reply) {
  reply->emplace(co_await sessions_.call(queue->session->partition, std::move(request)));
  Scheduler::current().wake_all(queue->answered);
}

void ChangeLog::answered(UnsentChange& unsent, Code code) {
  const bool makes = unsent.change.kind == NameChangeKind::kMake;
  if (code != Code::kOk) {
    // The file of a change of attributes may have been removed since.
    const bool moot = unsent.change.kind == NameChangeKind::kSetAttributes && code == Code::kNotFound;
    if (!moot)
      fail(unsent, Error(code, "an unsynced change was refused by the partition"));
    else
      forget(unsent);
    return;
  }
  forget(unsent);
  if (makes) return;
  if (unlinked && unsent.change.kind == NameChangeKind::kUnlink) unlinked(unsent.file);
  if (unlinked && unsent.replaced != nullptr) unlinked(unsent.replaced);
}

// It will never be: nothing that was believed under its grants holds any more.
void ChangeLog::fail(UnsentChange& unsent, const Error& error) {
  ++counters_.lost;
  if (!lost_) lost_ = error;
  const bool unborn = unsent.change.kind == NameChangeKind::kMake;
  record(unsent.directory, error);
  for (const FileRef& file : {unsent.file, unsent.replaced}) {
    // Nobody can ask for a file without name that is not open.
    if (file != nullptr && (!unborn || file->opens > 0)) record(file, error);
    if (file == nullptr || !unborn || file->dirty.empty()) continue;
    files_.drop_dirty(file, error);
    if (file->opens == 0) file->lost.forgive();
  }
  forget(unsent);
  for (const FileRef& named : {unsent.directory, unsent.file, unsent.replaced})
    if (named != nullptr) files_.distrust(named);
}

void ChangeLog::give_up(const ClientSessionRef& session, const Error& error) {
  auto found = queues_.find(session->id);
  if (found == queues_.end()) return;
  QueueRef queue = std::move(found->second);
  queues_.erase(found);
  const Code code = error.code() == Code::kReadOnly ? Code::kReadOnly : session->lost ? Code::kStale : error.code();
  queue->lost = Error(code, "unsynced changes were lost: " + error.message());
  std::deque<UnsentRef> waiting;
  waiting.swap(queue->waiting);
  for (const UnsentRef& unsent : waiting) fail(*unsent, *queue->lost);
  queue->kicked.set();
  Scheduler::current().wake_all(queue->answered);
}

// ---- waiting for it ----

void ChangeLog::hurry(const FileRef& file) {
  QueueRef queue = file->unsent == 0 ? nullptr : file->changes.lock();
  if (queue == nullptr) return;
  queue->wanted = std::max(queue->wanted, file->last_change);
  queue->kicked.set();
}

Task<Result<void>> ChangeLog::flush_to(QueueRef queue, uint64_t number) {
  const Nanos deadline = env_.clock.now() + ClientSessions::kPatience;
  while (queue->done() < number && !queue->lost && !mutant("sync_before_changes")) {
    queue->wanted = std::max(queue->wanted, number);
    queue->kicked.set();
    bool woken = co_await ListWait(queue->answered, env_.clock, deadline);
    if (!woken && queue->done() < number && !queue->lost)
      co_return Error(Code::kTimeout, "changes could not be sent for 60 s: is the node up?");
  }
  if (queue->lost) co_return *queue->lost;
  co_return Result<void>();
}

Task<Result<void>> ChangeLog::flush(FileRef file) {
  QueueRef queue = file->unsent == 0 ? nullptr : file->changes.lock();
  if (queue == nullptr) co_return Result<void>();
  co_return co_await flush_to(std::move(queue), file->last_change);
}

Task<Result<void>> ChangeLog::flush_all() {
  std::vector<std::pair<QueueRef, uint64_t>> queues;
  for (auto& [id, queue] : queues_) {
    const uint64_t last = queue->next_number - 1;
    if (queue->done() >= last) continue;
    queue->wanted = std::max(queue->wanted, last);
    queue->kicked.set();
    queues.emplace_back(queue, last);
  }
  std::optional<Error> error;
  for (auto& [queue, last] : queues) {
    Result<void> done = co_await flush_to(queue, last);
    if (!done.ok() && !error) error = std::move(done).error();
  }
  if (error) co_return *error;
  co_return Result<void>();
}

}  // namespace headrace
