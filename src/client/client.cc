#include "client/client.h"

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include "runtime/when_all.h"

namespace headrace {

namespace {
constexpr Nanos kMaintenance = seconds(1);
constexpr Nanos kContended = seconds(10);  // for so long after a recall no kernel keeps a directory's names
constexpr size_t kForgetBatch = 1000;

HandleRef handle_of(const OpenFileRef& file) {
  return std::static_pointer_cast<FileHandle>(file);
}
}  // namespace

Client::Client(Env env, ClientOptions options)
    : env_(env),
      options_(std::move(options)),
      hub_(env, identity_, handlers_),
      follower_(env, hub_, view_, options_.nodes),
      partitions_(env, hub_, view_),
      targets_(hub_, view_),
      fragments_(targets_),
      segments_(env, fragments_),
      sessions_(env, partitions_, options_.handover ? options_.handover->client : ClientId(env.random.nonzero()),
                scope_),
      files_(env, sessions_, scope_, {.max_files = options_.max_files, .idle = options_.idle_grant}),
      changes_(env, sessions_, files_, scope_, {.send_after = options_.flush_after, .max_unsent = options_.max_unsent}),
      reader_(env, hub_, partitions_, segments_, scope_, options_.read_cache),
      write_back_(env, sessions_, files_, changes_, segments_, reader_, scope_,
                  {.dirty_limit = options_.dirty_limit,
                   .file_limit = options_.file_dirty_limit,
                   .flush_after = options_.flush_after,
                   .stage_limit = options_.stage_limit}),
      data_(sessions_, files_, changes_, write_back_, reader_, scope_),
      names_(env, sessions_, files_, changes_, write_back_, data_, scope_,
             {.directory_write_grants = options_.directory_write_grants}),
      locks_(sessions_, files_, changes_),
      access_times_(env, sessions_, files_) {
  identity_.client = sessions_.client();
  handlers_.on<Recall>([this](Recall request, CallInfo) { return recall(request); });
  handlers_.on<Closing>([this](Closing request, CallInfo) { return leave(request); });
  sessions_.claims = [this](const ClientSession& session) { return files_.claims(session); };
  sessions_.on_lost = [this](ClientSessionRef session) { session_lost(session); };
  sessions_.on_expired = [this](ClientSessionRef session) { files_.session_expired(session); };
  files_.flush = [this](FileRef file) { return write_back_.flush(std::move(file)); };
  files_.flush_changes = [this](FileRef file) { return changes_.flush(std::move(file)); };
  files_.give_up_changes = [this](const ClientSessionRef& session, Error error) { changes_.give_up(session, error); };
  names_.read_only = [this] { return follower_.read_only(); };
  changes_.unlinked = [this](const FileRef& file) {
    names_.unlinked(file->id, file->attributes ? file->attributes->links : 0);
  };
  files_.keep_open = [this](FileRef file) { return keep_open(std::move(file)); };
  files_.drop_dirty = [this](const FileRef& file, Error error) { write_back_.drop(file, std::move(error)); };
}

Client::~Client() = default;

Task<Result<std::unique_ptr<Client>>> Client::start(Env env, ClientOptions options) {
  auto client = std::unique_ptr<Client>(new Client(env, std::move(options)));
  Result<void> begun = co_await client->begin();
  if (!begun.ok()) co_return std::move(begun).error();
  co_return client;
}

Task<Result<void>> Client::begin() {
  if (options_.nodes.empty()) co_return Error(Code::kInvalid, "no node's address was given");
  const Nanos deadline = env_.clock.now() + options_.start_timeout;
  for (;;) {
    Result<void> refreshed = co_await follower_.refresh();
    if (refreshed.ok() && !view_.map().partitions.empty()) break;
    if (env_.clock.now() >= deadline) {
      if (refreshed.ok()) co_return Error(Code::kUnavailable, "the cluster has no partitions yet");
      co_return std::move(refreshed).error().within("no cluster to be reached (is the node up?)");
    }
    co_await env_.clock.sleep(milliseconds(100));
  }
  see_map();
  if (options_.handover) {
    HR_CO_TRY(co_await go_on(*std::exchange(options_.handover, std::nullopt)));
  }
  follower_.start();
  sessions_.start();
  write_back_.start();
  scope_.spawn(follow_map());
  scope_.spawn(maintain());
  co_return Result<void>();
}

void Client::see_map() {
  identity_.name_space = view_.map().name_space;
  identity_.namespace_epoch = view_.map().namespace_epoch;
}

Task<void> Client::follow_map() {
  while (!scope_.token().cancelled()) {
    const uint64_t version = view_.map().version;
    see_map();
    (void)co_await view_.wait_newer(env_.clock, version, env_.clock.now() + seconds(1));
  }
}

Task<void> Client::maintain() {
  uint64_t round = 0;
  while (co_await scope_.token().sleep(env_.clock, kMaintenance)) {
    co_await forget_closed();
    if (round % 5 == 0) scope_.spawn(locks_.unlock_late());
    if (round % 5 == 0) co_await access_times_.send();
    if (++round % 5 == 0) co_await files_.trim();
    // Who walks a tree learns more of them in a second than one trim gives back.
    for (size_t before = files_.size() + 1; files_.size() > options_.max_files && files_.size() < before;) {
      before = files_.size();
      co_await files_.trim();
    }
  }
}

Nanos Client::name_valid(FileId parent, const std::string& name, FileId file) const {
  FileRef directory = files_.find(parent);
  if (directory == nullptr || directory->directory == nullptr) return {};
  // Where others change names as well, a kernel that keeps them only makes recalls slower.
  if (directory->recalled_at && env_.clock.now() - *directory->recalled_at < kContended) return {};
  const DirectoryState& state = *directory->directory;
  auto known = state.names.find(name);
  if (known == state.names.end() || known->second.file != file || state.changing.contains(name)) return {};
  return kernel_may_keep(*directory);
}

Nanos Client::attributes_valid(FileId id) const {
  FileRef file = files_.find(id);
  // Those of dirty files change again when they are written.
  if (file == nullptr || !file->attributes || !file->dirty.empty()) return {};
  if (file->held.kind == GrantKind::kWrite && !file->size_known) return {};
  return kernel_may_keep(*file);
}

// It counts from when it gets round to it: well before the lease ends.
Nanos Client::kernel_may_keep(const FileState& file) const {
  if (file.recalling || !files_.readable(file)) return {};
  return std::max(Nanos(), file.session->valid_until - env_.clock.now() - file.session->lease / 4);
}

ClientStatistics Client::counters() const {
  return {write_back_.counters(),     reader_.counters(),  segments_.counters(),
          files_.counters(),          changes_.counters(), write_back_.dirty_bytes(),
          write_back_.dirty_memory(), changes_.unsent(),   files_.size()};
}

Result<void> Client::writable() const {
  if (!follower_.read_only()) return {};
  return Error(Code::kReadOnly, "the namespace is read-only: " + follower_.why_read_only());
}

// ---- names ----

Task<Result<Attributes>> Client::lookup(FileId parent, std::string name) {
  return names_.lookup(parent, std::move(name));
}
Task<Result<Attributes>> Client::get_attributes(FileId file) {
  return names_.get_attributes(file);
}
Task<Result<Attributes>> Client::set_attributes(FileId file, AttributeChange change) {
  return names_.set_attributes(file, change);
}
Task<Result<Attributes>> Client::make(FileId parent, std::string name, MakeOptions options, Credentials who) {
  return names_.make(parent, std::move(name), std::move(options), who, {});
}
Task<Result<void>> Client::unlink(FileId parent, std::string name) {
  return names_.unlink(parent, std::move(name), false);
}
Task<Result<void>> Client::remove_directory(FileId parent, std::string name) {
  return names_.unlink(parent, std::move(name), true);
}
Task<Result<void>> Client::rename(RenameOptions options) {
  return names_.rename(std::move(options));
}
Task<Result<Attributes>> Client::link(FileId file, FileId parent, std::string name) {
  return names_.link(file, parent, std::move(name));
}
Task<Result<std::string>> Client::read_link(FileId file) {
  return names_.read_link(file);
}
Task<Result<ReadDirectoryReply>> Client::read_directory(FileId directory, uint64_t after, uint32_t limit, bool plus) {
  return names_.read_directory(directory, after, limit, plus);
}
Task<Result<std::string>> Client::get_xattr(FileId file, std::string name) {
  return names_.get_xattr(file, std::move(name));
}
Task<Result<void>> Client::set_xattr(FileId file, std::string name, std::string value, XattrOptions options) {
  SetXattr request;
  request.name = std::move(name);
  request.value = std::move(value);
  request.must_create = options.must_create;
  request.must_replace = options.must_replace;
  request.clear_setgid = options.clear_setgid;
  return names_.set_xattr(file, std::move(request));
}
Task<Result<std::vector<std::string>>> Client::list_xattr(FileId file) {
  return names_.list_xattr(file);
}
Task<Result<void>> Client::remove_xattr(FileId file, std::string name) {
  return names_.remove_xattr(file, std::move(name));
}

// ---- open files ----

Task<Result<void>> Client::keep_open(FileRef file) {
  Mutex::Guard guard = co_await file->opening.lock();
  // Closed meanwhile: it is to be forgotten after this.
  struct AtEnd {
    FileRef file;
    ClosedFiles closed;
    ~AtEnd() {
      if (file->opens == 0 && (file->kept || file->maybe_kept)) closed->push_back(file);
    }
  } at_end{file, closed_};
  while (file->forgetting) co_await ListWait(file->forgotten);
  if (file->kept) co_return Result<void>();
  HR_CO_TRY(co_await changes_.flush(file));
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file->id.slot()));
  file->maybe_kept = true;
  Result<Empty> kept = co_await sessions_.mutate_under(session, OpenKept{.file = file->id});
  file->maybe_kept = !kept.ok();
  file->kept = kept.ok() && !session->lost;
  if (!kept.ok()) co_return std::move(kept).error();
  co_return Result<void>();
}

