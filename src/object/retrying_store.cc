#include "object/retrying_store.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

namespace headrace {

struct RetryingStore::Round {
  Nanos begun;
  int attempts = 0;
};

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random, RetryOptions options)
    : inner_(std::move(inner)), clock_(clock), random_(random), options_(options) {
  HR_ASSERT(inner_ != nullptr && options_.attempts > 0 && options_.first_pause > Nanos{});
}

// One attempt under way. `bytes` of body take their time.
class RetryingStore::Attempt {
 public:
  Attempt(RetryingStore& store, uint64_t bytes)
      : store_(store),
        begun_(store.clock_.now()),
        due_(begun_ + store.options_.silence + seconds(1) * static_cast<int64_t>(bytes / kMiB)) {
    store_.under_way_.emplace(due_, begun_);
  }
  ~Attempt() { store_.under_way_.erase(store_.under_way_.find({due_, begun_})); }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

 private:
  RetryingStore& store_;
  Nanos begun_;
  Nanos due_;
};

void RetryingStore::cancel() {
  cancelled_.cancel();
  inner_->cancel();
}

namespace {
Error not_waited_for(const std::string& url) {
  return {Code::kCancelled, url + ": nobody waits for it any more"};
}

// Whether the service did what it is there for, whatever the answer means to whoever asked.
bool well(Code code) {
  switch (code) {
    case Code::kOk:
    case Code::kNotFound:
    case Code::kConflict:
    case Code::kExists:
    case Code::kRange:
    case Code::kNameTooLong:
    case Code::kTooLarge:
    case Code::kCancelled:
      return true;
    default:
      return false;
  }
}
}  // namespace

void RetryingStore::note(const Error* why) {
  answered_ = clock_.now();
  if (why == nullptr || well(why->code())) {
    failure_.clear();
    return;
  }
  if (failure_.empty()) failing_since_ = answered_;
  failure_ = why->message();
}

std::string RetryingStore::trouble() const {
  const Nanos now = clock_.now();
  if (!under_way_.empty() && under_way_.begin()->first <= now) {
    const Nanos silent = now - std::max(answered_, under_way_.begin()->second);
    if (silent >= options_.silence)
      return fmt::format("{} has not answered for {} s", inner_->url(), static_cast<int64_t>(silent.seconds()));
  }
  if (failure_.empty()) return {};
  const auto since = static_cast<int64_t>((now - failing_since_).seconds());
  return since == 0 ? failure_ : fmt::format("{} (for {} s already)", failure_, since);
}

Task<bool> RetryingStore::again(Error why, bool idempotent, bool read, Round* round) {
  const Code code = why.code();
  const bool nothing_happened = code == Code::kUnavailable;
  const bool unknown = code == Code::kTimeout || code == Code::kDisconnected;
  if (!(nothing_happened || (unknown && idempotent) || (code == Code::kCorrupt && read))) co_return false;
  if (++round->attempts >= options_.attempts) co_return false;
  const int doublings = std::min(round->attempts - 1, 20);
  const Nanos whole = std::min(options_.first_pause * (int64_t{1} << doublings), options_.longest_pause);
  const auto half = static_cast<uint64_t>(whole.count / 2);
  const Nanos pause{static_cast<int64_t>(half + random_.below(half + 1))};
  if (clock_.now() + pause - round->begun > options_.total) co_return false;
  ++retries_;
  co_return co_await cancelled_.sleep(clock_, pause);
}

// One loop, written once: `call` is evaluated anew for each attempt, that moves `bytes`.
#define RETRYING(call, bytes, idempotent, read)                                  \
  Round round{clock_.now()};                                                     \
  while (true) {                                                                 \
    if (cancelled_.cancelled()) co_return not_waited_for(inner_->url());         \
    std::optional<Attempt> attempt(std::in_place, *this, bytes);                 \
    auto result = co_await (call);                                               \
    attempt.reset();                                                             \
    note(result.ok() ? nullptr : &result.error());                               \
    if (result.ok()) co_return result;                                           \
    const bool retry = co_await again(result.error(), idempotent, read, &round); \
    if (!retry) co_return result;                                                \
  }

Task<Result<ObjectInfo>> RetryingStore::put(std::string key, Buffer body, PutCondition condition) {
  const bool idempotent = condition.kind == PutCondition::kNone;
  RETRYING(inner_->put(key, body, condition), body.size(), idempotent, false)
}

Task<Result<Got>> RetryingStore::get_with_etag(std::string key){RETRYING(inner_ -> get_with_etag(key), 0, true, true)}

Task<Result<Buffer>> RetryingStore::get_range(std::string key, uint64_t offset, uint64_t size,
                                              std::string if_match_etag){
    RETRYING(inner_->get_range(key, offset, size, if_match_etag), size, true, true)}

Task<Result<ObjectInfo>> RetryingStore::head(std::string key){RETRYING(inner_->head(key), 0, true, true)}

Task<Result<Listing>> RetryingStore::list(std::string prefix, std::string continuation, size_t limit){
    RETRYING(inner_->list(prefix, continuation, limit), 0, true, true)}

Task<Result<std::unique_ptr<Upload>>> RetryingStore::begin_upload(std::string key){
    RETRYING(inner_->begin_upload(key), 0, true, false)}
#undef RETRYING

// Keys that failed one by one are asked again as well as calls that failed whole.
Task<Result<std::vector<RemoveFailure>>> RetryingStore::remove_batch(std::vector<std::string> keys) {
  std::vector<RemoveFailure> final_failures;
  Round round{clock_.now()};
  while (true) {
    if (cancelled_.cancelled()) co_return not_waited_for(inner_->url());
    std::optional<Attempt> attempt(std::in_place, *this, 0);
    Result<std::vector<RemoveFailure>> result = co_await inner_->remove_batch(keys);
    attempt.reset();
    note(result.ok() ? nullptr : &result.error());
    if (!result.ok()) {
      const bool retry = co_await again(result.error(), true, true, &round);
      if (!retry) co_return result;
      continue;
    }
    std::vector<RemoveFailure> failures = *std::move(result);
    keys.clear();
    for (const RemoveFailure& failure : failures)
      if (failure.error.retry() != Retry::kFinal) keys.push_back(failure.key);
    if (!keys.empty()) {
      const bool retry =
          co_await again(Error(Code::kUnavailable, failures.front().error.message()), true, false, &round);
      if (retry) {
        for (RemoveFailure& failure : failures)
          if (failure.error.retry() == Retry::kFinal) final_failures.push_back(std::move(failure));
        continue;
      }
    }
    for (RemoveFailure& failure : failures) final_failures.push_back(std::move(failure));
    co_return final_failures;
  }
}

}  // namespace headrace
