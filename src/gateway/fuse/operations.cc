// FuseSession's answers, one per operation of the kernel's.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/posix_acl.h"
#include "gateway/fuse/session.h"

namespace headrace {

namespace {

// Of <linux/fs.h>, <linux/falloc.h> and <linux/stat.h>, which clash with libc's.
constexpr uint32_t kRenameNoReplace = 1;
constexpr uint32_t kRenameExchange = 2;
constexpr uint32_t kAllocateKeepSize = 1;
constexpr uint32_t kAllocatePunchHole = 2;
constexpr uint32_t kAllocateZeroRange = 16;
constexpr uint32_t kStatxBasic = 0x7ff;
constexpr uint32_t kStatxBirth = 0x800;

constexpr size_t kMaxName = 255;
constexpr size_t kMaxTarget = 4095;
constexpr size_t kMaxXattrValue = 64 * kKiB;
constexpr uint64_t kMaxFileSize = std::numeric_limits<int64_t>::max();
constexpr size_t kMaxReadPieces = 512;
constexpr uint32_t kMaxEntries = 1024;  // asked for at once
constexpr uint64_t kSectorSize = 512;   // of st_blocks
constexpr uint64_t kCopyPiece = kFuseMaxWrite;
constexpr uint64_t kCopyByReference = 128 * kKiB;
constexpr uint64_t kMaxCopy = 64 * kMiB;            // of one request: then its caller asks again
constexpr Nanos kLockPatience = milliseconds(500);  // between looks whether the caller was interrupted
constexpr int kMostCreates = 16;                    // of a name that comes and goes elsewhere
constexpr int kMostChanges = 16;                    // of a mode meanwhile
constexpr int kPutAside = -1;                       // no errno: it is sought again later
constexpr const char* kCapability = "security.capability";

FuseAnswer failed(const Error& error) {
  return FuseAnswer(error);
}
FuseAnswer failed(int error) {
  return FuseAnswer(error);
}

FuseAnswer outcome(const Result<void>& result) {
  return result.ok() ? FuseAnswer() : FuseAnswer(result.error());
}

// 0, or the errno that says what is wrong with it as a new or sought name.
int check_name(const std::string& name) {
  if (name.size() > kMaxName) return ENAMETOOLONG;
  return name == "." || name == ".." ? EINVAL : 0;
}

mode_t type_bits(FileType type) {
  switch (type) {
    case FileType::kDirectory:
      return S_IFDIR;
    case FileType::kSymlink:
      return S_IFLNK;
    case FileType::kFifo:
      return S_IFIFO;
    case FileType::kSocket:
      return S_IFSOCK;
    case FileType::kCharDevice:
      return S_IFCHR;
    case FileType::kBlockDevice:
      return S_IFBLK;
    case FileType::kFile:
    case FileType::kNone:
      break;
  }
  return S_IFREG;
}

FileType type_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case 0:
      return FileType::kFile;
    case S_IFDIR:
      return FileType::kDirectory;
    case S_IFLNK:
      return FileType::kSymlink;
    case S_IFIFO:
      return FileType::kFifo;
    case S_IFSOCK:
      return FileType::kSocket;
    case S_IFCHR:
      return FileType::kCharDevice;
    case S_IFBLK:
      return FileType::kBlockDevice;
    default:
      return FileType::kNone;
  }
}

OpenMode open_mode(uint32_t flags) {
  uint32_t access = flags & O_ACCMODE;
  return {.read = access != O_WRONLY,
          .write = access == O_WRONLY || access == O_RDWR,
          .append = (flags & O_APPEND) != 0,
          .truncate = (flags & O_TRUNC) != 0,
          .direct = (flags & O_DIRECT) != 0,
          .sync = (flags & O_DSYNC) != 0};  // O_SYNC contains it
}

struct Time {
  int64_t seconds;
  uint32_t nanoseconds;
};
Time split(int64_t nanos) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t seconds = nanos / kSecond;
  int64_t rest = nanos % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  return {seconds, static_cast<uint32_t>(rest)};
}
// What does not fit (years before 1678, after 2262) becomes the nearest that does.
int64_t join(uint64_t seconds, uint32_t nanoseconds) {
  constexpr int64_t kSecond = 1'000'000'000;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max() / kSecond - 1;
  int64_t whole = std::clamp(static_cast<int64_t>(seconds), -kMax, kMax);
  return whole * kSecond + nanoseconds;
}

