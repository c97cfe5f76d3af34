#include "gateway/fuse/session.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace headrace {

namespace {

constexpr uint32_t kReceiveBurst = 32;           // requests taken before others of this core get a turn
constexpr uint32_t kForgetsOfATurn = 32;         // that count as one: a kernel short of memory sends millions
constexpr size_t kMaxNotifications = 1024;       // waiting for the kernel, before others are slowed down
constexpr Nanos kNotKnownYet = milliseconds(1);  // then it is told again
constexpr Nanos kNotifySlice = milliseconds(20);
constexpr Nanos kAsidePatience = milliseconds(700);  // who waits for a lock looks up more often

// No writeback cache: with it a size that grew elsewhere is not seen. Locks are the partitions', so that all mounts see
// them; hence every close(2) sends FLUSH, which ends fcntl's. Symlinks never change, so they may be cached. A umask
// counts only where no default ACL is: it comes with the mode (DONT_MASK).
constexpr uint64_t kWanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                             FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR |
                             FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS |
                             FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT | kFuseDirectIoAllowMmap | FUSE_HAS_EXPIRE_ONLY |
                             FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT | FUSE_EXPORT_SUPPORT;
// One of these.
constexpr uint64_t kTrusting = FUSE_EXPLICIT_INVAL_DATA;
constexpr uint64_t kComparing = FUSE_AUTO_INVAL_DATA;

uint64_t bytes_of(const FuseBody& body) {
  if (auto* write = std::get_if<FuseWrite>(&body)) return write->data.size();
  if (auto* read = std::get_if<FuseRead>(&body)) return read->size;
  return 0;
}

uint64_t memory_of(const FuseBody& body) {
  auto* write = std::get_if<FuseWrite>(&body);
  return write == nullptr ? 0 : write->data.size();
}

// Set in a scope.
class Flag {
 public:
  explicit Flag(bool& flag) : flag_(flag) { flag_ = true; }
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;
  ~Flag() { flag_ = false; }

 private:
  bool& flag_;
};

// The directory that a rename goes to: the kernel holds its lock as it holds that of the other.
FileId other_node(const FuseRequest& request) {
  const auto* rename = std::get_if<FuseRename>(&request.body);
  return rename != nullptr && rename->to_parent != request.header.node ? rename->to_parent : FileId();
}

// What the request may change beside its node.
FileId other_changed(const FuseRequest& request) {
  if (const auto* copy = std::get_if<FuseCopyRange>(&request.body)) return copy->to;
  if (const auto* link = std::get_if<FuseLink>(&request.body)) return link->file;
  return other_node(request);
}

}  // namespace

// Registers a request while it runs.
class FuseSession::Running {
 public:
  Running(FuseSession& session, const FuseRequest& request, uint64_t bytes)
      : session_(session), unique_(request.header.unique), node_(request.header.node), other_(other_node(request)) {
    const uint64_t memory = memory_of(request.body);
    const bool fresh = session_.active_.try_emplace(unique_, Active{.bytes = bytes, .memory = memory}).second;
    HR_ASSERT(fresh);
    ++session_.taking_room_;
    ++session_.nodes_[node_].busy;
    if (other_) ++session_.nodes_[other_].busy;
    session_.bytes_ += bytes;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    auto active = session_.active_.find(unique_);
    if (active->second.takes_room()) --session_.taking_room_;
    if (active->second.answered) --session_.let_go_;
    session_.bytes_ -= active->second.bytes;
    session_.active_.erase(active);
    done_with(node_);
    if (other_) done_with(other_);
    session_.room_changed();
    session_.check_idle();
  }

 private:
  void done_with(FileId node) {
    --session_.nodes_[node].busy;
    session_.forget_if_unused(node);
  }

  FuseSession& session_;
  uint64_t unique_;
  FileId node_;
  FileId other_;  // zero: none
};

FuseSession::FuseSession(Env env, FileSystem& files, Transport& transport, FuseSessionOptions options)
    : env_(env), files_(files), transport_(transport), options_(options) {
  files_.on_invalidate([this](FileSystem::Invalidation what) { return invalidate(std::move(what)); });
}

FuseSession::~FuseSession() {
  files_.on_invalidate({});
}

