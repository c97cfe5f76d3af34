#include "meta/store/rocksdb/database.h"

#include <fmt/core.h>
#include <rocksdb/convenience.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/unique_id.h>
#include <rocksdb/utilities/checkpoint.h>

#include "base/checksum.h"
#include "meta/store/store_import.h"

namespace headrace {

namespace {

constexpr size_t kReadPiece = kMiB;
const std::string kRowsFamily = "rows";  // not "default": an import makes its column family

struct AppliedRow {
  static constexpr uint8_t kFormat = 1;
  Position at;
  void fields(this auto& self, auto& v) { v(self.at); }
};

rocksdb::Slice slice_of(std::string_view text) {
  return {text.data(), text.size()};
}

Result<uint32_t> crc_of_file(rocksdb::Env* env, const std::string& path, uint64_t size) {
  std::unique_ptr<rocksdb::SequentialFile> file;
  rocksdb::Status status = env->NewSequentialFile(path, &file, rocksdb::EnvOptions());
  if (!status.ok()) return rocksdb_error(status, "open " + path);
  Buffer buffer = Buffer::allocate(kReadPiece);
  uint32_t crc = 0;
  uint64_t total = 0;
  for (;;) {
    rocksdb::Slice got;
    status = file->Read(buffer.size(), &got, reinterpret_cast<char*>(buffer.data()));
    if (!status.ok()) return rocksdb_error(status, "read " + path);
    if (got.empty()) break;
    crc = crc32c(bytes_of({got.data(), got.size()}), crc);
    total += got.size();
  }
  if (total != size)
    return Error(Code::kCorrupt, fmt::format("{} has {} bytes where RocksDB wrote {}", path, total, size));
  return crc;
}

std::string hex_of(std::string_view binary) {
  std::string out;
  for (char byte : binary) out += hex(static_cast<uint8_t>(byte), 2);
  return out;
}

}  // namespace

std::string encode_applied(Position at) {
  return encode_durable(AppliedRow{.at = at});
}

// --- Life ---

Database::Database(std::shared_ptr<RocksDbNode> node, std::string parent, std::string dir, const std::string& name)
    : node_(std::move(node)), parent_(std::move(parent)), dir_(std::move(dir)), options_(node_->store_options(name)) {}

Result<std::shared_ptr<Database>> Database::make(std::shared_ptr<RocksDbNode> node, std::string parent,
                                                 const std::string& name) {
  HR_TRY(std::string dir, node->claim_directory(parent));
  return std::make_shared<Database>(std::move(node), std::move(parent), std::move(dir), name);
}

Database::~Database() {
  if (db_ != nullptr) {
    rocksdb::CancelAllBackgroundWork(db_.get(), /*wait=*/true);
    if (rows_ != nullptr) (void)db_->DestroyColumnFamilyHandle(rows_);
    (void)db_->Close();
    db_.reset();
  }
  node_->give_back_directory(parent_, dir_);
}

Result<void> Database::open_database() {
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(options_, dir_ + "/db", &db);
  if (!status.ok()) return rocksdb_error(status, "open store " + dir_);
  db_.reset(db);
  return {};
}

Result<void> Database::open_empty() {
  HR_TRY(open_database());
  rocksdb::Status status = db_->CreateColumnFamily(options_, kRowsFamily, &rows_);
  if (!status.ok()) return rocksdb_error(status, "create store " + dir_);
  return {};
}

Result<void> Database::open_imported(const std::vector<ImportedFile>& files, Position at) {
  if (files.empty()) return open_empty();
  rocksdb::ExportImportFilesMetaData metadata;
  metadata.db_comparator_name = options_.comparator->Name();
  for (const ImportedFile& imported : files) {
    auto how = decode_rocksdb_file_import(imported.file.import);
    if (!how.ok()) return std::move(how).error().within("store file " + imported.file.name);
    rocksdb::LiveFileMetaData file;
    file.column_family_name = kRowsFamily;
    file.db_path = import_dir();
    file.directory = import_dir();
    file.relative_filename = imported.local_name;
    file.name = "/" + imported.local_name;
    file.size = imported.file.size;
    file.level = how->level;
    file.smallest_seqno = how->smallest_sequence;
    file.largest_seqno = how->largest_sequence;
    file.smallestkey = how->smallest_key;
    file.largestkey = how->largest_key;
    metadata.files.push_back(std::move(file));
    imported_.emplace(imported.file.name,
                      Known{.name = imported.file.name, .size = imported.file.size, .crc = imported.file.crc});
  }
  HR_TRY(open_database());
  rocksdb::ImportColumnFamilyOptions import;
  import.move_files = true;
  rocksdb::Status status = db_->CreateColumnFamilyWithImport(options_, kRowsFamily, import, metadata, &rows_);
  if (!status.ok()) return rocksdb_error(status, "import store " + dir_);
  HR_TRY(remove_tree(node_->env(), import_dir()));
  HR_TRY(auto row, get(std::string(kAppliedKey)));
  if (!row) return Error(Code::kCorrupt, "imported store has no position of its own: its file set is not whole");
  HR_TRY(auto applied, decode_durable<AppliedRow>(*row));
  if (applied.at != at)
    return Error(Code::kCorrupt,
                 fmt::format("imported store is at position {}, its record says {}: its file set is not whole",
                             applied.at.value(), at.value()));
  return {};
}

// --- Reads ---

rocksdb::ReadOptions Database::read_options() const {
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  return options;
}

Found Database::get_now(const Key& key, RowValue& value) {
  rocksdb::ReadOptions options = read_options();
  options.read_tier = rocksdb::kBlockCacheTier;
  rocksdb::PinnableSlice found;
  rocksdb::Status status = db_->Get(options, rows_, slice_of(key), &found);
  if (status.ok()) {
    value.assign(found.data(), found.size());
    return Found::kRow;
  }
  // Any error is met again, and reported, by get().
  return status.IsNotFound() ? Found::kAbsent : Found::kNeedsDisk;
}

Result<std::optional<RowValue>> Database::get(const Key& key) {
  rocksdb::PinnableSlice found;
  rocksdb::Status status = db_->Get(read_options(), rows_, slice_of(key), &found);
  if (status.IsNotFound()) return std::optional<RowValue>();
  if (!status.ok()) return rocksdb_error(status, "read from store");
  return std::optional<RowValue>(found.ToString());
}

Result<StoreRows> Database::scan_with(rocksdb::ReadOptions options, const Key& from, const Key& to, size_t limit,
                                      bool& incomplete) {
  StoreRows out;
  std::string_view end = std::min<std::string_view>(to, kStoreReservedPrefix);
  if (from >= end || limit == 0) return out;
  rocksdb::Slice bound = slice_of(end);
  options.iterate_upper_bound = &bound;
  std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(options, rows_));
  for (at->Seek(slice_of(from)); at->Valid() && out.size() < limit; at->Next())
    out.emplace_back(at->key().ToString(), at->value().ToString());
  if (out.size() == limit) return out;
  rocksdb::Status status = at->status();
  incomplete = status.IsIncomplete();
  if (!status.ok()) return rocksdb_error(status, "scan store");
  return out;
}

