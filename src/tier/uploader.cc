#include "tier/uploader.h"

#include <algorithm>
#include <utility>

#include "proto/meta.h"
#include "runtime/when_all.h"
#include "tier/bucket_io.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};
constexpr int kMaxPasses = 16;
constexpr int kIdAttempts = 8;

std::string name_of(PartitionId partition) {
  return "partition " + std::to_string(partition.value());
}

}  // namespace

Uploader::Uploader(Env env, PartitionPort& partitions, SegmentIo& segments, ObjectStore& store, ColdReader& cold,
                   UploaderOptions options)
    : env_(env),
      partitions_(partitions),
      segments_(segments),
      store_(store),
      cold_(cold),
      options_(options),
      packing_(std::max<uint32_t>(1, options.parallel)) {
  options_.object_bytes = std::min(options_.object_bytes, kMaxObjectData);
}

void Uploader::start() {
  scope_.spawn(loop());
}

Task<void> Uploader::stop() {
  scope_.cancel();
  co_await scope_.join();
}

std::shared_ptr<Mutex> Uploader::mutex_of(PartitionId partition) {
  std::shared_ptr<Mutex>& mutex = mutexes_[partition];
  if (mutex == nullptr) mutex = std::make_shared<Mutex>();
  return mutex;
}

Task<void> Uploader::loop() {
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, options_.interval);
    if (!slept) co_return;
    Result<void> pushed = co_await push_all(options_.min_age);
    if (!pushed.ok()) progress_.last_error = pushed.error().text();
  }
}

Task<Result<void>> Uploader::push_all(Nanos min_age, GoOn go_on) {
  std::vector<Task<Result<void>>> pushes;
  for (const PartitionInfo& partition : partitions_.view().map().partitions)
    pushes.push_back(push(partition.id, min_age, go_on));
  std::vector<Result<void>> results = co_await when_all(std::move(pushes));
  for (Result<void>& result : results)
    if (!result.ok()) co_return std::move(result);
  co_return {};
}

Task<Result<void>> Uploader::push(PartitionId partition, Nanos min_age, GoOn go_on) {
  std::shared_ptr<Mutex> mutex = mutex_of(partition);
  Mutex::Guard guard = co_await mutex->lock();
  for (int i = 0; i < kMaxPasses; ++i) {  // writers may go on adding: then the next push goes on
    if (scope_.token().cancelled()) co_return Error(Code::kCancelled, "the uploader stops");
    HR_CO_TRY(may_go_on(go_on));
    Result<uint64_t> found = co_await pass(partition, min_age, go_on);
    if (!found.ok()) co_return std::move(found).error().within("upload of " + name_of(partition));
    if (*found == 0) break;
  }
  co_return {};
}

Task<Result<uint64_t>> Uploader::pass(PartitionId partition, Nanos min_age, GoOn go_on) {
  Uploadable request;
  request.min_age_ms = static_cast<uint64_t>(min_age.count / 1'000'000);
  request.limit = 1024;
  uint64_t found = 0;
  progress_.failed = 0;
  std::optional<Error> failed;
  std::vector<Location> group;
  uint64_t group_bytes = 0;
  bool more = true;
  while (more || !group.empty()) {
    if (scope_.token().cancelled()) co_return Error(Code::kCancelled, "the uploader stops");
    std::vector<Location> page;
    if (more) {
      HR_CO_TRY(SegmentsReply reply, co_await partitions_.call(partition, request, kBackground));
      more = reply.more && !reply.segments.empty();
      if (more) request.after = reply.segments.back().segment;
      found += reply.segments.size();
      page = std::move(reply.segments);
    }
    size_t next = 0;
    while (next < page.size() || (!more && !group.empty())) {
      bool full = next == page.size();
      if (next < page.size()) {
        Location& location = page[next];
        full = !group.empty() &&
               (group_bytes + location.length > options_.object_bytes || group.size() == kMaxObjectSegments);
        if (!full) {
          ++next;
          if (location.length == 0 || location.length > kMaxSegment || !location.placement.hot()) {
            failed = Error(Code::kIo, "segment " + to_string(location.segment) + " is neither hot nor in the bucket");
            ++progress_.failed;
            continue;
          }
          group_bytes += location.length;
          group.push_back(std::move(location));
        }
      }
      if (!full) continue;
      HR_CO_TRY(may_go_on(go_on));
      size_t count = group.size();
      group_bytes = 0;
      Result<void> done = co_await upload(partition, std::exchange(group, {}));
      if (!done.ok()) {
        progress_.failed += count;
        failed = std::move(done).error();
        if (failed->code() == Code::kDeposed || failed->code() == Code::kStale || failed->code() == Code::kDenied)
          co_return *std::move(failed);
      }
    }
  }
  if (failed) {
    progress_.last_error = failed->text();
    co_return *std::move(failed);
  }
  co_return found;
}

