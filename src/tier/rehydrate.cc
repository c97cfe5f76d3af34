#include "tier/rehydrate.h"

#include "base/fault_point.h"
#include "object/probe.h"
#include "tier/bucket_io.h"
#include "tier/publisher.h"

namespace headrace {
namespace {

constexpr int kAttempts = 5;

std::string age_of(const HeadRecord& head, uint64_t now) {
  if (head.manifest.empty()) return "it never published anything";
  uint64_t age = now > head.published_s ? now - head.published_s : 0;
  return "its last manifest is " + std::to_string(age) + " s old";
}

Task<Result<Buffer>> fetch_range(Env env, ObjectStore* store, std::string key, uint64_t offset, uint64_t length) {
  Error last(Code::kUnavailable, "not read");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env.clock.sleep(retry_pause(env.random, attempt - 1));
    Result<Buffer> got = co_await store->get_range(key, offset, length);
    if (got.ok()) co_return got;
    last = std::move(got).error();
    if (!may_pass(last.code())) break;
  }
  co_return std::move(last).within(store->url() + ": " + key);
}

}  // namespace

Task<Result<std::optional<ReleaseRecord>>> release_record(Coordinator& coordinator) {
  HR_CO_TRY(CoordRecord found, co_await coordinator.get(kReleaseKey));
  if (found.value.empty()) co_return std::optional<ReleaseRecord>();
  HR_CO_TRY(ReleaseRecord record, decode_durable<ReleaseRecord>(found.value));
  co_return std::optional<ReleaseRecord>(record);
}

Task<Result<void>> put_release_record(Coordinator& coordinator, std::optional<ReleaseRecord> record) {
  HR_CO_TRY(CoordRecord old, co_await coordinator.get(kReleaseKey));
  std::string value = record ? encode_durable(*record) : std::string();
  if (old.value == value) co_return {};
  HR_CO_TRY(co_await coordinator.put(kReleaseKey, std::move(value), old.version));
  co_return {};
}

Task<Result<OwnerRecord>> owner_record(Env env, Coordinator& coordinator, std::string bucket) {
  Error last(Code::kUnavailable, "no answer");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Result<CoordRecord> found = co_await coordinator.get(kOwnerKey);
    if (!found.ok()) co_return std::move(found).error().within("owner");
    if (found->version != 0) {
      HR_CO_TRY(OwnerRecord record, decode_durable<OwnerRecord>(found->value));
      if (record.bucket != bucket)
        co_return Error(Code::kInvalid, "this cluster's bucket is " + record.bucket + ", not " + bucket);
      co_return record;
    }
    // With that owner nothing was written yet: whoever finds no such record has an owner of an earlier version.
    Result<uint64_t> none_yet = co_await coordinator.put(kNoncesKey, encode_durable(NonceRecord{}), 0);
    if (!none_yet.ok() && none_yet.code() != Code::kConflict) {
      last = std::move(none_yet).error();
      continue;
    }
    OwnerRecord record{env.random.nonzero(), bucket};
    Result<uint64_t> put = co_await coordinator.put(kOwnerKey, encode_durable(record), 0);
    if (put.ok()) co_return record;
    last = std::move(put).error();  // someone else's, or unknown: the next look tells
  }
  co_return std::move(last).within("owner");
}

Task<Result<HeadVersion>> resume_ownership(Env env, Coordinator& coordinator, ObjectStore& store,
                                           ResumeOptions options) {
  HR_CO_TRY(OwnerRecord owner, co_await owner_record(env, coordinator, store.url()));
  BucketHead head(env, store, &coordinator);
  Result<HeadVersion> there = co_await head.read();
  if (!there.ok()) {
    if (there.code() != Code::kNotFound) co_return there;
    HR_CO_TRY(co_await probe_conditional_writes(store, env.random));
    HeadRecord record;
    record.name_space = options.name_space;
    record.cluster = options.cluster;
    record.epoch = options.epoch;
    record.owner = owner.owner;
    record.description = options.description;
    record.owned_since_s = wall_seconds(env.clock);
    co_return co_await head.create(std::move(record));
  }
  const HeadRecord& record = there->record;
  if (record.name_space != options.name_space)
    co_return Error(Code::kInvalid, store.url() + " holds another namespace (" + describe(record) +
                                        "): name an empty bucket or prefix, or rehydrate from it");
  if (record.owner != owner.owner || record.epoch > options.epoch)
    co_return Error(Code::kDeposed, store.url() + ": the namespace has another owner: " + describe(record));
  if (record.epoch < options.epoch)
    co_return Error(Code::kCorrupt,
                    store.url() + ": head is of an older epoch than this cluster: it was put back from a copy");
  HR_CO_TRY(bool ours, co_await wrote_head(coordinator, record.nonce));
  if (!ours) co_return Error(Code::kDeposed, store.url() + ": " + written_by_a_copy(record, store.url()));
  if (record.state == HeadState::kReleased)
    co_return Error(Code::kStale, store.url() +
                                      " was spun down: bring it back with headrace rehydrate, or, where it was, with "
                                      "headrace stop and headrace up");
  co_return there;
}

