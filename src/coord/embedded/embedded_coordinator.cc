#include "coord/embedded/embedded_coordinator.h"

#include <utility>

#include "coord/embedded/coord_file.h"

namespace headrace {

namespace {
std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

Task<Result<void>> EmbeddedCoordinator::load() {
  HR_ASSERT(!loaded_);
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(path_, {});
  if (!file.ok() && file.code() == Code::kNotFound) {
    loaded_ = true;
    co_return Result<void>();
  }
  if (!file.ok()) co_return std::move(file).error().within(path_);
  Result<uint64_t> size = co_await (*file)->size();
  if (!size.ok()) co_return std::move(size).error().within(path_);
  if (*size > 2 * kMaxBytes) co_return Error(Code::kCorrupt, path_ + ": " + std::to_string(*size) + " bytes are no coordinator's file");
  Buffer bytes = Buffer::allocate(*size);
  size_t got = 0;
  if (*size > 0) {
    Result<size_t> read = co_await (*file)->read(0, bytes);
    if (!read.ok()) co_return std::move(read).error().within(path_);
    got = *read;
  }
  Result<CoordTable> table = decode_coord_file(bytes.view().first(got));
  if (!table.ok() && table.code() == Code::kUnsupportedFormat) co_return std::move(table).error().within(path_);
  if (!table.ok())
    co_return Error(Code::kCorrupt, path_ + " is damaged: " + table.error().message() +
                                        ". Put back a copy of this file if there is one. Otherwise keep the targets as they are: "
                                        "`headrace recover`, which rebuilds it from them, comes in a later version; what was "
                                        "tiered can be had from the bucket with `headrace rehydrate`");
  durable_ = *std::move(table);
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
  if (bytes > kMaxBytes) co_return Error(Code::kTooLarge, path_ + ": over " + std::to_string(kMaxBytes) + " bytes of records");
  HR_CO_TRY(uint64_t version, staged_.put(key, std::move(value), expected));
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
    Result<void> result = co_await write_beside(encode_coord_file(table));
    if (result.ok()) {
      result = co_await take_place();
      if (!result.ok())
        broken_ = Error(Code::kIo, path_ + " may or may not have taken its last change (" + result.error().message() +
                                       "): mend the disk under it, then restart the node");
    }
    if (result.ok()) {
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
}

Task<Result<void>> EmbeddedCoordinator::write_beside(std::string bytes) {
  std::string beside = path_ + ".new";
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(beside, {.create = true});
  if (!file.ok()) co_return std::move(file).error().within(beside);
  std::vector<Buffer> pieces(1, Buffer::adopt(std::move(bytes)));
  Result<void> done = co_await (*file)->resize(0);  // a leftover may be longer
  if (done.ok()) done = co_await (*file)->write(0, std::move(pieces));
  if (done.ok()) done = co_await (*file)->flush();
  if (!done.ok()) co_return std::move(done).error().within(beside);
  co_return Result<void>();
}

Task<Result<void>> EmbeddedCoordinator::take_place() {
  Result<void> done = co_await env_.disk.rename(path_ + ".new", path_);
  if (done.ok()) done = co_await env_.disk.sync_directory(directory_of(path_));
  co_return done;
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
  co_await scope_.join();
}

}  // namespace headrace
