// Store: a partition's ordered rows. RocksDB on a node (its WAL off), memory in the simulator; one
// contract suite.
//
// The store is never the only durable copy of anything: it is rebuilt from a checkpoint plus the
// journal. What apply() wrote is durable only in a checkpoint(); after a crash a store directory is
// thrown away. Concurrency: one core calls; apply(), checkpoint() and scans may await the blocking
// pool; calls are not overlapped with checkpoint() except get_now(), get() and scan(), which see
// all that was applied.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/work.h"
#include "runtime/env.h"

namespace headrace {

using Key = std::string;  // meta/keys.h
using RowValue = std::string;
struct RowChange {
  Key key;
  std::optional<RowValue> value;  // nothing: deleted
  void fields(this auto& self, auto& v) { v(self.key, self.value); }
};

// Keys with this prefix (no name of a partition row begins so) are the store's own: never given in,
// never seen in a scan.
inline constexpr std::string_view kStoreReservedPrefix = "\xff\xff\xff\xff\xff\xff\xff\xff";

enum class Found : uint8_t { kRow, kAbsent, kNeedsDisk };

struct StoreFiles {
  std::string import;  // of the whole set, opaque
  std::vector<StoreFile> files;
};

class Store {
 public:
  virtual ~Store() = default;
  // Never blocks: from memory (memtable, block cache) or kNeedsDisk.
  [[nodiscard]] virtual Found get_now(const Key& key, RowValue& value) = 0;
  [[nodiscard]] virtual Task<Result<std::optional<RowValue>>> get(Key key) = 0;
  // Rows with from <= key < to, ascending, at most limit.
  [[nodiscard]] virtual Task<Result<std::vector<std::pair<Key, RowValue>>>> scan(Key from, Key to, size_t limit) = 0;
  // Atomic, in the order of the calls. `at` never decreases and is kept as a row of its own
  // (applied()).
  [[nodiscard]] virtual Task<Result<void>> apply(std::vector<RowChange> changes, Position at) = 0;
  [[nodiscard]] virtual Position applied() const = 0;
  // Flushes all that was applied into immutable files and lists the whole set; they stay readable
  // until release(tag), which may come twice. A tag names one checkpoint at a time (kExists).
  [[nodiscard]] virtual Task<Result<StoreFiles>> checkpoint(uint64_t tag) = 0;
  // Fewer bytes only at the end of the file. kNotFound: no such tag or name.
  [[nodiscard]] virtual Task<Result<Buffer>> read_file(uint64_t tag, std::string name, uint64_t offset,
                                                       uint64_t length) = 0;
  [[nodiscard]] virtual Task<Result<void>> release(uint64_t tag) = 0;
};

// Makes stores. An empty one, or one from a checkpoint's files (fetch reads a file's bytes, from
// targets or the bucket).
using FetchFile = std::function<Task<Result<Buffer>>(StoreFile file, uint64_t offset, uint64_t length)>;
class StoreFactory {
 public:
  virtual ~StoreFactory() = default;
  // `name` is unique for this partition and leadership; what an earlier life left under it is
  // removed.
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Store>>> create(std::string name) = 0;
  // Every file's size and crc are verified; kCorrupt names the file.
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Store>>> import(std::string name, StoreFiles files,
                                                                    FetchFile fetch) = 0;
};

}  // namespace headrace