Task<Result<Attached>> attach(Env env, Coordinator& coordinator, ObjectStore& store, AttachOptions options) {
  BucketHead head(env, store, &coordinator);
  Result<HeadVersion> found = co_await head.read();
  if (found.code() == Code::kNotFound)
    co_return Error(Code::kNotFound, store.url() + " holds no namespace (" + found.error().message() +
                                         "): check bucket and prefix; `headrace status` of its last owner, or that "
                                         "owner's log, names them");
  HR_CO_TRY(HeadVersion there, std::move(found));
  if (options.probe) HR_CO_TRY(co_await probe_conditional_writes(store, env.random));
  HR_CO_TRY(OwnerRecord owner, co_await owner_record(env, coordinator, store.url()));
  Attached out;
  out.before = there.record;
  bool ours = there.record.owner == owner.owner;
  if (ours) {
    HR_CO_TRY(ours, co_await wrote_head(coordinator, there.record.nonce));
    if (!ours && !options.take_over)
      co_return Error(Code::kBusy, store.url() + ": " + written_by_a_copy(there.record, store.url()));
  }
  if (ours && there.record.state == HeadState::kOwned) {
    out.head = std::move(there);  // an earlier attempt got that far
  } else {
    if (there.record.owner != owner.owner && there.record.state != HeadState::kReleased && !options.take_over)
      co_return Error(Code::kBusy, store.url() + " has an owner: " + describe(there.record) + "; " +
                                       age_of(there.record, wall_seconds(env.clock)) +
                                       ". Spin it down there, or take it from a live or dead owner "
                                       "with --take-over: what that one has not "
                                       "published is lost");
    // Before head changes: an owner without anything to start from would help nobody.
    HR_CO_TRY(co_await read_manifest(env, store, there.record));
    HeadRecord next = there.record;
    next.cluster = options.cluster;
    next.epoch = NamespaceEpoch(static_cast<uint16_t>(there.record.epoch.value() + (mutant("keep_epoch") ? 0 : 1)));
    if (!next.epoch) co_return Error(Code::kTooLarge, "the namespace has used up its epochs");
    next.state = HeadState::kOwned;
    next.owner = owner.owner;
    next.description = options.description;
    next.owned_since_s = wall_seconds(env.clock);
    HR_CO_TRY(out.head, co_await head.swap(std::move(there), std::move(next)));
  }
  HR_CO_TRY(out.manifest, co_await read_manifest(env, store, out.head.record));
  co_return out;
}

FetchStoreFile fetch_from_bucket(Env env, ObjectStore& store, PartitionManifest partition) {
  auto shared = std::make_shared<const PartitionManifest>(std::move(partition));
  return [env, &store, shared](StoreFile file, uint64_t offset, uint64_t length) -> Task<Result<Buffer>> {
    std::string key;
    for (const ManifestFile& candidate : shared->files)
      if (candidate.file.name == file.name) key = candidate.key;
    return fetch_range(env, &store, std::move(key), offset,
                       length);  // an empty key is refused by the store
  };
}

Task<Result<std::vector<Location>>> read_locations(Env env, ObjectStore& store, ManifestRecord manifest,
                                                   PartitionId partition) {
  for (const PartitionManifest& candidate : manifest.partitions) {
    if (candidate.id != partition) continue;
    if (candidate.locations.empty()) co_return std::vector<Location>();
    HR_CO_TRY(Buffer bytes, co_await get_verified(env, store, candidate.locations, candidate.locations_crc));
    HR_CO_TRY(LocationsRecord record, decode_locations(bytes.view()));
    if (record.name_space != manifest.name_space || record.partition != partition)
      co_return Error(Code::kCorrupt, candidate.locations + " is another partition's");
    co_return std::move(record.locations);
  }
  co_return Error(Code::kNotFound, "the manifest has no partition " + std::to_string(partition.value()));
}

}  // namespace headrace
