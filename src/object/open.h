// open_object_store: from a bucket URL to a store. The only place that names every back end; apps,
// admin and tests link it (room object_open), everything else takes an ObjectStore.
#pragma once

#include <memory>

#include "object/bucket_url.h"
#include "object/object_store.h"
#include "object/retrying_store.h"
#include "runtime/env.h"

namespace headrace {

struct ObjectStoreOptions {
  bool retry = true;  // wrap in a RetryingStore
  RetryOptions retries;
  uint32_t parallel = 32;        // requests of this store in flight at once
  Blocking* requests = nullptr;  // pool whose threads carry S3 requests (each is held for one
                                 // request), and what a directory's system calls wait on; null: env.blocking
  Disk* directory = nullptr;     // on that pool, for a bucket that is a directory: one that hangs (NFS) must hold up no
                                 // other file; null: env.disk
};

// Talks to nobody yet: a wrong bucket, missing credentials or an unwritable directory show at the
// first call. The Env's parts outlive the store.
[[nodiscard]] Result<std::unique_ptr<ObjectStore>> open_object_store(BucketUrl url, Env env,
                                                                     ObjectStoreOptions options = {});

}  // namespace headrace
