#include "tier/publisher.h"

#include <algorithm>
#include <array>

#include "base/checksum.h"
#include "base/fault_point.h"
#include "runtime/when_all.h"
#include "tier/bucket_io.h"
#include "tier/put_back.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};
constexpr uint64_t kReadPiece = 8 * kMiB;
constexpr int kUploadRounds = 20;
constexpr int kKeyAttempts = 8;  // of a store file
constexpr size_t kMaxGarbage = 100'000;
constexpr size_t kMaxDeletesAtOnce = 1000;
constexpr Nanos kCollectFor = seconds(5);  // a publish deletes for so long; the next one goes on
constexpr size_t kListPage = 1000;
constexpr size_t kMaxStrayKeys = 100'000;  // remembered of one look; the others have their turn later
constexpr std::array<const char*, 2> kPublishedPrefixes = {"m/", "manifest/"};

}  // namespace

std::set<std::string> keys_of(const ManifestRecord& manifest) {
  std::set<std::string> keys;
  for (const PartitionManifest& partition : manifest.partitions) {
    for (const ManifestFile& file : partition.files) keys.insert(file.key);
    if (!partition.locations.empty()) keys.insert(partition.locations);
  }
  return keys;
}

Task<Result<ManifestRecord>> read_manifest(Env env, ObjectStore& store, HeadRecord head) {
  if (head.manifest.empty()) co_return Error(Code::kNotFound, store.url() + ": nothing was published yet");
  HR_CO_TRY(Buffer bytes, co_await get_verified(env, store, head.manifest, head.manifest_crc));
  HR_CO_TRY(ManifestRecord manifest, decode_manifest(bytes.view()));
  if (manifest.name_space != head.name_space || manifest.cut != head.cut)
    co_return Error(Code::kCorrupt, store.url() + ": " + head.manifest + " is not the manifest that head names" +
                                        put_back_hint(Code::kCorrupt));
  co_return manifest;
}

Publisher::Publisher(Env env, PartitionPort& partitions, Coordinator& coordinator, ObjectStore& store,
                     Uploader& uploader, Ownership& ownership, const Identity& identity, PublisherOptions options)
    : env_(env),
      partitions_(partitions),
      coordinator_(coordinator),
      store_(store),
      uploader_(uploader),
      ownership_(ownership),
      identity_(identity),
      options_(options),
      copying_(std::max<uint32_t>(1, options.files)) {}

Task<Result<Cut>> Publisher::next_cut() {
  Error last(Code::kConflict, "the cut's number was taken");
  for (int attempt = 0; attempt < 20; ++attempt) {
    Result<CoordRecord> record = co_await coordinator_.get(kCutKey);
    if (!record.ok()) co_return std::move(record).error().within("cut");
    Cut highest(partitions_.view().map().namespace_epoch, 0);
    if (record->version != 0) {
      Reader reader(record->value);
      Cut given;
      reader(given);
      if (!reader.ok()) co_return Error(Code::kCorrupt, "the coordinator's record of the highest cut is damaged");
      highest = std::max(highest, given);
    }
    Cut next = std::max(highest, identity_.cut).next();
    Writer writer;
    writer(next);
    Result<uint64_t> put = co_await coordinator_.put(kCutKey, writer.take(), record->version);
    if (put.ok()) co_return next;
    last = std::move(put).error();
    if (last.code() != Code::kConflict && last.code() != Code::kTimeout) break;
  }
  co_return std::move(last).within("cut");
}

// previous_ is the manifest that head names: ours, or the one that this owner started from.
Task<Result<void>> Publisher::load_previous() {
  HR_CO_TRY(co_await ownership_.check());
  const HeadRecord head = ownership_.record();
  if (previous_ && previous_key_ == head.manifest) co_return {};
  previous_.reset();
  previous_key_.clear();
  deleted_.clear();
  if (head.manifest.empty()) co_return {};
  HR_CO_TRY(previous_, co_await read_manifest(env_, store_, head));
  previous_key_ = head.manifest;
  co_return {};
}

