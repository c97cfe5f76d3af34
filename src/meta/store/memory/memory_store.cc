#include "meta/store/memory/memory_store.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <deque>
#include <map>
#include <set>

#include "base/checksum.h"
#include "meta/store/store_import.h"

namespace headrace {

namespace {

constexpr uint32_t kMagic = 0x31534d48;  // "HMS1"
constexpr uint8_t kFormat = 1;
constexpr uint32_t kBoundary = 512;    // one key in so many begins a file
constexpr size_t kMaxFile = 8 * kMiB;  // a file ends there too
constexpr uint64_t kFetch = 4 * kMiB;
constexpr size_t kMaxWarm = 256;

std::string name_of(std::string_view content) {
  XXH128_hash_t hash = XXH3_128bits(content.data(), content.size());
  return hex(hash.high64) + hex(hash.low64);
}

class MemoryRows final : public Store {
 public:
  explicit MemoryRows(MemoryStoreLatency latency) : latency_(latency) {}
  MemoryRows(MemoryStoreLatency latency, std::map<Key, RowValue> rows, Position at)
      : latency_(latency), rows_(std::move(rows)), applied_(at) {}

  Found get_now(const Key& key, RowValue& value) override {
    if (misses() && !warm_.contains(key)) return Found::kNeedsDisk;
    return find(key, value);
  }

  Task<Result<std::optional<RowValue>>> get(Key key) override {
    co_await delay();
    keep_warm(key);
    RowValue value;
    Found found = find(key, value);
    if (found == Found::kAbsent) co_return std::optional<RowValue>();
    co_return std::optional<RowValue>(std::move(value));
  }

  Task<Result<StoreRows>> scan(Key from, Key to, size_t limit) override {
    if (misses()) co_await delay();
    StoreRows out;
    auto end = rows_.lower_bound(to);
    for (auto at = rows_.lower_bound(from); from < to && at != end && out.size() < limit; ++at) out.push_back(*at);
    co_return out;
  }

  Task<Result<void>> apply(std::vector<RowChange> changes, Position at) override {
    HR_ASSERT(at >= applied_);
    if (apply_fails()) {
      co_await delay();
      co_return Error(Code::kIo, "injected: write to store");
    }
    for (RowChange& change : changes) {
      HR_ASSERT(!change.key.starts_with(kStoreReservedPrefix));
      if (change.value) {
        rows_.insert_or_assign(std::move(change.key), std::move(*change.value));
      } else {
        rows_.erase(change.key);
      }
    }
    applied_ = at;
    co_return {};
  }

  Position applied() const override { return applied_; }

  Task<Result<StoreFiles>> checkpoint(uint64_t tag) override {
    if (checkpoints_.contains(tag))
      co_return Error(Code::kExists, "checkpoint " + std::to_string(tag) + " of this store is still held");
    StoreFiles out;
    Files files;
    StoreRows rows;
    size_t bytes = 0;
    for (const auto& row : rows_) {
      bool begins = crc32c(bytes_of(row.first)) % kBoundary == 0 || bytes >= kMaxFile;
      if (begins && !rows.empty()) {
        add_file(rows, out, files);
        rows.clear();
        bytes = 0;
      }
      bytes += row.first.size() + row.second.size();
      rows.push_back(row);
    }
    // Even an empty store has a file, so that its position is vouched for by something.
    if (!rows.empty() || (out.files.empty() && applied_.value() != 0)) add_file(rows, out, files);
    out.import = encode_durable(StoreImport{
        .kind = std::string(kMemoryStoreKind), .at = applied_, .files = static_cast<uint32_t>(out.files.size())});
    checkpoints_.emplace(tag, std::move(files));
    // Whatever the caller does next happens later than this, as it does with a real disk.
    co_await delay();
    if (latency_.checkpoint != nullptr) co_await latency_.clock->sleep(*latency_.checkpoint);
    co_return out;
  }

  Task<Result<Buffer>> read_file(uint64_t tag, std::string name, uint64_t offset, uint64_t length) override {
    co_await delay();
    auto checkpoint = checkpoints_.find(tag);
    if (checkpoint == checkpoints_.end())
      co_return Error(Code::kNotFound, "no checkpoint " + std::to_string(tag) + " of this store");
    auto file = checkpoint->second.find(name);
    if (file == checkpoint->second.end())
      co_return Error(Code::kNotFound, "no file " + name + " in checkpoint " + std::to_string(tag));
    const Buffer& bytes = file->second;
    if (offset >= bytes.size()) co_return Buffer();
    co_return bytes.slice(offset, std::min<uint64_t>(length, bytes.size() - offset));
  }

  Task<Result<void>> release(uint64_t tag) override {
    checkpoints_.erase(tag);
    co_return {};
  }

 private:
  using Files = std::map<std::string, Buffer>;

  bool misses() {
    return latency_.clock != nullptr && latency_.miss_percent > 0 &&
           latency_.random->chance(latency_.miss_percent, 100);
  }