Task<Result<OpenFileRef>> Client::open(FileId id, OpenMode mode) {
  FileRef file = files_.get(id);
  ++file->opens;
  auto handle = std::make_shared<FileHandle>(file, mode, closed_);  // counts down, whatever happens
  if (!files_.is_protected(*file)) {
    HR_CO_TRY(co_await keep_open(file));
  }
  if (mode.truncate) {
    HR_CO_TRY(writable());
    HR_CO_TRY(co_await names_.set_attributes(id, {.mask = kSetSize, .size = 0}));
  }
  co_return OpenFileRef(std::move(handle));
}

Task<Result<FileSystem::Created>> Client::create(FileId parent, std::string name, uint32_t mode, OpenMode open,
                                                 Credentials who) {
  HR_CO_TRY(Attributes made, co_await names_.make(parent, std::move(name), {.type = FileType::kFile, .mode = mode}, who,
                                                  {.any = true, .writes = open.write, .durable = open.sync}));
  FileRef file = files_.get(made.id);
  ++file->opens;
  auto handle = std::make_shared<FileHandle>(file, open, closed_);
  if (!files_.is_protected(*file)) {
    HR_CO_TRY(co_await keep_open(file));
  }
  co_return Created{made, std::move(handle)};
}

Task<Result<FileSystem::Created>> Client::create_unnamed(FileId parent, uint32_t mode, OpenMode open, Credentials who) {
  HR_CO_TRY(Attributes made, co_await names_.make_unnamed(parent, mode, who, open.write));
  FileRef file = files_.get(made.id);
  file->kept = true;
  ++file->opens;
  co_return Created{made, std::make_shared<FileHandle>(file, open, closed_)};
}

