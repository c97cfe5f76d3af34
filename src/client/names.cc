#include "client/names.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/fault_point.h"
#include "base/file_time.h"
#include "base/posix_acl.h"

namespace headrace {

namespace {
constexpr size_t kMaxName = 255;
constexpr size_t kMaxTarget = 4095;
constexpr size_t kMaxXattr = 64 * kKiB;
constexpr size_t kMaxCachedXattr = 4 * kKiB;
constexpr int kMostLookups = 16;  // of a name whose files come and go
constexpr int64_t kNow = std::numeric_limits<int64_t>::min();

Result<void> check_name(const std::string& name) {
  if (name.size() > kMaxName) return Error(Code::kNameTooLong, "a name has at most 255 bytes");
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos)
    return Error(Code::kInvalid, "not a name: '" + name + "'");
  return {};
}

// Asked under our write grant, the partition may not have known of bytes that were dirty here; the
// grant and those bytes went while the answer was under way, so that nothing here corrects it any
// more.
struct OwnWrites {
  explicit OwnWrites(const FileState& file) : ours(file.held.kind == GrantKind::kWrite), losses(file.losses) {}
  [[nodiscard]] bool overtook(const FileState& file) const {
    return ours && (file.held.kind != GrantKind::kWrite || file.losses != losses);
  }
  bool ours;
  uint64_t losses;
};

// Without a default ACL: what the umask leaves. Symlinks have no mode to speak of.
uint32_t made_mode(const MakeOptions& options, Credentials who) {
  return options.mode & 07777 & ~(options.type == FileType::kSymlink ? 0 : who.umask & 0777);
}

Error no_such_name() {
  return Error(Code::kNotFound, "no such file or directory");
}

// Counts a request of ours in one of a file's counts while it goes on. A null file counts nothing.
class During {
 public:
  During(FileRef file, uint32_t FileState::* count) : file_(std::move(file)), count_(count) {
    if (file_ != nullptr) ++((*file_).*count_);
  }
  During(const During&) = delete;
  During& operator=(const During&) = delete;
  ~During() {
    if (file_ != nullptr) --((*file_).*count_);
  }

 private:
  FileRef file_;
  uint32_t FileState::* count_;
};

}  // namespace

// One own mutation of one name, from before it is sent until its outcome is known (or the caller
// went away).
class Names::Change {
 public:
  Change(FileTable& files, FileRef directory, std::string name)
      : directory_(std::move(directory)),
        name_(std::move(name)),
        losses_(directory_->losses),
        held_(files.readable(*directory_)) {
    DirectoryState& state = directory_->as_directory();
    DirectoryState::Changing& changing = state.changing[name_];
    if (++changing.count > 1) changing.overlapped = true;
    auto known = state.names.find(name_);
    if (known != state.names.end()) {
      was_ = known->second;
      state.names.erase(known);
    }
    files.changed(*directory_);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
  ~Change() {
    DirectoryState& state = directory_->as_directory();
    if (!known_) state.complete = false;
    auto at = state.changing.find(name_);
    if (at != state.changing.end() && --at->second.count == 0) state.changing.erase(at);
  }

  [[nodiscard]] const std::optional<CachedName>& was() const { return was_; }

  // What the name means now; nullopt: unknown. granted: the reply brought a grant on the directory.
  void done(FileTable& files, std::optional<CachedName> now, bool granted) {
    DirectoryState& state = directory_->as_directory();
    files.changed(*directory_);
    const bool overlapped = state.changing[name_].overlapped;
    if (!now || overlapped || directory_->recalling || directory_->losses != losses_ || !files.readable(*directory_) ||
        !(held_ || granted)) {
      return;
    }
    state.know(name_, *now);
    known_ = true;
  }

 private:
  bool known_ = false;
  FileRef directory_;
  std::string name_;
  uint64_t losses_;
  bool held_;
  std::optional<CachedName> was_;
};

// ---- looking ----

Task<Result<Attributes>> Names::lookup(FileId parent, std::string name) {
  FileRef directory = files_.get(parent);
  if (name == "." || name == "..") {
    HR_CO_TRY(Attributes attributes, co_await get_attributes(parent));
    if (name == "." || !attributes.parent) co_return attributes;
    co_return co_await get_attributes(attributes.parent);
  }
  HR_CO_TRY(check_name(name));
  if (directory->made_here) co_await take_new_directory(directory);
  if (files_.readable(*directory) && directory->directory != nullptr) {
    const DirectoryState& state = *directory->directory;
    if (state.lacks(name)) {
      ++directory->served;
      co_return no_such_name();
    }
    auto known = state.names.find(name);
    if (known != state.names.end()) {
      ++directory->served;
      const FileId file = known->second.file;
      Result<Attributes> attributes = co_await get_attributes(file);
      if (attributes.code() != Code::kNotFound) co_return attributes;
      // Unlinked while we asked.
    }
  }
  for (int attempt = 1;; ++attempt) {
    HR_CO_TRY(Found found, co_await lookup_there(directory, name));
    if (found.usable) co_return found.attributes;
    Result<Attributes> attributes = co_await get_attributes(found.attributes.id);
    // Gone since: what the name means by now is another matter.
    if (attributes.code() != Code::kNotFound || attempt == kMostLookups) co_return attributes;
  }
}

Task<Result<Names::Found>> Names::lookup_there(FileRef directory, std::string name) {
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(directory->id.slot()));
  GrantRequest request(session);
  const uint64_t asked = files_.asked();
  Result<EntryReply> reply = co_await sessions_.ask_under(session, Lookup{.parent = directory->id, .name = name});
  ++directory->served;
  if (!reply.ok()) {
    if (reply.code() == Code::kNotFound) files_.remember_name(*directory, name, {}, asked, false);
    co_return std::move(reply).error();
  }
  const bool granted = files_.take(directory, reply->directory_grant, nullptr, false, request, asked);
  const Attributes& found = reply->attributes;
  files_.remember_name(*directory, name, {found.id, found.type}, asked, granted);
  FileRef file = files_.get(found.id);
  files_.take(file, reply->file_grant, &found, reply->no_xattrs, request, asked);
  if (found.generation == 0 || file->unsent > 0 ||
      (!FileTable::fresh(*file, asked) && file->held.kind != GrantKind::kWrite))
    co_return Found{found, false};
  ++file->served;
  co_return Found{files_.present(*file, found), true};
}

