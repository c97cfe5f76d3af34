#include "gateway/fuse/memory_file_system.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "base/posix_acl.h"

namespace headrace {

namespace {
constexpr uint64_t kTotal = 64 * kGiB;
Error absent() {
  return Error(Code::kNotFound, "no such file");
}

std::optional<PosixAcl> acl_of(const std::map<std::string, std::string>& xattrs, std::string_view name) {
  auto found = xattrs.find(std::string(name));
  return found == xattrs.end() ? std::nullopt : *PosixAcl::decode(found->second);
}
}  // namespace

class MemoryFileSystem::Opened final : public OpenFile {
 public:
  Opened(MemoryFileSystem& files, InodeRef inode, OpenMode mode)
      : files_(files), inode_(std::move(inode)), mode_(mode) {
    ++inode_->opened;
    ++files_.open_files_;
  }
  ~Opened() override {
    --inode_->opened;
    --files_.open_files_;
    files_.reclaim(*inode_);
  }
  [[nodiscard]] FileId id() const override { return inode_->attributes.id; }
  [[nodiscard]] Inode& inode() { return *inode_; }
  [[nodiscard]] const OpenMode& mode() const { return mode_; }
  [[nodiscard]] bool told_of_loss() const override { return told_ != 0 && told_ == inode_->lost; }
  void forgive() override { told_ = inode_->lost; }

 private:
  MemoryFileSystem& files_;
  InodeRef inode_;
  OpenMode mode_;
  uint64_t told_ = 0;
};

MemoryFileSystem::MemoryFileSystem(Clock& clock) : clock_(clock) {
  auto root = std::make_shared<Inode>();
  root->attributes = {
      .id = kRootFile, .generation = 1, .type = FileType::kDirectory, .mode = 0755, .links = 2, .parent = kRootFile};
  root->attributes.atime = root->attributes.mtime = root->attributes.ctime = root->attributes.btime = now();
  inodes_.emplace(kRootFile, root);
  reads_may_go_.set();
}

int64_t MemoryFileSystem::now() {
  last_time_ = std::max(last_time_ + 1, clock_.wall().count);
  return last_time_;
}

void MemoryFileSystem::touch(Inode& inode, bool data) {
  Attributes& attributes = inode.attributes;
  attributes.ctime = now();
  if (data) attributes.mtime = attributes.ctime;
  ++attributes.change;
}

Result<MemoryFileSystem::InodeRef> MemoryFileSystem::inode(FileId id) {
  auto found = inodes_.find(id);
  if (found == inodes_.end()) return absent();
  return found->second;
}

Result<MemoryFileSystem::InodeRef> MemoryFileSystem::directory(FileId id) {
  HR_TRY(InodeRef found, inode(id));
  if (found->attributes.type != FileType::kDirectory) return Error(Code::kNotDirectory, "not a directory");
  if (found->attributes.links == 0) return absent();
  return found;
}

Result<MemoryFileSystem::InodeRef> MemoryFileSystem::child(const Inode& parent, const std::string& name) {
  auto found = parent.names.find(name);
  if (found == parent.names.end()) return absent();
  return inode(found->second.id);
}

void MemoryFileSystem::insert(Inode& parent, const std::string& name, FileId id) {
  uint64_t cookie = next_cookie_++;
  parent.names[name] = {id, cookie};
  parent.cookies[cookie] = name;
  touch(parent, true);
}

void MemoryFileSystem::erase(Inode& parent, const std::string& name) {
  auto found = parent.names.find(name);
  parent.cookies.erase(found->second.cookie);
  parent.names.erase(found);
  touch(parent, true);
}

void MemoryFileSystem::drop_link(Inode& inode) {
  if (inode.attributes.type == FileType::kDirectory) {
    inode.attributes.links = 0;
  } else {
    --inode.attributes.links;
  }
  touch(inode, false);
  reclaim(inode);
}

void MemoryFileSystem::reclaim(Inode& inode) {
  if (inode.attributes.links == 0 && inode.opened == 0) inodes_.erase(inode.attributes.id);
}

Result<MemoryFileSystem::InodeRef> MemoryFileSystem::add(FileId parent_id, const std::string& name,
                                                         const MakeOptions& options, Credentials who) {
  HR_TRY(InodeRef parent, directory(parent_id));
  if (parent->names.contains(name)) return Error(Code::kExists, "exists");
  InodeRef made = new_inode(*parent, options, who);
  insert(*parent, name, made->attributes.id);
  if (options.type == FileType::kDirectory) ++parent->attributes.links;
  return made;
}

MemoryFileSystem::InodeRef MemoryFileSystem::new_inode(const Inode& parent, const MakeOptions& options,
                                                       Credentials who) {
  auto made = std::make_shared<Inode>();
  Attributes& attributes = made->attributes;
  // Slots spread, so that ids use all of their 64 bits.
  attributes.id = FileId(Slot(static_cast<uint16_t>(next_local_ * 40503)), next_local_);
  ++next_local_;
  bool is_directory = options.type == FileType::kDirectory;
  bool inherits = (parent.attributes.mode & S_ISGID) != 0;
  attributes.generation = 1;
  attributes.type = options.type;
  attributes.mode = options.mode | (is_directory && inherits ? uint32_t{S_ISGID} : 0);
  std::optional<PosixAcl> acl = acl_of(parent.xattrs, kDefaultAcl);
  if (acl && options.type != FileType::kSymlink) {
    if (is_directory) made->xattrs[std::string(kDefaultAcl)] = acl->encode();
    acl->limit(attributes.mode);
    attributes.mode = acl->in_mode(attributes.mode);
    if (!acl->is_mode()) made->xattrs[std::string(kAccessAcl)] = acl->encode();
  } else {
    attributes.mode &= ~who.umask;
  }
  attributes.uid = who.uid;
  attributes.gid = inherits ? parent.attributes.gid : who.gid;
  attributes.links = is_directory ? 2 : 1;
  attributes.size = options.target.size();
  attributes.rdev = options.rdev;
  attributes.parent = is_directory ? parent.attributes.id : FileId();
  attributes.atime = attributes.mtime = attributes.ctime = attributes.btime = now();
  made->target = options.target;
  inodes_.emplace(attributes.id, made);
  return made;
}

// --- Names ---

Task<Result<Attributes>> MemoryFileSystem::lookup(FileId parent, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(parent));
  HR_CO_TRY(InodeRef found, child(*in, name));
  co_return found->attributes;
}

