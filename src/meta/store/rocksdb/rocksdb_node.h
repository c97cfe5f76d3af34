// RocksDbNode: what all RocksDB stores of a process share, and how their errors become ours.
// Private to this folder.
#pragma once

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/status.h>
#include <rocksdb/write_buffer_manager.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/result.h"
#include "meta/store/rocksdb/rocksdb_store.h"

namespace headrace {

class RocksDbNode {
 public:
  explicit RocksDbNode(RocksDbOptions options);

  [[nodiscard]] const RocksDbOptions& options() const { return options_; }
  [[nodiscard]] rocksdb::Env* env() const { return env_.get(); }
  // Of a store of this name: both kinds, for DB::Open and for the column family of the rows.
  [[nodiscard]] rocksdb::Options store_options(const std::string& name) const;

  // A fresh directory under `parent`, which no store of this process shares; what earlier processes
  // left in `parent` is removed. Blocks.
  [[nodiscard]] Result<std::string> claim_directory(const std::string& parent);
  // Removes it with all in it. Blocks.
  void give_back_directory(const std::string& parent, const std::string& directory);

 private:
  RocksDbOptions options_;
  std::unique_ptr<rocksdb::Env> env_;
  std::shared_ptr<rocksdb::Cache> cache_;
  std::shared_ptr<rocksdb::WriteBufferManager> write_buffers_;
  std::shared_ptr<rocksdb::Logger> silent_;

  std::mutex mutex_;
  std::set<std::string> claimed_;
  uint64_t next_life_ = 1;
};

// kNoSpace, kCorrupt (RocksDB's text names the file), else kIo.
[[nodiscard]] Error rocksdb_error(const rocksdb::Status& status, const std::string& what);

// Removes a directory with all in it; nothing there is fine. Blocks.
[[nodiscard]] Result<void> remove_tree(rocksdb::Env* env, const std::string& path);
// With its parents. Blocks.
[[nodiscard]] Result<void> make_directories(rocksdb::Env* env, const std::string& path);

}  // namespace headrace
