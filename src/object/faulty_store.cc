#include "object/faulty_store.h"

#include <fmt/core.h>

namespace headrace {

namespace {

constexpr size_t kFormer = 64;              // versions remembered for stale reads
constexpr size_t kFormerBytes = 64 * kKiB;  // of at most this size

Buffer flip_bit(const Buffer& body, Random& random) {
  Buffer copy = Buffer::copy_of(body.view());
  const uint64_t bit = random.below(copy.size() * 8);
  copy.data()[bit / 8] ^= std::byte{static_cast<unsigned char>(1U << (bit % 8))};
  return copy;
}

// Answers as if it had been stored. The condition is kept: nobody wins a swap that another has won.
Task<Result<ObjectInfo>> store_nothing(ObjectStore* store, std::string key, uint64_t size, PutCondition condition) {
  Result<ObjectInfo> there = co_await store->head(key);
  if (!there.ok() && there.code() != Code::kNotFound) co_return std::move(there).error();
  const bool refused = (condition.kind == PutCondition::kIfAbsent && there.ok()) ||
                       (condition.kind == PutCondition::kIfMatch && (!there.ok() || there->etag != condition.etag));
  if (refused) co_return Error(Code::kConflict, fmt::format("put {}: the condition failed", key));
  co_return ObjectInfo{std::move(key), size, "\"stored nothing\"", false};
}

struct UploadFaults {
  bool timeout_after = false;
  bool confirms = true;  // a checksum
  StoredAs as = StoredAs::kGiven;
};

// Faults of the whole: a part itself never fails.
class FaultyUpload final : public Upload {
 public:
  FaultyUpload(ObjectStore& store, Random& random, std::string key, std::unique_ptr<Upload> inner, UploadFaults faults)
      : store_(store), random_(random), key_(std::move(key)), inner_(std::move(inner)), faults_(faults) {}

  Task<Result<void>> part(Buffer bytes) override {
    const bool first = size_ == 0;
    size_ += bytes.size();
    if (first && faults_.as == StoredAs::kFlipped) bytes = flip_bit(bytes, random_);
    if (faults_.as == StoredAs::kCut) {
      if (!first) co_return {};
      if (bytes.size() > 1) bytes = bytes.slice(0, random_.between(1, bytes.size() - 1));
    }
    co_return co_await inner_->part(std::move(bytes));
  }

  Task<Result<ObjectInfo>> finish(PutCondition condition) override {
    if (faults_.as == StoredAs::kNothing) {
      co_await inner_->abort();
      co_return co_await store_nothing(&store_, key_, size_, std::move(condition));
    }
    Result<ObjectInfo> done = co_await inner_->finish(std::move(condition));
    if (done.ok() && faults_.timeout_after)
      co_return Error(Code::kTimeout, "no answer in time (injected, it happened)");
    if (done.ok() && !faults_.confirms) done->verified = false;
    co_return done;
  }

  Task<void> abort() override { return inner_->abort(); }

 private:
  ObjectStore& store_;
  Random& random_;
  std::string key_;
  std::unique_ptr<Upload> inner_;
  UploadFaults faults_;
  uint64_t size_ = 0;
};

}  // namespace

FaultyStore::FaultyStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random, FaultRates rates,
                         std::shared_ptr<FaultCounts> counts)
    : inner_(std::move(inner)), clock_(clock), random_(random), rates_(rates), counts_(std::move(counts)) {
  HR_ASSERT(inner_ != nullptr);
  if (counts_ == nullptr) counts_ = std::make_shared<FaultCounts>();
}

bool FaultyStore::roll(uint32_t per_million, const char* name) {
  if (per_million == 0 || !random_.chance(per_million, 1'000'000)) return false;
  ++(*counts_)[name];
  return true;
}

Task<Result<void>> FaultyStore::before() {
  if (down_) {
    ++(*counts_)["bucket_down"];
    co_return Error(Code::kUnavailable, "the bucket does not answer (injected)");
  }
  if (roll(rates_.slow, "bucket_slow")) co_await clock_.sleep(rates_.slow_for);
  if (roll(rates_.expired, "bucket_expired"))
    co_return Error(Code::kDenied, "ExpiredToken: the credentials have expired (injected)");
  if (roll(rates_.unavailable, "bucket_unavailable")) co_return Error(Code::kUnavailable, "503 SlowDown (injected)");
  if (roll(rates_.timeout_before, "bucket_timeout_before")) {
    co_await clock_.sleep(rates_.timeout);
    co_return Error(Code::kTimeout, "no answer in time (injected)");
  }
  co_return {};
}

Task<Result<void>> FaultyStore::after() {
  if (!roll(rates_.timeout_after, "bucket_timeout_after")) co_return {};
  co_await clock_.sleep(rates_.timeout);
  co_return Error(Code::kTimeout, "no answer in time (injected, it happened)");
}

