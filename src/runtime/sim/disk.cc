#include "runtime/sim/disk.h"

#include <algorithm>
#include <utility>

#include "base/checksum.h"
#include "runtime/write_through.h"

namespace headrace {

namespace {

std::string normal(std::string_view path) {
  std::string out;
  for (char c : path)
    if (c != '/' || out.empty() || out.back() != '/') out += c;
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

std::string parent_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return "";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool is_root(const std::string& path) {
  return path.empty() || path == "/" || path == ".";
}

bool is_below(const std::string& path, const std::string& directory) {
  if (directory == "/") return path.size() > 1 && path[0] == '/';
  if (is_root(directory)) return !path.empty() && path[0] != '/';
  return path.size() > directory.size() && path[directory.size()] == '/' && path.starts_with(directory);
}

bool is_or_is_below(const std::string& path, const std::string& directory) {
  return path == directory || is_below(path, directory);
}

// Moves the keys that are `from` or below it; what was at the destination goes.
template <class Map, class Key>
void move_keys(Map& map, const std::string& from, const std::string& to, Key key_of) {
  std::vector<typename Map::node_type> moved;
  for (auto it = map.lower_bound(from); it != map.end() && key_of(*it).starts_with(from);) {
    auto next = std::next(it);
    if (is_or_is_below(key_of(*it), from)) moved.push_back(map.extract(it));
    it = next;
  }
  for (auto& node : moved) {
    std::string path = to;
    if constexpr (requires { node.key(); }) {
      path += node.key().substr(from.size());
      map.erase(path);
      node.key() = path;
    } else {
      path += node.value().substr(from.size());
      map.erase(path);
      node.value() = path;
    }
    map.insert(std::move(node));
  }
}

}  // namespace

// An open file. Frames hold the inode themselves: they may be destroyed after their file.
class SimFile final : public File, public WriteThrough {
 public:
  SimFile(SimDisk& disk, std::string path, std::shared_ptr<SimInode> inode, bool direct)
      : disk_(disk), path_(std::move(path)), inode_(std::move(inode)), direct_(direct) {}

  [[nodiscard]] Task<Result<size_t>> read(uint64_t offset, Buffer into) override;
  [[nodiscard]] Task<Result<void>> write(uint64_t offset, std::vector<Buffer> pieces) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> write_through(uint64_t offset, std::vector<Buffer> pieces) override;
  [[nodiscard]] Task<Result<void>> reserve(uint64_t offset, uint64_t size) override;
  [[nodiscard]] Task<Result<uint64_t>> size() override;
  [[nodiscard]] Task<Result<void>> resize(uint64_t size) override;

 private:
  // A write on its way to the device. Destroyed before it arrived: the seed says how much of it
  // did.
  class InFlight {
   public:
    InFlight(SimDisk& disk, std::shared_ptr<SimInode> inode, uint64_t offset, Buffer bytes)
        : disk_(disk), inode_(std::move(inode)), offset_(offset), bytes_(std::move(bytes)) {}
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
    ~InFlight() {
      if (arrived_ || inode_->dead()) return;
      ++disk_.points_.in_flight.fired;
      uint64_t kept = disk_.core_.disk.below(3);
      if (kept == 1) inode_->write(offset_, bytes_.view());
      if (kept == 2) inode_->write_some(offset_, bytes_.view(), disk_.core_.disk);
    }
    void arrive() { arrived_ = true; }
    [[nodiscard]] const Buffer& bytes() const { return bytes_; }

   private:
    SimDisk& disk_;
    std::shared_ptr<SimInode> inode_;
    uint64_t offset_;
    Buffer bytes_;
    bool arrived_ = false;
  };

  [[nodiscard]] Error gone() const { return {Code::kIo, path_ + ": the device is gone"}; }
  [[nodiscard]] Error failed(const char* what) const { return {Code::kIo, path_ + ": " + what + " failed (injected)"}; }
  // Why an O_DIRECT request is refused; null when it is fine.
  [[nodiscard]] const char* misaligned(uint64_t offset, const Buffer& buffer) const {
    if (!direct_) return nullptr;
    if (offset % kBlock != 0) return "offset";
    if (buffer.size() % kBlock != 0) return "size";
    if (reinterpret_cast<uintptr_t>(buffer.data()) % kBlock != 0) return "address";
    return nullptr;
  }
  // Which changes of the inode it became: (first, last), empty when none.
  [[nodiscard]] Task<Result<std::pair<uint64_t, uint64_t>>> put(uint64_t offset, std::vector<Buffer> pieces);
  void write_arrives(uint64_t offset, ByteView bytes);

