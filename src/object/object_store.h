// ObjectStore: what Headrace asks of a bucket. Back ends: s3/, azure/, directory/,
// MemoryStore.
//
// Concept: whole immutable blobs by key, plus compare-and-swap on a single one. Reads after a write
// see it (every service we accept is strongly consistent); list() is a convenience and never proof
// of anything. Invariants: keys are UTF-8, relative to the bucket URL's prefix, separated by
// '/', 1..kMaxKey bytes. What an error says about the effect is its Retry class: kRetryable
// happened not, kOutcomeUnknown perhaps. Owner: whoever opened the store; it outlives every task
// that it handed out. All calls on one core; any number may overlap. Destroying a task in flight
// leaves the effect unknown, as a crash would.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "runtime/task.h"

namespace headrace {

inline constexpr size_t kMaxKey = 900;                  // S3 takes 1,024 with the URL's prefix
inline constexpr size_t kMaxRemoveBatch = 1000;         // larger lists are split by remove_batch itself
inline constexpr uint64_t kMultipartAbove = 16 * kMiB;  // bodies above go up in parts, in parallel

struct ObjectInfo {
  std::string key;
  uint64_t size = 0;
  std::string etag;       // opaque; changes when the content changes
  bool verified = false;  // after a put: the service confirmed a checksum of what it stored (else read it back)
};

struct PutCondition {
  enum Kind : uint8_t { kNone, kIfAbsent, kIfMatch };
  Kind kind = kNone;
  std::string etag;  // for kIfMatch

  [[nodiscard]] static PutCondition if_absent() { return {kIfAbsent, {}}; }
  [[nodiscard]] static PutCondition if_match(std::string etag) { return {kIfMatch, std::move(etag)}; }
};

struct Got {
  Buffer body;
  std::string etag;
};

struct Listing {
  std::vector<ObjectInfo> objects;  // in key order
  std::string continuation;         // pass to the next list(); empty: this was the last
};

struct RemoveFailure {
  std::string key;
  Error error;
};

// A body that is not in memory at once. Nothing of it is visible before finish() has returned ok.
// One dropped unfinished leaves parts at the service until abort() or the bucket's life-cycle rule
// removes them.
class Upload {
 public:
  virtual ~Upload() = default;
  // The next bytes, any size > 0; waits while too many parts are under way. A failure may show at a
  // later call.
  [[nodiscard]] virtual Task<Result<void>> part(Buffer bytes) = 0;
  // As put(): durable on return, and the condition is decided here.
  [[nodiscard]] virtual Task<Result<ObjectInfo>> finish(PutCondition condition = {}) = 0;
  [[nodiscard]] virtual Task<void> abort() = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Durable at the service on return; replaces what was there unless the condition forbids it.
  // kConflict: the condition failed (kIfMatch on an absent object too). kTimeout, kDisconnected:
  // unknown outcome. kNoSpace: the bucket is full.
  [[nodiscard]] virtual Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) = 0;
  // Whole; kNotFound. Length, and the checksum where the service gives one, are verified: kCorrupt.
  [[nodiscard]] virtual Task<Result<Got>> get_with_etag(std::string key) = 0;
  [[nodiscard]] Task<Result<Buffer>> get(std::string key);
  // Exactly size bytes from offset, or an error; kRange when the object ends before. With an ETag:
  // kConflict when the object is another one now. size 0 is kInvalid.
  [[nodiscard]] virtual Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                                       std::string if_match_etag = "") = 0;
  [[nodiscard]] virtual Task<Result<ObjectInfo>> head(std::string key) = 0;
  // Any number of keys; an absent one counts as removed. Returns those that are (or may be) still
  // there. An error of the whole call: any subset may be gone.
  [[nodiscard]] virtual Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) = 0;
  // At most `limit` (≥ 1) objects whose key begins with prefix, in key order. For import and tests
  // only.
  [[nodiscard]] virtual Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) = 0;
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) = 0;
  // Nobody waits any more: what is under way ends soon, what is asked from here on at once, with
  // kCancelled and an unknown outcome. Stores that answer quickly anyhow go on.
  virtual void cancel() {}
  // What is wrong with the service just now, for people; empty: nothing that this store knows of.
  [[nodiscard]] virtual std::string trouble() const { return {}; }
  // For messages: without secrets.
  [[nodiscard]] virtual std::string url() const = 0;
};

// kInvalid with the reason when it is no key: empty, too long, not UTF-8, with a NUL.
[[nodiscard]] Result<void> check_key(const std::string& key);

}  // namespace headrace