FuseStatistics FuseSession::statistics() const {
  FuseStatistics statistics = statistics_;
  statistics.nodes = nodes_.size();
  statistics.open_files = handles_.size();
  statistics.in_flight = active_.size();
  statistics.parked = parked_.size();
  return statistics;
}

// --- The loop ---

Task<Result<void>> FuseSession::run() {
  receiver_.emplace().spawn(receive_all());
  start_again();
  co_await ended_.wait();
  requests_.token().cancel();
  Nanos deadline = env_.clock.now() + options_.drain;
  auto nothing_runs = [this] { return active_.empty() && parked_.empty() && notifying_ == 0; };
  bool idle = nothing_runs();
  while (!idle) {
    idle_.reset();
    if (nothing_runs()) break;
    idle = co_await idle_.wait_until(env_.clock, deadline);
    if (!idle && outcome_.ok())
      co_return Error(Code::kTimeout,
                      "fuse: " + std::to_string(active_.size()) + " requests were not answered in time at the end");
  }
  co_return std::move(outcome_);
}

void FuseSession::check_idle() {
  if (active_.empty() && parked_.empty() && notifying_ == 0) idle_.set();
}

bool FuseSession::room_for(uint64_t bytes) const {
  const size_t let_go = let_go_ - std::min(let_go_, options_.max_let_go);
  return taking_room_ + let_go < options_.max_requests && (bytes_ == 0 || bytes_ + bytes <= options_.max_bytes);
}

bool FuseSession::room_to_park(const FuseRequest& request) const {
  return parked_bytes_ == 0 || parked_bytes_ + memory_of(request.body) <= options_.max_parked;
}

void FuseSession::room_changed() {
  if (!room_.empty()) Scheduler::current().wake_all(room_);
}

void FuseSession::set(Active& active, bool Active::* what, bool value) {
  const bool before = active.takes_room();
  active.*what = value;
  if (before == active.takes_room()) return;
  taking_room_ = before ? taking_room_ - 1 : taking_room_ + 1;
  room_changed();
}

void FuseSession::park(FuseRequest request, uint64_t bytes) {
  const uint64_t memory = memory_of(request.body);
  parked_bytes_ += memory;
  parked_.push_back({std::move(request), bytes, memory});
  if (!starting_) requests_.spawn(start_parked());
}

Task<void> FuseSession::start_parked() {
  const Flag starting(starting_);
  while (!parked_.empty()) {
    if (!room_for(parked_.front().bytes)) {
      co_await ListWait(room_);
      continue;
    }
    Parked next = std::move(parked_.front());
    parked_.pop_front();
    parked_bytes_ -= next.memory;
    start(std::move(next.request), next.bytes);
    room_changed();  // to park
    co_await yield();
  }
}

Task<void> FuseSession::receive_all() {
  uint32_t burst = 0;
  while (!ended_.is_set() && !paused_) {
    Result<Buffer> bytes = co_await transport_.receive();
    const Flag in_hand(in_hand_);
    if (!bytes.ok()) {
      if (bytes.code() != Code::kCancelled) outcome_ = std::move(bytes).error();
      ended_.set();
      co_return;
    }
    Result<FuseRequest> request = decode_fuse_request(*bytes, agreed(FUSE_SETXATTR_EXT));
    ++burst;
    if (!request.ok()) {
      ++statistics_.malformed;
      Result<FuseHeader> header = decode_fuse_header(bytes->view());
      if (header.ok()) finish(header->unique, FuseAnswer(EINVAL));
    } else {
      *bytes = {};
      if (const auto* forgotten = std::get_if<FuseForget>(&request->body))
        burst += static_cast<uint32_t>(forgotten->nodes.size()) / kForgetsOfATurn;
      if (!take_at_once(*request)) {
        uint64_t size = bytes_of(request->body);
        ++statistics_.requests;
        if (parked_.empty() && room_for(size)) {
          start(std::move(*request), size);
        } else {
          while (!room_to_park(*request)) co_await ListWait(room_);
          park(std::move(*request), size);
        }
      }
    }
    if (burst >= kReceiveBurst) {
      burst = 0;
      co_await yield();
    }
  }
}

void FuseSession::start(FuseRequest request, uint64_t bytes) {
  auto running = std::make_unique<Running>(*this, request, bytes);
  requests_.spawn(serve(std::move(request), std::move(running)));
}

