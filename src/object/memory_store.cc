#include "object/memory_store.h"

#include <fmt/core.h>

namespace headrace {

Result<ObjectInfo> MemoryBucket::put(const std::string& key, Buffer body, const PutCondition& condition) {
  std::lock_guard lock(mutex_);
  auto it = objects_.find(key);
  if (condition.kind == PutCondition::kIfAbsent && it != objects_.end())
    return Error(Code::kConflict, fmt::format("put {}: it exists already", key));
  if (condition.kind == PutCondition::kIfMatch && (it == objects_.end() || it->second.etag != condition.etag))
    return Error(Code::kConflict, fmt::format("put {}: another version is there", key));
  Object& object = objects_[key];
  object.body = std::move(body);
  object.etag = fmt::format("\"m{}\"", next_etag_++);
  return ObjectInfo{key, object.body.size(), object.etag, true};
}

Result<MemoryBucket::Object> MemoryBucket::get(const std::string& key) const {
  std::lock_guard lock(mutex_);
  auto it = objects_.find(key);
  if (it == objects_.end()) return Error(Code::kNotFound, fmt::format("no object {}", key));
  return it->second;
}

void MemoryBucket::remove(const std::string& key) {
  std::lock_guard lock(mutex_);
  objects_.erase(key);
}

Listing MemoryBucket::list(const std::string& prefix, const std::string& after, size_t limit) const {
  std::lock_guard lock(mutex_);
  Listing listing;
  auto it = after.empty() || after < prefix ? objects_.lower_bound(prefix) : objects_.upper_bound(after);
  for (; it != objects_.end() && it->first.starts_with(prefix); ++it) {
    if (listing.objects.size() == limit) {
      listing.continuation = listing.objects.back().key;
      break;
    }
    listing.objects.push_back({it->first, it->second.body.size(), it->second.etag, false});
  }
  return listing;
}

std::map<std::string, MemoryBucket::Object> MemoryBucket::contents() const {
  std::lock_guard lock(mutex_);
  return objects_;
}

void MemoryBucket::clear() {
  std::lock_guard lock(mutex_);
  objects_.clear();
}

size_t MemoryBucket::size() const {
  std::lock_guard lock(mutex_);
  return objects_.size();
}

uint64_t MemoryBucket::bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [key, object] : objects_) bytes += object.body.size();
  return bytes;
}

namespace {

class MemoryUpload final : public Upload {
 public:
  MemoryUpload(MemoryStore& store, std::string key) : store_(store), key_(std::move(key)) {}

  Task<Result<void>> part(Buffer bytes) override {
    if (bytes.empty()) co_return Error(Code::kInvalid, fmt::format("upload {}: an empty part", key_));
    pieces_.push_back(std::move(bytes));
    co_return {};
  }

  Task<Result<ObjectInfo>> finish(PutCondition condition) override {
    size_t size = 0;
    for (const Buffer& piece : pieces_) size += piece.size();
    Buffer whole = Buffer::allocate(size);
    size_t at = 0;
    for (const Buffer& piece : pieces_) {
      std::memcpy(whole.data() + at, piece.data(), piece.size());
      at += piece.size();
    }
    Result<ObjectInfo> done = co_await store_.put(key_, std::move(whole), std::move(condition));
    co_return done;
  }

  Task<void> abort() override {
    pieces_.clear();
    co_return;
  }

 private:
  MemoryStore& store_;
  std::string key_;
  std::vector<Buffer> pieces_;
};

}  // namespace

MemoryStore::MemoryStore(std::shared_ptr<MemoryBucket> bucket, Clock* clock, Nanos delay, std::string name)
    : bucket_(std::move(bucket)), clock_(clock), delay_(delay), name_(std::move(name)) {
  HR_ASSERT(clock_ != nullptr || delay_ == Nanos{});
}

Task<void> MemoryStore::half_delay() {
  if (delay_ > Nanos{}) co_await clock_->sleep(delay_ / 2);
}

Task<Result<ObjectInfo>> MemoryStore::put(std::string key, Buffer body, PutCondition condition) {
  HR_CO_TRY(check_key(key));
  co_await half_delay();
  Result<ObjectInfo> done = bucket_->put(key, std::move(body), condition);
  co_await half_delay();
  co_return done;
}

Task<Result<Got>> MemoryStore::get_with_etag(std::string key) {
  HR_CO_TRY(check_key(key));
  co_await half_delay();
  Result<MemoryBucket::Object> object = bucket_->get(key);
  co_await half_delay();
  if (!object.ok()) co_return std::move(object).error();
  co_return Got{object->body, object->etag};
}

Task<Result<Buffer>> MemoryStore::get_range(std::string key, uint64_t offset, uint64_t size,
                                            std::string if_match_etag) {
  HR_CO_TRY(check_key(key));
  if (size == 0) co_return Error(Code::kInvalid, fmt::format("get {}: an empty range", key));
  HR_CO_TRY(Got got, co_await get_with_etag(key));
  if (!if_match_etag.empty() && got.etag != if_match_etag)
    co_return Error(Code::kConflict, fmt::format("get {}: the object has changed", key));
  if (offset > got.body.size() || size > got.body.size() - offset)
    co_return Error(Code::kRange,
                    fmt::format("get {}: bytes {}+{} of an object of {}", key, offset, size, got.body.size()));
  co_return got.body.slice(offset, size);
}

Task<Result<ObjectInfo>> MemoryStore::head(std::string key) {
  HR_CO_TRY(Got got, co_await get_with_etag(key));
  co_return ObjectInfo{key, got.body.size(), got.etag, false};
}

Task<Result<std::vector<RemoveFailure>>> MemoryStore::remove_batch(std::vector<std::string> keys) {
  std::vector<RemoveFailure> failures;
  co_await half_delay();
  for (std::string& key : keys) {
    Result<void> valid = check_key(key);
    if (valid.ok())
      bucket_->remove(key);
    else
      failures.push_back({std::move(key), std::move(valid).error()});
  }
  co_await half_delay();
  co_return failures;
}

Task<Result<Listing>> MemoryStore::list(std::string prefix, std::string continuation, size_t limit) {
  HR_ASSERT(limit > 0);
  co_await half_delay();
  Listing listing = bucket_->list(prefix, continuation, limit);
  co_await half_delay();
  co_return listing;
}

Task<Result<std::unique_ptr<Upload>>> MemoryStore::begin_upload(std::string key) {
  HR_CO_TRY(check_key(key));
  co_await half_delay();
  co_return std::unique_ptr<Upload>(std::make_unique<MemoryUpload>(*this, std::move(key)));
}

}  // namespace headrace
