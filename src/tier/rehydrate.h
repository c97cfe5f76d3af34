// Taking a namespace from its bucket: who may own it, and what its partitions start from.
//
// The coordinator's kOwnerKey holds the random id under which this cluster owns (or is about to
// own) the bucket; it is written before head is swapped, so that an interrupted attach() is taken
// up again and not taken for another owner. Of two copies of one state directory both have that id:
// what they wrote tells them apart (tier/head.h).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coord/coordinator.h"
#include "tier/head.h"

namespace headrace {

struct OwnerRecord {
  static constexpr uint8_t kFormat = 1;
  uint64_t owner = 0;
  std::string bucket;  // URL without secrets: a cluster does not change its bucket by mistake
  void fields(this auto& self, auto& v) { v(self.owner, self.bucket); }
};

// Where a cluster keeps how far it is with releasing its namespace: encode_durable(ReleaseRecord). Absent or empty: it
// is not. Written before head is swapped to released, so that a start that finds none need not ask the bucket.
inline constexpr const char* kReleaseKey = "release";
struct ReleaseRecord {
  static constexpr uint8_t kFormat = 1;
  bool confirmed = false;  // head said released: nothing here is needed any more
  void fields(this auto& self, auto& v) { v(self.confirmed); }
};
// Nothing: not being released.
[[nodiscard]] Task<Result<std::optional<ReleaseRecord>>> release_record(Coordinator& coordinator);
[[nodiscard]] Task<Result<void>> put_release_record(Coordinator& coordinator, std::optional<ReleaseRecord> record);

// The cluster's; made when there is none. kInvalid when it owns another bucket.
[[nodiscard]] Task<Result<OwnerRecord>> owner_record(Env env, Coordinator& coordinator, std::string bucket);

// Takes up ownership where it was left: head must be ours, in this epoch. The bucket of a new
// namespace gets its head here. kDeposed: another owner has it, or another copy of this state
// directory, the message says who. kStale: we released it (spun down): attach() again.
struct ResumeOptions {
  NamespaceId name_space;
  ClusterId cluster;
  NamespaceEpoch epoch;  // that the cluster runs in
  std::string description;
};
[[nodiscard]] Task<Result<HeadVersion>> resume_ownership(Env env, Coordinator& coordinator, ObjectStore& store,
                                                         ResumeOptions options);

struct AttachOptions {
  ClusterId cluster;
  std::string description;  // of us, for whoever we keep out
  bool take_over = false;   // although another owner has not released it
  bool probe = true;        // refuse a bucket without working compare-and-swap
};
struct Attached {
  HeadVersion head;         // ours: next epoch
  ManifestRecord manifest;  // what the partitions start from
  HeadRecord before;        // whose it was
};
// Makes this cluster the owner in the next epoch. kBusy: owned, with the owner and the manifest's
// age, or written by another copy of this state directory; kNotFound: no namespace there, or nothing was ever
// published. Repeating it after an interruption goes on where it was.
[[nodiscard]] Task<Result<Attached>> attach(Env env, Coordinator& coordinator, ObjectStore& store,
                                            AttachOptions options);

// What Partition::Origin wants (meta/store: FetchFile): bytes of the cut's files, from the bucket.
// `store` outlives it.
using FetchStoreFile = std::function<Task<Result<Buffer>>(StoreFile file, uint64_t offset, uint64_t length)>;
[[nodiscard]] FetchStoreFile fetch_from_bucket(Env env, ObjectStore& store, PartitionManifest partition);
// The locations that changed after the cut was journaled.
[[nodiscard]] Task<Result<std::vector<Location>>> read_locations(Env env, ObjectStore& store, ManifestRecord manifest,
                                                                 PartitionId partition);

}  // namespace headrace