// What needs no answer, or must be done before the next request is looked at.
bool FuseSession::take_at_once(const FuseRequest& request) {
  if (auto* forgotten = std::get_if<FuseForget>(&request.body)) {
    for (auto [id, lookups] : forgotten->nodes) forget(id, lookups);
    return true;
  }
  if (auto* interrupted = std::get_if<FuseInterrupt>(&request.body)) {
    interrupt(interrupted->unique);
    return true;
  }
  if (auto* init = std::get_if<FuseInit>(&request.body)) {
    initialise(request.header, *init);
    return true;
  }
  return false;
}

Task<void> FuseSession::serve(FuseRequest request, std::unique_ptr<Running> running) {
  uint64_t unique = request.header.unique;
  const FuseHeader& header = request.header;
  const FileId other = other_changed(request);
  Task<FuseAnswer> work = std::visit([&](auto& body) { return this->answer(header, std::move(body)); }, request.body);
  FuseAnswer answer = co_await std::move(work);
  if (answer.error == ENOENT && means_one_file(header)) answer.error = ESTALE;
  const bool let_go = active_.at(unique).answered;
  finish(unique, std::move(answer));
  running.reset();
  if (!let_go) co_return;
  // The kernel believes that nothing was done, and may have asked since for what it was before.
  co_await invalidate({.file = header.node, .attributes = true, .data = true, .names = true});
  if (other) co_await invalidate({.file = other, .attributes = true, .data = true, .names = true});
}

bool FuseSession::means_one_file(const FuseHeader& header) const {
  auto node = nodes_.find(header.node);
  if (node == nodes_.end() || node->second.lookups == 0 || node->second.directory != nullptr) return false;
  switch (header.opcode) {
    case FUSE_OPEN:
    case FUSE_GETATTR:
    case kFuseStatx:
    case FUSE_SETATTR:
    case FUSE_READLINK:
    case FUSE_GETXATTR:
    case FUSE_SETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_REMOVEXATTR:
      return true;
    default:
      return false;
  }
}

void FuseSession::finish(uint64_t unique, FuseAnswer answer) {
  if (answer.put_aside) return;
  if (answer.error != 0 && answer.error != ENOENT) ++statistics_.errors;
  auto active = active_.find(unique);
  bool answered = active != active_.end() && active->second.answered;
  if (!answered) {
    Result<void> sent = transport_.reply(unique, answer.error, {answer.head.data(), answer.size}, answer.bulk);
    if (sent.ok()) return;
  }
  ++statistics_.unwanted_answers;
  take_back(answer);
}

void FuseSession::take_back(const FuseAnswer& answer) {
  if (answer.error != 0) return;
  if (answer.entered) forget(answer.entered, 1);
  for (FileId id : answer.all_entered) forget(id, 1);
  if (answer.opened != 0) {
    handles_.erase(answer.opened);
    listings_.erase(answer.opened);
  }
  if (answer.locked) requests_.spawn(give_back(answer.locked->first, answer.locked->second));
}

Task<void> FuseSession::give_back(FileId file, FileLock lock) {
  lock.kind = LockKind::kUnlock;
  ++giving_back_;
  (void)co_await files_.lock(file, lock, {});  // failed: it ends with the session
  --giving_back_;
}

void FuseSession::forget(FileId id, uint64_t lookups) {
  auto node = nodes_.find(id);
  if (node == nodes_.end()) return;
  node->second.lookups -= std::min(node->second.lookups, lookups);
  forget_if_unused(id);
}

void FuseSession::forget_if_unused(FileId id) {
  auto node = nodes_.find(id);
  if (node != nodes_.end() && node->second.lookups == 0 && node->second.busy == 0 && id != kRootFile)
    nodes_.erase(node);
}

