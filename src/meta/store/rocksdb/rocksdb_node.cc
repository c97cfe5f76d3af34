#include "meta/store/rocksdb/rocksdb_node.h"

#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/table_properties.h>

#include <utility>
#include <vector>

namespace headrace {

namespace {

constexpr uint64_t kTargetFile = 15 * kMiB;  // so that an SST, index and filter included, fits a 16 MiB segment

class SilentLogger final : public rocksdb::Logger {
 public:
  SilentLogger() : Logger(rocksdb::InfoLogLevel::HEADER_LEVEL) {}
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

// A store never outlives a crash, so waiting for the device would buy nothing.
class UnsyncedFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using FSWritableFileOwnerWrapper::FSWritableFileOwnerWrapper;
  rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return rocksdb::IOStatus::OK();
  }
};

class UnsyncedDirectory final : public rocksdb::FSDirectory {
 public:
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Close(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return rocksdb::IOStatus::OK();
  }
};

class UnsyncedFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit UnsyncedFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base) : FileSystemWrapper(base) {}
  const char* Name() const override { return "headrace-unsynced"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    rocksdb::IOStatus status = target()->NewWritableFile(path, options, &file, debug);
    if (status.ok()) *result = std::make_unique<UnsyncedFile>(std::move(file));
    return status;
  }
  rocksdb::IOStatus NewDirectory(const std::string&, const rocksdb::IOOptions&,
                                 std::unique_ptr<rocksdb::FSDirectory>* result, rocksdb::IODebugContext*) override {
    *result = std::make_unique<UnsyncedDirectory>();
    return rocksdb::IOStatus::OK();
  }
};

// The store's identity in every SST: which partition's life wrote it (DESIGN §6).
class IdentityCollector final : public rocksdb::TablePropertiesCollector {
 public:
  explicit IdentityCollector(std::string name) : name_(std::move(name)) {}
  rocksdb::Status AddUserKey(const rocksdb::Slice&, const rocksdb::Slice&, rocksdb::EntryType, rocksdb::SequenceNumber,
                             uint64_t) override {
    return rocksdb::Status::OK();
  }
  rocksdb::Status Finish(rocksdb::UserCollectedProperties* properties) override {
    properties->emplace("headrace.format", "1");
    properties->emplace("headrace.store", name_);
    return rocksdb::Status::OK();
  }
  rocksdb::UserCollectedProperties GetReadableProperties() const override { return {{"headrace.store", name_}}; }
  const char* Name() const override { return "headrace-identity"; }

 private:
  std::string name_;
};

class IdentityFactory final : public rocksdb::TablePropertiesCollectorFactory {
 public:
  explicit IdentityFactory(std::string name) : name_(std::move(name)) {}
  rocksdb::TablePropertiesCollector* CreateTablePropertiesCollector(Context) override {
    return new IdentityCollector(name_);  // RocksDB owns it
  }
  const char* Name() const override { return "headrace-identity"; }

 private:
  std::string name_;
};

}  // namespace

RocksDbNode::RocksDbNode(RocksDbOptions options)
    : options_(options),
      env_(rocksdb::NewCompositeEnv(std::make_shared<UnsyncedFileSystem>(rocksdb::Env::Default()->GetFileSystem()))),
      cache_(rocksdb::NewLRUCache(options.block_cache, /*num_shard_bits=*/4,
                                  /*strict_capacity_limit=*/false,
                                  /*high_pri_pool_ratio=*/0.25)),
      write_buffers_(std::make_shared<rocksdb::WriteBufferManager>(options.write_buffers)),
      silent_(std::make_shared<SilentLogger>()) {
  // Of Env::Default(), hence of the process.
  env_->IncBackgroundThreadsIfNeeded(options.compaction_threads, rocksdb::Env::LOW);
  env_->IncBackgroundThreadsIfNeeded(1, rocksdb::Env::HIGH);
  env_->LowerThreadPoolCPUPriority(rocksdb::Env::LOW);
}

