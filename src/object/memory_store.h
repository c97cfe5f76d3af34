// MemoryStore: a bucket in memory, with ETags, for tests and the simulator.
//
// MemoryBucket is the service: it survives the machines that use it, and several MemoryStores (one
// per machine, each with that machine's Clock) may stand on one. A call takes effect at one instant
// half-way through its delay, so that a machine that crashes meanwhile does not know whether it
// did.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "object/object_store.h"
#include "runtime/timers.h"

namespace headrace {

// Thread-safe. Deterministic: ETags are numbers that only grow.
class MemoryBucket {
 public:
  struct Object {
    Buffer body;
    std::string etag;
  };
  [[nodiscard]] Result<ObjectInfo> put(const std::string& key, Buffer body, const PutCondition& condition);
  [[nodiscard]] Result<Object> get(const std::string& key) const;
  void remove(const std::string& key);
  [[nodiscard]] Listing list(const std::string& prefix, const std::string& after, size_t limit) const;
  [[nodiscard]] std::map<std::string, Object> contents() const;  // a copy of the map; bodies are shared
  void clear();
  [[nodiscard]] size_t size() const;
  [[nodiscard]] uint64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Object> objects_;
  uint64_t next_etag_ = 1;
};

class MemoryStore final : public ObjectStore {
 public:
  // `clock` may be null when delay is 0.
  explicit MemoryStore(std::shared_ptr<MemoryBucket> bucket, Clock* clock = nullptr, Nanos delay = {},
                       std::string name = "memory:bucket");
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  [[nodiscard]] std::string url() const override { return name_; }

 private:
  [[nodiscard]] Task<void> half_delay();

  std::shared_ptr<MemoryBucket> bucket_;
  Clock* clock_;
  Nanos delay_;
  std::string name_;
};

}  // namespace headrace