uint64_t whole_seconds(Nanos time) {
  return static_cast<uint64_t>(time.count / 1'000'000'000);
}
uint32_t rest_of_second(Nanos time) {
  return static_cast<uint32_t>(time.count % 1'000'000'000);
}

// 4 KiB-aligned; what READ has in more pieces than one system call takes.
Buffer joined(const std::vector<Buffer>& pieces, size_t size) {
  Buffer out = Buffer::allocate(size);
  size_t at = 0;
  for (const Buffer& piece : pieces) {
    std::memcpy(out.data() + at, piece.data(), piece.size());
    at += piece.size();
  }
  return out;
}

// Without S_IXGRP the bit S_ISGID once meant mandatory locking: who is of the group may keep it.
uint32_t without_privileges(uint32_t mode, bool of_group) {
  mode &= ~uint32_t{S_ISUID};
  if ((mode & S_IXGRP) != 0 || !of_group) mode &= ~uint32_t{S_ISGID};
  return mode;
}

AttributeChange change_of(const fuse_setattr_in& in) {
  constexpr int64_t kNow = std::numeric_limits<int64_t>::min();
  AttributeChange change;
  if ((in.valid & FATTR_MODE) != 0) {
    change.mask |= kSetMode;
    change.mode = in.mode & 07777;
  }
  if ((in.valid & FATTR_UID) != 0) {
    change.mask |= kSetUid;
    change.uid = in.uid;
  }
  if ((in.valid & FATTR_GID) != 0) {
    change.mask |= kSetGid;
    change.gid = in.gid;
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    change.mask |= kSetSize;
    change.size = in.size;
  }
  if ((in.valid & FATTR_ATIME) != 0) {
    change.mask |= kSetAtime;
    change.atime = (in.valid & FATTR_ATIME_NOW) != 0 ? kNow : join(in.atime, in.atimensec);
  }
  if ((in.valid & FATTR_MTIME) != 0) {
    change.mask |= kSetMtime;
    change.mtime = (in.valid & FATTR_MTIME_NOW) != 0 ? kNow : join(in.mtime, in.mtimensec);
  }
  if ((in.valid & FATTR_CTIME) != 0) {
    change.mask |= kSetCtime;
    change.ctime = join(in.ctime, in.ctimensec);
  }
  return change;
}

// Value of GETXATTR and LISTXATTR: its length when nothing else was asked for.
FuseAnswer xattr_answer(std::string_view value, uint32_t asked) {
  FuseAnswer answer;
  if (asked == 0) {
    answer.append(fuse_getxattr_out{.size = static_cast<uint32_t>(value.size()), .padding = 0});
  } else if (value.size() > asked) {
    answer.error = ERANGE;
  } else if (!value.empty()) {
    answer.bulk.push_back(Buffer::copy_of(bytes_of(value)));
  }
  return answer;
}

// Directory entries of one READDIR or READDIRPLUS.
class EntryList {
 public:
  EntryList(uint32_t size, bool plus) : out_(Buffer::allocate(size)), plus_(plus) {}

  [[nodiscard]] bool room_for(const std::string& name) const { return at_ + size_of(name) <= out_.size(); }
  // At most so many more can fit.
  [[nodiscard]] uint32_t room() const {
    size_t smallest = size_of("x");
    return static_cast<uint32_t>((out_.size() - at_) / smallest) + 1;
  }
  void add(const std::string& name, uint64_t id, FileType type, uint64_t cookie, const fuse_entry_out& entry) {
    std::byte* to = out_.data() + at_;
    std::memset(to, 0, size_of(name));
    if (plus_) {
      std::memcpy(to, &entry, sizeof entry);
      to += sizeof entry;
    }
    fuse_dirent head{
        .ino = id, .off = cookie, .namelen = static_cast<uint32_t>(name.size()), .type = type_bits(type) >> 12};
    std::memcpy(to, &head, FUSE_NAME_OFFSET);
    std::memcpy(to + FUSE_NAME_OFFSET, name.data(), name.size());
    at_ += size_of(name);
  }
  [[nodiscard]] bool empty() const { return at_ == 0; }
  [[nodiscard]] Buffer take() { return out_.slice(0, at_); }

 private:
  [[nodiscard]] size_t size_of(std::string_view name) const {
    return FUSE_REC_ALIGN((plus_ ? sizeof(fuse_entry_out) : 0) + FUSE_NAME_OFFSET + name.size());
  }
  Buffer out_;
  size_t at_ = 0;
  bool plus_;
};

}  // namespace

FuseAnswer::FuseAnswer(const Error& cause) : error(to_errno(cause.code())) {
  if (error == 0) error = EIO;
}

// --- What several share ---

// The kernel counts from when it gets round to the answer: what it may use is remembered for longer.
constexpr Nanos kLateKernel = seconds(2);

Nanos FuseSession::attributes_valid(FileId file) {
  Nanos valid = files_.attributes_valid(file);
  if (valid.count <= 0) return {};
  Node& node = nodes_[file];
  node.attributes_until = std::max(node.attributes_until, env_.clock.now() + valid + kLateKernel);
  if (clock_ms() - node.answered_ms >= kInPlaceMs) node.overwrites = false;
  node.answered_ms = clock_ms();
  return valid;
}

Nanos FuseSession::name_valid(FileId parent, const std::string& name, const Attributes& what) {
  const bool directory = what.type == FileType::kDirectory;
  if (directory && !agreed(FUSE_HAS_EXPIRE_ONLY)) return {};
  Nanos valid = std::min(files_.name_valid(parent, name, what.id), options_.keep_names);
  if (valid.count <= 0) return {};
  const Nanos now = env_.clock.now();
  forget_old_names(now);
  Node& node = nodes_[parent];
  node.names.push_back({now + valid + kLateKernel, name, directory});
  if (!std::exchange(node.ages, true)) aging_.emplace_back(node.names.back().until, parent);
  return valid;
}

// A few directories at a time, each when all that it had is too old: a walk would leave all names of a tree behind.
void FuseSession::forget_old_names(Nanos now) {
  for (int i = 0; i < 4 && !aging_.empty() && aging_.front().first < now; ++i) {
    const FileId directory = aging_.front().second;
    aging_.pop_front();
    auto found = nodes_.find(directory);
    if (found == nodes_.end()) continue;
    Node& node = found->second;
    while (!node.names.empty() && node.names.front().until < now) node.names.pop_front();
    node.ages = !node.names.empty();
    if (node.ages) aging_.emplace_back(node.names.back().until, directory);
  }
}

fuse_attr FuseSession::attributes_out(const Attributes& attributes) const {
  Time atime = split(attributes.atime);
  Time mtime = split(attributes.mtime);
  Time ctime = split(attributes.ctime);
  return {.ino = attributes.id.packed(),
          .size = attributes.size,
          .blocks = divide_up(attributes.bytes, kSectorSize),
          .atime = static_cast<uint64_t>(atime.seconds),
          .mtime = static_cast<uint64_t>(mtime.seconds),
          .ctime = static_cast<uint64_t>(ctime.seconds),
          .atimensec = atime.nanoseconds,
          .mtimensec = mtime.nanoseconds,
          .ctimensec = ctime.nanoseconds,
          .mode = type_bits(attributes.type) | (attributes.mode & 07777),
          .nlink = attributes.links,
          .uid = attributes.uid,
          .gid = attributes.gid,
          .rdev = static_cast<uint32_t>(attributes.rdev),
          .blksize = options_.block_size,
          .flags = 0};
}

fuse_entry_out FuseSession::entry_out(FileId parent, const std::string& name, const Attributes& attributes) {
  const Nanos name_for = name_valid(parent, name, attributes);
  const Nanos attributes_for = attributes_valid(attributes.id);
  return {.nodeid = attributes.id.packed(),
          .generation = attributes.generation,
          .entry_valid = whole_seconds(name_for),
          .attr_valid = whole_seconds(attributes_for),
          .entry_valid_nsec = rest_of_second(name_for),
          .attr_valid_nsec = rest_of_second(attributes_for),
          .attr = attributes_out(attributes)};
}

void FuseSession::enter(FuseAnswer& answer, const Attributes& attributes) {
  ++nodes_[attributes.id].lookups;
  answer.entered = attributes.id;
  note_directory(attributes);
}

void FuseSession::note_directory(const Attributes& attributes) {
  if (attributes.type != FileType::kDirectory) return;
  auto node = nodes_.find(attributes.id);
  if (node != nodes_.end()) node->second.directory = std::make_unique<Attributes>(attributes);
}

// Somebody has it open, or is in it. The partition keeps files for that, and no directories.
std::optional<Attributes> FuseSession::removed_directory(FileId file, Code outcome) const {
  auto node = nodes_.find(file);
  if (outcome != Code::kNotFound || node == nodes_.end() || node->second.directory == nullptr) return std::nullopt;
  Attributes out = *node->second.directory;
  out.links = 0;
  return out;
}

Task<Result<Attributes>> FuseSession::attributes_of(FileId file) {
  Result<Attributes> found = co_await files_.get_attributes(file);
  std::optional<Attributes> removed = removed_directory(file, found.code());
  if (removed) co_return *std::move(removed);
  co_return found;
}

FuseAnswer FuseSession::entry(FileId parent, const std::string& name, Result<Attributes> attributes) {
  if (!attributes.ok()) return failed(attributes.error());
  FuseAnswer answer;
  answer.append(entry_out(parent, name, *attributes));
  enter(answer, *attributes);
  return answer;
}

FuseAnswer FuseSession::attributes(Result<Attributes> attributes) {
  if (!attributes.ok()) return failed(attributes.error());
  const Nanos valid = attributes_valid(attributes->id);
  note_directory(*attributes);
  FuseAnswer answer;
  answer.append(fuse_attr_out{.attr_valid = whole_seconds(valid),
                              .attr_valid_nsec = rest_of_second(valid),
                              .dummy = 0,
                              .attr = attributes_out(*attributes)});
  return answer;
}

FuseSession::HandleRef FuseSession::handle(uint64_t fh) const {
  auto found = handles_.find(fh);
  return found == handles_.end() ? nullptr : found->second;
}

uint64_t FuseSession::add_handle(FileId id, OpenMode mode, OpenFileRef file) {
  mode.truncate = false;
  auto handle = std::make_shared<Handle>();
  handle->id = id;
  handle->mode = mode;
  handle->file = std::move(file);
  // The kernel puts appended bytes into pages where it believes the end to be; another client may
  // have moved it.
  handle->pages = !mode.direct && !mode.append;
  uint64_t fh = next_handle_++;
  handles_.emplace(fh, std::move(handle));
  return fh;
}

fuse_open_out FuseSession::open_out(uint64_t fh, FileId id) {
  HandleRef opened = handle(fh);
  uint32_t flags = 0;
  if (!opened->pages) flags |= FOPEN_DIRECT_IO;
  if (opened->mode.direct) flags |= FOPEN_PARALLEL_DIRECT_WRITES;
  // Pages that it holds are of now: a recall would have dropped them.
  if (opened->pages && files_.attributes_valid(id).count > 0) flags |= FOPEN_KEEP_CACHE;
  return {.fh = fh, .open_flags = flags, .padding = 0};
}

// fcntl(F_SETFL) may have changed O_APPEND since the open; pages written back never append.
Task<Result<OpenFileRef>> FuseSession::file_for(HandleRef handle, bool append) {
  if (append == handle->mode.append) co_return handle->file;
  if (handle->other == nullptr) {
    OpenMode mode = handle->mode;
    mode.append = append;
    HR_CO_TRY(OpenFileRef file, co_await files_.open(handle->id, mode));
    if (handle->other == nullptr) {
      handle->other = std::move(file);
    } else {
      (void)co_await files_.close(std::move(file));  // two came at once
    }
  }
  co_return handle->other;
}

Task<Result<bool>> FuseSession::has_capability(FileId file) {
  auto node = nodes_.find(file);
  if (node != nodes_.end() && node->second.capability == Node::kNone) co_return false;
  Result<std::string> value = co_await files_.get_xattr(file, kCapability);
  if (!value.ok() && value.code() != Code::kNoAttribute && value.code() != Code::kNotSupported)
    co_return std::move(value).error();
  node = nodes_.find(file);
  if (node != nodes_.end()) node->second.capability = value.ok() ? Node::kSome : Node::kNone;
  co_return value.ok();
}

// What the kernel leaves to us by HANDLE_KILLPRIV_V2: whoever changes a program takes its
// privileges away.
Task<Result<void>> FuseSession::drop_privileges(FileId file, std::optional<uint32_t> group) {
  for (int attempt = 1;; ++attempt) {
    HR_CO_TRY(Attributes now, co_await files_.get_attributes(file));
    if (now.type == FileType::kDirectory) co_return Result<void>();
    const uint32_t mode = without_privileges(now.mode, !group || *group == now.gid);
    if (mode == now.mode) break;
    // Another mount may change it meanwhile, and is not to be undone.
    Result<Attributes> set =
        co_await files_.set_attributes(file, {.mask = kSetMode, .mode = mode, .while_mode = now.mode});
    if (set.code() == Code::kBusy && attempt < kMostChanges) continue;
    if (!set.ok()) co_return std::move(set).error();
    co_await invalidate({.file = file, .attributes = true});  // the kernel did not ask for it, and keeps the old mode
    break;
  }
  HR_CO_TRY(bool capable, co_await has_capability(file));
  if (!capable) co_return Result<void>();
  Result<void> removed = co_await files_.remove_xattr(file, kCapability);
  if (!removed.ok() && removed.code() != Code::kNoAttribute) co_return removed;
  auto node = nodes_.find(file);
  if (node != nodes_.end()) node->second.capability = Node::kUnknown;
  co_return Result<void>();
}

// A kernel keeps an ACL until it is invalidated, which an answer that was overtaken by that, or that no grant covers,
// will not be. It does not keep one while whose fetching it is told to forget it.
Task<void> FuseSession::tell_acl(FileId file, uint64_t invalidated) {
  Node& node = nodes_[file];
  if (node.invalidated == invalidated && files_.attributes_valid(file).count > 0) {
    node.acls = true;
    co_return;
  }
  (void)co_await notify_inode(file, false);
}

Task<Result<bool>> FuseSession::clears_setgid(FuseHeader header, uint32_t setxattr_flags) {
  if (agreed(FUSE_SETXATTR_EXT)) co_return (setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
  if (header.uid == 0) co_return false;
  HR_CO_TRY(Attributes now, co_await files_.get_attributes(header.node));
  co_return now.gid != header.gid;
}

// ACLs that this kernel would not enforce it neither sees nor sets; other name spaces do not exist.
int FuseSession::check_xattr(std::string_view name) const {
  if (is_acl(name)) return agreed(FUSE_POSIX_ACL) ? 0 : EOPNOTSUPP;
  for (std::string_view prefix : {"user.", "trusted.", "security."})
    if (name.starts_with(prefix)) return name.size() > prefix.size() ? 0 : EINVAL;
  return EOPNOTSUPP;
}

// --- Names ---

// Of a file handle whose inode the kernel has forgotten (open_by_handle_at(2), NFS): the node itself, or a directory's
// parent.
Task<Result<Attributes>> FuseSession::lookup_handle(FileId node, bool parent) {
  HR_CO_TRY(Attributes found, co_await files_.get_attributes(node));
  // Where it is open here the kernel has it and does not ask.
  if (found.links == 0) co_return Error(Code::kStale, "the file has lost its last name");
  if (!parent) co_return found;
  if (found.type != FileType::kDirectory) co_return Error(Code::kNotDirectory, "only directories know their parent");
  co_return co_await files_.get_attributes(found.parent);
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseLookup request) {
  if (request.name == "." || request.name == "..")
    co_return entry(header.node, request.name, co_await lookup_handle(header.node, request.name == ".."));
  if (int error = check_name(request.name)) co_return failed(error);
  // What is absent the kernel asks for each time.
  co_return entry(header.node, request.name, co_await files_.lookup(header.node, request.name));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseSymlink request) {
  if (int error = check_name(request.name)) co_return failed(error);
  if (request.target.size() > kMaxTarget) co_return failed(ENAMETOOLONG);
  MakeOptions options{.type = FileType::kSymlink, .mode = 0777, .rdev = 0, .target = std::move(request.target)};
  co_return entry(
      header.node, request.name,
      co_await files_.make(header.node, request.name, std::move(options), {.uid = header.uid, .gid = header.gid}));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseMakeNode request) {
  if (int error = check_name(request.name)) co_return failed(error);
  FileType type = type_of(request.mode);
  if (type == FileType::kNone || type == FileType::kDirectory || type == FileType::kSymlink) co_return failed(EINVAL);
  MakeOptions options{.type = type, .mode = request.mode & 07777, .rdev = request.rdev, .target = {}};
  co_return entry(header.node, request.name,
                  co_await files_.make(header.node, request.name, std::move(options),
                                       {.uid = header.uid, .gid = header.gid, .umask = request.umask}));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseMakeDirectory request) {
  if (int error = check_name(request.name)) co_return failed(error);
  MakeOptions options{.type = FileType::kDirectory, .mode = request.mode & 07777, .rdev = 0, .target = {}};
  co_return entry(header.node, request.name,
                  co_await files_.make(header.node, request.name, std::move(options),
                                       {.uid = header.uid, .gid = header.gid, .umask = request.umask}));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseUnlink request) {
  if (int error = check_name(request.name)) co_return failed(error);
  co_return outcome(co_await files_.unlink(header.node, std::move(request.name)));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseRemoveDirectory request) {
  if (int error = check_name(request.name)) co_return failed(error);
  co_return outcome(co_await files_.remove_directory(header.node, std::move(request.name)));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseRename request) {
  if (int error = check_name(request.from_name)) co_return failed(error);
  if (int error = check_name(request.to_name)) co_return failed(error);
  // RENAME_WHITEOUT is for the upper layer of an overlay, whose marks other clients would take for devices.
  if ((request.flags & ~(kRenameNoReplace | kRenameExchange)) != 0) co_return failed(EINVAL);
  FileSystem::RenameOptions options{.from_parent = header.node,
                                    .from_name = request.from_name,
                                    .to_parent = request.to_parent,
                                    .to_name = request.to_name,
                                    .no_replace = (request.flags & kRenameNoReplace) != 0,
                                    .exchange = (request.flags & kRenameExchange) != 0};
  const bool exchange = options.exchange;
  // A recall meanwhile lets go of the names, which the kernel cannot drop before this is answered.
  const bool kept = may_keep(header.node, request.from_name);
  const bool other_kept = exchange && may_keep(request.to_parent, request.to_name);
  Result<void> renamed = co_await files_.rename(std::move(options));
  if (renamed.ok()) {
    if (kept || may_keep(header.node, request.from_name)) expire_moved(request.to_parent, request.to_name);
    if (exchange && (other_kept || may_keep(request.to_parent, request.to_name)))
      expire_moved(header.node, request.from_name);
  }
  co_return outcome(renamed);
}

bool FuseSession::may_keep(FileId directory, const std::string& name) const {
  auto node = nodes_.find(directory);
  if (node == nodes_.end() || node->second.names.empty()) return false;
  // Without FUSE_EXPIRE_ONLY a name is dropped, and must be none of a directory: those are not kept then.
  return agreed(FUSE_HAS_EXPIRE_ONLY) ||
         std::ranges::any_of(node->second.names, [&name](const Node::Name& kept) { return kept.name == name; });
}

// The kernel moves what it knows of the old name to the new one, and how long it may keep it, under which the new name
// is no longer covered by anything. It does so before it lets go of the directories' locks, which this waits for.
void FuseSession::expire_moved(FileId to, const std::string& to_name) {
  requests_.spawn(drop_names({entry_notification(to, to_name, agreed(FUSE_HAS_EXPIRE_ONLY))}, to));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseLink request) {
  if (int error = check_name(request.name)) co_return failed(error);
  FuseAnswer answer = entry(header.node, request.name, co_await files_.link(request.file, header.node, request.name));
  if (auto node = nodes_.find(request.file); node != nodes_.end()) node->second.overwrites = true;
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseReadLink) {
  Result<std::string> target = co_await files_.read_link(header.node);
  if (!target.ok()) co_return failed(target.error());
  FuseAnswer answer;
  if (!target->empty()) answer.bulk.push_back(Buffer::copy_of(headrace::bytes_of(*target)));
  co_return answer;
}

// --- Attributes ---

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseGetAttributes) {
  co_return attributes(co_await attributes_of(header.node));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseStatx) {
  Result<Attributes> found = co_await attributes_of(header.node);
  if (!found.ok()) co_return failed(found.error());
  const Nanos valid = attributes_valid(found->id);
  fuse_attr basic = attributes_out(*found);
  Time birth = split(found->btime);
  FuseStatxOut out{};
  out.attr_valid = whole_seconds(valid);
  out.attr_valid_nsec = rest_of_second(valid);
  out.mask = kStatxBasic | kStatxBirth;
  out.blksize = basic.blksize;
  out.nlink = basic.nlink;
  out.uid = basic.uid;
  out.gid = basic.gid;
  out.mode = static_cast<uint16_t>(basic.mode);
  out.ino = basic.ino;
  out.size = basic.size;
  out.blocks = basic.blocks;
  out.atime = {static_cast<int64_t>(basic.atime), basic.atimensec, 0};
  out.mtime = {static_cast<int64_t>(basic.mtime), basic.mtimensec, 0};
  out.ctime = {static_cast<int64_t>(basic.ctime), basic.ctimensec, 0};
  out.btime = {birth.seconds, birth.nanoseconds, 0};
  // As the kernel packs device numbers into 32 bits: minor's low 8, major's 12, minor's upper 12.
  out.rdev_major = (basic.rdev & 0xfff00) >> 8;
  out.rdev_minor = (basic.rdev & 0xff) | (basic.rdev >> 12 & 0xfff00);
  FuseAnswer answer;
  answer.append(out);
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseSetAttributes request) {
  const fuse_setattr_in& in = request.in;
  if ((in.valid & FATTR_SIZE) != 0 && in.size > kMaxFileSize) co_return failed(EFBIG);
  bool owner_changes = (in.valid & (FATTR_UID | FATTR_GID)) != 0;
  if (agreed(FUSE_HANDLE_KILLPRIV_V2) && (owner_changes || (in.valid & FATTR_KILL_SUIDGID) != 0)) {
    Result<void> dropped = co_await drop_privileges(header.node);
    if (!dropped.ok()) co_return failed(dropped.error());
  }
  AttributeChange change = change_of(request.in);
  if (change.mask == 0) co_return attributes(co_await files_.get_attributes(header.node));
  FuseAnswer answer = attributes(co_await files_.set_attributes(header.node, change));
  nodes_[header.node].overwrites = true;
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseStatFileSystem) {
  Result<FileSystemStatistics> found = co_await files_.statistics();
  if (!found.ok()) co_return failed(found.error());
  constexpr uint64_t kFreeFiles = uint64_t{1} << 40;  // bounded by space alone
  fuse_statfs_out out{};
  out.st.bsize = options_.block_size;
  out.st.frsize = kBlock;
  out.st.blocks = found->total_bytes / kBlock;
  out.st.bfree = found->free_bytes / kBlock;
  out.st.bavail = out.st.bfree;
  out.st.files = found->files + kFreeFiles;
  out.st.ffree = kFreeFiles;
  out.st.namelen = kMaxName;
  FuseAnswer answer;
  answer.append(out);
  co_return answer;
}

// --- Extended attributes ---

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseGetXattr request) {
  if (const int error = check_xattr(request.name); error != 0) co_return failed(error);
  const bool acl = is_acl(request.name);
  const uint64_t invalidated = nodes_[header.node].invalidated;
  Result<std::string> value = co_await files_.get_xattr(header.node, std::move(request.name));
  if (acl) co_await tell_acl(header.node, invalidated);
  if (!value.ok()) co_return failed(value.error());
  co_return xattr_answer(*value, request.size);
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseSetXattr request) {
  if (const int error = check_xattr(request.name); error != 0) co_return failed(error);
  if (request.name.empty() || request.name.size() > kMaxName) co_return failed(ERANGE);
  if (request.value.size() > kMaxXattrValue) co_return failed(E2BIG);
  bool capability = request.name == kCapability;
  XattrOptions options{.must_create = (request.flags & XATTR_CREATE) != 0,
                       .must_replace = (request.flags & XATTR_REPLACE) != 0};
  if (request.name == kAccessAcl) {
    Result<bool> clears = co_await clears_setgid(header, request.setxattr_flags);
    if (!clears.ok()) co_return failed(clears.error());
    options.clear_setgid = *clears;
  }
  Result<void> set = co_await files_.set_xattr(header.node, std::move(request.name), std::move(request.value), options);
  auto node = nodes_.find(header.node);
  if (capability && node != nodes_.end()) node->second.capability = Node::kUnknown;
  if (!set.ok() && set.code() == Code::kTooLarge) co_return failed(E2BIG);
  co_return outcome(set);
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseListXattr request) {
  Result<std::vector<std::string>> names = co_await files_.list_xattr(header.node);
  if (!names.ok()) co_return failed(names.error());
  std::string list;
  for (const std::string& name : *names) {
    if (check_xattr(name) != 0 || (name.starts_with("trusted.") && header.uid != 0)) continue;
    list += name;
    list += '\0';
  }
  if (list.size() > kMaxXattrValue) co_return failed(E2BIG);
  co_return xattr_answer(list, request.size);
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseRemoveXattr request) {
  if (const int error = check_xattr(request.name); error != 0) co_return failed(error);
  co_return outcome(co_await files_.remove_xattr(header.node, std::move(request.name)));
}

