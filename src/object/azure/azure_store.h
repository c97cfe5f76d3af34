// AzureStore: a container of a storage account with the Azure Blob API; every object is a block blob.
//
// Each request is one job on the pool that it was given (curl blocks), at most `parallel` at once.
// Bodies over 16 MiB go up as blocks of 8 MiB, four at a time (parted_upload.h); everything else that
// fails is RetryingStore's business. Integrity: each body goes up with its MD5, which the service
// verifies and repeats; whole bodies that come down are compared with the MD5 that the service keeps.
// Blocks of an upload that nobody commits are the service's to remove, after a week.
#pragma once

#include <memory>
#include <string>

#include "object/azure/azure_client.h"
#include "object/object_store.h"
#include "object/parted_upload.h"
#include "runtime/env.h"
#include "runtime/sync.h"

namespace headrace {

struct AzureOptions {
  uint32_t parallel = 32;
  Nanos silence_timeout = seconds(30);  // a request that moves less than 1 KiB/s for so long has failed
  EnvironmentLookup environment = process_environment;
};

class AzureStore final : public ObjectStore {
 public:
  // The Env's parts outlive the store; env.blocking carries the requests.
  AzureStore(BucketUrl url, Env env, AzureOptions options = {});
  ~AzureStore() override;
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  // Single requests in parallel: a batch request of this API is a text of whole HTTP requests.
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  void cancel() override;
  [[nodiscard]] std::string url() const override { return url_.text(); }

  // Makes the container itself; one that is there already is fine. For demos and tests.
  [[nodiscard]] Task<Result<void>> create_container();

 private:
  friend class AzureBlocks;
  struct Checked;

  [[nodiscard]] std::string full_key(const std::string& key) const;
  // `with_md5`: the body's is sent along. Compares what the service says of the bytes.
  [[nodiscard]] Task<Result<Checked>> call(AzureRequest request, bool with_md5 = false);
  [[nodiscard]] Task<Result<ObjectInfo>> put_whole(std::string key, Buffer body, PutCondition condition);
  // Holds one of `places`, and gives it back.
  [[nodiscard]] Task<void> remove_one(std::string key, std::vector<RemoveFailure>* failures, Semaphore* places);
  [[nodiscard]] std::unique_ptr<PartedUpload> upload_to(std::string key);

  BucketUrl url_;
  Env env_;
  std::shared_ptr<AzureClient> client_;
  Semaphore slots_;
};

}  // namespace headrace
