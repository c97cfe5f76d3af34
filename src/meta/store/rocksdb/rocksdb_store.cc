#include "meta/store/rocksdb/rocksdb_store.h"

#include <fmt/core.h>

#include "base/checksum.h"
#include "meta/store/rocksdb/database.h"
#include "meta/store/store_import.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

namespace {

constexpr uint64_t kFetch = 4 * kMiB;
constexpr size_t kMaxInlineScan = 256;  // rows; a longer one would hold up the core

class RocksDbStore final : public Store {
 public:
  RocksDbStore(Blocking& blocking, std::shared_ptr<Database> database, Position at)
      : blocking_(blocking), database_(std::move(database)), applied_(at) {}

  ~RocksDbStore() override {
    // Closing and removing files wait for the disk, so a job does that.
    auto job = std::make_shared<BlockingJob>();
    job->work = [database = std::move(database_)]() mutable { database.reset(); };
    blocking_.submit(std::move(job));
  }

  Found get_now(const Key& key, RowValue& value) override { return database_->get_now(key, value); }

  Task<Result<std::optional<RowValue>>> get(Key key) override {
    co_return co_await blocking_.run([database = database_, key = std::move(key)] { return database->get(key); });
  }

  Task<Result<StoreRows>> scan(Key from, Key to, size_t limit) override {
    if (limit <= kMaxInlineScan) {
      auto rows = database_->scan_now(from, to, limit);
      if (rows) co_return std::move(*rows);
    }
    co_return co_await blocking_.run([database = database_, from = std::move(from), to = std::move(to), limit] {
      return database->scan(from, to, limit);
    });
  }

  Task<Result<void>> apply(std::vector<RowChange> changes, Position at) override {
    Mutex::Guard in_order = co_await applying_.lock();
    HR_ASSERT(at >= applied_);
    auto batch = std::make_shared<rocksdb::WriteBatch>();
    for (const RowChange& change : changes) {
      HR_ASSERT(!change.key.starts_with(kStoreReservedPrefix));
      rocksdb::Status status = change.value ? batch->Put(database_->rows(), change.key, *change.value)
                                            : batch->Delete(database_->rows(), change.key);
      HR_ASSERT(status.ok());  // there is no bound on its size, nothing else fails
    }
    changes.clear();
    HR_ASSERT(
        batch->Put(database_->rows(), rocksdb::Slice(kAppliedKey.data(), kAppliedKey.size()), encode_applied(at)).ok());
    if (!database_->write_now(*batch)) {
      HR_CO_TRY(co_await blocking_.run([database = database_, batch] { return database->write(*batch); }));
    }
    applied_ = at;
    co_return {};
  }

  Position applied() const override { return applied_; }

  Task<Result<StoreFiles>> checkpoint(uint64_t tag) override {
    co_return co_await blocking_.run(
        [database = database_, tag, at = applied_] { return database->checkpoint(tag, at); });
  }

  Task<Result<Buffer>> read_file(uint64_t tag, std::string name, uint64_t offset, uint64_t length) override {
    co_return co_await blocking_.run([database = database_, tag, name = std::move(name), offset, length] {
      return database->read_file(tag, name, offset, length);
    });
  }

  Task<Result<void>> release(uint64_t tag) override {
    co_return co_await blocking_.run([database = database_, tag] { return database->release(tag); });
  }

