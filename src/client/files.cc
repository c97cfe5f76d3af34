#include "client/files.h"

#include <algorithm>

#include "base/fault_point.h"
#include "base/file_time.h"

namespace headrace {

namespace {
constexpr size_t kManyNames = 200'000;  // known of one directory; above it its grant is given back to forget them
}  // namespace

Turn::~Turn() {
  if (file_ == nullptr) return;
  if (file_->turn != number_) {  // given up before it came
    file_->abandoned_turns.insert(number_);
    return;
  }
  do {
    ++file_->turn;
  } while (file_->abandoned_turns.erase(file_->turn) > 0);
  if (Scheduler::present()) Scheduler::current().wake_all(file_->turns);
}

Task<void> Turn::come() {
  while (file_->turn != number_) co_await ListWait(file_->turns);
}

FileRef FileTable::get(FileId file) {
  FileRef& slot = files_[file];
  if (slot == nullptr) {
    slot = std::make_shared<FileState>(file);
    slot->version = slot->data_version = last_erase_;
  }
  slot->last_use = env_.clock.now();
  return slot;
}

FileRef FileTable::find(FileId file) const {
  auto found = files_.find(file);
  return found == files_.end() ? nullptr : found->second;
}

size_t FileTable::names() const {
  size_t count = 0;
  for (const auto& [id, file] : files_)
    if (file->directory != nullptr) count += file->directory->names.size();
  return count;
}

std::vector<FileRef> FileTable::all() const {
  std::vector<FileRef> out;
  out.reserve(files_.size());
  for (const auto& [id, file] : files_) out.push_back(file);
  std::sort(out.begin(), out.end(), [](const FileRef& a, const FileRef& b) { return a->id < b->id; });
  return out;
}

Task<Result<void>> FileTable::acquire(FileRef file, GrantKind kind) {
  // Where many want it, it may be recalled before the answer that brought it is here: then it is somebody else's turn,
  // and ours comes by chance.
  const Nanos deadline = env_.clock.now() + ClientSessions::kPatience;
  for (int attempt = 0; env_.clock.now() < deadline; ++attempt) {
    if (usable(*file) >= kind && file->size_known) co_return Result<void>();
    if (attempt >= 10) co_await env_.clock.sleep(milliseconds(static_cast<int64_t>(env_.random.below(20))));
    if (file->recalling) {
      co_await ListWait(file->recalled);
      continue;
    }
    if (file->unborn) {  // the lease ran out before it was sent: the partition is yet to hear of it
      HR_CO_TRY(co_await flush_changes(file));
      continue;
    }
    Mutex::Guard guard = co_await file->acquiring.lock();
    if (file->recalling || (usable(*file) >= kind && file->size_known)) continue;
    HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file->id.slot()));
    if (file->recalling || (usable(*file) >= kind && file->size_known)) continue;
    GrantRequest request(session);
    const uint64_t asked_at = asked();
    if (usable(*file) >= kind) {
      Result<EntryReply> reply =
          co_await sessions_.ask_under(session, GetAttributes{.file = file->id, .want = GrantKind::kRead});
      if (session->lost) continue;
      if (!reply.ok()) co_return std::move(reply).error();
      take(file, reply->file_grant, &reply->attributes, reply->no_xattrs, request, asked_at);
    } else {
      ++counters_.acquired;
      Result<GrantAcquireReply> reply =
          co_await sessions_.ask_under(session, GrantAcquire{.file = file->id, .kind = kind});
      if (session->lost) continue;
      if (!reply.ok()) co_return std::move(reply).error();
      const bool brought = take(file, reply->grant, &reply->attributes, reply->no_xattrs, request, asked_at);
      if (brought && reply->attributes.type == FileType::kDirectory) {
        DirectoryState& names = file->as_directory();
        if (reply->entries == 0 && fresh(*file, asked_at)) names.now_complete();
      }
    }
  }
  co_return Error(Code::kUnavailable, "the grant on file " + to_string(file->id) + " was recalled over and over");
}

