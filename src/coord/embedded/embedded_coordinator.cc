#include "coord/embedded/embedded_coordinator.h"

#include <map>
#include <utility>

#include "coord/embedded/coord_file.h"
#include "runtime/patience.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {
constexpr const char* kCopyName = "/coord";

std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

// One in each directory that is there: of targets that came or went since, too.
Task<std::vector<std::string>> EmbeddedCoordinator::copy_directories() {
  std::vector<std::string> out;
  if (copies_.empty()) co_return out;
  Result<std::vector<std::string>> names = co_await env_.disk.list(copies_);
  if (!names.ok()) co_return out;
  for (const std::string& name : *names) out.push_back(copies_ + "/" + name);
  co_return out;
}

Task<std::vector<DeviceCopies::Copy>> EmbeddedCoordinator::read_copies_in(std::string directory) {
  std::vector<DeviceCopies::Copy> copies;
  if (devices_ != nullptr) copies = co_await devices_->read(directory);
  Result<CoordTable> beside = co_await read_coord_file(env_, directory + kCopyName);
  copies.push_back({directory + kCopyName, std::move(beside)});
  co_return copies;
}

Task<std::optional<std::vector<DeviceCopies::Copy>>> EmbeddedCoordinator::read_copies(std::string directory) {
  return within(env_.clock, kReadPatience, read_copies_in(std::move(directory)));
}

Task<Result<void>> EmbeddedCoordinator::load() {
  HR_ASSERT(!loaded_);
  Result<CoordTable> file = co_await read_coord_file(env_, path_);
  if (file.code() == Code::kUnsupportedFormat) co_return std::move(file).error().within(path_);
  if (!file.ok() && file.code() != Code::kNotFound && file.code() != Code::kCorrupt && file.code() != Code::kIo)
    co_return std::move(file).error().within(path_);
  std::vector<DeviceCopies::Copy> good;
  std::string silent;  // directories
  const std::vector<std::string> directories = co_await copy_directories();
  std::vector<Task<std::optional<std::vector<DeviceCopies::Copy>>>> reads;
  reads.reserve(directories.size());
  for (const std::string& directory : directories) reads.push_back(read_copies(directory));
  std::vector<std::optional<std::vector<DeviceCopies::Copy>>> read = co_await when_all(std::move(reads));
  for (size_t i = 0; i < directories.size(); ++i) {
    if (!read[i]) silent += (silent.empty() ? "" : ", ") + directories[i];
    if (!read[i]) continue;
    for (DeviceCopies::Copy& copy : *read[i]) {
      if (!file.ok() && copy.table.code() == Code::kUnsupportedFormat)
        co_return std::move(copy.table).error().within(copy.path);
      if (copy.table.ok()) good.push_back(std::move(copy));
    }
  }
  // Copies of another cluster came with a target of its; whose the rest are is for the file to say, or for most of
  // them.
  uint64_t id = file.ok() ? file->id : 0;
  std::map<uint64_t, size_t> votes;
  for (const DeviceCopies::Copy& copy : good) ++votes[copy.table->id];
  for (const auto& [candidate, count] : votes)
    if (!file.ok() && count * 2 > good.size()) id = candidate;
  const DeviceCopies::Copy* newest = nullptr;
  for (const DeviceCopies::Copy& copy : good) {
    if (id == 0 || copy.table->id != id) continue;
    if (newest == nullptr || copy.table->revision > newest->table->revision) newest = &copy;
  }
  if (!file.ok() && newest == nullptr && !silent.empty())
    co_return Error(Code::kUnavailable, path_ + " cannot be read (" + file.error().message() +
                                            "), and the disks under " + silent +
                                            ", where copies of it may be, do not answer: mend them, then start again");
  if (!file.ok() && newest == nullptr) {
    if (good.empty() && file.code() == Code::kNotFound) {
      loaded_ = true;
      co_return Result<void>();
    }
    std::string what =
        file.code() == Code::kNotFound ? path_ + " is missing" : path_ + " is damaged: " + file.error().message();
    if (!good.empty()) {
      what += ", and its copies beside the targets are of different clusters (";
      for (const DeviceCopies::Copy& copy : good) what += (&copy == good.data() ? "" : ", ") + copy.path;
      co_return Error(Code::kCorrupt,
                      what + "): move the directories of targets of another cluster away, then start again");
    }
    co_return Error(Code::kCorrupt,
                    what + ", and no copy of it beside the targets is whole" +
                        ". Put back a copy of this file if there is one, or bring the cluster's other targets back: "
                        "`headrace recover` takes it from any of them into a new state directory. What was tiered can "
                        "be had from the bucket with `headrace rehydrate`");
  }
  if (!file.ok() || (newest != nullptr && newest->table->revision > file->revision)) {
    std::string why = !file.ok() ? file.error().message()
                                 : "it is an older one (revision " + std::to_string(file->revision) + ", not " +
                                       std::to_string(newest->table->revision) + ")";
    mended_ = path_ + " was not right (" + why + ") and was put back from " + newest->path;
    file = *newest->table;
    HR_CO_TRY(co_await write_file(path_, encode_coord_file(*file)));
    HR_CO_TRY(co_await take_place(path_));
  }
  durable_ = *std::move(file);
  staged_ = durable_;
  found_ = loaded_ = true;
  co_return Result<void>();
}