  bool apply_fails() {
    MemoryStoreFaults* faults = latency_.faults;
    if (faults == nullptr) return false;
    const bool next = faults->next_applies > 0;
    if (next) --faults->next_applies;
    if (!next && (faults->applies_per_million == 0 || !latency_.random->chance(faults->applies_per_million, 1'000'000)))
      return false;
    ++faults->failed_applies;
    return true;
  }

  Task<void> delay() {
    if (latency_.clock == nullptr) co_return;
    auto span = static_cast<uint64_t>((latency_.max - latency_.min).count);
    Nanos wait = latency_.min + Nanos{static_cast<int64_t>(latency_.random->below(span + 1))};
    co_await latency_.clock->sleep(wait);
  }

  Found find(const Key& key, RowValue& value) const {
    auto row = rows_.find(key);
    if (row == rows_.end()) return Found::kAbsent;
    value = row->second;
    return Found::kRow;
  }

  void keep_warm(const Key& key) {
    if (latency_.clock == nullptr || !warm_.insert(key).second) return;
    warm_order_.push_back(key);
    if (warm_order_.size() <= kMaxWarm) return;
    warm_.erase(warm_order_.front());
    warm_order_.pop_front();
  }

  void add_file(const StoreRows& rows, StoreFiles& out, Files& files) {
    std::string content = encode_memory_store_file(rows);
    StoreFile file{.name = name_of(content), .size = content.size(), .crc = crc32c(bytes_of(content))};
    Buffer bytes;
    for (const auto& [tag, held] : checkpoints_) {  // equal files are held once
      auto same = held.find(file.name);
      if (same != held.end()) bytes = same->second;
    }
    if (bytes.empty()) bytes = Buffer::copy_of(bytes_of(content));
    files.emplace(file.name, std::move(bytes));
    out.files.push_back(std::move(file));
  }

  MemoryStoreLatency latency_;
  std::map<Key, RowValue> rows_;
  Position applied_;
  std::map<uint64_t, Files> checkpoints_;
  std::set<Key> warm_;
  std::deque<Key> warm_order_;
};

}  // namespace

std::string encode_memory_store_file(const StoreRows& rows) {
  Writer writer;
  writer(kMagic, kFormat, rows);
  writer(crc32c(bytes_of(writer.bytes())));
  return writer.take();
}

Result<StoreRows> decode_memory_store_file(ByteView bytes) {
  uint32_t magic = 0;
  uint8_t format = 0;
  uint32_t crc = 0;
  StoreRows rows;
  Reader reader(bytes);
  reader(magic, format);
  if (!reader.ok() || magic != kMagic) return Error(Code::kCorrupt, "not a memory store file");
  if (format > kFormat)
    return Error(Code::kUnsupportedFormat,
                 "memory store file of format " + std::to_string(format) + ": upgrade headrace");
  reader(rows, crc);
  if (!reader.ok() || format == 0 || reader.left() != 0 || crc32c(bytes.first(bytes.size() - sizeof crc)) != crc)
    return Error(Code::kCorrupt, "memory store file is damaged");
  for (size_t i = 1; i < rows.size(); ++i)
    if (rows[i - 1].first >= rows[i].first) return Error(Code::kCorrupt, "memory store file's rows do not ascend");
  return rows;
}

Task<Result<std::unique_ptr<Store>>> MemoryStoreFactory::create(std::string) {
  co_return std::unique_ptr<Store>(std::make_unique<MemoryRows>(latency_));
}

Task<Result<std::unique_ptr<Store>>> MemoryStoreFactory::import(std::string, StoreFiles files, FetchFile fetch) {
  HR_CO_TRY(auto import, open_store_import(files, kMemoryStoreKind));
  std::map<Key, RowValue> all;
  for (const StoreFile& file : files.files) {
    std::string content;
    while (content.size() < file.size) {
      uint64_t piece = std::min<uint64_t>(kFetch, file.size - content.size());
      auto bytes = co_await fetch(file, content.size(), piece);
      if (!bytes.ok()) co_return std::move(bytes).error().within("store file " + file.name);
      if (bytes->size() != piece)
        co_return Error(Code::kCorrupt, fmt::format("store file {}: {} bytes at {} where there should be {}", file.name,
                                                    bytes->size(), content.size(), piece));
      content.append(bytes->text());
    }
    if (crc32c(bytes_of(content)) != file.crc)
      co_return Error(Code::kCorrupt, fmt::format("store file {}: checksum does not match", file.name));
    auto rows = decode_memory_store_file(bytes_of(content));
    if (!rows.ok()) co_return std::move(rows).error().within("store file " + file.name);
    for (auto& row : *rows) all.insert(all.end(), std::move(row));
  }
  co_return std::unique_ptr<Store>(std::make_unique<MemoryRows>(latency_, std::move(all), import.at));
}

}  // namespace headrace
