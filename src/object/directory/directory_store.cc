#include "object/directory/directory_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include <fmt/core.h>
#include <xxhash.h>

#include "base/ids.h"

namespace headrace {

namespace {

constexpr std::string_view kOwn = ".headrace";  // our directory inside the root
constexpr uint64_t kHashedSize = 64 * kKiB;     // objects up to this have an ETag of their content
constexpr int kLockFiles = 64;
constexpr int kLockTries = 2000;          // of kLockPause each: 10 s
constexpr long kLockPause = 5'000'000;    // ns
constexpr time_t kAbandonedAfter = 3600;  // s without a write to a temporary file
constexpr int kReadAttempts = 20;         // of an object that is replaced meanwhile

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

constexpr const char* kMakeRoom = ": make room on the bucket's file system";

// Of errors that came by way of Disk.
Error with_mend(Error error) {
  return error.code() == Code::kNoSpace ? Error(error.code(), error.message() + kMakeRoom) : error;
}

Error system_error(int number, std::string_view what) {
  Code code = Code::kIo;
  std::string_view mend;
  switch (number) {
    case ENOENT:
      code = Code::kNotFound;
      break;
    case ENOSPC:
    case EDQUOT:
      code = Code::kNoSpace;
      mend = kMakeRoom;
      break;
    case EACCES:
    case EPERM:
      code = Code::kDenied;
      mend = ": give this user the right to write the bucket's directory";
      break;
    case EROFS:
      code = Code::kReadOnly;
      mend = ": the bucket's file system is mounted read-only";
      break;
    case EISDIR:
    case ENOTDIR:
    case ENOTEMPTY:
      code = Code::kInvalid;
      mend = ": a directory bucket cannot hold an object and a folder of the same name";
      break;
    case ENAMETOOLONG:
      code = Code::kNameTooLong;
      break;
    case EMFILE:
    case ENFILE:
      code = Code::kUnavailable;
      mend = ": raise the limit of open files (ulimit -n)";
      break;
    default:
      break;
  }
  return Error(code, fmt::format("{}: {}{}", what, std::strerror(number), mend));
}

std::string content_etag(ByteView bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("\"x{:016x}{:016x}\"", hash.high64, hash.low64);
}

std::string version_etag(const struct stat& st) {
  return fmt::format("\"v{:x}-{:x}.{:x}-{:x}\"", st.st_ino, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_size);
}

// Off the core. nullopt: there is no object.
Result<std::optional<ObjectInfo>> inspect(const std::string& path, const std::string& key) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<ObjectInfo>();
    return system_error(errno, key);
  }
  struct stat st{};
  if (::fstat(file.get(), &st) != 0) return system_error(errno, key);
  if (!S_ISREG(st.st_mode)) return std::optional<ObjectInfo>();
  ObjectInfo info{key, static_cast<uint64_t>(st.st_size), {}, false};
  if (info.size > kHashedSize) {
    info.etag = version_etag(st);
    return std::optional(info);
  }
  std::string bytes(kHashedSize + 1, '\0');
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = ::pread(file.get(), bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(errno, key);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  info.size = have;
  info.etag = content_etag(bytes_of(std::string_view(bytes).substr(0, have)));
  return std::optional(info);
}

std::string lock_path(const std::string& root, const std::string& key) {
  const uint64_t shard = XXH3_64bits(key.data(), key.size()) % kLockFiles;  // every process must choose the same
  return fmt::format("{}/{}/lock/{:02x}", root, kOwn, shard);
}

// Held until the descriptor is closed, by death too. Bounded: a stopped process must not stop us
// for ever.
Result<Descriptor> take_lock(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!file.ok()) return system_error(errno, path);
  for (int i = 0; i < kLockTries; ++i) {
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
    if (errno != EWOULDBLOCK && errno != EINTR) return system_error(errno, path);
    const timespec pause{0, i < 20 ? 100'000 : kLockPause};
    ::nanosleep(&pause, nullptr);
  }
  return Error(Code::kUnavailable, fmt::format("{}: another process has held this lock for 10 s", path));
}

struct Swap {
  std::string root;
  std::string key;
  std::string path;
  std::string temporary;
  PutCondition condition;
  std::string etag;  // of the new content; empty: to be found out
  Nanos wall;
};

// Off the core: decides the condition and renames, as one step for all processes of this machine.
Result<ObjectInfo> swap_in(const Swap& swap) {
  // The kernel's own times tick every few ms: two versions could share one.
  const timespec time{static_cast<time_t>(swap.wall.count / 1'000'000'000),
                      static_cast<long>(swap.wall.count % 1'000'000'000)};
  const timespec times[2] = {time, time};
  if (::utimensat(AT_FDCWD, swap.temporary.c_str(), times, 0) != 0) return system_error(errno, swap.key);
  HR_TRY(std::optional<ObjectInfo> fresh, inspect(swap.temporary, swap.key));
  if (!fresh) return Error(Code::kIo, fmt::format("put {}: its temporary file has vanished", swap.key));
  if (!swap.etag.empty() && fresh->etag != swap.etag)
    return Error(Code::kCorrupt, fmt::format("put {}: the file does not hold what was written", swap.key));

  HR_TRY(Descriptor lock, take_lock(lock_path(swap.root, swap.key)));
  if (swap.condition.kind != PutCondition::kNone) {
    HR_TRY(std::optional<ObjectInfo> now, inspect(swap.path, swap.key));
    if (swap.condition.kind == PutCondition::kIfAbsent && now)
      return Error(Code::kConflict, fmt::format("put {}: it exists already", swap.key));
    if (swap.condition.kind == PutCondition::kIfMatch && (!now || now->etag != swap.condition.etag))
      return Error(Code::kConflict, fmt::format("put {}: another version is there", swap.key));
  }
  if (::rename(swap.temporary.c_str(), swap.path.c_str()) != 0) return system_error(errno, "put " + swap.key);
  fresh->verified = true;
  return *std::move(fresh);
}

void clear_abandoned(const std::string& directory) {
  DIR* dir = ::opendir(directory.c_str());
  if (dir == nullptr) return;
  // The file system's own clock is the measure: ours and its may differ.
  const std::string probe = fmt::format("{}/now-{}", directory, ::getpid());
  struct stat now{};
  {
    Descriptor file(::open(probe.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.ok()) ::fstat(file.get(), &now);
  }
  ::unlink(probe.c_str());
  while (const dirent* entry = ::readdir(dir)) {
    struct stat st{};
    const std::string path = fmt::format("{}/{}", directory, entry->d_name);
    if (now.st_mtim.tv_sec != 0 && ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
        now.st_mtim.tv_sec - st.st_mtim.tv_sec > kAbandonedAfter)
      ::unlink(path.c_str());
  }
  ::closedir(dir);
}

// Off the core. Calls visit(relative path) for each regular file below root whose folder can hold
// the prefix.
Result<void> walk(const std::string& root, const std::string& relative, const std::string& prefix, int depth,
                  const std::function<void(const std::string&)>& visit) {
  if (depth > 64) return {};
  const std::string directory = relative.empty() ? root : root + "/" + relative;
  DIR* dir = ::opendir(directory.c_str());
  if (dir == nullptr) {
    if (errno == ENOENT || errno == ENOTDIR) return {};
    return system_error(errno, "list " + directory);
  }
  std::vector<std::string> folders;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || (relative.empty() && name == kOwn)) continue;
    const std::string path = relative.empty() ? std::string(name) : fmt::format("{}/{}", relative, name);
    struct stat st{};
    if (::lstat((root + "/" + path).c_str(), &st) != 0) continue;
    if (S_ISDIR(st.st_mode))
      folders.push_back(path);
    else if (S_ISREG(st.st_mode))
      visit(path);
  }
  ::closedir(dir);
  for (const std::string& folder : folders) {
    const std::optional<std::string> key = object_key(folder);
    if (!key) continue;
    const std::string begin = *key + "/";
    const size_t common = std::min(begin.size(), prefix.size());
    if (begin.compare(0, common, prefix, 0, common) != 0) continue;
    HR_TRY(walk(root, folder, prefix, depth + 1, visit));
  }
  return {};
}

Result<Listing> list_files(const std::string& root, const std::string& prefix, const std::string& after, size_t limit) {
  std::vector<std::string> keys;
  HR_TRY(walk(root, "", prefix, 0, [&](const std::string& path) {
    std::optional<std::string> key = object_key(path);
    if (key && key->starts_with(prefix) && (after.empty() || *key > after)) keys.push_back(*std::move(key));
  }));
  const size_t count = std::min(limit, keys.size());
  std::partial_sort(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(count), keys.end());
  Listing listing;
  for (size_t i = 0; i < count; ++i) {
    HR_TRY(std::string path, object_path(keys[i]));
    HR_TRY(std::optional<ObjectInfo> info, inspect(root + "/" + path, keys[i]));
    if (info) listing.objects.push_back(*std::move(info));
  }
  if (keys.size() > count) listing.continuation = keys[count - 1];
  return listing;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

}  // namespace

Result<std::string> object_path(const std::string& key) {
  HR_TRY(check_key(key));
  std::string path;
  size_t begin = 0;
  while (begin <= key.size()) {
    const size_t end = std::min(key.find('/', begin), key.size());
    const std::string_view part = std::string_view(key).substr(begin, end - begin);
    if (begin > 0) path.push_back('/');
    const size_t part_begin = path.size();
    const bool reserved = part == "." || part == ".." || part.starts_with(kOwn);
    if (part.empty()) path.push_back('%');
    for (size_t i = 0; i < part.size(); ++i) {
      if (part[i] == '%')
        path += "%25";
      else if (part[i] == '.' && i == 0 && reserved)
        path += "%2E";
      else
        path.push_back(part[i]);
    }
    if (path.size() - part_begin > NAME_MAX)
      return Error(Code::kNameTooLong, fmt::format("{}: a part of the key is longer than a file name may be", key));
    begin = end + 1;
  }
  return path;
}

std::optional<std::string> object_key(std::string_view path) {
  std::string key;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (begin > 0) key.push_back('/');
    for (size_t i = 0; part != "%" && i < part.size(); ++i) {
      if (part[i] != '%') {
        key.push_back(part[i]);
      } else {
        const std::string_view escape = part.substr(i, 3);
        if (escape == "%25")
          key.push_back('%');
        else if (escape == "%2E" && i == 0)
          key.push_back('.');
        else
          return std::nullopt;
        i += 2;
      }
    }
    begin = end + 1;
  }
  // One path per key, so that no file is listed under a key that reads another.
  const Result<std::string> back = object_path(key);
  if (!back.ok() || *back != path) return std::nullopt;
  return key;
}

struct DirectoryStore::Place {
  std::string key;
  std::string path;
};

DirectoryStore::DirectoryStore(std::string root, Env env) : root_(std::move(root)), env_(env) {
  while (root_.size() > 1 && root_.ends_with('/')) root_.pop_back();
  HR_ASSERT(root_.starts_with('/') && root_.size() > 1);
}

Result<DirectoryStore::Place> DirectoryStore::place_of(const std::string& key) const {
  HR_TRY(std::string relative, object_path(key));
  return Place{key, root_ + "/" + relative};
}

std::string DirectoryStore::temporary_path() {
  return fmt::format("{}/{}/tmp/{}{}", root_, kOwn, hex(env_.random.next()), hex(env_.random.next()));
}

Task<Result<void>> DirectoryStore::prepare() {
  if (prepared_) co_return {};
  const std::string own = fmt::format("{}/{}", root_, kOwn);
  HR_CO_TRY(co_await ensure_directory(own + "/lock"));
  HR_CO_TRY(co_await ensure_directory(own + "/tmp"));
  co_await env_.blocking.run([tmp = own + "/tmp"] { clear_abandoned(tmp); });
  prepared_ = true;
  co_return {};
}

Task<Result<void>> DirectoryStore::ensure_directory(std::string directory) {
  if (durable_directories_.contains(directory)) co_return {};
  Result<void> made = co_await env_.disk.make_directories(directory);
  if (!made.ok()) co_return std::move(made).error().within("bucket " + url());
  std::vector<std::string> chain;  // the root and what lies below it, on the way to the directory
  for (std::string at = directory; at.size() >= root_.size(); at = parent_of(at)) chain.push_back(at);
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    if (durable_directories_.contains(*it)) continue;
    Result<void> synced = co_await env_.disk.sync_directory(parent_of(*it));
    // What is above the root may be closed to us; then it was not we who made the root.
    if (!synced.ok() && *it != root_) co_return std::move(synced).error().within("bucket " + url());
    durable_directories_.insert(*it);
  }
  co_return {};
}

Task<Result<ObjectInfo>> DirectoryStore::commit(Place place, std::string temporary, PutCondition condition,
                                                std::string etag) {
  Result<ObjectInfo> done = Error(Code::kIo, "not tried");
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::string parent = parent_of(place.path);
    Result<void> there = co_await ensure_directory(parent);
    if (!there.ok()) {
      done = std::move(there).error();
      break;
    }
    Swap swap{root_, place.key, place.path, temporary, condition, etag, env_.clock.wall()};
    done = co_await env_.blocking.run([swap = std::move(swap)] { return swap_in(swap); });
    if (done.ok()) {
      Result<void> synced = co_await env_.disk.sync_directory(parent);
      // It is visible and perhaps not durable: as unknown as a lost reply.
      if (!synced.ok()) {
        unsettled_[place.path] = ++failed_syncs_;
        co_return Error(Code::kTimeout, fmt::format("put {}: {}", place.key, synced.error().message()));
      }
      co_return done;
    }
    if (done.code() == Code::kConflict) {
      // What is in the way may be what another process, or an earlier life of this one, could not sync.
      Result<void> synced = co_await env_.disk.sync_directory(parent);
      if (!synced.ok() && synced.code() != Code::kNotFound) done = std::move(synced).error();
      break;
    }
    if (done.code() != Code::kNotFound) break;
    durable_directories_.clear();  // somebody removed a directory that we had seen
    prepared_ = false;
    HR_CO_TRY(co_await prepare());
  }
  (void)co_await env_.disk.remove(temporary);
  co_return with_mend(std::move(done).error()).within("bucket " + url());
}