// What of an object's segments is still to be had from it.
Task<Result<std::vector<Location>>> Uploader::living_in(ObjectId object) {
  const std::string key = object_key(object);
  const NamespaceId name_space = partitions_.view().map().name_space;
  HR_CO_TRY(ObjectInfo info, co_await store_.head(key));
  if (info.size < kObjectHeaderBytes + kObjectTailBytes)
    co_return Error(Code::kCorrupt, key + " is too short for an object");
  HR_CO_TRY(Buffer tail, co_await store_.get_range(key, info.size - kObjectTailBytes, kObjectTailBytes));
  HR_CO_TRY(ObjectRef ref, decode_object_tail(tail.view(), name_space, info.size));
  HR_CO_TRY(Buffer bytes, co_await store_.get_range(key, ref.index_offset, ref.index_length));
  HR_CO_TRY(ObjectIndex index, decode_object_index(bytes.view(), name_space, ref));
  std::vector<Location> out;
  for (const PackedSegment& packed : index.segments) {
    Result<LocateReply> at = co_await partitions_.call(packed.segment.home(), Locate{packed.segment}, kBackground);
    if (at.code() == Code::kNotFound) continue;
    if (!at.ok()) co_return std::move(at).error();
    if (at->location.object.object == object) out.push_back(std::move(at->location));
  }
  co_return out;
}

// Of all of a partition: page by page, so that nothing there waits for millions of rows.
Task<Result<SparseObjectsReply>> Uploader::sparsest(PartitionId partition) {
  SparseObjectsReply all;
  SparseObjects request;
  do {
    HR_CO_TRY(SparseObjectsReply page, co_await partitions_.call(partition, request, kBackground));
    all.raw += page.raw;
    all.live += page.live;
    all.objects.insert(all.objects.end(), page.objects.begin(), page.objects.end());
    std::ranges::sort(all.objects, emptier);
    all.objects.resize(std::min<size_t>(all.objects.size(), request.limit));
    request.after = page.last;
  } while (request.after != ObjectId() && !scope_.token().cancelled());
  co_return all;
}

Task<Result<uint64_t>> Uploader::rewrite(PartitionId partition, uint64_t most) {
  std::shared_ptr<Mutex> mutex = mutex_of(partition);
  Mutex::Guard guard = co_await mutex->lock();
  uint64_t moved = 0;
  HR_CO_TRY(SparseObjectsReply sparse, co_await sparsest(partition));
  uint64_t dead = sparse.raw - std::min(sparse.raw, sparse.live);
  bool& active = rewriting_[partition];
  if (dead * 100 > sparse.raw * options_.rewrite_over_percent) active = true;
  std::vector<Location> group;
  uint64_t group_bytes = 0;
  std::optional<Error> failed;  // the last one: it keeps nobody else from being moved
  auto note = [&](Result<void> done, uint64_t bytes) {
    if (done.ok())
      moved += bytes;
    else
      failed = std::move(done).error();
  };
  for (const SparseObject& object : sparse.objects) {
    if (dead * 100 < sparse.raw * options_.rewrite_under_percent) active = false;
    if (!active || moved + group_bytes >= most || scope_.token().cancelled()) break;
    Result<std::vector<Location>> living = co_await living_in(object.object);
    // Also of one that cannot be read: the rest is judged by what can be helped.
    dead -= std::min(dead, object.raw - std::min(object.raw, object.live));
    if (!living.ok()) {
      failed = std::move(living).error().within(object_key(object.object));
      if (may_pass(failed->code()) && failed->code() != Code::kCorrupt) break;  // the next one fares no better
      continue;
    }
    for (Location& location : *living) {
      if (!group.empty() &&
          (group_bytes + location.length > options_.object_bytes || group.size() == kMaxObjectSegments)) {
        Result<void> done = co_await upload(partition, std::exchange(group, {}));
        note(std::move(done), std::exchange(group_bytes, 0));
      }
      group_bytes += location.length;
      group.push_back(std::move(location));
    }
  }
  if (!group.empty()) {
    Result<void> done = co_await upload(partition, std::move(group));
    note(std::move(done), group_bytes);
  }
  progress_.rewritten += moved;
  if (failed) co_return *std::move(failed);
  co_return moved;
}