Task<Result<Publisher::Taken>> Publisher::take_one(PartitionInfo partition, Cut cut) {
  Result<TakeCutReply> reply = co_await partitions_.call(partition.id, TakeCut{cut}, kBackground);
  if (!reply.ok()) co_return std::move(reply).error().within("partition " + std::to_string(partition.id.value()));
  co_return Taken{std::move(partition), *std::move(reply)};
}

Task<Result<std::vector<Publisher::Taken>>> Publisher::take(Cut cut) {
  std::vector<Task<Result<Taken>>> calls;
  for (const PartitionInfo& partition : partitions_.view().map().partitions) calls.push_back(take_one(partition, cut));
  std::vector<Result<Taken>> replies = co_await when_all(std::move(calls));
  std::vector<Taken> out;
  for (Result<Taken>& reply : replies) {
    if (!reply.ok()) co_return std::move(reply).error();
    out.push_back(*std::move(reply));
  }
  co_return out;
}

Task<Result<Buffer>> Publisher::read_piece(PartitionId partition, Cut cut, std::string name, uint64_t offset,
                                           uint64_t length) {
  Buffer out = Buffer::allocate(length);
  for (uint64_t done = 0; done < length;) {
    ReadCheckpoint request{cut, name, offset + done, std::min(kReadPiece, length - done)};
    HR_CO_TRY(ReadCheckpointReply reply, co_await partitions_.call(partition, std::move(request), kBackground));
    if (reply.payload.empty() || reply.payload.size() > length - done)
      co_return Error(Code::kCorrupt, "store file " + name + " is not as long as its partition says");
    std::memcpy(out.data() + done, reply.payload.data(), reply.payload.size());
    done += reply.payload.size();
  }
  co_return out;
}

Task<Result<ManifestFile>> Publisher::copy_file(PartitionInfo partition, Cut cut, StoreFile file) {
  co_await copying_.acquire();
  const Semaphore::Held held(copying_);
  ManifestFile out{file, {}};
  const std::string key = store_file_key(cut.epoch(), partition.id, partition.epoch, file);
  ReadPiece read = [this, id = partition.id, cut, name = file.name](uint64_t offset, uint64_t length) {
    return read_piece(id, cut, name, offset, length);
  };
  // A key that holds other bytes, by a service that stored something else, is left behind: nothing is overwritten.
  Result<void> put(Code::kExists, "no free key");
  for (int attempt = 0; attempt < kKeyAttempts && put.code() == Code::kExists; ++attempt) {
    out.key = attempt == 0 ? key : key + "-" + std::to_string(attempt);
    strays_.insert(out.key);
    if (file.size <= kMultipartAbove) {
      HR_CO_TRY(Buffer whole, co_await read(0, file.size));
      if (crc32c(whole.view()) != file.crc)
        co_return Error(Code::kCorrupt, "store file " + file.name + " does not verify");
      put = co_await put_verified(env_, store_, out.key, std::move(whole));
    } else {
      put = co_await put_verified_pieces(env_, store_, out.key, file.size, file.crc, read);
      if (!put.ok() && put.code() != Code::kExists) put = std::move(put).error().within("store file " + file.name);
    }
  }
  if (!put.ok()) co_return std::move(put).error();
  ++progress_.files_copied;
  progress_.bytes_copied += file.size;
  co_return out;
}