void FuseSession::initialise(const FuseHeader& header, const FuseInit& init) {
  fuse_init_out out{};
  out.major = kFuseMajor;
  out.minor = std::min(init.minor, kFuseMinor);
  FuseAnswer answer;
  if (init.major > kFuseMajor) {  // it asks again, in our version
    answer.append(out);
    finish(header.unique, std::move(answer));
    return;
  }
  if (init.major < kFuseMajor || init.minor < kFuseOldestMinor) {
    outcome_ = Error(Code::kNotSupported, "fuse: the kernel speaks FUSE " + std::to_string(init.major) + "." +
                                              std::to_string(init.minor) + "; 7.31 (Linux 5.4) or newer is needed");
    finish(header.unique, FuseAnswer(EPROTO));
    ended_.set();
    return;
  }
  agreed_ = (kWanted | (options_.trust_invalidation ? kTrusting : kComparing)) & init.flags;
  minor_ = out.minor;
  out.max_readahead = init.max_readahead;
  out.flags = static_cast<uint32_t>(agreed_);
  out.flags2 = agreed(FUSE_INIT_EXT) ? static_cast<uint32_t>(agreed_ >> 32) : 0;
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kFuseMaxWrite;
  out.max_pages = kFuseMaxPages;
  out.time_gran = 1;
  answer.append(out);
  finish(header.unique, std::move(answer));
  initialised_.set();
}

// The kernel passes on any signal of the caller. What runs goes on; only who has waited long is let
// go, so that a process that was killed does not hang with a file system that does.
void FuseSession::interrupt(uint64_t unique) {
  auto active = active_.find(unique);
  if (active == active_.end()) {
    // Nothing of it was begun.
    const auto waiter = std::find_if(aside_.begin(), aside_.end(),
                                     [unique](const FuseRequest& aside) { return aside.header.unique == unique; });
    const auto parked = std::find_if(parked_.begin(), parked_.end(),
                                     [unique](const Parked& one) { return one.request.header.unique == unique; });
    if (waiter != aside_.end()) {
      aside_.erase(waiter);
    } else if (parked != parked_.end()) {
      parked_bytes_ -= parked->memory;
      parked_.erase(parked);
      room_changed();
    } else {
      return;
    }
    finish(unique, FuseAnswer(EINTR));
    check_idle();
    return;
  }
  if (active->second.interrupted) return;
  active->second.interrupted = true;
  requests_.spawn(answer_interrupted(unique, active->second.in_line ? Nanos() : options_.interrupt_patience));
}

Task<void> FuseSession::answer_interrupted(uint64_t unique, Nanos patience) {
  bool slept = co_await requests_.token().sleep(env_.clock, patience);
  auto active = active_.find(unique);
  if (!slept || active == active_.end() || active->second.answered) co_return;
  ++let_go_;
  bytes_ -= active->second.bytes - active->second.memory;
  active->second.bytes = active->second.memory;
  set(active->second, &Active::answered, true);
  room_changed();
  (void)transport_.reply(unique, EINTR, {}, {});
}

// --- One session after another ---

Task<Result<void>> FuseSession::pause(Nanos patience) {
  HR_ASSERT(!paused_ && !putting_aside_);
  if (!initialised_.is_set()) co_return Error(Code::kUnavailable, "fuse: the kernel has yet to say hello");
  putting_aside_ = true;
  const Nanos aside_by = env_.clock.now() + kAsidePatience;
  auto seeks_lock = [](const auto& active) { return active.second.seeks_lock; };
  while (std::ranges::any_of(active_, seeks_lock) && env_.clock.now() < aside_by)
    co_await env_.clock.sleep(kNotifySlice);
  paused_ = true;
  if (!in_hand_) receiver_.emplace();  // it waited for the kernel, with nothing
  const Nanos deadline = env_.clock.now() + patience;
  while (in_hand_ || !active_.empty() || !parked_.empty() || giving_back_ > 0) {
    if (ended_.is_set() || env_.clock.now() >= deadline) {
      Error error(Code::kTimeout, "fuse: " + std::to_string(active_.size()) + " requests were not answered in time");
      resume();
      co_return error;
    }
    co_await env_.clock.sleep(milliseconds(1));
  }
  co_return Result<void>();
}

void FuseSession::resume() {
  putting_aside_ = paused_ = kernel_is_stuck_ = false;
  if (receiver_->running() == 0) receiver_->spawn(receive_all());
  start_again();
}

void FuseSession::start_again() {
  for (FuseRequest& request : std::exchange(aside_, {})) start(std::move(request), 0);
}

