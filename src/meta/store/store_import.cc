#include "meta/store/store_import.h"

#include <set>

namespace headrace {

Result<StoreImport> decode_store_import(std::string_view bytes) {
  auto import = decode_durable<StoreImport>(bytes);
  if (!import.ok()) return std::move(import).error().within("store file set");
  return import;
}

Result<RocksDbFileImport> decode_rocksdb_file_import(std::string_view bytes) {
  HR_TRY(auto import, decode_durable<RocksDbFileImport>(bytes));
  if (import.level < 0 || import.level > RocksDbFileImport::kMaxLevel)
    return Error(Code::kCorrupt, "level " + std::to_string(import.level) + " does not exist");
  if (import.smallest_sequence > import.largest_sequence)
    return Error(Code::kCorrupt, "sequence numbers are the wrong way round");
  if (import.smallest_key > import.largest_key) return Error(Code::kCorrupt, "key range is the wrong way round");
  return import;
}

Result<StoreImport> open_store_import(const StoreFiles& set, std::string_view kind) {
  HR_TRY(auto import, decode_store_import(set.import));
  size_t files = set.files.size();
  if (import.kind != kind)
    return Error(Code::kNotSupported,
                 "store file set is of kind '" + import.kind + "', this store takes '" + std::string(kind) + "'");
  if (import.files != files)
    return Error(Code::kCorrupt, "store file set has " + std::to_string(files) + " files, its record says " +
                                     std::to_string(import.files));
  if (files == 0 && import.at.value() != 0)
    return Error(Code::kCorrupt,
                 "store file set is empty, its record says position " + std::to_string(import.at.value()));
  std::set<std::string_view> names;
  for (const StoreFile& file : set.files)
    if (!names.insert(file.name).second) return Error(Code::kCorrupt, "store file set names " + file.name + " twice");
  return import;
}

}  // namespace headrace
