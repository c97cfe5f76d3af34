// PartedUpload: an Upload in parts of 8 MiB, four at a time, over a service that assembles parts.
//
// Parts of exactly kPartSize go up while the next ones are gathered; the last may be smaller.
// Nothing goes to the service before the first part is full: what stays smaller becomes one put.
// A failed part is sent again here. Owner: the back end's store, which outlives the upload.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "object/object_store.h"
#include "runtime/random.h"
#include "runtime/scope.h"
#include "runtime/sync.h"
#include "runtime/timers.h"

namespace headrace {

inline constexpr uint64_t kPartSize = 8 * kMiB;
inline constexpr size_t kMostParts = 10'000;

// What a service does with the parts of one object. Each call is one attempt.
class PartService {
 public:
  virtual ~PartService() = default;
  // Before the first part.
  [[nodiscard]] virtual Task<Result<void>> begin() = 0;
  // The part of this index; sending it again replaces it. Several may be under way.
  [[nodiscard]] virtual Task<Result<void>> send(size_t index, Buffer bytes) = 0;
  // All parts, each sent once or more, become the object; the condition is decided here.
  [[nodiscard]] virtual Task<Result<ObjectInfo>> complete(size_t parts, uint64_t size, PutCondition condition) = 0;
  // The whole body was smaller than a part: begin() was never called.
  [[nodiscard]] virtual Task<Result<ObjectInfo>> put_whole(Buffer body, PutCondition condition) = 0;
  // Forgets the parts; only after begin().
  [[nodiscard]] virtual Task<void> discard() = 0;
};

class PartedUpload final : public Upload {
 public:
  // `key` is for messages.
  PartedUpload(std::unique_ptr<PartService> service, std::string key, Clock& clock, Random& random);
  Task<Result<void>> part(Buffer bytes) override;
  Task<Result<ObjectInfo>> finish(PutCondition condition) override;
  Task<void> abort() override;

 private:
  [[nodiscard]] Task<Result<void>> start_part(Buffer bytes);
  [[nodiscard]] Task<void> send_part(size_t index, Buffer bytes);

  std::unique_ptr<PartService> service_;
  std::string key_;
  Clock& clock_;
  Random& random_;
  Buffer gather_;
  size_t gathered_ = 0;
  uint64_t size_ = 0;
  size_t parts_ = 0;
  bool begun_ = false;
  bool ended_ = false;
  int in_flight_ = 0;
  std::optional<Error> failure_;
  WaitList changed_;
  Scope scope_;
};

}  // namespace headrace