bool FileTable::take(const FileRef& file, const std::optional<Grant>& grant, const Attributes* attributes,
                     bool no_xattrs, const GrantRequest& request, uint64_t asked_at) {
  const ClientSessionRef& session = request.session();
  if (session->lost || file->recalling) return false;
  bool brought = false;
  if (grant && grant->file == file->id) {
    const GrantKind kind = session->still(*grant, request.number());
    if (kind > file->held.kind) {
      if (file->held.kind == GrantKind::kNone) file->granted_at = ++clock_;
      file->session = session;
      file->held = {file->id, kind, grant->id};
      file->usable = kind;
    }
    brought = kind != GrantKind::kNone && file->held.id == grant->id && file->session == session;
  }
  if (attributes == nullptr || attributes->generation == 0) return brought;
  if (file->unsent > 0) return brought;  // they are older than ours
  const bool under_grant =
      brought || (file->held.kind != GrantKind::kNone && file->session == session && file->granted_at <= asked_at);
  if (!under_grant || !fresh(*file, asked_at)) return brought;
  file->attributes = *attributes;
  if (no_xattrs) file->has_no_xattrs();
  if (file->size_known) return brought;
  file->size = file->committed_size = attributes->size;
  file->size_known = true;
  return brought;
}

void FileTable::adopt(const FileRef& file, const ClientSessionRef& session, GrantId grant,
                      const Attributes& attributes) {
  HR_ASSERT(file->held.kind == GrantKind::kNone && !file->recalling);
  bump(*file);
  bump_data(*file);
  file->session = session;
  file->held = {file->id, GrantKind::kWrite, grant};
  file->usable = GrantKind::kWrite;
  file->granted_at = clock_;
  file->attributes = attributes;
  file->size = file->committed_size = attributes.size;
  file->size_known = true;
  file->no_xattrs = true;
  ++file->served;
}

Attributes FileTable::present(FileState& file) const {
  HR_ASSERT(file.attributes.has_value());
  ++file.served;
  return present(file, *file.attributes);
}

Attributes FileTable::present(const FileState& file, Attributes attributes) const {
  if (file.accessed != 0) attributes.atime = std::max(attributes.atime, file.accessed);
  if (file.held.kind != GrantKind::kWrite || !file.size_known) return attributes;
  attributes.size = file.size;
  if (file.dirty.empty()) return attributes;
  attributes.mtime = file.mtime;
  // Whoever set one that lies ahead has moved the ctime.
  const int64_t now = env_.clock.wall().count;
  if (!lies_ahead(file.mtime, now)) attributes.ctime = moved_to(attributes.ctime, file.mtime, now);
  attributes.bytes = std::max(attributes.bytes, round_up(file.dirty.bytes(), 512));
  return attributes;
}

void FileTable::remember_name(FileState& directory, const std::string& name, CachedName what, uint64_t asked_at,
                              bool granted) {
  if (!readable(directory) || directory.recalling || !fresh(directory, asked_at)) return;
  if (!granted && directory.granted_at > asked_at) return;
  DirectoryState& state = directory.as_directory();
  if (!state.changing.contains(name)) state.know(name, what);
}

// What is dirty stays: it is the owner of a grant's business.
void FileTable::forget_knowledge(FileState& file) {
  bump(file);
  bump_data(file);
  file.attributes.reset();
  if (file.dirty.empty()) file.size_known = false;
  file.extents.clear();
  file.forget_access();
  file.xattrs.clear();
  file.no_xattrs = false;
  if (file.directory != nullptr) {
    file.directory->names.clear();
    file.directory->complete = false;
  }
}

void FileTable::disown(FileState& file) {
  if (file.held.kind != GrantKind::kNone) ++file.losses;
  file.held = {};
  file.usable = GrantKind::kNone;
  if (!mutant("keep_cache_after_recall")) forget_knowledge(file);
}

void FileTable::distrust(const FileRef& file) {
  if (file->held.kind == GrantKind::kNone) return;
  if (invalidate) scope_.spawn(invalidate_all({file->id}));
  disown(*file);
}

void FileTable::end_recall(FileState& file) {
  file.recalling = false;
  Scheduler::current().wake_all(file.recalled);
}

// ---- recalls ----

Task<Result<Empty>> FileTable::recall(Recall request) {
  ++counters_.recalls;
  auto done = std::make_shared<Event>();
  FileRef file = find(request.grant.file);
  if (file == nullptr || file->held.kind == GrantKind::kNone || file->session->id != request.session) {
    for (const ClientSessionRef& session : sessions_.all()) {
      if (session->id == request.session) session->end_grant(request.grant.id, request.keep);
    }
    co_return Empty{};
  }
  // Owned by the client's scope, not by the connection that brought it.
  if (!scope_.spawn(run_recall(std::move(file), request, done)))
    co_return Error(Code::kCancelled, "the client is shutting down");
  co_await done->wait();
  co_return Empty{};
}