Task<Result<EncodedSegment>> Uploader::read(Location location, std::shared_ptr<Semaphore> slots) {
  co_await slots->acquire();
  const Semaphore::Held held(*slots);
  Buffer data;
  if (location.placement.hot()) {
    HR_CO_TRY(data,
              co_await segments_.read(location.segment, location.length, location.placement, 0, location.length, {}));
  } else {  // it moves from one object to another
    HR_CO_TRY(ColdReadReply cold, co_await cold_.read(ColdRead{location, 0, location.length}));
    data = std::move(cold.payload);
  }
  SegmentId segment = location.segment;
  EncodedSegment encoded =
      co_await env_.blocking.run([segment, data = std::move(data)]() { return encode_segment(segment, data); });
  co_return encoded;
}

Task<Result<void>> Uploader::upload(PartitionId partition, std::vector<Location> group) {
  co_await packing_.acquire();
  const Semaphore::Held held(packing_);
  auto slots = std::make_shared<Semaphore>(std::max<uint32_t>(1, options_.reads));
  std::vector<Task<Result<EncodedSegment>>> reads;
  for (const Location& location : group) reads.push_back(read(location, slots));
  std::vector<Result<EncodedSegment>> read_back = co_await when_all(std::move(reads));

  Uploaded record;
  std::vector<EncodedSegment> encoded;
  std::optional<Error> failed;
  uint64_t raw = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    if (!read_back[i].ok()) {  // the others go up without it
      // Segments die all the time, and their fragments go: what is dead needs no object.
      Result<LocateReply> there = co_await partitions_.call(partition, Locate{group[i].segment}, kBackground);
      if (there.code() == Code::kNotFound) continue;
      failed = std::move(read_back[i]).error().within("segment " + to_string(group[i].segment));
      continue;
    }
    raw += group[i].length;
    record.segments.push_back(group[i].segment);
    encoded.push_back(*std::move(read_back[i]));
  }
  read_back.clear();
  if (encoded.empty() && !failed) co_return {};
  if (encoded.empty()) co_return *std::move(failed);

  const ClusterMap& map = partitions_.view().map();
  const NamespaceId name_space = map.name_space;
  const NamespaceEpoch epoch = map.namespace_epoch;
  Result<void> put(Code::kExists, "no free object id");
  for (int attempt = 0; attempt < kIdAttempts && put.code() == Code::kExists; ++attempt) {
    // Random: nothing has to be remembered, and if-absent finds the one in four thousand million
    // that is taken.
    ObjectId id(epoch, partition, static_cast<uint32_t>(env_.random.nonzero()));
    std::vector<EncodedSegment> parts = encoded;  // references
    EncodedObject object = co_await env_.blocking.run([name_space, id, parts = std::move(parts)]() mutable {
      return encode_object(name_space, id, std::move(parts));
    });
    record.object = object.ref;
    in_flight_.insert(id);
    record.object_bytes = object.body.size();
    put = co_await put_verified(env_, store_, object_key(id), std::move(object.body));
    if (put.code() == Code::kExists) in_flight_.erase(id);  // whatever is there, this upload never records it
  }
  if (!put.ok()) co_return put;  // its id stays in flight: whether it is there is not known
  const ObjectId made = record.object.object;
  encoded.clear();
  uint64_t count = record.segments.size();
  uint64_t stored = record.object_bytes;
  HR_CO_TRY(co_await partitions_.call(partition, std::move(record), kBackground));
  in_flight_.erase(made);
  ++progress_.objects;
  progress_.segments += count;
  progress_.bytes += raw;
  progress_.stored_bytes += stored;
  if (failed) co_return *std::move(failed);
  co_return {};
}

}  // namespace headrace
