#include "apps/unpack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "meta/extents.h"
#include "meta/keys.h"
#include "runtime/when_all.h"
#include "tier/publisher.h"
#include "tier/rehydrate.h"

namespace headrace {

namespace {

constexpr size_t kScan = 512;
constexpr uint64_t kReadAtOnce = 4 * kMiB;

// Gives a unit back, also when the frame is destroyed.
// ---- the destination: plain calls, made in the blocking pool ----

Error errno_error(const std::string& what) {
  const int number = errno;
  bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
  return {full ? Code::kNoSpace : number == EROFS ? Code::kReadOnly : Code::kIo, what + ": " + std::strerror(number)};
}

timespec time_of(int64_t ns) {
  int64_t seconds = ns / 1'000'000'000;
  int64_t rest = ns % 1'000'000'000;
  if (rest < 0) {
    rest += 1'000'000'000;
    --seconds;
  }
  return {.tv_sec = seconds, .tv_nsec = rest};
}

struct Wanted {  // what a name is to have besides its content
  Attributes attributes;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

// Owner before mode (it takes set-id bits off), xattrs between (a read-only mode would refuse them), times last.
// Returns what was refused; "" when nothing was.
std::string apply(const std::string& path, const Wanted& wanted) {
  std::string refused;
  auto note = [&refused](const char* what) {
    if (refused.empty()) refused = std::string(what) + ": " + std::strerror(errno);
  };
  const Attributes& a = wanted.attributes;
  if (::lchown(path.c_str(), a.uid, a.gid) != 0) note("owner");
  for (const auto& [name, value] : wanted.xattrs)
    if (::lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) != 0) note(("xattr " + name).c_str());
  if (a.type != FileType::kSymlink && ::chmod(path.c_str(), a.mode & 07777) != 0) note("mode");
  timespec times[2] = {time_of(a.atime), time_of(a.mtime)};
  if (::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) note("times");
  return refused;
}

Result<void> make_node(const std::string& path, const InodeRow& inode) {
  const Attributes& a = inode.attributes;
  int done = -1;
  switch (a.type) {
    case FileType::kSymlink:
      done = ::symlink(inode.symlink.c_str(), path.c_str());
      break;
    case FileType::kFifo:
      done = ::mkfifo(path.c_str(), 0600);
      break;
    case FileType::kSocket:
      done = ::mknod(path.c_str(), S_IFSOCK | 0600, 0);
      break;
    case FileType::kCharDevice:
      done = ::mknod(path.c_str(), S_IFCHR | 0600, static_cast<dev_t>(a.rdev));
      break;
    case FileType::kBlockDevice:
      done = ::mknod(path.c_str(), S_IFBLK | 0600, static_cast<dev_t>(a.rdev));
      break;
    default:
      return Error(Code::kCorrupt, "is of an unknown type");
  }
  if (done != 0) return errno_error("make");
  return {};
}

// The directory, open from before the first write on: so its sync tells of every write that fails meanwhile, also where
// somebody else's sync has been told.
class Destination {
 public:
  explicit Destination(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  Destination(const Destination&) = delete;
  Destination& operator=(const Destination&) = delete;
  ~Destination() { ::close(fd_); }

  static Result<std::shared_ptr<Destination>> prepare(const std::string& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    std::error_code ignored;
    if (error && std::filesystem::exists(path, ignored))
      return Error(Code::kInvalid, path + " is no directory: name a new or empty one");
    if (error) return Error(Code::kIo, path + " cannot be made: " + error.message() + ": name another directory");
    bool empty = std::filesystem::is_empty(path, error);
    if (error) return Error(Code::kIo, path + " cannot be read: " + error.message() + ": name another directory");
    if (!empty)
      return Error(Code::kNotEmpty,
                   path + " is not empty: name a new or empty directory, nothing that is there is written over");
    int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno_error(path);
    return std::make_shared<Destination>(path, fd);
  }
  Result<void> sync() const {
    if (::syncfs(fd_) != 0) return errno_error(path_ + ": sync");
    return {};
  }

 private:
  std::string path_;
  int fd_;
};

Result<void> check_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos)
    return Error(Code::kCorrupt, "its directory names it in a way that no file system has");
  return {};
}

// Whether others of the same kind will fare no better: then it is no matter of one file.
bool ends_it(Code code) {
  switch (code) {
    case Code::kNoSpace:
    case Code::kReadOnly:
    case Code::kDenied:
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kDisconnected:
    case Code::kCancelled:
      return true;
    default:
      return false;
  }
}

}  // namespace