Task<Result<void>> DirectoryStore::settle(Place place) {
  auto at = unsettled_.find(place.path);
  if (at == unsettled_.end()) co_return {};
  const uint64_t which = at->second;
  Result<void> synced = co_await env_.disk.sync_directory(parent_of(place.path));
  if (!synced.ok() && synced.code() != Code::kNotFound)
    co_return Error(Code::kIo, fmt::format("bucket {}: {}: {}", url(), place.key, synced.error().message()));
  at = unsettled_.find(place.path);
  if (at != unsettled_.end() && at->second == which) unsettled_.erase(at);
  co_return {};
}

Task<Result<ObjectInfo>> DirectoryStore::put(std::string key, Buffer body, PutCondition condition) {
  HR_CO_TRY(Place place, place_of(key));
  HR_CO_TRY(co_await prepare());
  const std::string temporary = temporary_path();
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(temporary, {.create = true, .exclusive = true});
  if (!file.ok() && file.code() == Code::kNotFound) {  // our own directory was removed under us
    prepared_ = false;
    durable_directories_.clear();
    HR_CO_TRY(co_await prepare());
    file = co_await env_.disk.open(temporary, {.create = true, .exclusive = true});
  }
  if (!file.ok()) co_return std::move(file).error().within("bucket " + url());
  Result<void> written;
  if (!body.empty()) {
    std::vector<Buffer> pieces(1, body);
    written = co_await (*file)->write(0, std::move(pieces));
  }
  if (written.ok()) written = co_await (*file)->flush();
  file->reset();
  if (!written.ok()) {
    (void)co_await env_.disk.remove(temporary);
    co_return with_mend(std::move(written).error()).within(fmt::format("bucket {}: put {}", url(), key));
  }
  std::string etag = body.size() <= kHashedSize ? content_etag(body.view()) : std::string();
  Result<ObjectInfo> done = co_await commit(std::move(place), temporary, std::move(condition), std::move(etag));
  co_return done;
}