// --- Open files ---

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseOpen request) {
  OpenMode mode = open_mode(request.flags);
  if (agreed(FUSE_HANDLE_KILLPRIV_V2) && (request.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0) {
    Result<void> dropped = co_await drop_privileges(header.node);
    if (!dropped.ok()) co_return failed(dropped.error());
  }
  Result<OpenFileRef> file = co_await files_.open(header.node, mode);
  if (!file.ok()) co_return failed(file.error());
  FuseAnswer answer;
  answer.opened = add_handle(header.node, mode, *std::move(file));
  answer.append(open_out(answer.opened, header.node));
  // Another client may have given the program a capability since.
  if (mode.write) nodes_[header.node].capability = Node::kUnknown;
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseCreate request) {
  if (int error = check_name(request.name)) co_return failed(error);
  OpenMode mode = open_mode(request.flags);
  for (int attempt = 0;; ++attempt) {
    Result<FileSystem::Created> created =
        co_await files_.create(header.node, request.name, request.mode & 07777, mode,
                               {.uid = header.uid, .gid = header.gid, .umask = request.umask});
    if (created.ok()) co_return this->created(header.node, request.name, *std::move(created), mode);
    if (created.code() != Code::kExists || (request.flags & O_EXCL) != 0) co_return failed(created.error());
    // Made elsewhere since the kernel looked. ESTALE makes it look again, but only once, check permissions and
    // open; opening it here would skip them.
    Result<Attributes> there = co_await files_.lookup(header.node, request.name);
    if (there.code() != Code::kNotFound || attempt == kMostCreates) co_return failed(ESTALE);
  }
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseCreateUnnamed request) {
  OpenMode mode = open_mode(request.flags);
  Result<FileSystem::Created> made = co_await files_.create_unnamed(
      header.node, request.mode & 07777, mode, {.uid = header.uid, .gid = header.gid, .umask = request.umask});
  if (!made.ok()) co_return failed(made.error());
  co_return created(header.node, {}, *std::move(made), mode);
}

FuseAnswer FuseSession::created(FileId parent, const std::string& name, FileSystem::Created created, OpenMode mode) {
  FuseAnswer answer;
  answer.append(entry_out(parent, name, created.attributes));
  enter(answer, created.attributes);
  FileId id = created.attributes.id;
  nodes_[id].capability = Node::kNone;
  answer.opened = add_handle(id, mode, std::move(created.file));
  answer.append(open_out(answer.opened, id));
  return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseRead request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node) co_return failed(EBADF);
  if (request.offset > kMaxFileSize) co_return failed(EINVAL);
  if (opened->pages) nodes_[header.node].pages = true;
  const uint64_t invalidated = nodes_[header.node].invalidated;
  uint64_t wanted = std::min<uint64_t>(request.size, kFuseMaxWrite);
  Result<std::vector<Buffer>> pieces = co_await files_.read(opened->file, request.offset, wanted);
  if (opened->pages) {
    Node& node = nodes_[header.node];
    node.pages = true;  // again: an invalidation may have passed meanwhile
    // Then what was read may be older than what that was for: the pages that it becomes go as well.
    if (node.invalidated != invalidated) requests_.spawn(drop_pages(header.node));
  }
  if (!pieces.ok()) co_return failed(pieces.error());
  size_t size = 0;
  for (const Buffer& piece : *pieces) size += piece.size();
  HR_ASSERT(size <= wanted);
  if (options_.access_times && size > 0 && (request.flags & O_NOATIME) == 0) files_.accessed(header.node);
  FuseAnswer answer;
  if (pieces->size() > kMaxReadPieces) {
    answer.bulk.push_back(joined(*pieces, size));
  } else {
    answer.bulk = *std::move(pieces);
  }
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseWrite request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node) co_return failed(EBADF);
  if (request.offset > kMaxFileSize - request.data.size()) co_return failed(EFBIG);
  if (opened->pages) nodes_[header.node].pages = true;
  if (agreed(FUSE_HANDLE_KILLPRIV_V2) && (request.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) {
    Result<void> dropped = co_await drop_privileges(header.node);
    if (!dropped.ok()) co_return failed(dropped.error());
  }
  bool from_pages = (request.write_flags & FUSE_WRITE_CACHE) != 0;
  bool append = !from_pages && (request.flags & O_APPEND) != 0;
  Result<OpenFileRef> file = co_await file_for(opened, append);
  if (!file.ok()) co_return failed(file.error());
  Result<uint64_t> written = co_await files_.write(*file, request.offset, std::move(request.data));
  if (opened->pages) nodes_[header.node].pages = true;
  if (!written.ok()) co_return failed(written.error());
  // RWF_DSYNC and RWF_SYNC come with the write alone, and where no pages are in between nothing else comes.
  if ((request.flags & O_DSYNC) != 0 && !opened->mode.sync && !opened->mode.direct) {
    Result<void> synced = co_await files_.sync(opened->file);
    if (!synced.ok()) co_return failed(synced.error());
  }
  FuseAnswer answer;
  answer.append(fuse_write_out{.size = static_cast<uint32_t>(*written), .padding = 0});
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseFlush request) {
  // close(2) starts no flush (FileSystem says so). It ends the fcntl locks of its process on the file.
  if (HandleRef opened = handle(request.fh); opened != nullptr) opened->lock_owners.erase(request.lock_owner);
  co_return outcome(co_await files_.unlock_all(header.node, request.lock_owner, false));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseRelease request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr) co_return failed(EBADF);
  if ((request.release_flags & FUSE_RELEASE_FLOCK_UNLOCK) != 0)
    (void)co_await files_.unlock_all(header.node, request.lock_owner, true);  // failed: it ends with the session
  const std::set<uint64_t> owners = std::exchange(opened->lock_owners, {});
  for (uint64_t owner : owners) (void)co_await files_.unlock_all(header.node, owner, false);
  handles_.erase(request.fh);
  // A request that was given up (its caller was signalled) may still be under way, and go on with these.
  Result<void> closed = co_await files_.close(opened->file);
  if (opened->other != nullptr) (void)co_await files_.close(opened->other);
  co_return outcome(closed);
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseSync request) {
  if (header.opcode == FUSE_FSYNCDIR) {
    Result<void> synced = co_await files_.sync(header.node);
    co_return removed_directory(header.node, synced.code()) ? FuseAnswer() : outcome(synced);
  }
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node) co_return failed(EBADF);
  co_return outcome(co_await files_.sync(opened->file));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseSyncFileSystem) {
  co_return outcome(co_await files_.sync_all());
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseAllocate request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node || !opened->mode.write) co_return failed(EBADF);
  if (request.length == 0) co_return failed(EINVAL);
  if (request.offset > kMaxFileSize || request.length > kMaxFileSize - request.offset) co_return failed(EFBIG);
  uint64_t end = request.offset + request.length;
  bool keep_size = (request.mode & kAllocateKeepSize) != 0;
  bool clear = false;
  switch (request.mode & ~kAllocateKeepSize) {
    case kAllocatePunchHole:
      if (!keep_size) co_return failed(EOPNOTSUPP);
      clear = true;
      break;
    case kAllocateZeroRange:
      clear = true;
      break;
    case 0:  // space is allocated where data is written, never before
      break;
    default:  // collapse, insert: they would move what is shared
      co_return failed(EOPNOTSUPP);
  }
  // Here the kernel does not say whether the caller may keep them, nor which groups but one the caller is of.
  if (agreed(FUSE_HANDLE_KILLPRIV_V2) && header.uid != 0) {
    Result<void> dropped = co_await drop_privileges(header.node, header.gid);
    if (!dropped.ok()) co_return failed(dropped.error());
  }
  if (clear) {
    Result<void> cleared = co_await files_.punch(opened->file, request.offset, request.length);
    if (!cleared.ok()) co_return failed(cleared.error());
  }
  if (keep_size) co_return FuseAnswer();
  co_return outcome(co_await files_.grow(opened->file, end));
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseSeek request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node) co_return failed(EBADF);
  if (request.whence != SEEK_DATA && request.whence != SEEK_HOLE) co_return failed(EINVAL);
  Result<uint64_t> found = co_await files_.seek(opened->file, request.offset, request.whence == SEEK_HOLE);
  if (found.code() == Code::kNotFound) co_return failed(ENXIO);
  if (!found.ok()) co_return failed(found.error());
  FuseAnswer answer;
  answer.append(fuse_lseek_out{.offset = *found});
  co_return answer;
}