// A file being restored.
class Unpacker::OutFile {
 public:
  static Result<std::shared_ptr<OutFile>> make(const std::string& path, uint64_t size) {
    int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return errno_error("create");
    auto out = std::make_shared<OutFile>(fd);
    // What nothing is written to stays a hole.
    if (size > 0 && ::ftruncate(fd, static_cast<off_t>(size)) != 0) return errno_error("set size");
    return out;
  }
  explicit OutFile(int fd) : fd_(fd) {}
  OutFile(const OutFile&) = delete;
  OutFile& operator=(const OutFile&) = delete;
  ~OutFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  Result<void> write(uint64_t offset, const Buffer& bytes) const {
    for (size_t done = 0; done < bytes.size();) {
      ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return errno_error("write");
      done += static_cast<size_t>(n);
    }
    return {};
  }
  // A full file system may say so only now.
  Result<void> close() {
    int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) return errno_error("close");
    return {};
  }

 private:
  int fd_;
};

// One partition's rows at the cut.
struct Unpacker::Partition {
  PartitionManifest about;
  std::unique_ptr<StoreReader> rows;
  std::optional<Error> broken;                     // then there are no rows
  std::map<Key, std::optional<RowValue>> settled;  // of transactions that were decided, and not yet applied, at the cut
  std::unordered_map<SegmentId, Location> locations;  // placed in the bucket after the cut was journaled
};

struct Unpacker::HardLink {
  std::string path;  // of the name that was restored first
  Once<bool> done;
};

Unpacker::Unpacker(Env env, ObjectStore& bucket, StoreFactory& stores, UnpackOptions options,
                   std::function<void(const std::string&, const std::string&)> on_loss)
    : env_(env),
      bucket_(bucket),
      stores_(stores),
      options_(std::move(options)),
      on_loss_(std::move(on_loss)),
      pieces_(options_.cache_bytes),
      cold_(env, bucket, pieces_),
      files_(std::max<uint32_t>(1, options_.files)),
      walks_(std::max<uint32_t>(1, options_.walks)),
      reads_(std::max<uint32_t>(1, options_.reads)) {}

Unpacker::~Unpacker() = default;

// ---- rows ----

Task<Result<void>> Unpacker::open_partitions(const ManifestRecord& manifest) {
  for (const PartitionManifest& about : manifest.partitions) {
    auto partition = std::make_unique<Partition>();
    partition->about = about;
    StoreFiles files;
    files.import = about.store_import;
    for (const ManifestFile& file : about.files) files.files.push_back(file.file);
    Result<std::unique_ptr<StoreReader>> rows =
        co_await StoreReader::open(stores_, "unpack-" + std::to_string(about.id.value()), std::move(files),
                                   fetch_from_bucket(env_, bucket_, about));
    Result<std::vector<Location>> locations = co_await read_locations(env_, bucket_, manifest, about.id);
    for (const Code code : {rows.code(), locations.code()})
      if (ends_it(code)) co_return rows.ok() ? std::move(locations).error() : std::move(rows).error();
    if (!rows.ok() || !locations.ok()) {
      Error why = !rows.ok() ? std::move(rows).error() : std::move(locations).error();
      partition->broken = std::move(why).within("partition " + std::to_string(about.id.value()));
    } else {
      partition->rows = *std::move(rows);
      for (Location& location : *locations) partition->locations[location.segment] = std::move(location);
    }
    progress_.files_total += about.inodes;
    progress_.bytes_total += about.bytes;
    partitions_.push_back(std::move(partition));
  }
  co_return co_await settle_transactions();
}

// A transaction across partitions may be between its decision and its application in one of them: it belongs to the cut
// when its coordinator's rows have the decision, otherwise it never happened.
Task<Result<void>> Unpacker::settle_transactions() {
  for (const std::unique_ptr<Partition>& partition : partitions_) {
    if (partition->broken) continue;
    Key from = KeyBuilder(Slot(partition->about.first_slot), Table::kPrepared).take();
    Key to = prefix_end(from);
    std::map<Key, std::optional<RowValue>> settled;
    for (;;) {
      HR_CO_TRY(Rows page, co_await partition->rows->scan(from, to, kScan));
      for (const auto& [key, value] : page) {
        TransactionId id = transaction_of(key);
        HR_CO_TRY(PreparedRow prepared, decode_durable<PreparedRow>(value));
        for (const std::unique_ptr<Partition>& coordinator : partitions_) {
          if (coordinator->about.id != id.coordinator || coordinator->broken) continue;
          HR_CO_TRY(std::optional<RowValue> decision, co_await coordinator->rows->get(transaction_key(
                                                          Slot(coordinator->about.first_slot), Table::kDecision, id)));
          if (!decision) continue;
          for (RowChange& change : prepared.changes) settled[std::move(change.key)] = std::move(change.value);
        }
      }
      if (page.size() < kScan) break;
      from = StoreReader::after(page);
    }
    partition->settled = std::move(settled);
  }
  co_return {};
}

