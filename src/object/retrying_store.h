// RetryingStore: hides the service's bad moments, never an unknown outcome that matters.
//
// Reads, removals and unconditional puts are idempotent and are asked again after kUnavailable,
// kTimeout, kDisconnected (reads: after kCorrupt too, since another reply may be whole). A
// conditional put is asked again only when surely nothing happened (kUnavailable); an unknown
// outcome goes to the caller, who looks. Attempts are bounded in number, and no new one starts
// after the total time.
#pragma once

#include <functional>
#include <memory>

#include "object/object_store.h"
#include "runtime/random.h"
#include "runtime/timers.h"

namespace headrace {

struct RetryOptions {
  int attempts = 8;
  Nanos first_pause = milliseconds(100);  // doubles; each pause is drawn from [half, whole]
  Nanos longest_pause = seconds(5);
  Nanos total = seconds(60);  // no attempt starts later than this after the first
  std::function<void(const Error&)> on_retry;  // why it is asked again; may be empty
};

class RetryingStore final : public ObjectStore {
 public:
  RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random,
                RetryOptions options = {});
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  // Only the beginning is retried here; the parts of an upload are retried by the back end.
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  [[nodiscard]] std::string url() const override { return inner_->url(); }
  [[nodiscard]] uint64_t retries() const { return retries_; }

 private:
  struct Round;
  // True when the caller shall ask again: sleeps before it returns. Otherwise false at once.
  [[nodiscard]] Task<bool> again(Error why, bool idempotent, bool read, Round* round);

  std::unique_ptr<ObjectStore> inner_;
  Clock& clock_;
  Random& random_;
  RetryOptions options_;
  uint64_t retries_ = 0;
};

}  // namespace headrace