// Copies here, so that the bytes do not travel through the kernel. Holes stay holes.
Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseCopyRange request) {
  HandleRef from = handle(request.from_fh);
  HandleRef to = handle(request.to_fh);
  if (from == nullptr || from->id != header.node || to == nullptr || to->id != request.to || !to->mode.write)
    co_return failed(EBADF);
  if (request.from_offset > kMaxFileSize || request.to_offset > kMaxFileSize) co_return failed(EINVAL);
  if (to->pages) nodes_[request.to].pages = true;
  Result<OpenFileRef> target = co_await file_for(to, false);
  if (!target.ok()) co_return failed(target.error());
  Result<Attributes> source = co_await files_.get_attributes(header.node);
  if (!source.ok()) co_return failed(source.error());
  const uint64_t there = source->size - std::min(source->size, request.from_offset);
  const uint64_t wanted = std::min({request.length, there, kMaxCopy});
  if (wanted > kMaxFileSize - request.to_offset) co_return failed(EFBIG);
  if (agreed(FUSE_HANDLE_KILLPRIV_V2) && header.uid != 0) {  // as for FuseAllocate
    Result<void> dropped = co_await drop_privileges(request.to, header.gid);
    if (!dropped.ok()) co_return failed(dropped.error());
  }
  request.length = wanted;
  while (request.length > 0) {
    Result<uint64_t> copied = co_await copy_some(from->file, *target, request);
    if (!copied.ok() && request.length == wanted) co_return failed(copied.error());
    if (!copied.ok()) break;  // what is copied is; the error comes again
    if (*copied == 0) break;  // the source ends here now
    request.from_offset += *copied;
    request.to_offset += *copied;
    request.length -= *copied;
  }
  FuseAnswer answer;
  answer.append(fuse_write_out{.size = static_cast<uint32_t>(wanted - request.length), .padding = 0});
  co_return answer;
}