Task<Result<void>> Client::close(OpenFileRef file) {
  handle_of(file)->release();
  if (closed_->size() >= kForgetBatch && !forgetting_.locked()) scope_.spawn(forget_closed());
  co_return Result<void>();
}

Task<void> Client::forget_closed() {
  Mutex::Guard guard = co_await forgetting_.lock();
  std::vector<FileRef> closed;
  closed.swap(*closed_);
  std::map<Slot, std::vector<FileRef>> by_slot;  // a message goes to one partition
  for (FileRef& file : closed) {
    // While it is being told open it is not told closed: which of the two came last there would not be known.
    if (file->opens > 0 || (!file->kept && !file->maybe_kept) || file->forgetting || file->opening.locked()) continue;
    const PartitionInfo* partition = view_.map().partition_of(file->id.slot());
    if (partition == nullptr) continue;
    file->forgetting = true;
    by_slot[Slot(partition->first_slot)].push_back(std::move(file));
  }
  for (auto& [slot, files] : by_slot) {
    for (size_t i = 0; i < files.size(); i += kForgetBatch) {
      const std::span<FileRef> batch = std::span(files).subspan(i, std::min(kForgetBatch, files.size() - i));
      Forget request;
      for (const FileRef& file : batch) request.files.push_back(file->id);
      Result<Empty> told = co_await sessions_.mutate(slot, std::move(request));
      for (const FileRef& file : batch) {
        file->kept = false;
        file->maybe_kept = !told.ok();
        file->forgetting = false;
        Scheduler::current().wake_all(file->forgotten);
        if (!told.ok()) closed_->push_back(file);  // once more, later
      }
    }
  }
}