Task<Result<Attributes>> MemoryFileSystem::make(FileId parent, std::string name, MakeOptions options, Credentials who) {
  co_await yield();
  HR_CO_TRY(InodeRef made, add(parent, name, options, who));
  co_return made->attributes;
}

Task<Result<FileSystem::Created>> MemoryFileSystem::create(FileId parent, std::string name, uint32_t mode,
                                                           OpenMode open, Credentials who) {
  co_await yield();
  if (found_taken_ > 0) {
    --found_taken_;
    co_return Error(Code::kExists, "somebody's, who has removed it again");
  }
  HR_CO_TRY(InodeRef made, add(parent, name, {.type = FileType::kFile, .mode = mode, .rdev = 0, .target = {}}, who));
  co_return Created{made->attributes, opened(made, open)};
}

Task<Result<FileSystem::Created>> MemoryFileSystem::create_unnamed(FileId parent, uint32_t mode, OpenMode open,
                                                                   Credentials who) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(parent));
  InodeRef made = new_inode(*in, {.type = FileType::kFile, .mode = mode, .rdev = 0, .target = {}}, who);
  made->attributes.links = 0;
  co_return Created{made->attributes, opened(made, open)};
}

Task<Result<void>> MemoryFileSystem::unlink(FileId parent, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(parent));
  HR_CO_TRY(InodeRef found, child(*in, name));
  if (found->attributes.type == FileType::kDirectory) co_return Error(Code::kIsDirectory, "is a directory");
  erase(*in, name);
  drop_link(*found);
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::remove_directory(FileId parent, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(parent));
  HR_CO_TRY(InodeRef found, child(*in, name));
  if (found->attributes.type != FileType::kDirectory) co_return Error(Code::kNotDirectory, "not a directory");
  if (!found->names.empty()) co_return Error(Code::kNotEmpty, "not empty");
  erase(*in, name);
  --in->attributes.links;
  drop_link(*found);
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::rename(RenameOptions options) {
  co_await yield();
  if (hold_changes_) co_await reads_may_go_.wait();
  HR_CO_TRY(InodeRef from, directory(options.from_parent));
  HR_CO_TRY(InodeRef to, directory(options.to_parent));
  HR_CO_TRY(InodeRef moved, child(*from, options.from_name));
  bool is_directory = moved->attributes.type == FileType::kDirectory;
  if (is_directory) {
    for (InodeRef up = to;;) {
      if (up == moved) co_return Error(Code::kInvalid, "a directory into itself");
      if (up->attributes.id == kRootFile) break;
      HR_CO_TRY(up, inode(up->attributes.parent));
    }
  }
  Result<InodeRef> replaced = child(*to, options.to_name);
  if (replaced.ok()) {
    if (options.no_replace) co_return Error(Code::kExists, "exists");
    Inode& old = **replaced;
    if (&old == moved.get()) co_return Result<void>();
    bool old_is_directory = old.attributes.type == FileType::kDirectory;
    if (options.exchange) {
      erase(*from, options.from_name);
      erase(*to, options.to_name);
      insert(*from, options.from_name, old.attributes.id);
      insert(*to, options.to_name, moved->attributes.id);
      from->attributes.links += old_is_directory ? 1 : 0;
      from->attributes.links -= is_directory ? 1 : 0;
      to->attributes.links += is_directory ? 1 : 0;
      to->attributes.links -= old_is_directory ? 1 : 0;
      if (is_directory) moved->attributes.parent = to->attributes.id;
      if (old_is_directory) old.attributes.parent = from->attributes.id;
      touch(*moved, false);
      touch(old, false);
      co_return Result<void>();
    }
    if (old_is_directory && !is_directory) co_return Error(Code::kIsDirectory, "is a directory");
    if (!old_is_directory && is_directory) co_return Error(Code::kNotDirectory, "not a directory");
    if (old_is_directory && !old.names.empty()) co_return Error(Code::kNotEmpty, "not empty");
    erase(*to, options.to_name);
    if (old_is_directory) --to->attributes.links;
    drop_link(old);
  }
  if (options.exchange) co_return absent();
  erase(*from, options.from_name);
  insert(*to, options.to_name, moved->attributes.id);
  if (is_directory) {
    --from->attributes.links;
    ++to->attributes.links;
    moved->attributes.parent = to->attributes.id;
  }
  touch(*moved, false);
  co_return Result<void>();
}

