// RetryingStore: hides the service's bad moments, never an unknown outcome that matters.
//
// Reads, removals and unconditional puts are idempotent and are asked again after kUnavailable,
// kTimeout, kDisconnected (reads: after kCorrupt too, since another reply may be whole). A
// conditional put is asked again only when surely nothing happened (kUnavailable); an unknown
// outcome goes to the caller, who looks. Attempts are bounded in number, and no new one starts
// after the total time.
//
// It is also who knows how the service does: trouble() names a service that refuses, fails or has
// not answered for a while, at once and not only when somebody has given up. cancel() ends pauses
// as well as what is under way.
#pragma once

#include <memory>
#include <set>
#include <utility>

#include "object/object_store.h"
#include "runtime/random.h"
#include "runtime/sync.h"
#include "runtime/timers.h"

namespace headrace {

struct RetryOptions {
  int attempts = 8;
  Nanos first_pause = milliseconds(100);  // doubles; each pause is drawn from [half, whole]
  Nanos longest_pause = seconds(5);
  Nanos total = seconds(60);   // no attempt starts later than this after the first
  Nanos silence = seconds(5);  // without any answer, until it is trouble; bodies add to it
};

class RetryingStore final : public ObjectStore {
 public:
  RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random, RetryOptions options = {});
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  // Only the beginning is retried here; the parts of an upload are retried by the back end.
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  void cancel() override;
  [[nodiscard]] std::string trouble() const override;
  [[nodiscard]] std::string url() const override { return inner_->url(); }
  [[nodiscard]] uint64_t retries() const { return retries_; }

 private:
  struct Round;
  class Attempt;
  // True when the caller shall ask again: sleeps before it returns. Otherwise false at once.
  [[nodiscard]] Task<bool> again(Error why, bool idempotent, bool read, Round* round);
  void note(const Error* why);

  std::unique_ptr<ObjectStore> inner_;
  Clock& clock_;
  Random& random_;
  RetryOptions options_;
  uint64_t retries_ = 0;
  CancelToken cancelled_;
  std::multiset<std::pair<Nanos, Nanos>> under_way_;  // by when an attempt should be answered, and since when it runs
  Nanos answered_{};                                  // the last time that anything was
  std::string failure_;                               // of the last attempt; empty: the service did what it should
  Nanos failing_since_{};
};

}  // namespace headrace