Task<Result<std::optional<Got>>> DirectoryStore::read_version(Place place, uint64_t offset, uint64_t size,
                                                              bool need_etag) {
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(place.path, {});
  if (!file.ok()) {
    // A folder, or a file where the key has a folder, is no object.
    if (file.code() == Code::kNotDirectory || file.code() == Code::kIsDirectory || file.code() == Code::kNotFound)
      co_return Error(Code::kNotFound, fmt::format("no object {} in {}", place.key, url()));
    co_return std::move(file).error().within(fmt::format("bucket {}: get {}", url(), place.key));
  }
  HR_CO_TRY(uint64_t whole, co_await (*file)->size());
  const bool hashed = whole <= kHashedSize;
  std::optional<ObjectInfo> before;
  if (need_etag && !hashed) {
    // The file was opened by name: only when the name has one version before and after is it the
    // one that we read.
    Result<std::optional<ObjectInfo>> info =
        co_await env_.blocking.run([path = place.path, key = place.key] { return inspect(path, key); });
    HR_CO_TRY(before, std::move(info));
    if (!before || before->size <= kHashedSize) co_return std::optional<Got>();
    file = co_await env_.disk.open(place.path, {});
    if (!file.ok()) co_return std::optional<Got>();
    whole = before->size;
  }
  if (size == 0) size = whole;
  if (offset > whole || size > whole - offset)
    co_return Error(Code::kRange,
                    fmt::format("get {}: bytes {}+{} of an object of {}", place.key, offset, size, whole));
  // To find a small object's ETag, all of it is read.
  const bool all = need_etag && hashed;
  Got got;
  Buffer bytes = Buffer::allocate(all ? whole : size);
  if (!bytes.empty()) {
    Result<size_t> have = co_await (*file)->read(all ? 0 : offset, bytes);
    if (!have.ok()) co_return std::move(have).error().within(fmt::format("bucket {}: get {}", url(), place.key));
    if (*have != bytes.size()) co_return std::optional<Got>();  // somebody shortens it in place
  }
  if (need_etag && hashed) got.etag = content_etag(bytes.view());
  if (before) {
    Result<std::optional<ObjectInfo>> info =
        co_await env_.blocking.run([path = place.path, key = place.key] { return inspect(path, key); });
    HR_CO_TRY(std::optional<ObjectInfo> after, std::move(info));
    if (!after || after->etag != before->etag) co_return std::optional<Got>();
    got.etag = before->etag;
  }
  got.body = all && !bytes.empty() ? bytes.slice(offset, size) : bytes;
  co_return std::optional<Got>(std::move(got));
}

