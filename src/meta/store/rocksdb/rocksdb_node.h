// RocksDbNode: what all RocksDB stores of a process share, and how their errors become ours. Private to this folder.
#pragma once

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/status.h>
#include <rocksdb/write_buffer_manager.h>

#include <memory>
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

 private:
  RocksDbOptions options_;
  std::unique_ptr<rocksdb::Env> env_;
  std::shared_ptr<rocksdb::Cache> cache_;
  std::shared_ptr<rocksdb::WriteBufferManager> write_buffers_;
  std::shared_ptr<rocksdb::Logger> silent_;
};

// kNoSpace, kCorrupt (RocksDB's text names the file), else kIo.
[[nodiscard]] Error rocksdb_error(const rocksdb::Status& status, const std::string& what);

// Removes a directory with all in it; nothing there is fine. Blocks.
[[nodiscard]] Result<void> remove_tree(rocksdb::Env* env, const std::string& path);
// With its parents. Blocks.
[[nodiscard]] Result<void> make_directories(rocksdb::Env* env, const std::string& path);

}  // namespace headrace
