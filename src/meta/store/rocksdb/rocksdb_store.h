// RocksDbStoreFactory: stores in RocksDB, one database per store under a base directory, its WAL
// off and its fsyncs left out: a store is thrown away after a crash (store.h), so nothing here
// needs to survive one.
//
// Layout: BASE/<name>/<life>/ with db/ (RocksDB's), checkpoints/<tag>/ (hard links), import/ (while
// importing). A store's directory is removed when the store and the last job that uses it are gone.
// Threads: one RocksDbNode per process, shared by the factories of all cores: block cache, memtable
// budget, threads. What may wait for a disk runs in Blocking; apply() is inline as long as RocksDB
// does not hold writes back.
#pragma once

#include "meta/store/store.h"

namespace headrace {

struct RocksDbOptions {
  uint64_t block_cache = 256 * kMiB;    // bytes, all stores of the node together
  uint64_t write_buffers = 128 * kMiB;  // bytes of memtables, all stores of the node together
  uint64_t write_buffer = 16 * kMiB;    // of one store, then it is flushed
  int compaction_threads = 2;           // of the process, at low CPU priority
  int max_open_files = 256;             // of each store
  unsigned import_parallel = 4;         // files at once, of each import; pieces of ≤ 4 MiB
};

class RocksDbNode;
[[nodiscard]] std::shared_ptr<RocksDbNode> make_rocksdb_node(RocksDbOptions options = {});

class RocksDbStoreFactory final : public StoreFactory {
 public:
  // `blocking` outlives the factory and its stores.
  RocksDbStoreFactory(Blocking& blocking, std::string base_dir, RocksDbOptions options = {});
  RocksDbStoreFactory(Blocking& blocking, std::string base_dir, std::shared_ptr<RocksDbNode> node);

  Task<Result<std::unique_ptr<Store>>> create(std::string name) override;
  Task<Result<std::unique_ptr<Store>>> import(std::string name, StoreFiles files, FetchFile fetch) override;
  // Removes whatever an earlier process left under base_dir. Before the first create() or import()
  // of any factory there.
  [[nodiscard]] Task<Result<void>> remove_leftovers();

 private:
  Blocking& blocking_;
  std::string base_dir_;
  std::shared_ptr<RocksDbNode> node_;
};

}  // namespace headrace