Task<Result<Got>> DirectoryStore::read(Place place, uint64_t offset, uint64_t size, bool need_etag) {
  HR_CO_TRY(co_await settle(place));
  for (int i = 0; i < kReadAttempts; ++i) {
    HR_CO_TRY(std::optional<Got> got, co_await read_version(place, offset, size, need_etag));
    if (got) co_return *std::move(got);
  }
  co_return Error(Code::kUnavailable, fmt::format("get {}: the object changes faster than it can be read", place.key));
}

Task<Result<Got>> DirectoryStore::get_with_etag(std::string key) {
  HR_CO_TRY(Place place, place_of(key));
  Result<Got> got = co_await read(std::move(place), 0, 0, true);
  co_return got;
}

Task<Result<Buffer>> DirectoryStore::get_range(std::string key, uint64_t offset, uint64_t size,
                                               std::string if_match_etag) {
  HR_CO_TRY(Place place, place_of(key));
  if (size == 0) co_return Error(Code::kInvalid, fmt::format("get {}: an empty range", key));
  const bool conditional = !if_match_etag.empty();
  HR_CO_TRY(Got got, co_await read(std::move(place), offset, size, conditional));
  if (conditional && got.etag != if_match_etag)
    co_return Error(Code::kConflict, fmt::format("get {}: the object has changed", key));
  co_return std::move(got.body);
}