std::optional<Result<StoreRows>> Database::scan_now(const Key& from, const Key& to, size_t limit) {
  rocksdb::ReadOptions options = read_options();
  options.read_tier = rocksdb::kBlockCacheTier;
  bool incomplete = false;
  Result<StoreRows> out = scan_with(options, from, to, limit, incomplete);
  if (incomplete) return std::nullopt;
  return out;
}

Result<StoreRows> Database::scan(const Key& from, const Key& to, size_t limit) {
  bool incomplete = false;
  return scan_with(read_options(), from, to, limit, incomplete);
}

// --- Writes ---

bool Database::write_now(rocksdb::WriteBatch& batch) {
  if (failed_.load(std::memory_order_relaxed)) return false;
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  options.no_slowdown = true;
  return db_->Write(options, &batch).ok();
}

Result<void> Database::write(rocksdb::WriteBatch& batch) {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  recover();
  rocksdb::Status status = db_->Write(options, &batch);
  if (status.ok()) return {};
  // A flush failed in the background. Its cause may be gone (space was freed): once more.
  failed_ = true;
  recover();
  status = db_->Write(options, &batch);
  if (status.ok()) return {};
  failed_ = true;
  return rocksdb_error(status, "write to store");
}

void Database::recover() {
  if (failed_.exchange(false) && !db_->Resume().ok()) failed_ = true;
}

// --- Checkpoints ---

std::string Database::checkpoint_dir(uint64_t tag) const {
  return dir_ + "/checkpoints/" + std::to_string(tag);
}

Result<StoreFiles> Database::checkpoint(uint64_t tag, Position at) {
  {
    std::lock_guard lock(mutex_);
    if (checkpoints_.contains(tag))
      return Error(Code::kExists, "checkpoint " + std::to_string(tag) + " of this store is still held");
  }
  std::string dir = checkpoint_dir(tag);
  HR_TRY(make_directories(node_->env(), dir_ + "/checkpoints"));
  HR_TRY(remove_tree(node_->env(), dir));
  recover();
  std::map<std::string, std::string> paths;
  Result<StoreFiles> out = export_files(dir, at, paths);
  if (!out.ok()) {
    failed_ = true;
    (void)remove_tree(node_->env(), dir);
    (void)remove_tree(node_->env(), dir + ".tmp");
    return out;
  }
  std::lock_guard lock(mutex_);
  checkpoints_.emplace(tag, std::move(paths));
  return out;
}