Task<Result<Attributes>> MemoryFileSystem::link(FileId file, FileId parent, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(parent));
  HR_CO_TRY(InodeRef found, inode(file));
  if (found->attributes.type == FileType::kDirectory) co_return Error(Code::kNotPermitted, "a directory");
  if (in->names.contains(name)) co_return Error(Code::kExists, "exists");
  insert(*in, name, file);
  ++found->attributes.links;
  touch(*found, false);
  co_return found->attributes;
}

Task<Result<std::string>> MemoryFileSystem::read_link(FileId file) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  if (found->attributes.type != FileType::kSymlink) co_return Error(Code::kInvalid, "not a symlink");
  co_return found->target;
}

Task<Result<ReadDirectoryReply>> MemoryFileSystem::read_directory(FileId id, uint64_t after, uint32_t limit,
                                                                  bool plus) {
  co_await yield();
  HR_CO_TRY(InodeRef in, directory(id));
  ReadDirectoryReply reply;
  auto next = in->cookies.upper_bound(after);
  for (; next != in->cookies.end() && reply.entries.size() < limit; ++next) {
    HR_CO_TRY(InodeRef found, child(*in, next->second));
    DirectoryEntry entry{.name = next->second,
                         .id = found->attributes.id,
                         .type = found->attributes.type,
                         .cookie = next->first,
                         .attributes = {}};
    if (plus) entry.attributes = found->attributes;
    reply.entries.push_back(std::move(entry));
  }
  reply.end = next == in->cookies.end();
  reply.last = next_cookie_ - 1;
  co_return reply;
}