Task<Result<ObjectInfo>> DirectoryStore::head(std::string key) {
  HR_CO_TRY(Place place, place_of(key));
  HR_CO_TRY(co_await settle(place));
  Result<std::optional<ObjectInfo>> found =
      co_await env_.blocking.run([path = place.path, key] { return inspect(path, key); });
  HR_CO_TRY(std::optional<ObjectInfo> info, std::move(found));
  if (!info) co_return Error(Code::kNotFound, fmt::format("no object {} in {}", key, url()));
  co_return *std::move(info);
}

Task<Result<std::vector<RemoveFailure>>> DirectoryStore::remove_batch(std::vector<std::string> keys) {
  std::vector<RemoveFailure> failures;
  std::vector<Place> places;
  for (std::string& key : keys) {
    Result<Place> place = place_of(key);
    if (place.ok())
      places.push_back(*std::move(place));
    else
      failures.push_back({std::move(key), std::move(place).error()});
  }
  if (places.empty()) co_return failures;
  HR_CO_TRY(co_await prepare());
  auto unlink_all = [root = root_, places] {
    std::vector<std::optional<Error>> errors;
    for (const Place& place : places) {
      std::optional<Error> error;
      Result<Descriptor> lock = take_lock(lock_path(root, place.key));
      if (!lock.ok())
        error = std::move(lock).error();
      else if (::unlink(place.path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR && errno != EISDIR)
        error = system_error(errno, "remove " + place.key);
      errors.push_back(std::move(error));
    }
    return errors;
  };
  std::vector<std::optional<Error>> errors = co_await env_.blocking.run(std::move(unlink_all));
  std::set<std::string> parents;
  for (size_t i = 0; i < places.size(); ++i) {
    if (errors[i])
      failures.push_back({places[i].key, *std::move(errors[i])});
    else {
      parents.insert(parent_of(places[i].path));
      unsettled_.erase(places[i].path);
    }
  }
  for (const std::string& parent : parents) {
    Result<void> synced = co_await env_.disk.sync_directory(parent);
    if (!synced.ok() && synced.code() != Code::kNotFound && synced.code() != Code::kNotDirectory)
      co_return std::move(synced).error().within("bucket " + url());
  }
  co_return failures;
}

Task<Result<Listing>> DirectoryStore::list(std::string prefix, std::string continuation, size_t limit) {
  HR_ASSERT(limit > 0);
  Result<Listing> listing = co_await env_.blocking.run(
      [root = root_, prefix, continuation, limit] { return list_files(root, prefix, continuation, limit); });
  co_return listing;
}

// The temporary file grows part by part. One dropped unfinished leaves it to the next process's
// clear_abandoned.
class DirectoryUpload final : public Upload {
 public:
  DirectoryUpload(DirectoryStore& store, DirectoryStore::Place place, std::string temporary, std::unique_ptr<File> file)
      : store_(store), place_(std::move(place)), temporary_(std::move(temporary)), file_(std::move(file)) {}

  Task<Result<void>> part(Buffer bytes) override {
    if (bytes.empty()) co_return Error(Code::kInvalid, fmt::format("upload {}: an empty part", place_.key));
    if (file_ == nullptr) co_return Error(Code::kInvalid, fmt::format("upload {}: it has ended", place_.key));
    const uint64_t at = size_;
    size_ += bytes.size();
    std::vector<Buffer> pieces(1, std::move(bytes));
    Result<void> written = co_await file_->write(at, std::move(pieces));
    if (!written.ok()) {
      co_await abort();
      co_return with_mend(std::move(written).error()).within("upload " + place_.key);
    }
    co_return {};
  }

  Task<Result<ObjectInfo>> finish(PutCondition condition) override {
    if (file_ == nullptr) co_return Error(Code::kInvalid, fmt::format("upload {}: it has ended", place_.key));
    Result<void> flushed = co_await file_->flush();
    if (!flushed.ok()) {
      co_await abort();
      co_return with_mend(std::move(flushed).error()).within("upload " + place_.key);
    }
    file_.reset();
    Result<ObjectInfo> done = co_await store_.commit(place_, temporary_, std::move(condition), "");
    co_return done;
  }

  Task<void> abort() override {
    if (file_ == nullptr) co_return;
    file_.reset();
    (void)co_await store_.env_.disk.remove(temporary_);
  }

 private:
  DirectoryStore& store_;
  DirectoryStore::Place place_;
  std::string temporary_;
  std::unique_ptr<File> file_;
  uint64_t size_ = 0;
};

Task<Result<std::unique_ptr<Upload>>> DirectoryStore::begin_upload(std::string key) {
  HR_CO_TRY(Place place, place_of(key));
  HR_CO_TRY(co_await prepare());
  std::string temporary = temporary_path();
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(temporary, {.create = true, .exclusive = true});
  if (!file.ok()) co_return std::move(file).error().within("bucket " + url());
  co_return std::unique_ptr<Upload>(
      std::make_unique<DirectoryUpload>(*this, std::move(place), std::move(temporary), *std::move(file)));
}

}  // namespace headrace