Task<Result<CachedName>> Names::resolve(FileRef directory, std::string name) {
  if (files_.readable(*directory) && directory->directory != nullptr) {
    if (directory->directory->lacks(name)) co_return no_such_name();
    auto known = directory->directory->names.find(name);
    if (known != directory->directory->names.end()) co_return known->second;
  }
  HR_CO_TRY(Found found, co_await lookup_there(std::move(directory), std::move(name)));
  co_return CachedName{found.attributes.id, found.attributes.type};
}

Task<Result<void>> Names::protect(FileRef file) {
  if (file->opens > 0 && !file->keeps()) {
    HR_CO_TRY(co_await files_.keep_open(file));
  }
  co_return Result<void>();
}

Task<Result<Attributes>> Names::get_attributes(FileId id) {
  FileRef file = files_.get(id);
  if (files_.readable(*file) && file->attributes && (file->held.kind != GrantKind::kWrite || file->size_known))
    co_return files_.present(*file);
  for (;;) {
    HR_CO_TRY(co_await changes_.flush(file));
    HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(id.slot()));
    GrantRequest request(session);
    const uint64_t asked = files_.asked();
    const OwnWrites own(*file);
    HR_CO_TRY(EntryReply reply,
              co_await sessions_.ask_under(session, GetAttributes{.file = id, .want = GrantKind::kRead}));
    if (own.overtook(*file)) continue;
    files_.take(file, reply.file_grant, &reply.attributes, reply.no_xattrs, request, asked);
    ++file->served;
    co_return files_.present(*file, reply.attributes);
  }
}

Task<Result<ReadDirectoryReply>> Names::read_directory(FileId directory, uint64_t after, uint32_t limit, bool plus) {
  HR_CO_TRY(co_await changes_.flush(files_.get(directory)));
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(directory.slot()));
  ReadDirectory request;
  request.directory = directory;
  request.after = after;
  request.limit = limit;
  request.plus = plus;
  const uint64_t asked = files_.asked();
  HR_CO_TRY(ReadDirectoryReply reply, co_await sessions_.ask_under(session, request));
  for (DirectoryEntry& entry : reply.entries) {
    if (!entry.attributes) continue;
    FileRef file = files_.find(entry.id);
    if (file == nullptr) continue;
    if (file->unsent > 0 || (file->held.kind != GrantKind::kWrite && !FileTable::fresh(*file, asked))) {
      entry.attributes.reset();  // whoever needs them asks
      continue;
    }
    entry.attributes = files_.present(*file, *entry.attributes);
  }
  co_return reply;
}

Task<Result<std::string>> Names::read_link(FileId id) {
  FileRef file = files_.get(id);
  if (!file->link_target.empty()) co_return file->link_target;
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(id.slot()));
  HR_CO_TRY(TextReply reply, co_await sessions_.ask_under(session, GetXattr{.file = id}));
  file->link_target = reply.text;
  co_return reply.text;
}