FuseHandover FuseSession::hand_over() const {
  HR_ASSERT(paused_ && active_.empty() && parked_.empty());
  FuseHandover out{.agreed = agreed_, .minor = minor_, .max_write = max_write_, .next_handle = next_handle_};
  for (const auto& [id, node] : nodes_)
    if (node.lookups > 0) out.nodes.push_back({id, node.lookups, node.pages, unfinished_.contains(id)});
  for (const auto& [fh, handle] : handles_) {
    const OpenMode& mode = handle->mode;
    const int bits = (mode.read ? FuseHandover::kRead : 0) | (mode.write ? FuseHandover::kWrite : 0) |
                     (mode.append ? FuseHandover::kAppend : 0) | (mode.direct ? FuseHandover::kDirect : 0) |
                     (mode.sync ? FuseHandover::kSync : 0);
    out.open.push_back(
        {fh, handle->id, static_cast<uint8_t>(bits), {handle->lock_owners.begin(), handle->lock_owners.end()}});
    if (handle->file->told_of_loss()) out.told.push_back(fh);
  }
  for (const FuseRequest& request : aside_) {
    const auto& lock = std::get<FuseLock>(request.body);
    out.waiters.push_back({request.header.unique, request.header.node, lock.fh, lock.owner, lock.lock.start,
                           lock.lock.end, lock.lock.type, lock.lock.pid, lock.lock_flags});
  }
  return out;
}

Task<Result<void>> FuseSession::go_on(FuseHandover from) {
  HR_ASSERT(!initialised_.is_set());
  if (from.minor > kFuseMinor || from.max_write > kFuseMaxWrite ||
      (from.agreed & ~(kWanted | kTrusting | kComparing)) != 0)
    co_return Error(Code::kNotSupported,
                    "a newer version agreed with the kernel on what this one does not know: unmount, and mount again");
  agreed_ = from.agreed;
  minor_ = from.minor;
  max_write_ = from.max_write;
  for (const FuseHandover::Open& open : from.open) {
    const OpenMode mode{.read = (open.mode & FuseHandover::kRead) != 0,
                        .write = (open.mode & FuseHandover::kWrite) != 0,
                        .append = (open.mode & FuseHandover::kAppend) != 0,
                        .direct = (open.mode & FuseHandover::kDirect) != 0,
                        .sync = (open.mode & FuseHandover::kSync) != 0};
    Result<OpenFileRef> file = co_await files_.open(open.file, mode);
    if (!file.ok()) co_return std::move(file).error().within("an open file");
    next_handle_ = open.handle;
    const uint64_t fh = add_handle(open.file, mode, *std::move(file));
    handles_[fh]->lock_owners = {open.lock_owners.begin(), open.lock_owners.end()};
  }
  for (const uint64_t told : from.told)
    if (const HandleRef opened = handle(told)) opened->file->forgive();
  next_handle_ = from.next_handle;
  for (const FuseHandover::Node& node : from.nodes) {
    nodes_[node.id].lookups = node.lookups;
    nodes_[node.id].pages = node.pages || node.outdated;
    nodes_[node.id].acls = agreed(FUSE_POSIX_ACL);  // it keeps them for as long as it knows the inode
  }
  for (const FuseHandover::Node& node : from.nodes)
    if (node.outdated) requests_.spawn(drop_pages(node.id));
  for (const FuseHandover::Waiter& waiter : from.waiters) {
    const FuseLock lock{.fh = waiter.handle,
                        .owner = waiter.owner,
                        .lock = {waiter.start, waiter.end, waiter.type, waiter.pid},
                        .lock_flags = waiter.flags};
    aside_.push_back({{.opcode = FUSE_SETLKW, .unique = waiter.unique, .node = waiter.file}, lock});
  }
  initialised_.set();
  co_return Result<void>();
}

// --- Invalidation ---

bool FuseSession::busy(FileId id) const {
  auto node = nodes_.find(id);
  return (node != nodes_.end() && node->second.busy > 0) || std::ranges::any_of(parked_, [id](const Parked& one) {
           return one.request.header.node == id || other_node(one.request) == id;
         });
}

