#include "object/open.h"

#include "object/azure/azure_store.h"
#include "object/directory/directory_store.h"
#include "object/s3/s3_store.h"

namespace headrace {

Result<std::unique_ptr<ObjectStore>> open_object_store(BucketUrl url, Env env, ObjectStoreOptions options) {
  std::unique_ptr<ObjectStore> store;
  // Requests that block a thread each.
  Env carrier{env.clock, options.directory != nullptr ? *options.directory : env.disk, env.net, env.random,
              options.requests != nullptr ? *options.requests : env.blocking};
  switch (url.kind) {
    case BucketUrl::Kind::kDirectory:
      store = std::make_unique<DirectoryStore>(url.path, carrier);
      break;
    case BucketUrl::Kind::kS3:
      store = std::make_unique<S3Store>(std::move(url), carrier, S3Options{.parallel = options.parallel});
      break;
    case BucketUrl::Kind::kAzure:
      store = std::make_unique<AzureStore>(std::move(url), carrier, AzureOptions{.parallel = options.parallel});
      break;
    case BucketUrl::Kind::kMemory:
      return Error(Code::kInvalid,
                   "a memory: bucket exists in tests only; write file:///dir, s3://bucket/prefix or "
                   "az://account/container/prefix");
  }
  if (options.retry) store = std::make_unique<RetryingStore>(std::move(store), env.clock, env.random, options.retries);
  return store;
}

}  // namespace headrace