Task<Result<PartitionManifest>> Publisher::copy_partition(Taken taken, Cut cut) {
  PartitionManifest out;
  out.id = taken.partition.id;
  out.first_slot = taken.partition.first_slot;
  out.last_slot = taken.partition.last_slot;
  out.epoch = taken.partition.epoch;
  out.at = taken.reply.at;
  out.store_import = taken.reply.store_import;
  out.inodes = taken.reply.files_count;
  out.bytes = taken.reply.bytes;
  const PartitionManifest* old = nullptr;
  if (previous_)
    for (const PartitionManifest& candidate : previous_->partitions)
      if (candidate.id == out.id) old = &candidate;
  std::vector<Task<Result<ManifestFile>>> copies;
  for (const StoreFile& file : taken.reply.files) {
    const ManifestFile* same = nullptr;
    if (old != nullptr)
      for (const ManifestFile& candidate : old->files)
        if (candidate.file.name == file.name && candidate.file.crc == file.crc && candidate.file.size == file.size)
          same = &candidate;
    if (same != nullptr) {
      out.files.push_back({file, same->key});
      ++progress_.files_kept;
      continue;
    }
    copies.push_back(copy_file(taken.partition, cut, file));
  }
  std::vector<Result<ManifestFile>> copied = co_await when_all(std::move(copies));
  for (Result<ManifestFile>& file : copied) {
    if (!file.ok()) co_return std::move(file).error();
    out.files.push_back(*std::move(file));
  }
  std::sort(out.files.begin(), out.files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.file.name < b.file.name; });
  HR_CO_TRY(SegmentsReply changed, co_await partitions_.call(out.id, CutLocations{cut}, kBackground));
  if (!changed.segments.empty() && !mutant("omit_locations")) {
    LocationsRecord record{partitions_.view().map().name_space, out.id, cut, std::move(changed.segments)};
    for (Location& location : record.locations) location.placement = {};
    Buffer bytes = encode_locations(record);
    out.locations = locations_key(cut, out.id);
    out.locations_size = bytes.size();
    out.locations_crc = crc32c(bytes.view());
    strays_.insert(out.locations);
    HR_CO_TRY(co_await put_verified(env_, store_, out.locations, std::move(bytes)));
  }
  co_return out;
}

Task<Result<ManifestRecord>> Publisher::build(Cut cut, GoOn go_on) {
  HR_CO_TRY(std::vector<Taken> taken, co_await take(cut));
  for (int round = 0;; ++round) {
    uint64_t unplaced = 0;
    for (const Taken& one : taken) unplaced += one.reply.unplaced;
    progress_.unplaced = unplaced;
    if (unplaced == 0 || mutant("publish_before_upload")) break;
    if (round == kUploadRounds)
      co_return Error(Code::kUnavailable, std::to_string(unplaced) + " segments are not in the bucket yet: " +
                                              uploader_.progress().last_error);
    HR_CO_TRY(co_await uploader_.push_all({}, go_on));
    HR_CO_TRY(taken, co_await take(cut));
    HR_CO_TRY(may_go_on(go_on));
    uint64_t left = 0;
    for (const Taken& one : taken) left += one.reply.unplaced;
    if (left >= unplaced)
      co_await env_.clock.sleep(milliseconds(200));  // dying or being written elsewhere: settles by itself
  }
  const ClusterMap& map = partitions_.view().map();
  ManifestRecord manifest;
  manifest.name_space = map.name_space;
  manifest.cluster = map.cluster;
  manifest.epoch = cut.epoch();
  manifest.cut = cut;
  manifest.created_s = wall_seconds(env_.clock);
  manifest.protection = map.protection;
  std::vector<Task<Result<PartitionManifest>>> copies;
  for (Taken& one : taken) copies.push_back(copy_partition(std::move(one), cut));
  std::vector<Result<PartitionManifest>> copied = co_await when_all(std::move(copies));
  for (Result<PartitionManifest>& partition : copied) {
    if (!partition.ok()) co_return std::move(partition).error();
    manifest.partitions.push_back(*std::move(partition));
  }
  std::sort(manifest.partitions.begin(), manifest.partitions.end(),
            [](const PartitionManifest& a, const PartitionManifest& b) { return a.first_slot < b.first_slot; });

  // What was named and is not any more, what was put in vain, and what is still to be deleted of
  // earlier.
  std::set<std::string> named = keys_of(manifest);
  std::map<std::string, uint64_t> garbage;
  auto unwanted = [&](const std::string& key, uint64_t since) {
    if (!named.contains(key) || mutant("collect_named_keys")) garbage.emplace(key, since);
  };
  if (previous_) {
    for (const GarbageKey& old : previous_->garbage)
      if (!deleted_.contains(old.key)) unwanted(old.key, old.since_s);
    for (const std::string& key : keys_of(*previous_)) unwanted(key, manifest.created_s);
    unwanted(previous_key_, manifest.created_s);
  }
  for (const std::string& key : strays_) unwanted(key, manifest.created_s);
  for (const auto& [key, since] : garbage) {
    if (manifest.garbage.size() == kMaxGarbage) break;
    manifest.garbage.push_back({key, since});
  }
  co_return manifest;
}