Result<StoreFiles> Database::export_files(const std::string& dir, Position at,
                                          std::map<std::string, std::string>& paths) {
  rocksdb::Checkpoint* raw = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &raw);
  std::unique_ptr<rocksdb::Checkpoint> checkpoint(raw);
  if (!status.ok()) return rocksdb_error(status, "checkpoint of store");
  rocksdb::ExportImportFilesMetaData* exported = nullptr;
  status = checkpoint->ExportColumnFamily(rows_, dir, &exported);
  std::unique_ptr<rocksdb::ExportImportFilesMetaData> metadata(exported);
  if (!status.ok()) return rocksdb_error(status, "checkpoint of store");

  KnownByNumber known;
  {
    std::lock_guard lock(mutex_);
    known = known_;
  }
  KnownByNumber now_known;
  StoreFiles out;
  for (const rocksdb::LiveFileMetaData& file : metadata->files) {
    std::string path = dir + file.name;
    auto before = known.find(file.file_number);
    if (before == known.end()) {
      HR_TRY(auto identified, identify(path, file.size));
      before = known.emplace(file.file_number, std::move(identified)).first;
    }
    const Known& one = before->second;
    now_known.emplace(file.file_number, one);
    RocksDbFileImport import{.level = file.level,
                             .smallest_sequence = file.smallest_seqno,
                             .largest_sequence = file.largest_seqno,
                             .smallest_key = file.smallestkey,
                             .largest_key = file.largestkey};
    out.files.push_back({.name = one.name, .size = one.size, .crc = one.crc, .import = encode_durable(import)});
    HR_ASSERT(paths.emplace(one.name, path).second);
  }
  out.import = encode_durable(StoreImport{.kind = std::string(kRocksDbStoreKind),
                                          .at = at,
                                          .files = static_cast<uint32_t>(out.files.size()),
                                          .comparator = metadata->db_comparator_name});
  std::lock_guard lock(mutex_);
  known_ = std::move(now_known);
  imported_.clear();
  return out;
}

Result<Database::Known> Database::identify(const std::string& path, uint64_t size) {
  rocksdb::SstFileReader reader(options_);
  rocksdb::Status status = reader.Open(path);
  if (!status.ok()) return rocksdb_error(status, "open " + path);
  std::string id;
  status = rocksdb::GetUniqueIdFromTableProperties(*reader.GetTableProperties(), &id);
  if (!status.ok()) return rocksdb_error(status, "name " + path);
  std::string name = hex_of(id);
  {
    std::lock_guard lock(mutex_);
    auto before = imported_.find(name);
    if (before != imported_.end() && before->second.size == size) return before->second;
  }
  HR_TRY(uint32_t crc, crc_of_file(node_->env(), path, size));
  // Behind it: what is damaged when it is summed is found by RocksDB's own sums, what is damaged later by ours.
  status = reader.VerifyChecksum(read_options());
  if (!status.ok()) return rocksdb_error(status, "verify " + path);
  return Known{.name = std::move(name), .size = size, .crc = crc};
}

Result<Buffer> Database::read_file(uint64_t tag, const std::string& name, uint64_t offset, uint64_t length) {
  std::string path;
  {
    std::lock_guard lock(mutex_);
    auto checkpoint = checkpoints_.find(tag);
    if (checkpoint == checkpoints_.end())
      return Error(Code::kNotFound, "no checkpoint " + std::to_string(tag) + " of this store");
    auto file = checkpoint->second.find(name);
    if (file == checkpoint->second.end())
      return Error(Code::kNotFound, "no file " + name + " in checkpoint " + std::to_string(tag));
    path = file->second;
  }
  std::unique_ptr<rocksdb::RandomAccessFile> file;
  rocksdb::Status status = node_->env()->NewRandomAccessFile(path, &file, rocksdb::EnvOptions());
  if (!status.ok()) return rocksdb_error(status, "open " + path);
  uint64_t size = 0;
  status = node_->env()->GetFileSize(path, &size);
  if (!status.ok()) return rocksdb_error(status, "size of " + path);
  if (offset >= size) return Buffer();
  Buffer buffer = Buffer::allocate(std::min(length, size - offset));
  rocksdb::Slice got;
  status = file->Read(offset, buffer.size(), &got, reinterpret_cast<char*>(buffer.data()));
  if (!status.ok()) return rocksdb_error(status, "read " + path);
  if (!got.empty() && got.data() != reinterpret_cast<const char*>(buffer.data()))
    std::memcpy(buffer.data(), got.data(), got.size());
  return buffer.slice(0, got.size());
}

Result<void> Database::release(uint64_t tag) {
  {
    std::lock_guard lock(mutex_);
    if (checkpoints_.erase(tag) == 0) return {};
  }
  return remove_tree(node_->env(), checkpoint_dir(tag));
}

}  // namespace headrace