Task<void> FileTable::run_recall(FileRef file, Recall request, std::shared_ptr<Event> done) {
  while (file->recalling) co_await ListWait(file->recalled);
  ClientSessionRef session = file->session;
  if (session != nullptr && session->id == request.session) {
    // Whatever we hold on the file under that session, be it by another id: never answer and go on
    // caching.
    if (file->held.kind > request.keep) {
      if (file->held.kind == GrantKind::kWrite) file->write_recalled_at = env_.clock.now();
      if (request.keep == GrantKind::kNone) file->recalled_at = env_.clock.now();
      co_await give_up(file, request.keep);
      end_recall(*file);
    }
    session->end_grant(request.grant.id, request.keep);
  }
  done->set();
}

// Down to `keep`. The caller then ends the recall.
Task<void> FileTable::give_up(FileRef file, GrantKind keep) {
  HR_ASSERT(!file->recalling);
  file->recalling = true;
  ClientSessionRef session = file->session;
  if (keep == GrantKind::kNone && invalidate) {
    for (int round = 0; round < 4; ++round) {
      const uint64_t served = file->served;
      co_await drop_kernel_caches(file);
      if (file->served == served) break;
    }
  }
  file->usable = std::min(file->usable, keep);
  auto clean = [&file] { return file->dirty.empty() && file->unsent == 0; };
  if (file->held.kind == GrantKind::kWrite && !clean() && !session->lost) {
    const Nanos deadline = env_.clock.now() + options_.recall_flush_timeout;
    for (;;) {
      Result<void> flushed = co_await flush_changes(file);
      if (flushed.ok()) flushed = co_await flush(file);
      if (clean() || session->lost) break;
      if (env_.clock.now() >= deadline || (!flushed.ok() && flushed.code() == Code::kReadOnly)) {
        const Error why = flushed.ok() ? Error(Code::kIo, "the grant was recalled before the data could be written")
                                       : Error(flushed.code(), flushed.error().message());
        if (file->unsent > 0) give_up_changes(session, why);
        if (!file->dirty.empty()) drop_dirty(file, why);
        break;
      }
      co_await env_.clock.sleep(milliseconds(100));
    }
  }
  while (keep == GrantKind::kNone && file->opens > 0 && !file->keeps() && !session->lost && keep_open) {
    Result<void> kept = co_await keep_open(file);
    if (!kept.ok()) break;
  }
  // Claims under way name this grant: were it given to another before they arrive, they would cost
  // the whole session.
  const Mutex::Guard no_claims = co_await session->reopening.lock();
  if (!session->lost) {
    session->end_grant(file->held.id, keep);
    if (keep == GrantKind::kNone) {
      disown(*file);
    } else {
      file->held.kind = std::min(file->held.kind, keep);
    }
  }
}

void FileTable::keep_open_soon(const FileRef& file) {
  if (file->opens > 0 && !file->keeps() && keep_open) scope_.spawn(keep_open_now(file));
}

Task<void> FileTable::keep_open_now(FileRef file) {
  (void)co_await keep_open(std::move(file));
}

Task<void> FileTable::drop_kernel_caches(FileRef file) {
  auto done = std::make_shared<Event>();
  if (!scope_.spawn(invalidate_now(file->id, done))) co_return;
  // Its names are dropped when it has that answer, for which this very recall may be needed.
  if (file->locked > 0) co_return;
  // The kernel may hold a page for a write of ours that waits for this very recall.
  (void)co_await done->wait_until(env_.clock, env_.clock.now() + options_.invalidate_timeout);
}

Task<void> FileTable::invalidate_now(FileId file, std::shared_ptr<Event> done) {
  co_await invalidate(FileSystem::Invalidation{.file = file, .attributes = true, .data = true, .names = true});
  done->set();
}

Task<void> FileTable::invalidate_all(std::vector<FileId> all) {
  for (const FileId file : all) co_await invalidate_now(file, std::make_shared<Event>());
}

std::vector<Grant> FileTable::claims(const ClientSession& session) const {
  std::vector<Grant> out;
  for (const FileRef& file : all()) {
    if (file->session.get() == &session && file->held.kind != GrantKind::kNone) out.push_back(file->held);
  }
  return out;
}