// --- Attributes ---

Task<Result<Attributes>> MemoryFileSystem::get_attributes(FileId file) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  co_return found->attributes;
}

Task<Result<Attributes>> MemoryFileSystem::set_attributes(FileId file, AttributeChange change) {
  constexpr int64_t kNow = std::numeric_limits<int64_t>::min();
  co_await yield();
  if (hold_changes_) co_await reads_may_go_.wait();
  HR_CO_TRY(InodeRef found, inode(file));
  Attributes& attributes = found->attributes;
  if (change.while_mode && *change.while_mode != attributes.mode) co_return Error(Code::kBusy, "another mode");
  if ((change.mask & kSetSize) != 0) {
    if (attributes.type != FileType::kFile) co_return Error(Code::kInvalid, "not a file");
    resize(*found, change.size);
    touch(*found, true);
  }
  if ((change.mask & kSetMode) != 0) {
    attributes.mode = change.mode;
    if (std::optional<PosixAcl> acl = acl_of(found->xattrs, kAccessAcl)) {
      acl->set_mode(change.mode);
      found->xattrs[std::string(kAccessAcl)] = acl->encode();
    }
  }
  if ((change.mask & kSetUid) != 0) attributes.uid = change.uid;
  if ((change.mask & kSetGid) != 0) attributes.gid = change.gid;
  if ((change.mask & kSetAtime) != 0) attributes.atime = change.atime == kNow ? now() : change.atime;
  if ((change.mask & kSetMtime) != 0) attributes.mtime = change.mtime == kNow ? now() : change.mtime;
  touch(*found, false);
  co_return attributes;
}

Task<Result<std::string>> MemoryFileSystem::get_xattr(FileId file, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  auto value = found->xattrs.find(name);
  if (value == found->xattrs.end()) co_return Error(Code::kNoAttribute, "no such attribute");
  co_return value->second;
}

Task<Result<void>> MemoryFileSystem::set_xattr(FileId file, std::string name, std::string value, XattrOptions options) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  bool there = found->xattrs.contains(name);
  if (options.must_create && there) co_return Error(Code::kExists, "exists");
  if (options.must_replace && !there) co_return Error(Code::kNoAttribute, "no such attribute");
  if (name == kAccessAcl) {
    HR_CO_TRY(std::optional<PosixAcl> acl, PosixAcl::decode(value));
    uint32_t& mode = found->attributes.mode;
    mode = acl->in_mode(mode);
    if (options.clear_setgid) mode &= ~uint32_t{S_ISGID};
    if (acl->is_mode()) {
      found->xattrs.erase(name);
      touch(*found, false);
      co_return Result<void>();
    }
  }
  found->xattrs[name] = std::move(value);
  touch(*found, false);
  co_return Result<void>();
}

Task<Result<std::vector<std::string>>> MemoryFileSystem::list_xattr(FileId file) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  std::vector<std::string> names;
  for (const auto& [name, value] : found->xattrs) names.push_back(name);
  co_return names;
}

Task<Result<void>> MemoryFileSystem::remove_xattr(FileId file, std::string name) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  if (found->xattrs.erase(name) == 0) co_return Error(Code::kNoAttribute, "no such attribute");
  touch(*found, false);
  co_return Result<void>();
}

// --- Data ---

OpenFileRef MemoryFileSystem::opened(InodeRef inode, OpenMode mode) {
  return std::make_shared<Opened>(*this, std::move(inode), mode);
}

void MemoryFileSystem::clear(Inode& inode, uint64_t offset, uint64_t length) {
  uint64_t end = offset + length;
  for (auto piece = inode.pieces.lower_bound(round_down(offset, kPiece));
       piece != inode.pieces.end() && piece->first < end;) {
    uint64_t from = std::max(offset, piece->first) - piece->first;
    uint64_t to = std::min(end, piece->first + kPiece) - piece->first;
    if (from == 0 && to == kPiece) {
      piece = inode.pieces.erase(piece);
      continue;
    }
    Buffer changed = Buffer::copy_of(piece->second.view());  // readers may hold the old one
    std::memset(changed.data() + from, 0, to - from);
    piece->second = std::move(changed);
    ++piece;
  }
  inode.attributes.bytes = inode.pieces.size() * kPiece;
}