Result<Unpacker::Partition*> Unpacker::partition_of(Slot slot) {
  for (const std::unique_ptr<Partition>& partition : partitions_) {
    if (slot.value() < partition->about.first_slot || slot.value() > partition->about.last_slot) continue;
    if (partition->broken) return *partition->broken;
    return partition.get();
  }
  return Error(Code::kCorrupt, "no partition holds it");
}

Task<Result<std::optional<RowValue>>> Unpacker::get(Key key) {
  HR_CO_TRY(Partition * partition, partition_of(slot_of(key)));
  auto settled = partition->settled.find(key);
  if (settled != partition->settled.end()) co_return settled->second;
  co_return co_await partition->rows->get(std::move(key));
}

Task<Result<Unpacker::Page>> Unpacker::scan(Key from, Key to) {
  HR_CO_TRY(Partition * partition, partition_of(slot_of(from)));
  HR_CO_TRY(Rows rows, co_await partition->rows->scan(from, to, kScan));
  Page page;
  if (rows.size() == kScan) page.next = StoreReader::after(rows);
  auto begin = partition->settled.lower_bound(from);
  auto end = partition->settled.lower_bound(page.next ? *page.next : to);
  if (begin == end) {
    page.rows = std::move(rows);
    co_return page;
  }
  std::map<Key, RowValue> merged(std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
  for (; begin != end; ++begin) {
    if (begin->second)
      merged[begin->first] = *begin->second;
    else
      merged.erase(begin->first);
  }
  page.rows.assign(merged.begin(), merged.end());
  co_return page;
}

Task<Result<InodeRow>> Unpacker::inode_of(FileId file) {
  HR_CO_TRY(std::optional<RowValue> row, co_await get(inode_key(file)));
  if (!row)
    co_return Error(Code::kCorrupt, "its directory names it, but there is no such inode (" + to_string(file) + ")");
  HR_CO_TRY(InodeRow inode, decode_durable<InodeRow>(*row));
  if (inode.attributes.id != file) co_return Error(Code::kCorrupt, "its inode is another's");
  co_return inode;
}

Task<Result<std::vector<std::pair<std::string, std::string>>>> Unpacker::xattrs_of(InodeRow inode) {
  std::vector<std::pair<std::string, std::string>> out;
  if (inode.xattrs == 0) co_return out;
  std::optional<Key> from = xattr_key(inode.attributes.id, "");
  const size_t prefix = from->size();
  Key to = prefix_end(*from);
  while (from) {
    HR_CO_TRY(Page page, co_await scan(*from, to));
    for (auto& [key, value] : page.rows) out.emplace_back(key.substr(prefix), std::move(value));
    from = std::move(page.next);
  }
  co_return out;
}

Task<Result<Location>> Unpacker::location_of(SegmentId segment) {
  HR_CO_TRY(Partition * partition, partition_of(segment.home()));
  auto placed = partition->locations.find(segment);
  if (placed != partition->locations.end()) co_return placed->second;
  HR_CO_TRY(std::optional<RowValue> value, co_await get(segment_key(segment, Table::kLocation)));
  if (!value) co_return Error(Code::kCorrupt, "segment " + to_string(segment) + " has no location");
  HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(*value));
  Location location;
  location.segment = segment;
  location.length = row.length;
  location.bucket = row.bucket;
  location.object = row.object;
  co_return location;
}

// ---- the tree ----

void Unpacker::lose(const std::string& path, const Error& why) {
  if (ends_it(why.code())) {
    if (!fatal_) fatal_ = Error(why).within(path);
    return;
  }
  ++progress_.lost;
  if (on_loss_) on_loss_(path, why.message());
}

void Unpacker::note_not_applied(const std::string& path, const std::string& why) {
  if (progress_.not_applied++ == 0) progress_.first_not_applied = path + ": " + why;
}

Task<Result<void>> Unpacker::apply_attributes(InodeRow inode, std::string path) {
  Wanted wanted;
  wanted.attributes = inode.attributes;
  HR_CO_TRY(wanted.xattrs, co_await xattrs_of(std::move(inode)));
  std::string refused = co_await env_.blocking.run([path, wanted = std::move(wanted)] { return apply(path, wanted); });
  if (!refused.empty()) note_not_applied(path, refused);
  co_return {};
}

