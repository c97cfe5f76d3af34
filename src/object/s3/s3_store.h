// S3Store: a bucket of a service with the S3 API.
//
// Each request is one job on the pool that it was given (curl blocks), at most `parallel` at once.
// Bodies over 16 MiB go up in parts of 8 MiB, four at a time; a failed part is tried again here,
// everything else is RetryingStore's business. Integrity: each body goes up with its crc32c, which
// the service verifies and repeats; where a service does not, the ETag is compared with the MD5.
// Bodies that come down are compared with the service's checksum where it gives one.
#pragma once

#include <memory>
#include <string>

#include "object/object_store.h"
#include "object/parted_upload.h"
#include "object/s3/s3_client.h"
#include "runtime/env.h"

namespace headrace {

struct S3Options {
  uint32_t parallel = 32;
  Nanos silence_timeout = seconds(30);  // a request that moves less than 1 KiB/s for so long has failed
  EnvironmentLookup environment = process_environment;
};

class S3Store final : public ObjectStore {
 public:
  // The Env's parts outlive the store; env.blocking carries the requests.
  S3Store(BucketUrl url, Env env, S3Options options = {});
  ~S3Store() override;
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  void cancel() override;
  [[nodiscard]] std::string url() const override { return url_.text(); }

  // Makes the bucket itself; one that is there already is fine. For demos and tests.
  [[nodiscard]] Task<Result<void>> create_bucket();

 private:
  friend class S3Parts;
  class Slot;

  [[nodiscard]] std::unique_ptr<PartedUpload> upload_to(std::string key);
  [[nodiscard]] std::string full_key(const std::string& key) const;
  [[nodiscard]] Task<Result<HttpReply>> call(S3Request request);
  [[nodiscard]] Task<Result<ObjectInfo>> put_whole(std::string key, Buffer body, PutCondition condition);
  [[nodiscard]] Task<Result<std::vector<RemoveFailure>>> remove_some(std::vector<std::string> keys);

  BucketUrl url_;
  Env env_;
  uint32_t parallel_;
  std::shared_ptr<S3Client> client_;
  uint32_t in_flight_ = 0;
  WaitList waiting_;
};

}  // namespace headrace