// The next piece of data, or of a hole: its length. 0: the source has become shorter, and ends before it. Small ones
// are read and written: that waits for nothing and is packed.
Task<Result<uint64_t>> FuseSession::copy_some(OpenFileRef from, OpenFileRef to, FuseCopyRange left) {
  if (left.length >= kCopyByReference) {
    Result<uint64_t> copied = co_await files_.copy(from, left.from_offset, to, left.to_offset, left.length);
    if (copied.ok() ? *copied > 0 : copied.code() != Code::kNotSupported) co_return copied;
  }
  uint64_t end = left.from_offset + left.length;
  Result<uint64_t> data = co_await files_.seek(from, left.from_offset, false);
  if (!data.ok() && data.code() != Code::kNotFound) co_return std::move(data).error();
  if (!data.ok()) {  // a hole to the end of the file, wherever that is now
    HR_CO_TRY(Attributes source, co_await files_.get_attributes(from->id()));
    end = std::min(end, source.size);
    if (end <= left.from_offset) co_return uint64_t{0};
  }
  const uint64_t next = data.ok() ? std::min(*data, end) : end;
  const uint64_t empty = next - left.from_offset;
  if (empty > 0) {
    HR_CO_TRY(co_await files_.punch(to, left.to_offset, empty));
    HR_CO_TRY(co_await files_.grow(to, left.to_offset + empty));
    co_return empty;
  }
  Result<uint64_t> hole = co_await files_.seek(from, left.from_offset, true);
  if (hole.code() == Code::kNotFound) co_return uint64_t{0};
  if (!hole.ok()) co_return hole;
  const uint64_t size = std::min({*hole - left.from_offset, left.length, kCopyPiece});
  HR_CO_TRY(std::vector<Buffer> pieces, co_await files_.read(from, left.from_offset, size));
  uint64_t done = 0;
  for (const Buffer& piece : pieces) done += piece.size();
  if (done == 0) co_return done;
  HR_CO_TRY(uint64_t written, co_await files_.write(to, left.to_offset, joined(pieces, done)));
  (void)written;
  co_return done;
}