  SimDisk& disk_;
  std::string path_;
  std::shared_ptr<SimInode> inode_;
  bool direct_;
};

Task<Result<size_t>> SimFile::read(uint64_t offset, Buffer into) {
  if (const char* what = misaligned(offset, into))
    co_return Error(Code::kInvalid, path_ + ": direct read with an unaligned " + what);
  co_await disk_.work(SimDisk::Op::kRead, into.size(), path_);
  if (inode_->dead()) co_return gone();
  if (disk_.fault(disk_.points_.read_fails, disk_.options.read_fails, path_)) co_return failed("read");
  if (!inode_->readable(offset, into.size())) co_return Error(Code::kIo, path_ + ": unreadable sector");
  size_t n = inode_->read(offset, into.span());
  if (n > 0 && disk_.fault(disk_.points_.bit_flip, disk_.options.bit_flip, path_)) {
    uint64_t bit = disk_.core_.disk.below(n * 8);
    into.data()[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  disk_.core_.record(SimEvent::kDisk, offset, n, "read");
  co_return n;
}

Task<Result<void>> SimFile::write(uint64_t offset, std::vector<Buffer> pieces) {
  HR_CO_TRY(co_await put(offset, std::move(pieces)));
  co_return Result<void>();
}

Task<Result<void>> SimFile::write_through(uint64_t offset, std::vector<Buffer> pieces) {
  HR_CO_TRY(auto became, co_await put(offset, std::move(pieces)));
  co_await disk_.work(SimDisk::Op::kFlush, 0, path_);
  if (inode_->dead()) co_return gone();
  if (disk_.fault(disk_.points_.flush_fails, disk_.options.flush_fails, path_)) {
    inode_->tear(disk_.core_.disk);
    co_return failed("flush");
  }
  if (disk_.fault(disk_.points_.flush_lies, disk_.options.flush_lies, path_)) co_return Result<void>();
  inode_->make_sure(became.first, became.second);
  disk_.core_.record(SimEvent::kDisk, became.first, became.second, "write_through");
  co_return Result<void>();
}

Task<Result<std::pair<uint64_t, uint64_t>>> SimFile::put(uint64_t offset, std::vector<Buffer> pieces) {
  uint64_t total = 0;
  uint64_t at = offset;
  for (const Buffer& piece : pieces) {
    if (const char* what = misaligned(at, piece))
      co_return Error(Code::kInvalid, path_ + ": direct write with an unaligned " + what);
    total += piece.size();
    at += piece.size();
  }
  if (inode_->dead()) co_return gone();
  uint64_t end = offset + total;
  if (end > inode_->size() && disk_.used_bytes() + (end - inode_->size()) > disk_.options.capacity)
    co_return Error(Code::kNoSpace, path_ + ": the disk of " + disk_.machine_ + " is full");
  Buffer bytes = Buffer::allocate(total);
  uint64_t filled = 0;
  for (const Buffer& piece : pieces) {
    if (!piece.empty()) std::memcpy(bytes.data() + filled, piece.data(), piece.size());
    filled += piece.size();
  }
  InFlight flight(disk_, inode_, offset, std::move(bytes));
  co_await disk_.work(SimDisk::Op::kWrite, total, path_);
  flight.arrive();
  if (inode_->dead()) co_return gone();
  if (disk_.fault(disk_.points_.write_fails, disk_.options.write_fails, path_)) {
    inode_->write_some(offset, flight.bytes().view(), disk_.core_.disk);
    co_return failed("write");
  }
  const uint64_t first = inode_->mark() + 1;
  write_arrives(offset, flight.bytes().view());
  disk_.core_.record(SimEvent::kDisk, offset, total << 32 | crc32c(flight.bytes().view()), "write");
  if (disk_.options.on_write) disk_.options.on_write(path_, offset);
  co_return std::pair(first, inode_->mark());
}

void SimFile::write_arrives(uint64_t offset, ByteView bytes) {
  if (bytes.empty()) return;
  if (disk_.fault(disk_.points_.lost_write, disk_.options.lost_write, path_)) {
    // The file still grows: a device that loses a write does not tell the file system.
    if (offset + bytes.size() > inode_->size()) inode_->resize(offset + bytes.size());
    return;
  }
  if (disk_.fault(disk_.points_.misdirected, disk_.options.misdirected, path_)) {
    uint64_t end = std::max<uint64_t>(inode_->size(), offset + bytes.size());
    if (end > inode_->size()) inode_->resize(end);
    uint64_t blocks = (end - bytes.size()) / kBlock + 1;
    inode_->write(disk_.core_.disk.below(blocks) * kBlock, bytes);
    return;
  }
  inode_->write(offset, bytes);
  if (disk_.fault(disk_.points_.latent_sector, disk_.options.latent_sector, path_))
    inode_->damage_sector((offset + disk_.core_.disk.below(bytes.size())) / kSector);
}

Task<Result<void>> SimFile::flush() {
  uint64_t mark = inode_->mark();  // what is written while we flush is not covered
  co_await disk_.work(SimDisk::Op::kFlush, 0, path_);
  if (inode_->dead()) co_return gone();
  if (disk_.fault(disk_.points_.flush_fails, disk_.options.flush_fails, path_)) {
    inode_->tear(disk_.core_.disk);
    co_return failed("flush");
  }
  if (disk_.fault(disk_.points_.flush_lies, disk_.options.flush_lies, path_)) co_return Result<void>();
  inode_->make_durable(mark);
  disk_.core_.record(SimEvent::kDisk, mark, inode_->number(), "flush");
  co_return Result<void>();
}

Task<Result<uint64_t>> SimFile::size() {
  co_await disk_.work(SimDisk::Op::kName, 0, path_);
  if (inode_->dead()) co_return gone();
  co_return inode_->size();
}

Task<Result<void>> SimFile::reserve(uint64_t offset, uint64_t size) {
  if (offset + size > inode_->size()) co_return co_await resize(offset + size);
  co_await disk_.work(SimDisk::Op::kName, 0, path_);
  if (inode_->dead()) co_return gone();
  co_return Result<void>();
}

Task<Result<void>> SimFile::resize(uint64_t size) {
  co_await disk_.work(SimDisk::Op::kName, 0, path_);
  if (inode_->dead()) co_return gone();
  if (size > inode_->size() && disk_.used_bytes() + (size - inode_->size()) > disk_.options.capacity)
    co_return Error(Code::kNoSpace, path_ + ": the disk of " + disk_.machine_ + " is full");
  inode_->resize(size);
  disk_.core_.record(SimEvent::kDisk, size, inode_->number(), "resize");
  co_return Result<void>();
}

bool SimDisk::Tree::has_directory(const std::string& path) const {
  return is_root(path) || directories.contains(path);
}

void SimDisk::Tree::add_ancestors(const std::string& path) {
  for (std::string at = parent_of(path); !is_root(at); at = parent_of(at)) directories.insert(at);
}

void SimDisk::Tree::apply(const NameChange& change) {
  switch (change.kind) {
    case NameChange::kLink:
      files[change.path] = change.inode;
      break;
    case NameChange::kUnlink:
      files.erase(change.path);
      break;
    case NameChange::kRename:
      if (change.inode != nullptr) {
        // By inode, not by name: the name it had may never have been durable.
        files.erase(change.path);
        files[change.to] = change.inode;
      } else {
        move_keys(files, change.path, change.to, [](const auto& entry) -> const std::string& { return entry.first; });
        move_keys(directories, change.path, change.to,
                  [](const std::string& name) -> const std::string& { return name; });
        directories.insert(change.to);
      }
      break;
    case NameChange::kMakeDirectory:
      directories.insert(change.path);
      break;
  }
}

SimDisk::SimDisk(SimCore& core, std::string machine, DiskOptions opts)
    : options(std::move(opts)),
      core_(core),
      machine_(std::move(machine)),
      points_{core.faults.point("disk.read_fails"),  core.faults.point("disk.write_fails"),
              core.faults.point("disk.flush_fails"), core.faults.point("disk.flush_lies"),
              core.faults.point("disk.lost_write"),  core.faults.point("disk.misdirected"),
              core.faults.point("disk.bit_flip"),    core.faults.point("disk.latent_sector"),
              core.faults.point("disk.torn"),        core.faults.point("disk.in_flight")} {}

SimDisk::~SimDisk() = default;

bool SimDisk::fault(FaultPoint& point, double own, const std::string& path) {
  if (point.probability + own <= 0) return false;
  if (options.eligible && !options.eligible(path)) return false;
  if (!core_.faults.hit(point, own)) return false;
  core_.record(SimEvent::kFault, operations_, 0, point.name);
  return true;
}

Clock::Sleep SimDisk::work(Op op, uint64_t bytes, const std::string& path) {
  ++operations_;
  Nanos base = op == Op::kRead    ? options.read_latency
               : op == Op::kWrite ? options.write_latency
               : op == Op::kFlush ? options.flush_latency
                                  : options.name_latency;
  // Half to one and a half of the mean; one in a hundred has a long tail.
  auto mean = static_cast<uint64_t>(base.count +
                                    options.per_mib.count * static_cast<int64_t>(bytes) / static_cast<int64_t>(kMiB));
  uint64_t took = core_.disk.between(mean / 2, mean + mean / 2);
  if (core_.disk.chance(1, 100)) took *= 20;
  const double factor = !options.slow || options.slow(path) ? options.slow_factor : 1;
  return core_.clock.sleep(Nanos{
      static_cast<int64_t>(std::min(static_cast<double>(took) * factor, static_cast<double>(options.longest.count)))});
}

void SimDisk::change(NameChange change) {
  now_.apply(change);
  core_.record(SimEvent::kDisk, change.kind, operations_, change.path);
  pending_.push_back(std::move(change));
}

Task<Result<std::unique_ptr<File>>> SimDisk::open(std::string path, OpenOptions opts) {
  path = normal(path);
  co_await work(Op::kName, 0);
  if (now_.has_directory(path)) co_return Error(Code::kIsDirectory, path + ": is a directory");
  auto found = now_.files.find(path);
  if (found != now_.files.end()) {
    if (opts.create && opts.exclusive) co_return Error(Code::kExists, path + ": exists");
    co_return std::unique_ptr<File>(std::make_unique<SimFile>(*this, path, found->second, opts.direct));
  }
  if (!opts.create) co_return Error(Code::kNotFound, path + ": no such file");
  if (!now_.has_directory(parent_of(path))) co_return Error(Code::kNotFound, path + ": its directory does not exist");
  auto inode = std::make_shared<SimInode>(next_inode_++);
  change({.kind = NameChange::kLink, .path = path, .inode = inode});
  co_return std::unique_ptr<File>(std::make_unique<SimFile>(*this, path, inode, opts.direct));
}

Task<Result<void>> SimDisk::remove(std::string path) {
  path = normal(path);
  co_await work(Op::kName, 0);
  if (now_.has_directory(path)) co_return Error(Code::kIsDirectory, path + ": is a directory");
  if (!now_.files.contains(path)) co_return Error(Code::kNotFound, path + ": no such file");
  change({.kind = NameChange::kUnlink, .path = path});
  co_return Result<void>();
}

Task<Result<void>> SimDisk::rename(std::string from, std::string to) {
  from = normal(from);
  to = normal(to);
  co_await work(Op::kName, 0);
  if (from == to) co_return Result<void>();
  if (!now_.has_directory(parent_of(to))) co_return Error(Code::kNotFound, to + ": its directory does not exist");
  auto found = now_.files.find(from);
  if (found != now_.files.end()) {
    if (now_.has_directory(to)) co_return Error(Code::kIsDirectory, to + ": is a directory");
    change({.kind = NameChange::kRename, .path = from, .to = to, .inode = found->second});
    co_return Result<void>();
  }
  if (is_root(from) || !now_.has_directory(from)) co_return Error(Code::kNotFound, from + ": no such file");
  if (is_below(to, from)) co_return Error(Code::kInvalid, to + ": lies below " + from);
  if (now_.files.contains(to)) co_return Error(Code::kNotDirectory, to + ": is a file");
  bool occupied = std::ranges::any_of(now_.files, [&](const auto& entry) { return is_below(entry.first, to); }) ||
                  std::ranges::any_of(now_.directories, [&](const std::string& name) { return is_below(name, to); });
  if (occupied) co_return Error(Code::kNotEmpty, to + ": is not empty");
  change({.kind = NameChange::kRename, .path = from, .to = to});
  co_return Result<void>();
}

Task<Result<void>> SimDisk::sync_directory(std::string path) {
  path = normal(path);
  co_await work(Op::kFlush, 0);
  if (!now_.has_directory(path)) co_return Error(Code::kNotFound, path + ": no such directory");
  if (fault(points_.flush_fails, options.flush_fails, path))
    co_return Error(Code::kIo, path + ": flush failed (injected)");
  if (fault(points_.flush_lies, options.flush_lies, path)) co_return Result<void>();
  make_names_durable(path);
  core_.record(SimEvent::kDisk, operations_, pending_.size(), "sync_directory");
  co_return Result<void>();
}

// A change of this directory, and every earlier one of the same names: later ones build on them.
void SimDisk::make_names_durable(const std::string& directory) {
  std::vector<bool> chosen(pending_.size());
  std::set<std::string> names;
  auto touches = [&](const std::string& path) {
    return !path.empty() &&
           (parent_of(path) == directory || names.contains(path) || path == directory || is_below(directory, path));
  };
  for (size_t i = pending_.size(); i-- > 0;) {
    const NameChange& change = pending_[i];
    if (!touches(change.path) && !touches(change.to)) continue;
    chosen[i] = true;
    names.insert(change.path);
    if (!change.to.empty()) names.insert(change.to);
  }
  std::vector<NameChange> left;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (chosen[i]) {
      durable_.apply(pending_[i]);
    } else {
      left.push_back(std::move(pending_[i]));
    }
  }
  pending_ = std::move(left);
  if (!is_root(directory)) durable_.directories.insert(directory);
  durable_.add_ancestors(directory);
}

Task<Result<void>> SimDisk::make_directories(std::string path) {
  path = normal(path);
  co_await work(Op::kName, 0);
  std::vector<std::string> missing;
  for (std::string at = path; !now_.has_directory(at); at = parent_of(at)) {
    if (now_.files.contains(at)) co_return Error(Code::kNotDirectory, at + ": is a file");
    missing.push_back(at);
  }
  while (!missing.empty()) {
    change({.kind = NameChange::kMakeDirectory, .path = missing.back()});
    missing.pop_back();
  }
  co_return Result<void>();
}

Task<Result<std::vector<std::string>>> SimDisk::list(std::string path) {
  path = normal(path);
  co_await work(Op::kName, 0);
  if (now_.files.contains(path)) co_return Error(Code::kNotDirectory, path + ": is a file");
  if (!now_.has_directory(path)) co_return Error(Code::kNotFound, path + ": no such directory");
  std::vector<std::string> names;
  auto add = [&](const std::string& at) {
    if (!is_root(at) && parent_of(at) == path) names.push_back(at.substr(at.rfind('/') + 1));
  };
  for (const auto& [name, inode] : now_.files) add(name);
  for (const std::string& name : now_.directories) add(name);
  std::ranges::sort(names);
  co_return names;
}

Task<Result<uint64_t>> SimDisk::free_bytes(std::string path) {
  path = normal(path);
  co_await work(Op::kName, 0);
  uint64_t used = used_bytes();
  co_return used >= options.capacity ? 0 : options.capacity - used;
}

SimInode* SimDisk::find(const std::string& path) const {
  auto found = now_.files.find(normal(path));
  return found == now_.files.end() ? nullptr : found->second.get();
}

bool SimDisk::exists(const std::string& path) const {
  return find(path) != nullptr || now_.has_directory(normal(path));
}

std::vector<std::string> SimDisk::paths() const {
  std::vector<std::string> out;
  for (const auto& [path, inode] : now_.files) out.push_back(path);
  return out;
}

uint64_t SimDisk::file_size(const std::string& path) const {
  SimInode* inode = find(path);
  return inode == nullptr ? 0 : inode->size();
}

Buffer SimDisk::contents(const std::string& path) const {
  SimInode* inode = find(path);
  if (inode == nullptr) return {};
  Buffer out = Buffer::allocate(inode->size());
  size_t n = inode->read(0, out.span());
  return out.slice(0, n);
}

uint64_t SimDisk::unflushed(const std::string& path) const {
  SimInode* inode = find(path);
  return inode == nullptr ? 0 : inode->unflushed();
}

bool SimDisk::flip(const std::string& path, uint64_t offset, std::byte bits) {
  SimInode* inode = find(path);
  if (inode == nullptr || offset >= inode->size()) return false;
  inode->flip(offset, bits);
  return true;
}

bool SimDisk::damage(const std::string& path, uint64_t offset) {
  SimInode* inode = find(path);
  if (inode == nullptr || offset >= inode->size()) return false;
  inode->damage_sector(offset / kSector);
  return true;
}

bool SimDisk::erase(const std::string& raw) {
  std::string path = normal(raw);
  bool found = false;
  for (Tree* tree : {&now_, &durable_}) {
    found |= std::erase_if(tree->files, [&](const auto& entry) {
               if (!is_or_is_below(entry.first, path)) return false;
               entry.second->kill();
               return true;
             }) > 0;
    found |= std::erase_if(tree->directories, [&](const std::string& name) { return is_or_is_below(name, path); }) > 0;
  }
  std::erase_if(pending_, [&](const NameChange& change) {
    return is_or_is_below(change.path, path) || (!change.to.empty() && is_or_is_below(change.to, path));
  });
  return found;
}

void SimDisk::kill_all() {
  for (Tree* tree : {&now_, &durable_})
    for (const auto& [path, inode] : tree->files) inode->kill();
}

void SimDisk::wipe() {
  kill_all();
  now_ = {};
  durable_ = {};
  pending_.clear();
}

DiskSnapshot SimDisk::snapshot() const {
  DiskSnapshot out;
  for (const auto& [path, inode] : now_.files) {
    auto copy = std::make_shared<SimInode>(inode->number());
    copy->assign(*inode);
    out.files_[path] = std::move(copy);
  }
  out.directories_ = now_.directories;
  return out;
}

void SimDisk::restore(const DiskSnapshot& snapshot) {
  wipe();
  for (const auto& [path, inode] : snapshot.files_) {
    auto copy = std::make_shared<SimInode>(next_inode_++);
    copy->assign(*inode);
    now_.files[path] = std::move(copy);
  }
  now_.directories = snapshot.directories_;
  durable_ = now_;
}

uint64_t SimDisk::used_bytes() const {
  uint64_t used = 0;
  for (const auto& [path, inode] : now_.files) used += inode->size();
  return used;
}

void SimDisk::lose_power() {
  std::map<uint64_t, std::shared_ptr<SimInode>> inodes;  // by number: an order that the seed repeats
  for (Tree* tree : {&now_, &durable_})
    for (const auto& [path, inode] : tree->files) inodes[inode->number()] = inode;
  for (const NameChange& change : pending_)
    if (change.inode != nullptr) inodes[change.inode->number()] = change.inode;
  for (const auto& [number, inode] : inodes) {
    points_.torn.fired += inode->unflushed();
    inode->lose_power(core_.disk);
  }
  // Half of the time as a journalling file system loses names (the newest), else any of them.
  bool in_order = core_.disk.chance(1, 2);
  uint64_t kept = core_.disk.below(pending_.size() + 1);
  for (size_t i = 0; i < pending_.size(); ++i)
    if (in_order ? i < kept : core_.disk.chance(1, 2)) durable_.apply(pending_[i]);
  pending_.clear();
  for (const auto& [path, inode] : durable_.files) durable_.add_ancestors(path);
  for (const std::string& path : std::set(durable_.directories)) durable_.add_ancestors(path);
  now_ = durable_;
  for (const auto& [path, inode] : now_.files) inodes.erase(inode->number());
  for (const auto& [number, lost] : inodes) lost->kill();
  core_.record(SimEvent::kDisk, now_.files.size(), kept, "power lost");
}

}  // namespace headrace