void FileTable::session_lost(const ClientSessionRef& session) {
  std::vector<FileId> under;
  for (const FileRef& file : all()) {
    if (file->session != session) continue;
    if (file->held.kind != GrantKind::kNone && invalidate) under.push_back(file->id);
    if (!file->dirty.empty()) {
      drop_dirty(file, Error(Code::kStale,
                             "unsynced data was lost: this client was not heard of for longer than "
                             "its lease and was evicted"));
    }
    file->kept = false;
    disown(*file);
    file->session.reset();
  }
  if (!under.empty()) scope_.spawn(invalidate_all(std::move(under)));
}

void FileTable::session_expired(const ClientSessionRef& session) {
  if (!invalidate) return;
  std::vector<FileId> under;
  for (const FileRef& file : all()) {
    if (file->session == session && file->held.kind != GrantKind::kNone) under.push_back(file->id);
  }
  if (!under.empty()) scope_.spawn(invalidate_all(std::move(under)));
}

// ---- giving back ----

Task<void> FileTable::release(std::vector<FileRef> files) {
  struct Batch {
    ClientSessionRef session;
    std::vector<GrantId> grants;
    std::vector<FileRef> files;
  };
  std::map<PartitionId, Batch> batches;
  for (const FileRef& file : files) {
    if (file->recalling || file->held.kind == GrantKind::kNone) continue;
    ClientSessionRef session = file->session;
    const GrantId id = file->held.id;
    co_await give_up(file, GrantKind::kNone);
    Batch& batch = batches[session->partition];
    batch.files.push_back(file);
    if (session->lost) continue;
    if (batch.session != nullptr && batch.session != session) batch.grants.clear();
    batch.session = session;
    batch.grants.push_back(id);
  }
  for (auto& [partition, batch] : batches) {
    if (batch.session != nullptr && !batch.session->lost && !batch.grants.empty()) {
      counters_.released += batch.grants.size();
      GrantRelease request;
      request.grants = batch.grants;
      // Unanswered: the partition will recall what it believes held.
      (void)co_await sessions_.ask_under(batch.session, std::move(request));
      // Until here the partition may have named them in answers again.
      for (GrantId id : batch.grants) batch.session->end_grant(id, GrantKind::kNone);
    }
    for (const FileRef& file : batch.files) end_recall(*file);
  }
}

Task<void> FileTable::trim() {
  const Nanos now = env_.clock.now();
  std::vector<FileRef> idle;
  std::vector<FileId> gone;
  for (const auto& [id, file] : files_) {
    if (file.use_count() > 1 || file->opens > 0 || file->kept || !file->dirty.empty() || file->unsent > 0 ||
        file->recalling || file->lost.awaits_sync())
      continue;
    if (file->held.kind == GrantKind::kNone) {
      gone.push_back(id);
    } else {
      idle.push_back(file);
    }
  }
  if (!gone.empty()) last_erase_ = ++clock_;
  for (FileId id : gone) files_.erase(id);
  std::sort(idle.begin(), idle.end(), [](const FileRef& a, const FileRef& b) {
    const bool a_huge = a->directory != nullptr && a->directory->names.size() > kManyNames;
    const bool b_huge = b->directory != nullptr && b->directory->names.size() > kManyNames;
    if (a_huge != b_huge) return a_huge;
    return a->last_use != b->last_use ? a->last_use < b->last_use : a->id < b->id;
  });
  const size_t over =
      files_.size() > options_.max_files ? files_.size() - options_.max_files + options_.max_files / 10 : 0;
  size_t count = 0;
  while (count < idle.size() && idle[count]->directory != nullptr && idle[count]->directory->names.size() > kManyNames)
    ++count;
  while (count < idle.size() && (count < over || idle[count]->last_use + options_.idle < now)) ++count;
  idle.resize(std::min<size_t>(count, 8192));
  if (!idle.empty()) co_await release(std::move(idle));
}

Task<void> FileTable::release_all() {
  std::vector<FileRef> held;
  for (FileRef& file : all()) {
    if (file->held.kind != GrantKind::kNone) held.push_back(std::move(file));
  }
  co_await release(std::move(held));
}

Task<void> FileTable::release_gently() {
  constexpr size_t kAtOnce = 64;
  std::vector<FileRef> batch;
  for (FileRef& file : all()) {
    if (file->held.kind != GrantKind::kNone) batch.push_back(std::move(file));
    if (batch.size() == kAtOnce) co_await release(std::exchange(batch, {}));
  }
  co_await release(std::move(batch));
}

}  // namespace headrace