// ---- changing ----

Task<Result<void>> Names::hold_mode(FileRef file, uint32_t mode) {
  constexpr int kMostRecalls = 10;
  for (int attempt = 0; attempt < kMostRecalls; ++attempt) {
    Result<void> acquired = co_await files_.acquire(file, GrantKind::kWrite);
    const bool none = acquired.code() == Code::kUnavailable;  // closing: then the partition's word has to do
    if (!acquired.ok() && !none) co_return acquired;
    HR_CO_TRY(Attributes now, co_await get_attributes(file->id));
    if (now.mode != mode) break;
    if (none || (files_.writable(*file) && !file->recalling)) co_return Result<void>();
  }
  co_return Error(Code::kBusy, "the mode is another one by now");
}

Task<Result<Attributes>> Names::set_attributes(FileId id, AttributeChange change) {
  FileRef file = files_.get(id);
  if (change.while_mode) {
    HR_CO_TRY(co_await hold_mode(file, *change.while_mode));
  }
  if ((change.mask & kSetAtime) != 0) file->forget_access();
  SetAttributes request;
  request.file = id;
  request.mask = change.mask;
  request.mode = change.mode;
  request.uid = change.uid;
  request.gid = change.gid;
  request.size = change.size;
  request.atime = change.atime;
  request.mtime = change.mtime;
  request.ctime = change.ctime;
  if ((change.mask & kSetSize) != 0) {
    Result<Attributes> resized = co_await data_.resize(file, request);
    if ((change.mask & kSetMode) != 0) file->xattrs.erase(std::string(kAccessAcl));
    co_return resized;
  }
  std::optional<Attributes> here = co_await set_attributes_here(file, change);
  if (here) co_return *here;
  HR_CO_TRY(co_await changes_.flush(file));
  if ((change.mask & kSetMtime) != 0) {
    if (!file->dirty.empty()) {
      // Commits carry times too: those under way come first, those to come carry the new one.
      const int64_t wall = env_.clock.wall().count;
      if (request.mtime == kNow) request.mtime = moved_to(file->mtime, wall, wall);
      co_await write_back_.settle(file);
    }
    if (request.mtime != kNow) file->mtime = request.mtime;
  }
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(id.slot()));
  files_.changed(*file);
  GrantRequest grants(session);
  const uint64_t asked = files_.asked();
  const OwnWrites own(*file);
  Result<EntryReply> reply = co_await sessions_.mutate_under(session, request);
  file->attributes.reset();  // what another operation learnt meanwhile is from before the change
  if ((change.mask & kSetMode) != 0) file->xattrs.erase(std::string(kAccessAcl));
  if (reply.ok()) files_.take(file, reply->file_grant, &reply->attributes, reply->no_xattrs, grants, asked);
  if (reply.ok() && request.mtime == kNow && file->dirty.empty()) file->mtime = reply->attributes.mtime;
  files_.bump(*file);  // what was asked before the change
  if (!reply.ok()) co_return std::move(reply).error();
  if (own.overtook(*file)) co_return co_await get_attributes(id);
  ++file->served;
  co_return files_.present(*file, reply->attributes);
}

Task<Result<Attributes>> Names::make(FileId parent, std::string name, MakeOptions options, Credentials who,
                                     Opening opening) {
  HR_CO_TRY(check_name(name));
  if (options.type == FileType::kSymlink && (options.target.empty() || options.target.size() > kMaxTarget))
    co_return Error(options.target.empty() ? Code::kNotFound : Code::kNameTooLong,
                    "a symlink's target has 1 to 4095 bytes");
  FileRef directory = files_.get(parent);
  if (options.type != FileType::kDirectory && !opening.durable) {
    std::optional<Result<Attributes>> here = co_await make_here(directory, name, options, who);
    if (here) co_return *std::move(here);
  }
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(parent.slot()));
  Change change(files_, directory, name);
  HR_CO_TRY(co_await changes_.flush(directory));
  const bool kept = opening.any && !opening.writes;
  Make request;
  request.parent = parent;
  request.name = name;
  request.type = options.type;
  request.mode = made_mode(options, who);
  request.masked = options.mode & who.umask;
  request.uid = who.uid;
  request.gid = who.gid;
  request.rdev = options.rdev;
  request.target = options.target;
  request.want_write_grant = opening.writes;
  request.keep_open = kept;
  request.want_directory_write = wants_names(*directory);
  GrantRequest grants(session);
  const uint64_t asked = files_.asked();
  Result<EntryReply> reply = co_await sessions_.mutate_under(session, std::move(request));
  if (!reply.ok()) {
    change.done(files_, std::nullopt, false);
    co_return std::move(reply).error();
  }
  const Attributes& made = reply->attributes;
  const bool granted = files_.take(directory, reply->directory_grant, nullptr, false, grants, asked);
  FileRef file = files_.get(made.id);
  const bool ours = files_.take(file, reply->file_grant, &made, reply->no_xattrs, grants, asked);
  if (ours && FileTable::fresh(*file, asked) && made.type == FileType::kDirectory) file->as_directory().now_complete();
  file->link_target = options.target;
  file->made_here = made.type == FileType::kDirectory;
  if (kept) file->kept = !session->lost;
  const bool newest = FileTable::fresh(*directory, asked);
  change.done(files_, CachedName{made.id, made.type}, granted);
  if (granted && newest && reply->directory) learn_directory(*directory, *reply);
  ++file->served;
  co_return made;
}