// What is released may be wiped: nothing can have been written behind the cut.
Task<Result<void>> Publisher::all_closed() {
  const std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
  for (const PartitionInfo& partition : partitions) {
    HR_CO_TRY(PartitionStatusReply status, co_await partitions_.call(partition.id, PartitionStatus{}, kBackground));
    if (status.state != "closed")
      co_return Error(Code::kBusy, "partition " + std::to_string(partition.id.value()) + " is open (" + status.state +
                                       "): nothing was released, spin down again");
  }
  co_return {};
}

Task<Result<void>> Publisher::try_publish(Cut cut, std::optional<HeadState> state, GoOn go_on) {
  HR_CO_TRY(ManifestRecord manifest, co_await build(cut, go_on));
  HR_CO_TRY(may_go_on(go_on));
  Buffer bytes = encode_manifest(manifest);
  std::string key = manifest_key(cut);
  uint32_t crc = crc32c(bytes.view());
  strays_.insert(key);
  HR_CO_TRY(co_await put_verified(env_, store_, key, std::move(bytes)));
  if (state == HeadState::kReleased) HR_CO_TRY(co_await all_closed());
  uint64_t now = wall_seconds(env_.clock);
  auto change = [key, crc, cut, state, now](HeadRecord& head) {
    head.manifest = key;
    head.manifest_crc = crc;
    head.cut = cut;
    head.published_s = now;
    if (state) head.state = *state;
  };
  HR_CO_TRY(co_await ownership_.update(std::move(change), std::move(go_on)));
  strays_.clear();
  deleted_.clear();
  previous_ = std::move(manifest);
  previous_key_ = std::move(key);
  co_return {};
}

Task<Result<Empty>> Publisher::release_one(PartitionId partition, Cut cut, bool published) {
  return partitions_.call(partition, ReleaseCut{cut, published}, kBackground);
}

Task<void> Publisher::release(Cut cut, bool published) {
  std::vector<Task<Result<Empty>>> calls;
  for (const PartitionInfo& partition : partitions_.view().map().partitions)
    calls.push_back(release_one(partition.id, cut, published));
  std::vector<Result<Empty>> replies = co_await when_all(std::move(calls));
  // A partition that does not answer has a new leader soon, and that keeps no cuts.
  for (const Result<Empty>& reply : replies)
    if (!reply.ok()) progress_.last_error = reply.error().text();
}

Task<Result<Cut>> Publisher::publish(std::optional<HeadState> state, GoOn go_on) {
  Mutex::Guard guard = co_await mutex_.lock();
  Error last(Code::kUnavailable, "not published");
  for (uint32_t attempt = 0; attempt < std::max<uint32_t>(1, options_.cut_attempts); ++attempt) {
    Result<void> loaded = co_await load_previous();
    if (!loaded.ok()) co_return std::move(loaded).error().within("publish");
    // Most of the work before the cut: a cut holds the partitions' stores while it waits.
    Result<void> pushed = co_await uploader_.push_all({}, go_on);
    if (!pushed.ok()) {
      progress_.last_error = pushed.error().text();
      co_return std::move(pushed).error().within("publish");
    }
    Result<Cut> cut = co_await next_cut();
    if (!cut.ok()) co_return std::move(cut).error().within("publish");
    Result<void> published = co_await try_publish(*cut, state, go_on);
    co_await release(*cut, published.ok());
    progress_.unplaced = 0;
    if (published.ok()) {
      progress_.published = *cut;
      published_.push_back({*cut, env_.clock.now()});
      ++progress_.manifests;
      Result<void> collected = co_await collect();
      if (!collected.ok()) progress_.last_error = collected.error().text();
      co_return *cut;
    }
    last = std::move(published).error();
    progress_.last_error = last.text();
    // The cut had passed, or a key with its number holds other bytes: another one.
    if (last.code() != Code::kConflict && last.code() != Code::kExists) break;
  }
  co_return std::move(last).within("publish");
}

Task<Result<void>> Publisher::collect() {
  if (!progress_.published.packed()) co_return {};
  // Deleting rests on being the owner now.
  HR_CO_TRY(co_await ownership_.check());
  if (ownership_.record().manifest != previous_key_) co_return {};
  HR_CO_TRY(co_await collect_keys());
  HR_CO_TRY(co_await collect_objects());
  co_return co_await collect_strays();
}