 private:
  Blocking& blocking_;
  std::shared_ptr<Database> database_;
  Position applied_;
  Mutex applying_;
};

// One import: lives in the frame of RocksDbStoreFactory::import, which outlives its workers.
struct Import {
  Blocking& blocking;
  std::shared_ptr<Database> database;
  FetchFile fetch;
  std::vector<ImportedFile> files;
  size_t next = 0;
  std::optional<Error> error;
};

using Output = std::shared_ptr<std::unique_ptr<rocksdb::WritableFile>>;

Result<Output> open_output(Database& database, const std::string& path) {
  auto file = std::make_shared<std::unique_ptr<rocksdb::WritableFile>>();
  rocksdb::Status status = database.node().env()->NewWritableFile(path, file.get(), rocksdb::EnvOptions());
  if (!status.ok()) return rocksdb_error(status, "make " + path);
  return file;
}

Result<uint32_t> append_output(rocksdb::WritableFile& file, const Buffer& bytes, uint32_t crc, bool last) {
  rocksdb::Status status = file.Append(rocksdb::Slice(bytes.text().data(), bytes.size()));
  if (status.ok() && last) status = file.Close();
  if (!status.ok()) return rocksdb_error(status, "write");
  return crc32c(bytes.view(), crc);
}

Task<Result<void>> import_file(Import* import, size_t index) {
  const ImportedFile& one = import->files[index];
  const StoreFile& file = one.file;
  // Before anything is fetched: it is what says that this is a file of ours at all.
  auto how = decode_rocksdb_file_import(file.import);
  if (!how.ok()) co_return std::move(how).error();
  if (file.size == 0) co_return Error(Code::kCorrupt, "has no bytes");
  std::string path = import->database->import_dir() + "/" + one.local_name;
  HR_CO_TRY(Output output, co_await import->blocking.run([database = import->database, path = std::move(path)] {
    return open_output(*database, path);
  }));
  uint32_t crc = 0;
  for (uint64_t offset = 0; offset < file.size;) {
    uint64_t piece = std::min(kFetch, file.size - offset);
    HR_CO_TRY(Buffer bytes, co_await import->fetch(file, offset, piece));
    if (bytes.size() != piece)
      co_return Error(Code::kCorrupt,
                      fmt::format("truncated: {} bytes at {} where there should be {}", bytes.size(), offset, piece));
    offset += piece;
    bool last = offset == file.size;
    HR_CO_TRY(crc, co_await import->blocking.run([database = import->database, output, bytes = std::move(bytes), crc,
                                                  last] { return append_output(**output, bytes, crc, last); }));
  }
  if (crc != file.crc)
    co_return Error(Code::kCorrupt, fmt::format("checksum is {:08x} where it should be {:08x}", crc, file.crc));
  co_return {};
}

Task<void> import_worker(Import* import) {
  while (!import->error && import->next < import->files.size()) {
    size_t index = import->next++;
    auto imported = co_await import_file(import, index);
    if (!imported.ok() && !import->error)
      import->error = std::move(imported).error().within("store file " + import->files[index].file.name);
  }
}

Result<std::shared_ptr<Database>> make_for_import(std::shared_ptr<RocksDbNode> node, std::string dir,
                                                  const std::string& name) {
  HR_TRY(auto database, Database::make(std::move(node), std::move(dir), name));
  HR_TRY(make_directories(database->node().env(), database->import_dir()));
  return database;
}

Result<std::shared_ptr<Database>> make_empty(std::shared_ptr<RocksDbNode> node, std::string dir,
                                             const std::string& name) {
  HR_TRY(auto database, Database::make(std::move(node), std::move(dir), name));
  HR_TRY(database->open_empty());
  return database;
}

}  // namespace

RocksDbStoreFactory::RocksDbStoreFactory(Blocking& blocking, std::string base_dir, RocksDbOptions options)
    : RocksDbStoreFactory(blocking, std::move(base_dir), make_rocksdb_node(options)) {}

RocksDbStoreFactory::RocksDbStoreFactory(Blocking& blocking, std::string base_dir, std::shared_ptr<RocksDbNode> node)
    : blocking_(blocking), base_dir_(std::move(base_dir)), node_(std::move(node)) {}

Task<Result<void>> RocksDbStoreFactory::remove_leftovers() {
  // Not the directory itself: it may be a disk of its own.
  co_return co_await blocking_.run([node = node_, dir = base_dir_]() -> Result<void> {
    std::vector<std::string> names;
    rocksdb::Status listed = node->env()->GetChildren(dir, &names);
    if (listed.IsNotFound()) return {};
    if (!listed.ok()) return rocksdb_error(listed, "list " + dir);
    for (const std::string& name : names)
      if (name != "." && name != ".." && name != "lost+found") HR_TRY(remove_tree(node->env(), dir + "/" + name));
    return {};
  });
}

Task<Result<std::unique_ptr<Store>>> RocksDbStoreFactory::create(std::string name) {
  HR_ASSERT(!name.empty() && name.find('/') == std::string::npos && name[0] != '.');
  HR_CO_TRY(auto database, co_await blocking_.run([node = node_, dir = base_dir_ + "/" + name, name] {
    return make_empty(node, dir, name);
  }));
  co_return std::unique_ptr<Store>(std::make_unique<RocksDbStore>(blocking_, std::move(database), Position()));
}

Task<Result<std::unique_ptr<Store>>> RocksDbStoreFactory::import(std::string name, StoreFiles files, FetchFile fetch) {
  HR_ASSERT(!name.empty() && name.find('/') == std::string::npos && name[0] != '.');
  HR_CO_TRY(auto set, open_store_import(files, kRocksDbStoreKind));
  HR_CO_TRY(auto database, co_await blocking_.run([node = node_, dir = base_dir_ + "/" + name, name] {
    return make_for_import(node, dir, name);
  }));
  Import import{.blocking = blocking_, .database = database, .fetch = std::move(fetch)};
  for (size_t i = 0; i < files.files.size(); ++i)
    import.files.push_back({.file = std::move(files.files[i]), .local_name = fmt::format("{:06}.sst", i + 1)});
  {
    Scope workers;
    for (unsigned i = 0; i < node_->options().import_parallel; ++i) workers.spawn(import_worker(&import));
    co_await workers.join();
  }
  if (import.error) co_return std::move(*import.error);
  HR_CO_TRY(co_await blocking_.run(
      [database, files = std::move(import.files), at = set.at] { return database->open_imported(files, at); }));
  co_return std::unique_ptr<Store>(std::make_unique<RocksDbStore>(blocking_, std::move(database), set.at));
}

}  // namespace headrace