// The directory as it was when our own change in it was made, and no change since.
void Names::learn_directory(FileState& directory, const EntryReply& reply) {
  directory.attributes = *reply.directory;
  directory.size = directory.committed_size = reply.directory->size;
  directory.size_known = true;
  if (reply.directory_no_xattrs) directory.has_no_xattrs();
  DirectoryState& state = directory.as_directory();
  if (state.complete || state.changing.size() != 1 || reply.entries > state.names.size()) return;
  // Of many names those that are there are counted once all that are not were dropped, rather than at each change.
  if (state.absent > 0 && state.names.size() > DirectoryState::kMaxAbsent) return;
  const auto there =
      std::count_if(state.names.begin(), state.names.end(), [](const auto& name) { return bool(name.second.file); });
  if (reply.entries == static_cast<uint64_t>(there)) state.now_complete();
}

Task<Result<Attributes>> Names::make_unnamed(FileId parent, uint32_t mode, Credentials who, bool writes) {
  HR_CO_TRY(co_await changes_.flush(files_.get(parent)));  // its group may be the file's
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(parent.slot()));
  Make request;
  request.parent = parent;
  request.mode = made_mode({.mode = mode}, who);
  request.masked = mode & who.umask;
  request.uid = who.uid;
  request.gid = who.gid;
  request.want_write_grant = writes;
  request.keep_open = true;
  request.unnamed = true;
  GrantRequest grants(session);
  const uint64_t asked = files_.asked();
  HR_CO_TRY(EntryReply reply, co_await sessions_.mutate_under(session, std::move(request)));
  FileRef file = files_.get(reply.attributes.id);
  file->unnamed = true;
  files_.take(file, reply.file_grant, &reply.attributes, reply.no_xattrs, grants, asked);
  ++file->served;
  co_return reply.attributes;
}

// Dirty bytes of a file that nobody can open any more need not be written, if that is so: only its
// partition knows whether another client still has it open.
Task<void> Names::drop_if_gone(FileRef file) {
  Result<ClientSessionRef> session = co_await sessions_.of(file->id.slot());
  if (!session.ok()) co_return;
  Result<EntryReply> reply = co_await sessions_.ask_under(*session, GetAttributes{.file = file->id});
  if (reply.code() == Code::kNotFound && file->opens == 0) write_back_.drop(file, std::nullopt);
}

void Names::unlinked(FileId id, uint32_t links) {
  FileRef file = files_.find(id);
  if (file == nullptr) return;
  files_.changed(*file);
  file->nameless = links == 0;
  if (links == 0 && file->opens == 0 && !file->dirty.empty()) (void)scope_.spawn(drop_if_gone(std::move(file)));
}

Task<Result<void>> Names::unlink(FileId parent, std::string name, bool directory) {
  HR_CO_TRY(check_name(name));
  FileRef where = files_.get(parent);
  HR_CO_TRY(CachedName what, co_await resolve(where, name));
  if (!directory && unlink_here(where, name, what)) co_return Result<void>();
  FileRef file = files_.get(what.file);
  const During unlinking(file, &FileState::unlinking);
  const During locked(what.type == FileType::kDirectory ? file : nullptr, &FileState::locked);
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(parent.slot()));
  Change change(files_, where, name);
  HR_CO_TRY(co_await changes_.flush(where));
  HR_CO_TRY(co_await changes_.flush(file));
  if (!directory) {
    HR_CO_TRY(co_await protect(file));
  }
  Unlink request;
  request.parent = parent;
  request.name = name;
  request.directory = directory;
  Result<UnlinkReply> reply = co_await sessions_.mutate_under(session, std::move(request));
  if (!reply.ok()) {
    change.done(files_, std::nullopt, false);
    co_return std::move(reply).error();
  }
  change.done(files_, CachedName{}, false);
  unlinked(reply->file, reply->links);
  co_return Result<void>();
}