// --- Locks ---

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseLock request) {
  HandleRef opened = handle(request.fh);
  if (opened == nullptr || opened->id != header.node) co_return failed(EBADF);
  if (request.lock.start > request.lock.end || request.lock.end >= kLockEnd) co_return failed(EINVAL);
  FileLock lock{.owner = request.owner,
                .pid = request.lock.pid,
                .whole = (request.lock_flags & FUSE_LK_FLOCK) != 0,
                .kind = request.lock.type == F_WRLCK   ? LockKind::kExclusive
                        : request.lock.type == F_RDLCK ? LockKind::kShared
                                                       : LockKind::kUnlock,
                .begin = request.lock.start,
                .end = request.lock.end + 1};
  FuseAnswer answer;
  if (header.opcode == FUSE_GETLK) {
    Result<std::optional<FileLock>> found = co_await files_.find_lock(header.node, lock);
    if (!found.ok()) co_return failed(found.error());
    fuse_lk_out out{};
    out.lk.type = F_UNLCK;
    if (*found) {
      const FileLock& other = **found;
      out.lk = {.start = other.begin,
                .end = other.end - 1,
                .type = other.kind == LockKind::kExclusive ? uint32_t{F_WRLCK} : uint32_t{F_RDLCK},
                .pid = other.pid};
    }
    answer.append(out);
    co_return answer;
  }
  // A free one is granted at once, however many wait for others.
  Result<bool> granted = co_await files_.lock(header.node, lock, {});
  int error = !granted.ok() ? FuseAnswer(granted.error()).error : *granted ? 0 : EAGAIN;
  if (granted.ok() && !*granted && header.opcode == FUSE_SETLKW) {
    set(active_.at(header.unique), &Active::seeks_lock, true);
    error = co_await seek_lock(header.unique, header.node, lock);
    set(active_.at(header.unique), &Active::seeks_lock, false);
  }
  if (error == kPutAside) {
    answer.put_aside = true;
    aside_.push_back({header, std::move(request)});
    co_return answer;
  }
  if (error != 0) co_return failed(error == ERANGE ? ENOLCK : error);
  if (lock.kind != LockKind::kUnlock) answer.locked = {header.node, lock};
  if (lock.kind != LockKind::kUnlock && !lock.whole) opened->lock_owners.insert(lock.owner);
  co_return answer;
}