// What is open is kept, name or not, while its session lives: gone, it went with that.
template <class T>
Task<Result<T>> Client::of_open_file(Task<Result<T>> work) {
  Result<T> done = co_await std::move(work);
  if (done.code() != Code::kNotFound) co_return done;
  co_return Error(Code::kStale, "the file had lost its last name when this client was evicted, and is gone");
}

Task<Result<std::vector<Buffer>>> Client::read(OpenFileRef file, uint64_t offset, uint64_t length) {
  return of_open_file(data_.read(handle_of(file), offset, length));
}

void Client::accessed(FileId id) {
  FileRef file = files_.find(id);
  if (file != nullptr && !follower_.read_only()) access_times_.note(file);
}

Task<Result<uint64_t>> Client::write(OpenFileRef file, uint64_t offset, Buffer data) {
  HR_CO_TRY(writable());
  co_return co_await of_open_file(data_.write(handle_of(file), offset, std::move(data)));
}

Task<Result<void>> Client::punch(OpenFileRef file, uint64_t offset, uint64_t length) {
  HandleRef handle = handle_of(file);
  return of_open_file(data_.punch(handle->file, offset, length));
}

Task<Result<uint64_t>> Client::copy(OpenFileRef from, uint64_t from_offset, OpenFileRef to, uint64_t to_offset,
                                    uint64_t length) {
  HR_CO_TRY(writable());
  co_return co_await of_open_file(
      data_.copy(handle_of(from)->file, from_offset, handle_of(to)->file, to_offset, length));
}

Task<Result<void>> Client::grow(OpenFileRef file, uint64_t size) {
  HR_CO_TRY(writable());
  co_return co_await of_open_file(data_.grow(handle_of(file)->file, size));
}

Task<Result<uint64_t>> Client::seek(OpenFileRef file, uint64_t offset, bool hole) {
  return data_.seek(handle_of(file)->file, offset, hole);
}

Task<Result<bool>> Client::lock(FileId file, FileLock lock, Nanos wait) {
  return locks_.lock(file, lock, wait);
}
Task<Result<std::optional<FileLock>>> Client::find_lock(FileId file, FileLock lock) {
  return locks_.find(file, lock);
}
Task<Result<void>> Client::unlock_all(FileId file, uint64_t owner, bool whole) {
  return locks_.unlock_all(file, owner, whole);
}

Task<Result<void>> Client::sync(FileId id) {
  FileRef file = files_.find(id);
  if (file == nullptr) co_return Result<void>();  // nothing of it is unsent
  co_return co_await data_.sync(std::move(file));
}

Task<Result<void>> Client::sync(OpenFileRef file) {
  return data_.sync(handle_of(file));
}

Task<Result<void>> Client::sync_all() {
  Result<void> sent = co_await changes_.flush_all();
  Result<void> flushed = co_await write_back_.flush_all();
  std::optional<Error> lost = write_back_.take_lost();
  if (std::optional<Error> changes = changes_.take_lost()) lost = std::move(changes);
  if (lost) co_return *std::move(lost);
  if (!sent.ok()) co_return sent;
  co_return flushed;
}

// ---- the whole ----