Task<Result<void>> Names::rename(FileSystem::RenameOptions options) {
  HR_CO_TRY(check_name(options.from_name));
  HR_CO_TRY(check_name(options.to_name));
  FileRef from = files_.get(options.from_parent);
  FileRef to = files_.get(options.to_parent);
  // Which inode moves: its times, and a directory's parent, change with it. And which one goes.
  HR_CO_TRY(CachedName moved, co_await resolve(from, options.from_name));
  Result<CachedName> there = co_await resolve(to, options.to_name);
  if (!there.ok() && there.code() != Code::kNotFound) co_return std::move(there).error();
  if (!there.ok() && options.exchange) co_return std::move(there).error();
  // One was looked at after the other: whether both are there at one time, and are the same file, the partition says.
  if (mutant("rename_looks_twice") && there.ok() && there->file == moved.file) co_return Result<void>();
  FileRef file = files_.get(moved.file);
  // What the new name has now: it goes, or changes places.
  FileRef met = there.ok() ? files_.get(there->file) : nullptr;
  const During leaving(moved.type == FileType::kDirectory ? file : nullptr, &FileState::locked);
  const During meeting(there.ok() && there->type == FileType::kDirectory ? met : nullptr, &FileState::locked);
  const During unlinking(options.exchange ? nullptr : met, &FileState::unlinking);
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(options.from_parent.slot()));
  Change leave(files_, from, options.from_name);
  Change arrive(files_, to, options.to_name);
  HR_CO_TRY(co_await changes_.flush(from));
  HR_CO_TRY(co_await changes_.flush(to));
  HR_CO_TRY(co_await changes_.flush(file));
  if (there.ok()) {
    HR_CO_TRY(co_await changes_.flush(met));
    if (!options.exchange && there->type != FileType::kDirectory) {
      HR_CO_TRY(co_await protect(met));
    }
  }
  files_.changed(*file);
  Rename request;
  request.from_parent = options.from_parent;
  request.from_name = options.from_name;
  request.to_parent = options.to_parent;
  request.to_name = options.to_name;
  request.no_replace = options.no_replace;
  request.exchange = options.exchange;
  FileRef other = options.exchange ? met : nullptr;
  if (other != nullptr) files_.changed(*other);
  Result<UnlinkReply> reply = co_await sessions_.mutate_under(session, std::move(request));
  files_.changed(*file);
  if (other != nullptr) files_.changed(*other);
  if (!reply.ok()) {
    leave.done(files_, std::nullopt, false);
    arrive.done(files_, std::nullopt, false);
    co_return std::move(reply).error();
  }
  // Another client may have put another file there between the look and the move: only what the
  // reply says is known.
  if (options.exchange) {
    leave.done(files_, std::nullopt, false);
    arrive.done(files_, std::nullopt, false);
    co_return Result<void>();
  }
  const bool sure =
      leave.was() && leave.was()->file == moved.file && reply->file == (there.ok() ? there->file : FileId());
  leave.done(files_, sure ? std::optional(CachedName{}) : std::nullopt, false);
  arrive.done(files_, sure ? std::optional(CachedName{moved.file, moved.type}) : std::nullopt, false);
  if (reply->file) unlinked(reply->file, reply->links);
  co_return Result<void>();
}

Task<Result<Attributes>> Names::link(FileId id, FileId parent, std::string name) {
  HR_CO_TRY(check_name(name));
  FileRef directory = files_.get(parent);
  FileRef file = files_.get(id);
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(parent.slot()));
  Change change(files_, directory, name);
  HR_CO_TRY(co_await changes_.flush(directory));
  HR_CO_TRY(co_await changes_.flush(file));
  files_.changed(*file);
  GrantRequest grants(session);
  const uint64_t asked = files_.asked();
  const OwnWrites own(*file);
  Result<EntryReply> reply = co_await sessions_.mutate_under(
      session, Link{.file = id, .parent = parent, .name = name, .unnamed = file->unnamed});
  if (!reply.ok()) {
    files_.changed(*file);
    change.done(files_, std::nullopt, false);
    co_return std::move(reply).error();
  }
  const bool granted = files_.take(directory, reply->directory_grant, nullptr, false, grants, asked);
  file->attributes.reset();  // what another operation learnt meanwhile is from before the change
  file->unnamed = file->nameless = false;
  files_.take(file, reply->file_grant, &reply->attributes, reply->no_xattrs, grants, asked);
  files_.bump(*file);
  const FileType type = reply->attributes.type;
  change.done(files_, CachedName{id, type}, granted);
  if (reply->attributes.generation == 0 || own.overtook(*file)) {
    files_.changed(*file);
    co_return co_await get_attributes(id);
  }
  ++file->served;
  co_return files_.present(*file, reply->attributes);
}