Task<Result<void>> Publisher::collect_strays() {
  if (env_.clock.now() < next_stray_look_) co_return {};
  next_stray_look_ = env_.clock.now() + options_.stray_interval;
  Result<void> objects = co_await collect_stray_objects();
  Result<void> keys = co_await collect_stray_keys();
  if (!stray_objects_.empty() || !stray_keys_.empty())
    next_stray_look_ = std::min(next_stray_look_, env_.clock.now() + options_.horizon);
  if (!objects.ok()) co_return objects;
  co_return keys;
}

// Whether no publish from now on makes that key, so that one which nothing names stays so: it is of an earlier
// namespace epoch, of a cut before the current one, or of a leader before the present one. What this process put itself
// and did not publish is remembered (strays_), whoever leads.
bool Publisher::surely_over(const std::string& key) const {
  const std::optional<PublishedKey> parsed = parse_published_key(key);
  const ClusterMap& map = partitions_.view().map();
  if (!parsed || parsed->epoch > map.namespace_epoch) return false;
  if (parsed->epoch < map.namespace_epoch) return true;
  if (parsed->cut) return *parsed->cut < previous_->cut;
  const PartitionInfo* partition = map.partition(parsed->partition);
  return partition != nullptr && parsed->leadership < partition->epoch;
}

// What a publish had put whose process ended before head named it. Whoever attaches starts from the current manifest:
// that and all that it names stay, and so does what waits for its horizon as garbage.
Task<Result<void>> Publisher::collect_stray_keys() {
  if (!previous_) co_return {};
  std::set<std::string> wanted = keys_of(*previous_);
  wanted.insert(previous_key_);
  for (const GarbageKey& garbage : previous_->garbage) wanted.insert(garbage.key);
  wanted.insert(strays_.begin(), strays_.end());
  const Nanos now = env_.clock.now();
  stray_keys_.begin();
  std::vector<std::string> due;
  for (const char* prefix : kPublishedPrefixes) {
    std::string continuation;
    do {
      HR_CO_TRY(Listing page, co_await store_.list(prefix, continuation, kListPage));
      continuation = page.continuation;
      for (const ObjectInfo& info : page.objects) {
        if (wanted.contains(info.key) || !surely_over(info.key) || stray_keys_.met() == kMaxStrayKeys) continue;
        const Nanos since = stray_keys_.meet(info.key, now);
        if (now - since >= options_.horizon && due.size() < kMaxDeletesAtOnce) due.push_back(info.key);
      }
    } while (!continuation.empty());
  }
  stray_keys_.end();
  if (due.empty()) co_return {};
  HR_CO_TRY(co_await ownership_.check());
  if (ownership_.record().manifest != previous_key_) co_return {};
  const std::vector<std::string> asked = due;
  HR_CO_TRY(std::vector<RemoveFailure> left, co_await store_.remove_batch(std::move(due)));
  for (const std::string& key : asked) {
    if (std::any_of(left.begin(), left.end(), [&](const RemoveFailure& f) { return f.key == key; })) continue;
    stray_keys_.forget(key);
    ++progress_.strays_deleted;
  }
  co_return {};
}