Task<Result<FileSystemStatistics>> Client::statistics() {
  FileSystemStatistics out;
  std::vector<Task<Result<StatisticsReply>>> asks;
  std::shared_ptr<const ClusterMap> map = view_.shared();
  for (const PartitionInfo& partition : map->partitions) {
    asks.push_back(partitions_.call(partition.id, Statistics{.partition = partition.id}, {.timeout = seconds(10)}));
  }
  std::vector<Result<StatisticsReply>> replies = co_await when_all(std::move(asks));
  uint64_t bytes = 0;
  for (Result<StatisticsReply>& reply : replies) {
    if (!reply.ok()) co_return std::move(reply).error();
    out.files += reply->files;
    bytes += reply->bytes;
  }
  uint64_t capacity = 0;
  uint64_t used = 0;
  for (const TargetInfo& target : map->targets) {
    if (target.state != TargetState::kLive) continue;
    capacity += target.capacity;
    used += std::min(target.used, target.capacity);
  }
  const uint64_t data = map->protection.data;
  const uint64_t width = std::max<uint64_t>(map->protection.width(), 1);
  const uint64_t free = (capacity - used) / width * data;
  // What is in the bucket alone takes no room in the hot tier: the total is what could be there, at
  // least what is.
  out.total_bytes = std::max(capacity / width * data, bytes + free);
  out.free_bytes = free;
  co_return out;
}

void Client::session_lost(const ClientSessionRef& session) {
  const uint64_t bytes = write_back_.counters().dropped_bytes;
  const uint64_t changes = changes_.counters().lost;
  std::vector<FileRef> open;
  for (const FileRef& file : files_.all()) {
    const PartitionInfo* partition = view_.map().partition_of(file->id.slot());
    if (partition == nullptr || partition->id != session->partition) continue;
    file->kept = false;
    if (file->opens > 0) open.push_back(file);
  }
  changes_.give_up(session, Error(Code::kStale,
                                  "this client was not heard of for longer than its lease and was "
                                  "evicted"));
  files_.session_lost(session);
  if (losses_.size() < 1000)
    losses_.push_back(
        {session->partition, write_back_.counters().dropped_bytes - bytes, changes_.counters().lost - changes});
  if (ended_) return;
  for (const FileRef& file : open) files_.keep_open_soon(file);
}

// ---- one client after another ----

Task<Result<void>> Client::go_on(ClientHandover from) {
  if (from.name_space != identity_.name_space || from.namespace_epoch != identity_.namespace_epoch)
    co_return Error(Code::kStale, "the namespace was taken over or resumed since: mount it again");
  std::vector<Task<Result<void>>> sessions;
  for (ClientHandover::Session& session : from.sessions) sessions.push_back(sessions_.go_on(std::move(session)));
  for (Result<void>& gone_on : co_await when_all(std::move(sessions)))
    if (!gone_on.ok()) co_return std::move(gone_on).error();
  for (const FileId file : from.open) files_.get(file)->kept = true;
  for (const FileId file : from.unnamed) files_.get(file)->unnamed = true;
  for (ClientHandover::Lost& lost : from.lost) {
    Error error(lost.code, std::move(lost.message));
    if (lost.file)
      files_.get(lost.file)->lost.add(std::move(error));
    else
      write_back_.set_lost(std::move(error));
  }
  for (const ClientHandover::Locker& locker : from.lockers) {
    const PartitionInfo* partition = view_.map().partition_of(locker.file.slot());
    for (const ClientSessionRef& session : sessions_.all())
      if (partition != nullptr && session->partition == partition->id) locks_.go_on(locker, session);
  }
  co_return Result<void>();
}

// Not sync_all(): what was lost is told to a program's next one.
Task<Result<void>> Client::flush_everything() {
  HR_CO_TRY(co_await changes_.flush_all());
  co_await access_times_.send();
  co_return co_await write_back_.flush_all();
}

Task<Result<void>> Client::prepare_hand_over() {
  HR_CO_TRY(co_await flush_everything());
  co_await files_.release_gently();
  co_return co_await flush_everything();
}