Task<void> FuseSession::invalidate(FileSystem::Invalidation what) {
  auto found = nodes_.find(what.file);
  if (found == nodes_.end()) co_return;
  Node& node = found->second;
  ++node.invalidated;
  if (what.attributes || what.data) node.capability = Node::kUnknown;
  std::vector<std::string> entries;
  if (what.names) {
    for (const Node::Name& name : std::exchange(node.names, {})) {
      if (name.until < env_.clock.now()) continue;
      // A directory only expires: if it were dropped, getcwd(2) would fail below it until somebody looks it up.
      entries.push_back(entry_notification(what.file, name.name, name.directory));
    }
  }
  const bool pages = what.data && node.pages;
  if (pages || (what.attributes && (node.acls || node.attributes_until >= env_.clock.now()))) {
    if (pages) node.pages = false;
    node.attributes_until = {};
    node.acls = false;
    const uint32_t answered = node.answered_ms;
    const bool overwrites = node.overwrites;
    // Pages may have to wait until others are dropped; attributes need not.
    if (pages && notifying_ > 0) (void)co_await notify_inode(what.file, false);
    bool known = co_await notify_inode(what.file, pages);
    // An answer that is on its way is put in place after it was to be dropped: by who does not know the inode yet, or
    // does not compare (SETATTR, LINK).
    while ((!known || overwrites) && clock_ms() - answered < kInPlaceMs && !paused_) {
      co_await env_.clock.sleep(known ? milliseconds(kInPlaceMs) : kNotKnownYet);
      known = co_await notify_inode(what.file, false);
    }
  }
  if (!entries.empty()) co_await drop_names(std::move(entries), what.file);
}

std::string FuseSession::entry_notification(FileId parent, const std::string& name, bool expires) {
  const fuse_notify_inval_entry_out out{.parent = parent.packed(),
                                        .namelen = static_cast<uint32_t>(name.size()),
                                        .flags = expires ? uint32_t{FUSE_EXPIRE_ONLY} : 0};
  std::string body(reinterpret_cast<const char*>(&out), sizeof out);
  body += name;
  body += '\0';
  return body;
}

Task<bool> FuseSession::notify_inode(FileId file, bool pages) {
  fuse_notify_inval_inode_out out{.ino = file.packed(), .off = pages ? 0 : -1, .len = 0};
  std::string body(reinterpret_cast<const char*>(&out), sizeof out);
  co_return co_await notify(FUSE_NOTIFY_INVAL_INODE, {std::move(body)}, file);
}

Task<void> FuseSession::drop_pages(FileId file) {
  (void)co_await notify_inode(file, true);
}

Task<void> FuseSession::drop_names(std::vector<std::string> bodies, FileId node) {
  (void)co_await notify(FUSE_NOTIFY_INVAL_ENTRY, std::move(bodies), node);
}

uint32_t FuseSession::clock_ms() const {
  return static_cast<uint32_t>(env_.clock.now().count / 1'000'000);
}

// The kernel may need a page or directory that a request holds which waits, in the end, for whoever
// waits here. So it is not waited for long while there is such a request; the notification itself
// stays with the kernel and is done next.
Task<bool> FuseSession::notify(int code, std::vector<std::string> bodies, FileId node) {
  statistics_.invalidations += bodies.size();
  auto notification = std::make_shared<Notification>();
  Nanos start = env_.clock.now();
  // None is left out, however long it takes: the kernel may use what it has until then.
  while (notifying_ >= kMaxNotifications && !paused_ && env_.clock.now() - start <= options_.patience)
    co_await env_.clock.sleep(kNotifySlice);
  requests_.spawn(send_notifications(code, std::move(bodies), node, notification));
  if (kernel_is_stuck_) co_return true;
  for (;;) {
    bool done = co_await notification->done.wait_until(env_.clock, env_.clock.now() + kNotifySlice);
    if (done) co_return notification->known;
    if (!busy(node) && !paused_ && env_.clock.now() - start < options_.patience) continue;
    // Paused: the kernel waits for a request that nobody takes now.
    if (paused_) kernel_is_stuck_ = true;
    ++statistics_.late_invalidations;
    co_return true;
  }
}

Task<void> FuseSession::send_notifications(int code, std::vector<std::string> bodies, FileId node,
                                           std::shared_ptr<Notification> notification) {
  struct Count {
    FuseSession& session;
    FileId node;
    Count(FuseSession& s, FileId n) : session(s), node(n) {
      ++session.notifying_;
      ++session.unfinished_[node];
    }
    Count(const Count&) = delete;
    Count& operator=(const Count&) = delete;
    ~Count() {
      --session.notifying_;
      if (--session.unfinished_[node] == 0) session.unfinished_.erase(node);
      session.check_idle();
    }
  } count(*this, node);
  notification->known = co_await transport_.notify(code, std::move(bodies));
  notification->done.set();
}

}  // namespace headrace
