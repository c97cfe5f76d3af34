// Database: one open RocksDB with its directory, as the jobs in the blocking pool see it. Private
// to this folder.
//
// Owned by shared_ptr: by the store and by every job that runs, since a job may go on after the
// task that awaited it was destroyed. The last owner closes it and removes its directory. Every
// method but get_now, scan_now and write_now may wait for a disk. Thread-safe as RocksDB is; the
// checkpoints' own records are under a mutex.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>

#include "meta/store/rocksdb/rocksdb_node.h"
#include "meta/store/store.h"

namespace headrace {

using StoreRows = std::vector<std::pair<Key, RowValue>>;

// An SST of an import, on local disk already.
struct ImportedFile {
  StoreFile file;
  std::string local_name;  // in Database::import_dir()
};

class Database {
 public:
  // In a fresh directory under parent. Not open yet: open_empty() or open_imported() follows.
  [[nodiscard]] static Result<std::shared_ptr<Database>> make(std::shared_ptr<RocksDbNode> node, std::string parent,
                                                              const std::string& name);
  Database(std::shared_ptr<RocksDbNode> node, std::string parent, std::string dir, const std::string& name);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  [[nodiscard]] Result<void> open_empty();
  [[nodiscard]] Result<void> open_imported(const std::vector<ImportedFile>& files, Position at);
  [[nodiscard]] std::string import_dir() const { return dir_ + "/import"; }
  [[nodiscard]] RocksDbNode& node() const { return *node_; }

  [[nodiscard]] Found get_now(const Key& key, RowValue& value);
  [[nodiscard]] Result<std::optional<RowValue>> get(const Key& key);
  // Nothing when a block is not in memory.
  [[nodiscard]] std::optional<Result<StoreRows>> scan_now(const Key& from, const Key& to, size_t limit);
  [[nodiscard]] Result<StoreRows> scan(const Key& from, const Key& to, size_t limit);

  [[nodiscard]] rocksdb::ColumnFamilyHandle* rows() const { return rows_; }
  // Whether it was written; if not, nothing happened, and write() tells why or waits as long as it
  // takes.
  [[nodiscard]] bool write_now(rocksdb::WriteBatch& batch);
  [[nodiscard]] Result<void> write(rocksdb::WriteBatch& batch);

  [[nodiscard]] Result<StoreFiles> checkpoint(uint64_t tag, Position at);
  [[nodiscard]] Result<Buffer> read_file(uint64_t tag, const std::string& name, uint64_t offset, uint64_t length);
  [[nodiscard]] Result<void> release(uint64_t tag);

 private:
  struct Known {
    std::string name;
    uint64_t size = 0;
    uint32_t crc = 0;
  };
  using KnownByNumber = std::map<uint64_t, Known>;  // by RocksDB's file number in this database

  [[nodiscard]] Result<void> open_database();
  [[nodiscard]] rocksdb::ReadOptions read_options() const;
  [[nodiscard]] Result<StoreRows> scan_with(rocksdb::ReadOptions options, const Key& from, const Key& to, size_t limit,
                                            bool& incomplete);
  void recover();
  [[nodiscard]] Result<Known> identify(const std::string& path, uint64_t size);
  [[nodiscard]] Result<StoreFiles> export_files(const std::string& dir, Position at,
                                                std::map<std::string, std::string>& paths);
  [[nodiscard]] std::string checkpoint_dir(uint64_t tag) const;

  const std::shared_ptr<RocksDbNode> node_;
  const std::string parent_;
  const std::string dir_;
  const rocksdb::Options options_;
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* rows_ = nullptr;
  std::atomic<bool> failed_ = false;  // RocksDB refuses writes until Resume()

  std::mutex mutex_;
  std::map<uint64_t, std::map<std::string, std::string>> checkpoints_;  // tag → name → path
  // What the newest checkpoint contained, so that a file is read once in its life.
  KnownByNumber known_;
  std::map<std::string, Known> imported_;  // by name: numbers changed at import
};

inline constexpr std::string_view kAppliedKey =
    "\xff\xff\xff\xff\xff\xff\xff\xff"
    "applied";
[[nodiscard]] std::string encode_applied(Position at);

}  // namespace headrace