Buffer FaultyStore::flipped(const Buffer& body) {
  return flip_bit(body, random_);
}

StoredAs FaultyStore::stored_as(PutCondition::Kind kind) {
  const bool swap = kind == PutCondition::kIfMatch;
  const bool other =
      swap ? roll(rates_.swapped_other, "bucket_swapped_other") : roll(rates_.stored_other, "bucket_stored_other");
  return other ? static_cast<StoredAs>(random_.between(1, 3)) : StoredAs::kGiven;
}

Task<Result<ObjectInfo>> FaultyStore::put(std::string key, Buffer body, PutCondition condition) {
  HR_CO_TRY(co_await before());
  if (rates_.stale > 0 && (former_.contains(key) || former_.size() < kFormer)) {
    Result<Got> now = co_await inner_->get_with_etag(key);
    if (now.ok() && now->body.size() <= kFormerBytes) former_[key] = *std::move(now);
  }
  const bool confirms = (condition.kind == PutCondition::kIfMatch ? rates_.swapped_other : rates_.stored_other) == 0;
  const StoredAs as = body.empty() ? StoredAs::kGiven : stored_as(condition.kind);
  if (as == StoredAs::kNothing)
    co_return co_await store_nothing(inner_.get(), std::move(key), body.size(), std::move(condition));
  if (as == StoredAs::kCut) body = body.slice(0, random_.below(body.size()));
  if (as == StoredAs::kFlipped) body = flipped(body);
  Result<ObjectInfo> done = co_await inner_->put(std::move(key), std::move(body), std::move(condition));
  if (done.ok() && !confirms) done->verified = false;
  if (as != StoredAs::kGiven) co_return done;  // acknowledged, whatever else might have gone wrong
  HR_CO_TRY(co_await after());
  if (done.ok() && roll(rates_.wrong_etag, "bucket_wrong_etag")) done->etag += "-wrong";
  co_return done;
}

Task<Result<Got>> FaultyStore::get_with_etag(std::string key) {
  HR_CO_TRY(co_await before());
  auto former = former_.find(key);
  if (former != former_.end() && roll(rates_.stale, "bucket_stale")) co_return former->second;
  HR_CO_TRY(Got got, co_await inner_->get_with_etag(key));
  if (!got.body.empty()) {
    if (roll(rates_.truncated, "bucket_truncated"))
      got.body = got.body.slice(0, random_.below(got.body.size()));
    else if (roll(rates_.corrupt, "bucket_corrupt"))
      got.body = flipped(got.body);
  }
  if (roll(rates_.wrong_etag, "bucket_wrong_etag")) got.etag += "-wrong";
  co_return got;
}

Task<Result<Buffer>> FaultyStore::get_range(std::string key, uint64_t offset, uint64_t size,
                                            std::string if_match_etag) {
  HR_CO_TRY(co_await before());
  HR_CO_TRY(Buffer body, co_await inner_->get_range(std::move(key), offset, size, std::move(if_match_etag)));
  if (roll(rates_.truncated, "bucket_truncated"))
    co_return Error(Code::kDisconnected, "the connection broke inside the body (injected)");
  if (roll(rates_.corrupt, "bucket_corrupt")) body = flipped(body);
  co_return body;
}

Task<Result<ObjectInfo>> FaultyStore::head(std::string key) {
  HR_CO_TRY(co_await before());
  Result<ObjectInfo> info = co_await inner_->head(std::move(key));
  co_return info;
}

Task<Result<std::vector<RemoveFailure>>> FaultyStore::remove_batch(std::vector<std::string> keys) {
  HR_CO_TRY(co_await before());
  Result<std::vector<RemoveFailure>> done = co_await inner_->remove_batch(std::move(keys));
  HR_CO_TRY(co_await after());
  co_return done;
}

Task<Result<Listing>> FaultyStore::list(std::string prefix, std::string continuation, size_t limit) {
  HR_CO_TRY(co_await before());
  Result<Listing> listing = co_await inner_->list(std::move(prefix), std::move(continuation), limit);
  co_return listing;
}

Task<Result<std::unique_ptr<Upload>>> FaultyStore::begin_upload(std::string key) {
  HR_CO_TRY(co_await before());
  HR_CO_TRY(std::unique_ptr<Upload> upload, co_await inner_->begin_upload(key));
  UploadFaults faults;
  faults.confirms = rates_.stored_other == 0;
  faults.as = stored_as(PutCondition::kNone);
  faults.timeout_after = faults.as == StoredAs::kGiven && roll(rates_.timeout_after, "bucket_timeout_after");
  co_return std::unique_ptr<Upload>(
      std::make_unique<FaultyUpload>(*inner_, random_, std::move(key), std::move(upload), faults));
}

}  // namespace headrace