void MemoryFileSystem::resize(Inode& inode, uint64_t size) {
  uint64_t old = inode.attributes.size;
  if (size < old) clear(inode, size, round_up(old, kPiece) - size);
  inode.attributes.size = size;
}

void MemoryFileSystem::put(Inode& inode, uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    uint64_t start = round_down(offset, kPiece);
    size_t part = std::min<size_t>(bytes.size(), start + kPiece - offset);
    auto found = inode.pieces.find(start);
    Buffer changed = found == inode.pieces.end() ? Buffer::zeroed(kPiece) : Buffer::copy_of(found->second.view());
    std::memcpy(changed.data() + (offset - start), bytes.data(), part);
    inode.pieces[start] = std::move(changed);
    offset += part;
    bytes = bytes.subspan(part);
    inode.attributes.size = std::max(inode.attributes.size, offset);
  }
  inode.attributes.bytes = inode.pieces.size() * kPiece;
}

Task<Result<OpenFileRef>> MemoryFileSystem::open(FileId file, OpenMode mode) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  if (mode.truncate) {
    resize(*found, 0);
    touch(*found, true);
  }
  co_return opened(found, mode);
}

Task<Result<std::vector<Buffer>>> MemoryFileSystem::read(OpenFileRef file, uint64_t offset, uint64_t length) {
  co_await yield();
  ++waiting_reads_;
  co_await reads_may_go_.wait();
  --waiting_reads_;
  const auto* open = static_cast<Opened*>(file.get());
  if (!open->mode().read) co_return Error(Code::kInvalid, "read of a file that is open for writing alone");
  Inode& inode = static_cast<Opened*>(file.get())->inode();
  std::vector<Buffer> pieces;
  uint64_t end = std::min(inode.attributes.size, offset + length);
  while (offset < end) {
    uint64_t start = round_down(offset, kPiece);
    uint64_t part = std::min(end, start + kPiece) - offset;
    auto found = inode.pieces.find(start);
    pieces.push_back(found == inode.pieces.end() ? Buffer::zeroed(part) : found->second.slice(offset - start, part));
    offset += part;
  }
  co_return pieces;
}

Task<Result<uint64_t>> MemoryFileSystem::write(OpenFileRef file, uint64_t offset, Buffer data) {
  co_await yield();
  auto* open = static_cast<Opened*>(file.get());
  if (!open->mode().write) co_return Error(Code::kInvalid, "write to a file that is open for reading alone");
  Inode& inode = open->inode();
  if (open->mode().append) offset = inode.attributes.size;
  put(inode, offset, data.view());
  touch(inode, true);
  co_return data.size();
}

