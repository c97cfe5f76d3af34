// The opaque `import` strings of a checkpoint's file set (docs/formats/store.md): written by
// checkpoint(), read by import(). They travel in checkpoint and partition records, so they are
// decoded as bytes from outside.
#pragma once

#include <string>
#include <string_view>

#include "base/codec.h"
#include "meta/store/store.h"

namespace headrace {

inline constexpr std::string_view kMemoryStoreKind = "memory";
inline constexpr std::string_view kRocksDbStoreKind = "rocksdb";

// StoreFiles::import: of the whole set.
struct StoreImport {
  static constexpr uint8_t kFormat = 1;
  std::string kind;  // which store can take the files in
  Position at;       // applied() at the checkpoint
  uint32_t files = 0;
  std::string comparator;  // name of the key order; "" for memory
  void fields(this auto& self, auto& v) { v(self.kind, self.at, self.files, self.comparator); }
};

// StoreFile::import of the rocksdb kind: what RocksDB's column family import needs for one SST.
struct RocksDbFileImport {
  static constexpr uint8_t kFormat = 1;
  static constexpr int32_t kMaxLevel = 6;
  int32_t level = 0;
  uint64_t smallest_sequence = 0;
  uint64_t largest_sequence = 0;
  std::string smallest_key;
  std::string largest_key;
  void fields(this auto& self, auto& v) {
    v(self.level, self.smallest_sequence, self.largest_sequence, self.smallest_key, self.largest_key);
  }
};

// kCorrupt, or kUnsupportedFormat when a newer version wrote it.
// DECODER: store_import
[[nodiscard]] Result<StoreImport> decode_store_import(std::string_view bytes);

// kCorrupt also for a level, sequence range or key range that no checkpoint writes.
// DECODER: rocksdb_file_import
[[nodiscard]] Result<RocksDbFileImport> decode_rocksdb_file_import(std::string_view bytes);

// Of the set: it is of `kind` (else kNotSupported), complete, and names no file twice (else
// kCorrupt).
[[nodiscard]] Result<StoreImport> open_store_import(const StoreFiles& set, std::string_view kind);

}  // namespace headrace
