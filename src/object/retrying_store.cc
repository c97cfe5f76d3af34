#include "object/retrying_store.h"

#include <algorithm>

namespace headrace {

struct RetryingStore::Round {
  Nanos begun;
  int attempts = 0;
};

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random,
                             RetryOptions options)
    : inner_(std::move(inner)), clock_(clock), random_(random), options_(options) {
  HR_ASSERT(inner_ != nullptr && options_.attempts > 0 && options_.first_pause > Nanos{});
}

Task<bool> RetryingStore::again(Error why, bool idempotent, bool read, Round* round) {
  const Code code = why.code();
  const bool nothing_happened = code == Code::kUnavailable;
  const bool unknown = code == Code::kTimeout || code == Code::kDisconnected;
  if (!(nothing_happened || (unknown && idempotent) || (code == Code::kCorrupt && read)))
    co_return false;
  if (++round->attempts >= options_.attempts) co_return false;
  const int doublings = std::min(round->attempts - 1, 20);
  const Nanos whole =
      std::min(options_.first_pause * (int64_t{1} << doublings), options_.longest_pause);
  const auto half = static_cast<uint64_t>(whole.count / 2);
  const Nanos pause{static_cast<int64_t>(half + random_.below(half + 1))};
  if (clock_.now() + pause - round->begun > options_.total) co_return false;
  ++retries_;
  if (options_.on_retry) options_.on_retry(why);
  co_await clock_.sleep(pause);
  co_return true;
}

// One loop, written once: `call` is evaluated anew for each attempt.
#define RETRYING(call, idempotent, read)                                        \
  Round round{clock_.now()};                                                    \
  while (true) {                                                                \
    auto result = co_await (call);                                              \
    if (result.ok()) co_return result;                                          \
    const bool retry = co_await again(result.error(), idempotent, read, &round); \
    if (!retry) co_return result;                                               \
  }

Task<Result<ObjectInfo>> RetryingStore::put(std::string key, Buffer body, PutCondition condition) {
  const bool idempotent = condition.kind == PutCondition::kNone;
  RETRYING(inner_->put(key, body, condition), idempotent, false)
}

Task<Result<Got>> RetryingStore::get_with_etag(std::string key){
    RETRYING(inner_ -> get_with_etag(key), true, true)}

Task<Result<Buffer>> RetryingStore::get_range(std::string key, uint64_t offset, uint64_t size,
                                              std::string if_match_etag){
    RETRYING(inner_->get_range(key, offset, size, if_match_etag), true, true)}

Task<Result<ObjectInfo>> RetryingStore::head(std::string key){
    RETRYING(inner_->head(key), true, true)}

Task<Result<Listing>> RetryingStore::list(std::string prefix, std::string continuation,
                                          size_t limit){
    RETRYING(inner_->list(prefix, continuation, limit), true, true)}

Task<Result<std::unique_ptr<Upload>>> RetryingStore::begin_upload(std::string key){
    RETRYING(inner_->begin_upload(key), true, false)}
#undef RETRYING

// Keys that failed one by one are asked again as well as calls that failed whole.
Task<Result<std::vector<RemoveFailure>>> RetryingStore::remove_batch(
    std::vector<std::string> keys) {
  std::vector<RemoveFailure> final_failures;
  Round round{clock_.now()};
  while (true) {
    Result<std::vector<RemoveFailure>> result = co_await inner_->remove_batch(keys);
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
      const bool retry = co_await again(Error(Code::kUnavailable, failures.front().error.message()), true, false, &round);
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