// Objects that nobody records: an upload was interrupted between its put and its record. A listing only says which ones
// to ask for: one that no partition knows, in two looks a horizon apart, is deleted.
Task<Result<void>> Publisher::collect_stray_objects() {
  stray_objects_.begin();
  std::vector<std::string> due;
  std::string continuation;
  do {
    HR_CO_TRY(Listing page, co_await store_.list("d/", continuation, kListPage));
    continuation = page.continuation;
    std::map<PartitionId, KnownObjects> asks;
    for (const ObjectInfo& info : page.objects) {
      Result<uint64_t> packed = parse_hex(std::string_view(info.key).substr(info.key.rfind('/') + 1));
      if (!packed.ok() || object_key(ObjectId(*packed)) != info.key) continue;  // none of ours
      ObjectId object(*packed);
      if (!uploader_.in_flight(object))
        asks[PartitionId(static_cast<uint16_t>(*packed >> 32))].objects.push_back(object);
    }
    for (auto& [partition, ask] : asks) {
      if (partitions_.view().map().partition(partition) == nullptr) continue;
      std::vector<ObjectId> objects = ask.objects;
      HR_CO_TRY(KnownObjectsReply reply, co_await partitions_.call(partition, std::move(ask), kBackground));
      if (reply.known.size() != objects.size())
        co_return Error(Code::kCorrupt, "a partition does not answer for each object");
      for (size_t i = 0; i < objects.size(); ++i) {
        if (reply.known[i] != 0) continue;
        const Nanos since = stray_objects_.meet(objects[i], env_.clock.now());
        if (env_.clock.now() - since < options_.horizon || due.size() == kMaxDeletesAtOnce) continue;
        due.push_back(object_key(objects[i]));
        stray_objects_.unmeet(objects[i]);
      }
    }
  } while (!continuation.empty());
  stray_objects_.end();
  if (due.empty() || mutant("keep_stray_objects")) co_return {};
  HR_CO_TRY(co_await ownership_.check());
  const uint64_t count = due.size();
  HR_CO_TRY(std::vector<RemoveFailure> left, co_await store_.remove_batch(std::move(due)));
  progress_.strays_deleted += count - left.size();
  co_return {};
}

Task<Result<void>> Publisher::collect_keys() {
  if (!previous_) co_return {};
  const Nanos now = env_.clock.now();
  garbage_seen_.begin();
  std::vector<std::string> due;
  for (const GarbageKey& garbage : previous_->garbage) {
    const Nanos since = garbage_seen_.meet(garbage.key, now);
    if (now - since >= options_.horizon && !deleted_.contains(garbage.key) && due.size() < kMaxDeletesAtOnce)
      due.push_back(garbage.key);
  }
  garbage_seen_.end();
  if (due.empty()) co_return {};
  std::vector<std::string> asked = due;
  HR_CO_TRY(std::vector<RemoveFailure> left, co_await store_.remove_batch(std::move(due)));
  for (std::string& key : asked) {
    if (std::any_of(left.begin(), left.end(), [&](const RemoveFailure& f) { return f.key == key; })) continue;
    deleted_.insert(std::move(key));
    ++progress_.keys_deleted;
  }
  co_return {};
}

// What was dead at a cut that has been published for a horizon: nobody who started from an older one reads any more.
Task<Result<void>> Publisher::collect_objects() {
  const Nanos now = env_.clock.now();
  while (published_.size() > 1 && now - published_[1].at >= options_.horizon) published_.pop_front();
  if (published_.empty() || now - published_.front().at < options_.horizon) co_return {};
  const Cut dead_at = published_.front().cut;
  const std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
  for (size_t i = 0; i < partitions.size(); ++i) {
    // Each has its share of the time that is left.
    const Nanos start = env_.clock.now();
    const Nanos left = now + kCollectFor - start;
    const auto share = Nanos{left.count / static_cast<int64_t>(partitions.size() - i)};
    HR_CO_TRY(co_await collect_objects(partitions[i].id, dead_at, start + share));
  }
  co_return {};
}

// One page at least.
Task<Result<void>> Publisher::collect_objects(PartitionId partition, Cut dead_at, Nanos until) {
  ObjectId& after = looked_to_[partition];
  do {
    HR_CO_TRY(ObjectsReply page, co_await partitions_.call(partition, DeadObjects{dead_at, after}, kBackground));
    std::vector<std::string> due;
    for (ObjectId object : page.objects) due.push_back(object_key(object));
    if (!due.empty()) {
      HR_CO_TRY(std::vector<RemoveFailure> left, co_await store_.remove_batch(std::move(due)));
      std::set<std::string> failed;
      for (RemoveFailure& failure : left) failed.insert(std::move(failure.key));
      ForgetObjects forget;
      for (ObjectId object : page.objects)
        if (!failed.contains(object_key(object))) forget.objects.push_back(object);
      const uint64_t count = forget.objects.size();
      if (count > 0) HR_CO_TRY(co_await partitions_.call(partition, std::move(forget), kBackground));
      progress_.objects_deleted += count;
    }
    after = page.last;
  } while (after != ObjectId() && env_.clock.now() < until);
  co_return {};
}

}  // namespace headrace