Result<void> EmbeddedCoordinator::usable() const {
  HR_ASSERT(loaded_);
  if (broken_) return *broken_;
  if (scope_.closed()) return Error(Code::kCancelled, "the coordinator is closed");
  return {};
}

Task<Result<CoordRecord>> EmbeddedCoordinator::get(std::string key) {
  HR_CO_TRY(usable());
  co_return durable_.get(key);
}

Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> EmbeddedCoordinator::list(std::string prefix) {
  HR_CO_TRY(usable());
  co_return durable_.list(prefix);
}

Task<Result<uint64_t>> EmbeddedCoordinator::put(std::string key, std::string value, uint64_t expected) {
  HR_CO_TRY(usable());
  size_t bytes = key.size() + value.size();
  for (const CoordEntry& entry : staged_.entries) {
    if (entry.key != key) bytes += entry.key.size() + entry.value.size();
  }
  if (bytes > kMaxCoordBytes)
    co_return Error(Code::kTooLarge, path_ + ": over " + std::to_string(kMaxCoordBytes) + " bytes of records");
  HR_CO_TRY(uint64_t version, staged_.put(key, std::move(value), expected));
  if (staged_.id == 0) staged_.id = env_.random.nonzero();
  if (next_ == nullptr) next_ = std::make_shared<Group>();
  std::shared_ptr<Group> group = next_;
  if (!writing_) {
    writing_ = true;
    scope_.spawn(write_groups());
  }
  while (!group->result) co_await ListWait(group->waiting);
  HR_CO_TRY(*group->result);
  co_return version;
}

Task<void> EmbeddedCoordinator::write_groups() {
  while (next_ != nullptr) {
    std::shared_ptr<Group> group = std::exchange(next_, nullptr);
    CoordTable table = staged_;
    ++writes_;
    const std::string bytes = encode_coord_file(table);
    Result<void> result = co_await write_file(path_, bytes);
    if (result.ok()) {
      result = co_await take_place(path_);
      if (!result.ok())
        broken_ = Error(Code::kIo, path_ + " may or may not have taken its last change (" + result.error().message() +
                                       "): mend the disk under it, then restart the node");
    }
    if (result.ok()) {
      co_await write_copies(bytes);
      durable_ = std::move(table);
      Scheduler::current().wake_all(changed_);
    } else {
      // Later puts were compared with what did not come to be: they fail with it.
      staged_ = durable_;
      if (next_ != nullptr) {
        next_->result = broken_ ? *broken_ : result.error();
        Scheduler::current().wake_all(next_->waiting);
        next_ = nullptr;
      }
    }
    group->result = broken_ ? Result<void>(*broken_) : std::move(result);
    Scheduler::current().wake_all(group->waiting);
  }
  writing_ = false;
  Scheduler::current().wake_all(changed_);
}