rocksdb::Options RocksDbNode::store_options(const std::string& name) const {
  rocksdb::Options options;
  options.env = env_.get();
  options.create_if_missing = true;
  options.error_if_exists = true;
  options.info_log = silent_;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.avoid_flush_during_shutdown = true;
  options.max_open_files = options_.max_open_files;
  options.max_file_opening_threads = 2;
  options.max_background_jobs = options_.compaction_threads + 1;
  options.write_buffer_manager = write_buffers_;
  options.skip_stats_update_on_db_open = true;
  options.enable_write_thread_adaptive_yield = false;  // one writer per store
  options.allow_concurrent_memtable_write = false;

  options.write_buffer_size = options_.write_buffer;
  options.max_write_buffer_number = 4;
  // Most of what an operation asks for is not in the memtable: a few bits say so cheaper than a walk through it.
  options.memtable_whole_key_filtering = true;
  options.memtable_prefix_bloom_size_ratio = 0.05;
  options.compaction_style = rocksdb::kCompactionStyleLevel;
  options.level_compaction_dynamic_level_bytes = true;
  options.max_bytes_for_level_base = 4 * options_.write_buffer;
  options.target_file_size_base = kTargetFile;
  options.compression = rocksdb::kLZ4Compression;
  options.bottommost_compression = rocksdb::kZSTD;
  options.table_properties_collector_factories.push_back(std::make_shared<IdentityFactory>(name));

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache_;
  table.block_size = 16 * kKiB;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  table.cache_index_and_filter_blocks = true;  // or they would be outside the node's budget
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Result<std::string> RocksDbNode::claim_directory(const std::string& parent) {
  // Under the mutex, so that a store of the same name that is just closing neither loses nor takes
  // the new one's place.
  std::lock_guard lock(mutex_);
  HR_TRY(make_directories(env(), parent));
  std::vector<std::string> names;
  rocksdb::Status status = env_->GetChildren(parent, &names);
  if (!status.ok()) return rocksdb_error(status, "list " + parent);
  for (const std::string& name : names) {
    std::string path = parent + "/" + name;
    if (name != "." && name != ".." && !claimed_.contains(path)) HR_TRY(remove_tree(env(), path));
  }
  std::string directory = parent + "/" + std::to_string(next_life_++);
  HR_TRY(make_directories(env(), directory));
  claimed_.insert(directory);
  return directory;
}

void RocksDbNode::give_back_directory(const std::string& parent, const std::string& directory) {
  (void)remove_tree(env(), directory);  // what stays is removed by the next claim, or at start
  std::lock_guard lock(mutex_);
  claimed_.erase(directory);
  (void)env_->DeleteDir(parent);  // fails when another life is in it
}

std::shared_ptr<RocksDbNode> make_rocksdb_node(RocksDbOptions options) {
  return std::make_shared<RocksDbNode>(options);
}

Error rocksdb_error(const rocksdb::Status& status, const std::string& what) {
  HR_ASSERT(!status.ok());
  std::string text = what + ": " + status.ToString();
  if (status.IsNoSpace())
    return {Code::kNoSpace, text +
                                ": the disk of the local stores is full: free space there, or give "
                                "the node another state directory"};
  if (status.IsCorruption()) return {Code::kCorrupt, text};
  if (status.IsShutdownInProgress()) return {Code::kCancelled, text};
  return {Code::kIo, text};
}

Result<void> remove_tree(rocksdb::Env* env, const std::string& path) {
  std::vector<std::string> names;
  rocksdb::Status status = env->GetChildren(path, &names);
  if (status.IsNotFound() || status.IsPathNotFound()) return {};
  if (!status.ok()) return rocksdb_error(status, "list " + path);
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    std::string child = path + "/" + name;
    bool directory = false;
    status = env->IsDirectory(child, &directory);
    if (status.ok() && directory) {
      HR_TRY(remove_tree(env, child));
      continue;
    }
    status = env->DeleteFile(child);
    if (!status.ok() && !status.IsNotFound() && !status.IsPathNotFound())
      return rocksdb_error(status, "remove " + child);
  }
  status = env->DeleteDir(path);
  if (!status.ok()) return rocksdb_error(status, "remove " + path);
  return {};
}

Result<void> make_directories(rocksdb::Env* env, const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    std::string part = path.substr(0, slash);
    rocksdb::Status status = env->CreateDirIfMissing(part);
    if (!status.ok()) return rocksdb_error(status, "make directory " + part);
    if (slash == std::string::npos) return {};
  }
}

}  // namespace headrace