// ---- here: answered before the partition does ----

int64_t Names::now() {
  time_ = std::max(time_ + 1, env_.clock.wall().count);
  return time_;
}

bool Names::writes_names(const FileState& directory) const {
  return options_.directory_write_grants && !read_only() && files_.writable(directory) && !directory.recalling &&
         directory.attributes && directory.size_known && directory.unlinking == 0 && directory.directory != nullptr;
}

bool Names::writes_attributes(const FileState& file) const {
  return options_.directory_write_grants && !read_only() && files_.writable(file) && !file.recalling &&
         file.attributes && file.size_known;
}

bool Names::wants_names(const FileState& directory) const {
  const bool contended =
      directory.write_recalled_at.count != 0 && env_.clock.now() < directory.write_recalled_at + options_.backoff;
  return options_.directory_write_grants && !contended;
}

bool Names::lacks_acl(const FileState& file, std::string_view name) {
  if (file.acls_changing > 0) return false;
  auto known = file.xattrs.find(std::string(name));
  return known == file.xattrs.end() ? file.no_xattrs : !known->second;
}

void Names::forget_xattr(FileState& file, const std::string& name) {
  if (file.no_xattrs) {
    file.xattrs.try_emplace(std::string(kAccessAcl));
    file.xattrs.try_emplace(std::string(kDefaultAcl));
  }
  file.no_xattrs = false;
  file.xattrs.erase(name);
}

void Names::touch_directory(const FileRef& directory, int64_t time) {
  Attributes& a = *directory->attributes;
  a.mtime = moved_to(a.mtime, time, time);
  a.ctime = moved_to(a.ctime, time, time);
  ++a.change;
  files_.bump(*directory);
  ++directory->served;
}

Task<void> Names::take_new_directory(FileRef directory) {
  directory->made_here = false;
  if (!wants_names(*directory)) co_return;
  // Refused: whoever goes on asks the partition.
  (void)co_await files_.acquire(std::move(directory), GrantKind::kWrite);
}

Task<Result<void>> Names::reserve_files(ClientSessionRef session) {
  constexpr uint32_t kMostFiles = 8192;
  Mutex::Guard guard = co_await session->reserving_files.lock();
  if (session->end_file - session->next_file > session->reserve_files_next / 4) co_return Result<void>();
  HR_CO_TRY(ReserveFilesReply reply,
            co_await sessions_.ask_under(session, ReserveFiles{.count = session->reserve_files_next}));
  if (session->lost || reply.count == 0) co_return Error(Code::kStale, "the session has ended");
  // What is left of the old ones is never given: ids are many.
  session->next_file = reply.first;
  session->end_file = reply.first + reply.count;
  session->generation = reply.generation;
  session->reserve_files_next = std::min(session->reserve_files_next * 2, kMostFiles);
  co_return Result<void>();
}

Task<void> Names::reserve_more_files(ClientSessionRef session) {
  (void)co_await reserve_files(std::move(session));
}