// Beside `path`, under another name.
Task<Result<void>> EmbeddedCoordinator::write_file(std::string path, std::string bytes) {
  std::string beside = path + ".new";
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(beside, {.create = true});
  if (!file.ok()) co_return std::move(file).error().within(beside);
  std::vector<Buffer> pieces(1, Buffer::adopt(std::move(bytes)));
  Result<void> done = co_await (*file)->resize(0);  // a leftover may be longer
  if (done.ok()) done = co_await (*file)->write(0, std::move(pieces));
  if (done.ok()) done = co_await (*file)->flush();
  if (!done.ok()) co_return std::move(done).error().within(beside);
  co_return Result<void>();
}

Task<Result<void>> EmbeddedCoordinator::take_place(std::string path) {
  Result<void> done = co_await env_.disk.rename(path + ".new", path);
  if (done.ok()) done = co_await env_.disk.sync_directory(directory_of(path));
  co_return done;
}

Task<Result<void>> EmbeddedCoordinator::write_copy_in(std::string directory, std::string bytes) {
  HR_CO_TRY(co_await write_file(directory + kCopyName, bytes));
  HR_CO_TRY(co_await take_place(directory + kCopyName));
  if (devices_ == nullptr) co_return Result<void>();
  Result<void> done = co_await devices_->write(directory, std::move(bytes));
  if (done.code() == Code::kNotFound) co_return Result<void>();
  co_return done;
}

Task<void> EmbeddedCoordinator::write_copy(std::string directory, std::string bytes, std::shared_ptr<CopyRound> round) {
  Result<void> done = co_await write_copy_in(directory, std::move(bytes));
  copying_.erase(directory);
  --round->under_way;
  if (done.ok())
    ++round->written;
  else if (done.code() != Code::kNotDirectory && round->error.empty())  // a stray file among the targets
    round->error = done.error().message();
  Scheduler::current().wake_all(round->waiting);
}

Task<void> EmbeddedCoordinator::write_copies(std::string bytes) {
  auto round = std::make_shared<CopyRound>();
  const std::vector<std::string> directories = co_await copy_directories();
  for (const std::string& directory : directories) {
    if (!copying_.insert(directory).second) {  // its disk hangs since an earlier put
      round->error = directory + " takes no copy of the coordinator's records: the disk under it hangs";
      continue;
    }
    ++round->under_way;
    if (scope_.spawn(write_copy(directory, bytes, round))) continue;
    copying_.erase(directory);  // it is closed
    --round->under_way;
  }
  const Nanos deadline = env_.clock.now() + kCopyPatience;
  while (round->under_way > 0) {
    bool woken = co_await ListWait(round->waiting, env_.clock, deadline);
    if (!woken) break;
  }
  if (round->under_way > 0 && round->error.empty())
    round->error = "a copy is not written within " + std::to_string(kCopyPatience.count / 1'000'000'000) + " s";
  copied_ = round->written;
  copy_error_ = round->error;
}

Task<Result<uint64_t>> EmbeddedCoordinator::changed_since(uint64_t revision) {
  HR_CO_TRY(usable());
  Nanos deadline = env_.clock.now() + seconds(5);
  while (durable_.revision == revision) {
    bool woken = co_await ListWait(changed_, env_.clock, deadline);
    HR_CO_TRY(usable());
    if (!woken) break;
  }
  co_return durable_.revision;
}

Task<Result<void>> EmbeddedCoordinator::renew_lease(std::string holder, uint64_t incarnation) {
  HR_CO_TRY(usable());
  co_return leases_.renew(holder, incarnation, env_.clock.now());
}

Task<Result<bool>> EmbeddedCoordinator::lease_alive(std::string holder) {
  HR_CO_TRY(usable());
  co_return leases_.alive(holder, env_.clock.now());
}

Task<void> EmbeddedCoordinator::close() {
  scope_.close();
  if (Scheduler::present()) Scheduler::current().wake_all(changed_);
  while (writing_) co_await ListWait(changed_);
}

}  // namespace headrace