Task<Result<void>> Unpacker::walk_into(FileId directory, std::string path) {
  if (!walked_.insert(directory.packed()).second) co_return Error(Code::kCorrupt, "the directory is in the tree twice");
  HR_CO_TRY(InodeRow inode, co_await inode_of(directory));
  if (inode.attributes.type != FileType::kDirectory) co_return Error(Code::kCorrupt, "is no directory");
  if (directory != kRootFile) {
    Result<void> made = co_await env_.blocking.run([path]() -> Result<void> {
      if (::mkdir(path.c_str(), 0700) != 0) return errno_error("make directory");
      return {};
    });
    HR_CO_TRY(std::move(made));
  }
  std::optional<Key> from = dentry_key(directory, "");
  const size_t prefix = from->size();
  Key to = prefix_end(*from);
  Result<void> whole;
  {
    Scope children;
    while (from && !fatal_) {
      Result<Page> page = co_await scan(*from, to);
      if (!page.ok()) {
        whole = std::move(page).error().within("some of what is in it is missing");
        break;
      }
      for (const auto& [key, value] : page->rows) {
        std::string name = key.substr(prefix);
        Result<void> good = check_name(name);
        Result<DentryRow> row = decode_durable<DentryRow>(value);
        if (!good.ok() || !row.ok()) {
          lose(path + "/" + name, good.ok() ? row.error() : good.error());
          continue;
        }
        if (fatal_) break;
        std::string child = path + "/" + name;
        if (row->type == FileType::kDirectory) {
          if (walks_.free() > 0) {
            co_await walks_.acquire();
            children.spawn(walk(row->file, std::move(child), true));
          } else {
            co_await walk(row->file, std::move(child), false);
          }
          continue;
        }
        co_await files_.acquire();
        children.spawn(restore(row->file, std::move(child)));
      }
      from = std::move(page->next);
    }
    co_await children.join();
  }
  Result<void> applied = co_await apply_attributes(std::move(inode), std::move(path));
  if (!whole.ok()) co_return whole;
  co_return applied;
}

Task<void> Unpacker::walk(FileId directory, std::string path, bool release) {
  Result<void> done = co_await walk_into(directory, path);
  if (done.ok())
    ++progress_.files;
  else
    lose(path, done.error());
  if (release) walks_.release();
}

// ---- files ----

Task<Result<Buffer>> Unpacker::read_piece(Slot slot, Extent piece) {
  if (piece.kind == ExtentKind::kStaged) {
    HR_CO_TRY(std::optional<RowValue> value, co_await get(staged_key(slot, piece.staged)));
    if (!value) co_return Error(Code::kCorrupt, "its staged bytes have no row");
    HR_CO_TRY(StagedRow row, decode_durable<StagedRow>(*value));
    if (piece.segment_offset + piece.length > row.bytes.size())
      co_return Error(Code::kCorrupt, "its staged bytes are too few");
    co_return Buffer::copy_of(bytes_of(std::string_view(row.bytes).substr(piece.segment_offset, piece.length)));
  }
  if (piece.kind != ExtentKind::kSegment)
    co_return Error(Code::kNotSupported, "it has a piece of a kind that this version does not know");
  HR_CO_TRY(Location location, co_await location_of(piece.segment));
  HR_CO_TRY(ColdReadReply reply,
            co_await cold_.read(ColdRead{std::move(location), piece.segment_offset, piece.length}));
  co_return std::move(reply.payload);
}

// One part of a file, from the bucket (or a row) to its place.
Task<void> Unpacker::copy_part(Slot slot, Extent part, std::shared_ptr<OutFile> out,
                               std::shared_ptr<std::optional<Error>> failed) {
  const Semaphore::Held held(reads_);
  Result<Buffer> bytes = co_await read_piece(slot, part);
  Result<void> written;
  if (bytes.ok())
    written = co_await env_.blocking.run(
        [out, offset = part.offset, bytes = *std::move(bytes)] { return out->write(offset, bytes); });
  else
    written = std::move(bytes).error();
  if (written.ok())
    progress_.bytes += part.length;
  else if (!*failed)
    failed->emplace(std::move(written).error());
}