Task<Result<void>> MemoryFileSystem::sync(FileId file) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  ++syncs_;
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::sync(OpenFileRef file) {
  HR_CO_TRY(co_await sync(file->id()));
  auto* opened = static_cast<Opened*>(file.get());
  const bool told = opened->inode().lost == 0 || opened->told_of_loss();
  opened->forgive();
  if (!told) co_return Error(Code::kIo, "lost");
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::punch(OpenFileRef file, uint64_t offset, uint64_t length) {
  co_await yield();
  Inode& inode = static_cast<Opened*>(file.get())->inode();
  clear(inode, offset, length);
  touch(inode, true);
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::grow(OpenFileRef file, uint64_t size) {
  co_await yield();
  Inode& inode = static_cast<Opened*>(file.get())->inode();
  if (size <= inode.attributes.size) co_return Result<void>();
  resize(inode, size);
  touch(inode, true);
  co_return Result<void>();
}

Task<Result<uint64_t>> MemoryFileSystem::seek(OpenFileRef file, uint64_t offset, bool hole) {
  co_await yield();
  const Inode& inode = static_cast<Opened*>(file.get())->inode();
  for (uint64_t at = offset; at < inode.attributes.size; at = round_down(at, kPiece) + kPiece) {
    if (inode.pieces.contains(round_down(at, kPiece)) != hole) co_return at;
  }
  if (hole && offset < inode.attributes.size) co_return inode.attributes.size;
  co_return Error(Code::kNotFound, "nothing behind it");
}

// Coarser than POSIX: a change replaces the owner's overlapping locks whole.
Task<Result<bool>> MemoryFileSystem::lock(FileId file, FileLock lock, Nanos wait) {
  Nanos until = clock_.now() + wait;
  struct Count {
    uint64_t& count;
    explicit Count(uint64_t& c) : count(++c) {}
    Count(const Count&) = delete;
    Count& operator=(const Count&) = delete;
    ~Count() { --count; }
  } waiting(waiting_locks_);
  for (;;) {
    HR_CO_TRY(std::optional<FileLock> other, co_await find_lock(file, lock));
    if (!other) break;
    if (clock_.now() >= until) co_return false;
    co_await clock_.sleep(milliseconds(5));
  }
  HR_CO_TRY(InodeRef found, inode(file));
  std::erase_if(found->locks, [&lock](const FileLock& held) {
    return held.owner == lock.owner && held.whole == lock.whole && held.begin < lock.end && lock.begin < held.end;
  });
  if (lock.kind != LockKind::kUnlock) found->locks.push_back(lock);
  co_return true;
}

Task<Result<std::optional<FileLock>>> MemoryFileSystem::find_lock(FileId file, FileLock lock) {
  co_await yield();
  HR_CO_TRY(InodeRef found, inode(file));
  for (const FileLock& held : found->locks) {
    bool exclusive = held.kind == LockKind::kExclusive || lock.kind == LockKind::kExclusive;
    bool apart = held.end <= lock.begin || lock.end <= held.begin;
    if (lock.kind != LockKind::kUnlock && exclusive && !apart && held.owner != lock.owner && held.whole == lock.whole)
      co_return held;
  }
  co_return std::optional<FileLock>();
}

Task<Result<void>> MemoryFileSystem::unlock_all(FileId file, uint64_t owner, bool whole) {
  co_await yield();
  Result<InodeRef> found = inode(file);
  if (found.ok())
    std::erase_if((*found)->locks,
                  [owner, whole](const FileLock& held) { return held.owner == owner && held.whole == whole; });
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::close(OpenFileRef file) {
  co_await yield();
  file.reset();
  co_return Result<void>();
}

Task<Result<FileSystemStatistics>> MemoryFileSystem::statistics() {
  co_await yield();
  uint64_t used = 0;
  for (const auto& [id, inode] : inodes_) used += inode->attributes.bytes;
  co_return FileSystemStatistics{
      .total_bytes = kTotal, .free_bytes = kTotal - std::min(kTotal, used), .files = inodes_.size()};
}

Task<Result<void>> MemoryFileSystem::sync_all() {
  co_await yield();
  ++syncs_;
  co_return Result<void>();
}

Task<Result<void>> MemoryFileSystem::shut_down() {
  co_return Result<void>();
}

void MemoryFileSystem::hold_reads(bool hold) {
  if (hold) {
    reads_may_go_.reset();
  } else {
    reads_may_go_.set();
  }
}

Task<void> MemoryFileSystem::recall_names(FileId directory) {
  if (invalidate_) co_await invalidate_({.file = directory, .attributes = true, .names = true});
}

Task<void> MemoryFileSystem::write_elsewhere(FileId parent, std::string name, std::string bytes, bool mtime_moves) {
  Result<InodeRef> in = directory(parent);
  HR_ASSERT(in.ok());
  Result<InodeRef> found = child(**in, name);
  HR_ASSERT(found.ok());
  put(**found, 0, bytes_of(bytes));
  if (mtime_moves) touch(**found, true);
  if (invalidate_) co_await invalidate_({.file = (*found)->attributes.id, .attributes = true, .data = true});
}

}  // namespace headrace
