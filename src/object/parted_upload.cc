#include "object/parted_upload.h"

#include <cstring>

#include <fmt/core.h>

namespace headrace {

namespace {

constexpr int kPartsAtOnce = 4;
constexpr int kPartAttempts = 4;

}  // namespace

PartedUpload::PartedUpload(std::unique_ptr<PartService> service, std::string key, Clock& clock, Random& random)
    : service_(std::move(service)), key_(std::move(key)), clock_(clock), random_(random) {}

Task<Result<void>> PartedUpload::part(Buffer bytes) {
  if (bytes.empty()) co_return Error(Code::kInvalid, fmt::format("upload {}: an empty part", key_));
  if (ended_) co_return Error(Code::kInvalid, fmt::format("upload {}: it has ended", key_));
  size_ += bytes.size();
  size_t taken = 0;
  while (taken < bytes.size()) {
    const size_t left = bytes.size() - taken;
    if (gathered_ == 0 && left >= kPartSize) {  // whole parts need no copy
      HR_CO_TRY(co_await start_part(bytes.slice(taken, kPartSize)));
      taken += kPartSize;
      continue;
    }
    if (gathered_ == 0) gather_ = Buffer::allocate(kPartSize);
    const size_t count = std::min<size_t>(left, kPartSize - gathered_);
    std::memcpy(gather_.data() + gathered_, bytes.data() + taken, count);
    gathered_ += count;
    taken += count;
    if (gathered_ == kPartSize) {
      gathered_ = 0;
      HR_CO_TRY(co_await start_part(std::move(gather_)));
    }
  }
  co_return {};
}

Task<Result<ObjectInfo>> PartedUpload::finish(PutCondition condition) {
  if (ended_) co_return Error(Code::kInvalid, fmt::format("upload {}: it has ended", key_));
  if (parts_ == 0) {
    ended_ = true;
    Buffer whole = gathered_ == 0 ? Buffer() : gather_.slice(0, gathered_);
    Result<ObjectInfo> done = co_await service_->put_whole(std::move(whole), std::move(condition));
    co_return done;
  }
  if (gathered_ > 0) {
    Buffer last = gather_.slice(0, gathered_);
    gathered_ = 0;
    HR_CO_TRY(co_await start_part(std::move(last)));
  }
  while (in_flight_ > 0) co_await ListWait(changed_);
  if (failure_) {
    Error failure = *failure_;
    co_await abort();
    co_return failure;
  }
  ended_ = true;
  Result<ObjectInfo> done = co_await service_->complete(parts_, size_, std::move(condition));
  if (done.ok()) co_return done;
  Error error = std::move(done).error().within("upload " + key_);
  ended_ = false;
  co_await abort();
  co_return error;
}

Task<void> PartedUpload::abort() {
  if (ended_) co_return;
  ended_ = true;
  while (in_flight_ > 0) co_await ListWait(changed_);  // a part that arrives later would stay for ever
  if (begun_) co_await service_->discard();
}

Task<Result<void>> PartedUpload::start_part(Buffer bytes) {
  while (in_flight_ >= kPartsAtOnce && !failure_) co_await ListWait(changed_);
  if (failure_) {
    Error failure = *failure_;
    co_await abort();
    co_return failure;
  }
  if (parts_ == kMostParts)
    co_return Error(Code::kTooLarge, fmt::format("upload {}: more than {} parts", key_, kMostParts));
  if (!begun_) HR_CO_TRY(co_await service_->begin());
  begun_ = true;
  ++in_flight_;
  scope_.spawn(send_part(parts_++, std::move(bytes)));
  co_return {};
}

Task<void> PartedUpload::send_part(size_t index, Buffer bytes) {
  Result<void> sent;
  for (int attempt = 1;; ++attempt) {
    sent = co_await service_->send(index, bytes);
    if (sent.ok() || sent.error().retry() == Retry::kFinal || attempt == kPartAttempts) break;
    const Nanos whole = milliseconds(100) * (int64_t{1} << attempt);
    const Nanos pause{whole.count / 2 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(whole.count / 2)))};
    co_await clock_.sleep(pause);
  }
  if (!sent.ok() && !failure_)
    failure_ = std::move(sent).error().within(fmt::format("upload {}: part {}", key_, index + 1));
  --in_flight_;
  if (!changed_.empty()) Scheduler::current().wake_all(changed_);
}

}  // namespace headrace
