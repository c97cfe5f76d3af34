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

struct Release {  // gives a unit back, also when the frame is destroyed
  explicit Release(Semaphore& s) : semaphore(s) {}
  Release(const Release&) = delete;
  Release& operator=(const Release&) = delete;
  ~Release() { semaphore.release(); }
  Semaphore& semaphore;
};

std::string name_of(PartitionId partition) {
  return "partition " + std::to_string(partition.value());
}

}  // namespace

Uploader::Uploader(Env env, PartitionPort& partitions, SegmentIo& segments, ObjectStore& store,
                   UploaderOptions options)
    : env_(env),
      partitions_(partitions),
      segments_(segments),
      store_(store),
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

Task<Result<void>> Uploader::push_all(Nanos min_age) {
  std::vector<Task<Result<void>>> pushes;
  for (const PartitionInfo& partition : partitions_.view().map().partitions)
    pushes.push_back(push(partition.id, min_age));
  std::vector<Result<void>> results = co_await when_all(std::move(pushes));
  for (Result<void>& result : results)
    if (!result.ok()) co_return std::move(result);
  co_return {};
}

Task<Result<void>> Uploader::push(PartitionId partition, Nanos min_age) {
  std::shared_ptr<Mutex> mutex = mutex_of(partition);
  Mutex::Guard guard = co_await mutex->lock();
  for (int i = 0; i < kMaxPasses; ++i) {  // writers may go on adding: then the next push goes on
    if (scope_.token().cancelled()) co_return Error(Code::kCancelled, "the uploader stops");
    Result<uint64_t> found = co_await pass(partition, min_age);
    if (!found.ok()) co_return std::move(found).error().within("upload of " + name_of(partition));
    if (*found == 0) break;
  }
  co_return {};
}

Task<Result<uint64_t>> Uploader::pass(PartitionId partition, Nanos min_age) {
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
        full = !group.empty() && (group_bytes + location.length > options_.object_bytes ||
                                  group.size() == kMaxObjectSegments);
        if (!full) {
          ++next;
          if (location.length == 0 || location.length > kMaxSegment || !location.placement.hot()) {
            failed = Error(Code::kIo, "segment " + to_string(location.segment) +
                                          " is neither hot nor in the bucket");
            ++progress_.failed;
            continue;
          }
          group_bytes += location.length;
          group.push_back(std::move(location));
        }
      }
      if (!full) continue;
      size_t count = group.size();
      group_bytes = 0;
      Result<void> done = co_await upload(partition, std::exchange(group, {}));
      if (!done.ok()) {
        progress_.failed += count;
        failed = std::move(done).error();
        if (failed->code() == Code::kDeposed || failed->code() == Code::kStale ||
            failed->code() == Code::kDenied)
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

Task<Result<EncodedSegment>> Uploader::read(Location location, std::shared_ptr<Semaphore> slots) {
  co_await slots->acquire();
  Release release(*slots);
  HR_CO_TRY(Buffer data, co_await segments_.read(location.segment, location.length,
                                                 location.placement, 0, location.length, {}));
  SegmentId segment = location.segment;
  EncodedSegment encoded = co_await env_.blocking.run(
      [segment, data = std::move(data)]() { return encode_segment(segment, data); });
  co_return encoded;
}

Task<Result<void>> Uploader::upload(PartitionId partition, std::vector<Location> group) {
  co_await packing_.acquire();
  Release release(packing_);
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
      Result<LocateReply> there =
          co_await partitions_.call(partition, Locate{group[i].segment}, kBackground);
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
    EncodedObject object =
        co_await env_.blocking.run([name_space, id, parts = std::move(parts)]() mutable {
          return encode_object(name_space, id, std::move(parts));
        });
    record.object = object.ref;
    record.object_bytes = object.body.size();
    put = co_await put_verified(env_, store_, object_key(id), std::move(object.body));
  }
  if (!put.ok()) co_return put;
  encoded.clear();
  uint64_t count = record.segments.size();
  uint64_t stored = record.object_bytes;
  HR_CO_TRY(co_await partitions_.call(partition, std::move(record), kBackground));
  ++progress_.objects;
  progress_.segments += count;
  progress_.bytes += raw;
  progress_.stored_bytes += stored;
  if (failed) co_return *std::move(failed);
  co_return {};
}

}  // namespace headrace