// What no grant protects any more, the partitions keep.
Task<Result<void>> Client::keep_all_open() {
  for (const FileRef& file : files_.all()) {
    if (file->opens == 0 || file->keeps()) continue;
    Result<void> kept = co_await keep_open(file);
    const bool gone = kept.code() == Code::kNotFound || kept.code() == Code::kStale;
    if (!kept.ok() && !gone) co_return kept;
  }
  co_return Result<void>();
}

// Nothing that was asked is unanswered, nothing is left to ask.
bool Client::quiet() const {
  if (!closed_->empty() || forgetting_.locked() || changes_.unsent() > 0 || locks_.late() > 0) return false;
  for (const ClientSessionRef& session : sessions_.all()) {
    if (!session->unanswered.empty() || !session->requests.empty() || session->reopening.locked() ||
        session->reserving.locked() || session->reserving_files.locked())
      return false;
  }
  for (const FileRef& file : files_.all()) {
    if (file->held.kind != GrantKind::kNone || file->recalling || !file->dirty.empty() || file->opening.locked() ||
        (file->opens > 0 && !file->kept && !file->maybe_kept))
      return false;
  }
  return true;
}

Task<Result<ClientHandover>> Client::hand_over(Nanos patience) {
  const Nanos deadline = env_.clock.now() + patience;
  for (;;) {
    if (ended_ || leaving_ || closing_.is_set()) co_return Error(Code::kUnavailable, "the node is closing this client");
    HR_CO_TRY(co_await flush_everything());
    co_await forget_closed();
    co_await locks_.unlock_late();
    co_await files_.release_all();
    HR_CO_TRY(co_await keep_all_open());
    if (quiet()) break;
    if (env_.clock.now() >= deadline)
      co_return Error(Code::kTimeout, "what is under way did not end in time: is the node up?");
    co_await env_.clock.sleep(milliseconds(2));
  }
  handed_over_ = true;
  co_return handover_now();
}

ClientHandover Client::handover_now() const {
  ClientHandover out{.client = sessions_.client(),
                     .name_space = identity_.name_space,
                     .namespace_epoch = identity_.namespace_epoch,
                     .lockers = locks_.hand_over()};
  for (const ClientSessionRef& session : sessions_.all()) {
    session->abandon_reservations();
    out.sessions.push_back({session->partition, session->id, session->next_sequence, session->abandoned});
  }
  for (const FileRef& file : files_.all()) {
    if (file->opens > 0) out.open.push_back(file->id);
    if (file->opens > 0 && file->unnamed) out.unnamed.push_back(file->id);
    const std::optional<Error>& why = file->lost.last();
    if (why && (file->opens > 0 || file->lost.awaits_sync()))
      out.lost.push_back({file->id, why->code(), why->message()});
  }
  const std::optional<Error>& lost = changes_.lost() ? changes_.lost() : write_back_.lost();
  if (lost) out.lost.push_back({FileId(), lost->code(), lost->message()});
  return out;
}

Task<Result<Empty>> Client::recall(Recall request) {
  // No grant is held: it is one of a successor's, which must not lose it by our word.
  if (handed_over_) co_return Error(Code::kUnavailable, "the client was handed over");
  co_return co_await files_.recall(request);
}

Task<Result<Empty>> Client::leave(Closing) {
  ++told_to_leave_;
  if (!leaving_) {
    leaving_ = true;
    scope_.spawn(leave_now());
  }
  co_return Empty{};
}

Task<void> Client::leave_now() {
  // Each partition tells; what was granted by one that had not yet begun to close goes in the next
  // round.
  for (uint64_t heard = 0; heard != told_to_leave_;) {
    heard = told_to_leave_;
    (void)co_await sync_all();
    co_await forget_closed();
    co_await access_times_.send();
    co_await files_.release_all();
    closing_.set();
  }
  leaving_ = false;
}

Task<Result<void>> Client::shut_down() {
  Result<void> flushed;
  if (!ended_) {
    ended_ = true;
    flushed = co_await sync_all();
    co_await forget_closed();
    if (flushed.ok()) co_await access_times_.send();
    co_await files_.release_all();
    co_await sessions_.close_all();
  }
  scope_.cancel();
  co_await scope_.join();
  follower_.stop();
  co_await hub_.close();
  co_return flushed;
}

}  // namespace headrace