Task<std::optional<Result<Attributes>>> Names::make_here(FileRef directory, const std::string& name,
                                                         const MakeOptions& options, Credentials who) {
  using Answer = std::optional<Result<Attributes>>;
  if (directory->made_here) co_await take_new_directory(directory);
  for (int attempt = 0; attempt < 5; ++attempt) {
    if (!writes_names(*directory)) co_return std::nullopt;
    if (!changes_.admits()) {
      Result<void> admitted = co_await changes_.admit();
      if (!admitted.ok()) co_return Answer(std::move(admitted).error());
      continue;
    }
    DirectoryState& state = *directory->directory;
    if (state.changing.contains(name)) co_return std::nullopt;
    auto known = state.names.find(name);
    if (known == state.names.end() && !state.complete) {
      Result<Found> found = co_await lookup_there(directory, name);
      if (!found.ok() && found.code() != Code::kNotFound) co_return std::nullopt;
      continue;
    }
    if (known != state.names.end() && known->second.file) co_return Answer(Error(Code::kExists, "the name exists"));
    // What it inherits the partition knows.
    if (options.type != FileType::kSymlink && !lacks_acl(*directory, kDefaultAcl)) {
      Result<std::string> acl = co_await get_xattr(directory->id, std::string(kDefaultAcl));
      if (acl.code() != Code::kNoAttribute) co_return std::nullopt;
      continue;
    }
    const ClientSessionRef session = directory->session;
    if (session->claims_under_way()) co_return std::nullopt;  // the file's grant would not be among them
    if (session->next_file == session->end_file) {
      Result<void> reserved = co_await reserve_files(session);
      if (!reserved.ok()) co_return std::nullopt;
      continue;
    }
    // From here on nothing may come in between.
    const FileId id(directory->id.slot(), session->next_file++);
    if (session->end_file - session->next_file == session->reserve_files_next / 8)
      scope_.spawn(reserve_more_files(session));
    const int64_t time = now();
    const Attributes& parent = *directory->attributes;
    Attributes made;
    made.id = id;
    made.generation = session->generation;
    made.type = options.type;
    made.mode = made_mode(options, who);
    made.uid = who.uid;
    made.gid = (parent.mode & S_ISGID) != 0 ? parent.gid : who.gid;
    made.links = 1;
    made.size = options.target.size();
    made.rdev = options.rdev;
    made.atime = made.mtime = made.ctime = made.btime = time;
    made.change = 0;
    FileRef file = files_.get(id);
    const GrantId grant(env_.random.nonzero());
    files_.adopt(file, session, grant, made);
    file->link_target = options.target;
    NameChange change;
    change.kind = NameChangeKind::kMake;
    change.directory = directory->id;
    change.directory_grant = directory->held.id;
    change.name = name;
    change.file = id;
    change.file_grant = grant;
    change.time = time;
    change.type = made.type;
    change.mode = made.mode;
    change.uid = made.uid;
    change.gid = made.gid;
    change.rdev = made.rdev;
    change.atime = change.mtime = change.ctime = time;
    change.target = options.target;
    changes_.add(session, std::move(change), directory, file);
    state.names[name] = {id, made.type};
    touch_directory(directory, time);
    co_return Answer(made);
  }
  co_return std::nullopt;
}

bool Names::unlink_here(const FileRef& directory, const std::string& name, CachedName what) {
  if (what.type == FileType::kDirectory || !writes_names(*directory) || !changes_.admits()) return false;
  DirectoryState& state = *directory->directory;
  auto known = state.names.find(name);
  if (state.changing.contains(name) || known == state.names.end() || known->second.file != what.file) return false;
  FileRef file = files_.find(what.file);
  if (file == nullptr || !writes_attributes(*file) || file->session != directory->session) return false;
  Attributes& a = *file->attributes;
  if (a.links == 0) return false;
  const bool last = a.links == 1;
  // It has to be kept by the partition first.
  if (last && file->opens > 0 && !file->kept) return false;
  const int64_t time = now();
  if (last && file->opens == 0 && changes_.take_back(file)) {
    write_back_.drop(file, std::nullopt);
    files_.disown(*file);
    state.know(name, {});
    touch_directory(directory, time);
    changes_.touch(directory);
    return true;
  }
  NameChange change;
  change.kind = NameChangeKind::kUnlink;
  change.directory = directory->id;
  change.directory_grant = directory->held.id;
  change.name = name;
  change.file = what.file;
  change.file_grant = file->held.id;
  change.time = time;
  changes_.add(file->session, std::move(change), directory, file);
  state.know(name, {});
  --a.links;
  a.ctime = moved_to(a.ctime, time, time);
  ++a.change;
  touch_directory(directory, time);
  if (last && !file->dirty.empty()) changes_.hurry(file);  // it need not be written then
  return true;
}