Task<Result<void>> Unpacker::restore_data(InodeRow inode, std::string path) {
  const Slot slot = inode.attributes.id.slot();
  const uint64_t size = inode.attributes.size;
  HR_CO_TRY(std::shared_ptr<OutFile> out,
            co_await env_.blocking.run([path, size] { return OutFile::make(path, size); }));
  auto failed = std::make_shared<std::optional<Error>>();
  std::optional<Key> from = extent_prefix(inode.attributes.id);
  Key to = prefix_end(*from);
  Result<void> known;
  {
    Scope parts;
    while (from && known.ok() && !*failed) {
      Result<Page> page = co_await scan(*from, to);
      if (!page.ok()) {
        known = std::move(page).error();
        break;
      }
      for (const auto& [key, value] : page->rows) {
        Leaf leaf = leaf_of(key);
        Result<LeafValue> decoded = decode_leaf(leaf.base(), leaf.span(), value);
        if (!decoded.ok()) {
          known = std::move(decoded).error();
          break;
        }
        for (Extent piece : decoded->pieces) {
          if (piece.offset >= size) break;  // behind the end: it was being cut off when the cut was taken
          piece.length = std::min(piece.length, size - piece.offset);
          while (piece.length > 0 && !*failed && !fatal_) {
            Extent part = piece;
            part.length = std::min(piece.length, kReadAtOnce);
            piece.offset += part.length;
            piece.segment_offset += part.length;
            piece.length -= part.length;
            co_await reads_.acquire();
            parts.spawn(copy_part(slot, part, out, failed));
          }
        }
      }
      from = std::move(page->next);
    }
    co_await parts.join();
  }
  if (*failed) co_return *std::move(*failed);
  if (fatal_) co_return *fatal_;
  HR_CO_TRY(std::move(known));
  co_return co_await env_.blocking.run([out] { return out->close(); });
}

Task<Result<void>> Unpacker::restore_inode(InodeRow inode, std::string path) {
  if (inode.attributes.type == FileType::kFile) {
    Result<void> data = co_await restore_data(inode, path);
    if (!data.ok()) {
      // Half a file must not pass for one.
      (void)co_await env_.blocking.run([path] { return ::unlink(path.c_str()); });
      co_return data;
    }
  } else {
    HR_CO_TRY(co_await env_.blocking.run([path, inode] { return make_node(path, inode); }));
  }
  co_return co_await apply_attributes(std::move(inode), std::move(path));
}

Task<void> Unpacker::restore(FileId file, std::string path) {
  const Semaphore::Held held(files_);
  if (fatal_) co_return;
  auto known = links_.find(file.packed());
  if (known != links_.end()) {
    std::shared_ptr<HardLink> first = known->second;
    bool there = co_await first->done.wait();
    if (!there) {
      lose(path, Error(Code::kCorrupt, "it is another name of " + first->path + ", which is lost"));
      co_return;
    }
    Result<void> linked = co_await env_.blocking.run([from = first->path, path]() -> Result<void> {
      if (::link(from.c_str(), path.c_str()) != 0) return errno_error("link");
      return {};
    });
    if (linked.ok())
      ++progress_.links;
    else
      lose(path, linked.error());
    co_return;
  }
  // Before anything is awaited: other names come meanwhile.
  auto mine = std::make_shared<HardLink>();
  mine->path = path;
  links_[file.packed()] = mine;
  Result<InodeRow> inode = co_await inode_of(file);
  bool more_names = inode.ok() && inode->attributes.links > 1;
  Result<void> done = inode.ok() ? co_await restore_inode(*inode, path) : Result<void>(inode.error());
  if (done.ok())
    ++progress_.files;
  else
    lose(path, done.error());
  mine->done.set(done.ok());
  if (!more_names && done.ok()) links_.erase(file.packed());
}

Task<Result<void>> Unpacker::run() {
  BucketHead head(env_, bucket_);
  Result<HeadVersion> found = co_await head.read();
  if (!found.ok() && found.code() == Code::kNotFound)
    co_return Error(Code::kNotFound,
                    bucket_.url() + " holds no namespace: name the URL that `headrace up --bucket` was given");
  if (!found.ok()) co_return std::move(found).error();
  progress_.head = found->record;
  HR_CO_TRY(ManifestRecord manifest, co_await read_manifest(env_, bucket_, found->record));
  cold_.set_namespace(manifest.name_space);
  Result<std::shared_ptr<Destination>> prepared =
      co_await env_.blocking.run([path = options_.destination] { return Destination::prepare(path); });
  HR_CO_TRY(std::shared_ptr<Destination> destination, std::move(prepared));
  Result<void> opened = co_await open_partitions(manifest);
  if (opened.ok()) opened = co_await walk_into(kRootFile, options_.destination);
  if (opened.ok()) ++progress_.files;
  co_await cold_.stop();
  partitions_.clear();
  if (fatal_) co_return *fatal_;
  if (!opened.ok()) co_return opened;
  co_return co_await env_.blocking.run([destination] { return destination->sync(); });
}

}  // namespace headrace