// Until it is granted, or its caller was signalled: whoever waits for a lock can always be killed.
Task<int> FuseSession::seek_lock(uint64_t unique, FileId file, FileLock lock) {
  auto reason_to_stop = [this, unique] {
    if (active_.at(unique).interrupted || ended_.is_set()) return EINTR;
    return putting_aside_ ? kPutAside : 0;
  };
  for (;;) {
    if (const int reason = reason_to_stop(); reason != 0) co_return reason;
    active_.at(unique).in_line = true;
    co_await lock_calls_.acquire();
    active_.at(unique).in_line = false;
    {
      const Semaphore::Held turn(lock_calls_);
      if (const int reason = reason_to_stop(); reason != 0) co_return reason;
      Result<bool> granted = co_await files_.lock(file, lock, kLockPatience);
      if (!granted.ok()) co_return FuseAnswer(granted.error()).error;
      if (*granted) co_return 0;
    }
    co_await yield();  // what it took room from is first
  }
}

// --- Directories ---

Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseOpenDirectory) {
  // FOPEN_CACHE_DIR stays off: names change elsewhere.
  FuseAnswer answer;
  answer.opened = next_handle_++;
  listings_[answer.opened] = 0;
  answer.append(fuse_open_out{.fh = answer.opened, .open_flags = 0, .padding = 0});
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseReadDirectory request) {
  constexpr uint64_t kDot = 1;
  constexpr uint64_t kDotDot = 2;
  EntryList list(std::min(request.size, kFuseMaxWrite), request.plus);
  uint64_t after = request.offset;
  FuseAnswer answer;
  if (after < kDotDot) {
    Result<Attributes> self = co_await attributes_of(header.node);
    if (!self.ok()) co_return failed(self.error());
    if (self->links == 0) {  // removed: nothing is in it
      answer.bulk.push_back(list.take());
      co_return answer;
    }
    FileId parent = self->parent ? self->parent : header.node;
    // A node id of 0: the kernel learns nothing about them.
    if (after < kDot && list.room_for(".")) list.add(".", header.node.packed(), FileType::kDirectory, kDot, {});
    if (list.room_for("..")) list.add("..", parent.packed(), FileType::kDirectory, kDotDot, {});
    after = kDotDot;
  }
  bool full = false;
  bool end = false;
  while (!full && !end) {
    uint32_t limit = std::min(list.room(), kMaxEntries);
    uint64_t cookie = after == kDotDot ? 0 : after;
    Result<ReadDirectoryReply> reply = co_await files_.read_directory(header.node, cookie, limit, request.plus);
    if (!reply.ok()) {
      if (!list.empty()) break;  // the error comes again for the next call
      if (removed_directory(header.node, reply.code())) break;
      co_return failed(reply.error());
    }
    end = reply->end || reply->entries.empty();
    uint64_t last = reply->last;
    if (auto listing = listings_.find(request.fh); listing != listings_.end()) {
      if (cookie == 0 || listing->second == 0) listing->second = reply->last;
      last = listing->second;
    }
    for (DirectoryEntry& found : reply->entries) {
      if (last != 0 && found.cookie > last) {
        end = true;
        break;
      }
      full = !list.room_for(found.name);
      if (full) break;
      fuse_entry_out entry{};
      if (request.plus && found.attributes) {
        entry = entry_out(header.node, found.name, *found.attributes);
        ++nodes_[found.id].lookups;
        answer.all_entered.push_back(found.id);
        note_directory(*found.attributes);
      }
      list.add(found.name, found.id.packed(), found.type, found.cookie, entry);
      after = found.cookie;
    }
  }
  if (options_.access_times && request.offset == 0) files_.accessed(header.node);
  answer.bulk.push_back(list.take());
  co_return answer;
}

Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseReleaseDirectory request) {
  listings_.erase(request.fh);
  co_return FuseAnswer();
}

// --- The rest ---

Task<FuseAnswer> FuseSession::answer(FuseHeader header, FuseUnsupported) {
  switch (header.opcode) {
    case FUSE_IOCTL:
      co_return failed(ENOTTY);
    default:
      co_return failed(ENOSYS);  // the kernel falls back, and does not ask again
  }
}

Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseDestroy) {
  co_return FuseAnswer();
}

// Taken before they come here.
Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseInit) {
  co_return failed(EINVAL);
}
Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseForget) {
  co_return failed(EINVAL);
}
Task<FuseAnswer> FuseSession::answer(FuseHeader, FuseInterrupt) {
  co_return failed(EINVAL);
}

}  // namespace headrace