Task<std::optional<Attributes>> Names::set_attributes_here(FileRef file, AttributeChange change) {
  // An access ACL changes with the mode: nobody changes extended attributes but the partition.
  auto possible = [&] {
    return writes_attributes(*file) && ((change.mask & kSetMode) == 0 || lacks_acl(*file, kAccessAcl));
  };
  if (!possible() || !changes_.admits()) co_return std::nullopt;
  const bool sets_mtime = (change.mask & kSetMtime) != 0;
  if (sets_mtime && !file->dirty.empty() && !file->unborn) {
    // Commits carry times too: those under way come first, those to come carry the new one.
    co_await write_back_.settle(file);
    if (!possible()) co_return std::nullopt;
  }
  // From here on nothing may come in between.
  const int64_t time = now();
  auto wanted = [time](int64_t given) { return given == kNow ? time : given; };
  Attributes& a = *file->attributes;
  if ((change.mask & kSetMode) != 0) a.mode = change.mode & 07777;
  if ((change.mask & kSetUid) != 0) a.uid = change.uid;
  if ((change.mask & kSetGid) != 0) a.gid = change.gid;
  if ((change.mask & kSetAtime) != 0) a.atime = wanted(change.atime);
  if (sets_mtime) {
    a.mtime = wanted(change.mtime);
    if (change.mtime == kNow && !file->dirty.empty()) a.mtime = moved_to(file->mtime, a.mtime, time);
    file->mtime = a.mtime;
  }
  a.ctime = (change.mask & kSetCtime) != 0 ? wanted(change.ctime) : moved_to(a.ctime, time, time);
  ++a.change;
  UnsentRef making = file->making.lock();
  if (making != nullptr && !making->taken) {
    NameChange& make = making->change;
    make.mode = a.mode;
    make.uid = a.uid;
    make.gid = a.gid;
    make.atime = a.atime;
    make.mtime = a.mtime;
    make.ctime = a.ctime;
    files_.bump(*file);
  } else {
    NameChange set;
    set.kind = NameChangeKind::kSetAttributes;
    set.file = file->id;
    set.file_grant = file->held.id;
    set.time = time;
    set.mask = change.mask;
    set.mode = a.mode;
    set.uid = a.uid;
    set.gid = a.gid;
    set.atime = a.atime;
    set.mtime = a.mtime;
    set.ctime = a.ctime;
    changes_.add(file->session, std::move(set), nullptr, file);
  }
  ++file->served;
  co_return files_.present(*file);
}

// ---- extended attributes ----

Task<Result<std::string>> Names::get_xattr(FileId id, std::string name) {
  if (name.empty() || name.size() > kMaxName) co_return Error(Code::kRange, "an attribute's name has 1 to 255 bytes");
  FileRef file = files_.get(id);
  if (files_.readable(*file)) {
    auto known = file->xattrs.find(name);
    if (known != file->xattrs.end() && known->second) co_return *known->second;
    if (known != file->xattrs.end() || file->no_xattrs) co_return Error(Code::kNoAttribute, "no such attribute");
  }
  HR_CO_TRY(co_await changes_.flush(file));
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(id.slot()));
  const uint64_t asked = files_.asked();
  Result<TextReply> reply = co_await sessions_.ask_under(session, GetXattr{.file = id, .name = name});
  const bool remember = files_.may_remember(*file, asked) && (file->xattrs.size() < 64 || is_acl(name));
  if (!reply.ok()) {
    if (reply.code() == Code::kNoAttribute && remember) file->xattrs[name] = std::nullopt;
    co_return std::move(reply).error();
  }
  if (remember && reply->text.size() <= kMaxCachedXattr) file->xattrs[name] = reply->text;
  co_return std::move(reply->text);
}

Task<Result<void>> Names::set_xattr(FileId id, SetXattr request) {
  if (request.name.empty() || request.name.size() > kMaxName)
    co_return Error(Code::kRange, "an attribute's name has 1 to 255 bytes");
  if (request.value.size() > kMaxXattr) co_return Error(Code::kTooLarge, "an attribute has at most 64 KiB");
  FileRef file = files_.get(id);
  const During changing(is_acl(request.name) ? file : nullptr, &FileState::acls_changing);
  HR_CO_TRY(co_await changes_.flush(file));
  files_.changed(*file);
  request.file = id;
  const std::string name = request.name;
  Result<Empty> reply = co_await sessions_.mutate(id.slot(), std::move(request));
  forget_xattr(*file, name);
  files_.changed(*file);
  if (!reply.ok()) co_return std::move(reply).error();
  co_return Result<void>();
}

Task<Result<std::vector<std::string>>> Names::list_xattr(FileId id) {
  FileRef file = files_.get(id);
  if (files_.readable(*file) && file->no_xattrs) co_return std::vector<std::string>();
  HR_CO_TRY(co_await changes_.flush(file));
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(id.slot()));
  const uint64_t asked = files_.asked();
  HR_CO_TRY(ListXattrReply reply, co_await sessions_.ask_under(session, ListXattr{.file = id}));
  if (reply.names.empty() && files_.may_remember(*file, asked)) {
    file->no_xattrs = true;
    file->xattrs.clear();
  }
  co_return std::move(reply.names);
}

Task<Result<void>> Names::remove_xattr(FileId id, std::string name) {
  FileRef file = files_.get(id);
  HR_CO_TRY(co_await changes_.flush(file));
  files_.changed(*file);
  Result<Empty> reply = co_await sessions_.mutate(id.slot(), RemoveXattr{.file = id, .name = name});
  file->xattrs.erase(name);
  files_.changed(*file);
  if (!reply.ok()) co_return std::move(reply).error();
  co_return Result<void>();
}

}  // namespace headrace
