#include "client/segment_reader.h"

#include <algorithm>
#include <utility>

#include "base/checksum.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {
constexpr uint64_t kNear = 256 * kKiB;

bool may_pass(Code code) {
  switch (code) {
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kDisconnected:
    case Code::kNoFragment:
    case Code::kNotLeader:
      return true;
    default:
      return false;
  }
}
}  // namespace

void SegmentReader::learn(Location location, Capability capability) {
  if (known_.size() >= kMaxLocations) known_.clear();  // hints: they come back with the next extents
  Known& known = known_[location.segment];
  known.location = std::move(location);
  known.capability = capability;
}

Task<Result<SegmentReader::Known>> SegmentReader::locate(SegmentId segment, bool again) {
  auto found = known_.find(segment);
  const int64_t now_s = env_.clock.wall().count / 1'000'000'000;
  if (found != known_.end() && !again && int64_t{found->second.capability.expiry_s} > now_s + 30)
    co_return found->second;
  ++counters_.relocated;
  Locate request;
  request.segment = segment;
  HR_CO_TRY(LocateReply reply, co_await partitions_.call(segment.home(), request, {.timeout = seconds(20)}));
  learn(std::move(reply.location), reply.capability);
  co_return known_[segment];
}

Task<Result<Buffer>> SegmentReader::read_exact(SegmentId segment, uint64_t offset, uint64_t length) {
  const Nanos deadline = env_.clock.now() + kPatience;
  Nanos pause = milliseconds(5);
  for (int attempt = 0;; ++attempt) {
    Result<Known> known = co_await locate(segment, attempt > 0);
    if (known.code() == Code::kNotFound) co_return std::move(known).error();
    Result<Buffer> bytes =
        Error(Code::kIo, "segment " + to_string(segment) + " is neither in the hot tier nor in the bucket");
    if (!known.ok()) {
      bytes = std::move(known).error();
    } else if (offset + length > known->location.length) {
      bytes = Error(Code::kIo, "segment " + to_string(segment) + " is shorter than its extent says");
    } else {
      if (known->location.placement.hot()) {
        ++counters_.hot_reads;
        bytes = co_await io_.read(segment, known->location.length, known->location.placement, offset, length,
                                  known->capability);
        if (bytes.ok() && bytes->size() == length) co_return bytes;
        if (bytes.ok()) bytes = Error(Code::kIo, "short read of segment " + to_string(segment));
      }
      // Twice from the hot tier first: a placement that is outdated is no reason to go to the
      // bucket.
      if (known->location.object.object && (attempt > 0 || !known->location.placement.hot())) {
        bytes = co_await read_cold(known->location, offset, length);
        if (bytes.ok()) co_return bytes;
      }
    }
    const bool again = attempt < 2 || may_pass(bytes.code());
    if (!again || env_.clock.now() >= deadline) {
      co_return Error(to_errno(bytes.code()) == to_errno(Code::kIo) ? Code::kIo : bytes.code(),
                      "read segment " + to_string(segment) + ": " + bytes.error().message());
    }
    if (attempt > 0) {
      co_await env_.clock.sleep(pause);
      pause = std::min(pause * 2, seconds(1));
    }
  }
}

Task<Result<Buffer>> SegmentReader::read_cold(Location location, uint64_t offset, uint64_t length) {
  // Rendezvous: each segment has its node, whose cache it then is in; the others follow in an order
  // of its own.
  std::vector<std::pair<uint32_t, Address>> nodes;
  for (const NodeInfo& node : partitions_.view().map().nodes) {
    if (!node.alive) continue;
    nodes.emplace_back(crc32c_seed(location.segment.high(), location.segment.low(), node.id.value()), node.address);
  }
  std::sort(nodes.rbegin(), nodes.rend());
  if (nodes.size() > 3) nodes.resize(3);
  Error last(Code::kUnavailable, "no node is up");
  for (const auto& [score, address] : nodes) {
    ColdRead request;
    request.location = location;
    request.offset = offset;
    request.length = length;
    ++counters_.cold_reads;
    Result<ColdReadReply> reply = co_await hub_.call(address, std::move(request), {.timeout = seconds(30)});
    if (!reply.ok()) {
      last = std::move(reply).error();
      continue;
    }
    if (reply->payload.size() == length && crc32c(reply->payload.view()) == reply->crc) co_return reply->payload;
    last = Error(Code::kCorrupt, "a cold read came back damaged from " + address);
  }
  co_return last;
}

bool SegmentReader::expects_more(Known& known, uint64_t offset, uint64_t length) const {
  known.in_order = offset >= known.next && offset <= known.next + kNear ? known.in_order + 1 : 0;
  known.next = offset + length;
  return known.in_order >= 3;
}

Task<Result<std::vector<Buffer>>> SegmentReader::read(SegmentId segment, uint64_t offset, uint64_t length,
                                                      bool whole_chunks) {
  HR_ASSERT(length > 0);
  const uint64_t first = offset / kChunk;
  const uint64_t last = (offset + length - 1) / kChunk;
  auto found = known_.find(segment);
  if (found != known_.end()) {
    whole_chunks |= expects_more(found->second, offset, length) || !found->second.location.placement.hot();
  }
  if (whole_chunks) {
    HR_CO_TRY(Known known, co_await locate(segment, false));
    if (offset + length <= known.location.length) start_loads(segment, known.location.length, first, last);
  }
  // What is being loaded is waited for; what is in no chunk then is read as it is.
  std::vector<std::pair<uint64_t, Buffer>> parts;
  std::vector<std::pair<uint64_t, uint64_t>> missing;
  for (uint64_t chunk = first; chunk <= last; ++chunk) {
    const uint64_t begin = std::max(offset, chunk * kChunk);
    const uint64_t end = std::min(offset + length, (chunk + 1) * kChunk);
    auto at = chunks_.find({segment, chunk});
    if (at != chunks_.end() && at->second.loading != nullptr) {
      std::shared_ptr<Event> loading = at->second.loading;
      co_await loading->wait();
      at = chunks_.find({segment, chunk});
    }
    if (at != chunks_.end() && !at->second.bytes.empty() && end <= chunk * kChunk + at->second.bytes.size()) {
      ++counters_.cache_hits;
      used_.splice(used_.begin(), used_, at->second.used);
      parts.emplace_back(begin, at->second.bytes.slice(begin - chunk * kChunk, end - begin));
    } else if (!missing.empty() && missing.back().second == begin) {
      missing.back().second = end;
    } else {
      missing.emplace_back(begin, end);
    }
  }
  if (!missing.empty()) {
    std::vector<Task<Result<Buffer>>> reads;
    for (const auto& [begin, end] : missing) reads.push_back(read_exact(segment, begin, end - begin));
    std::vector<Result<Buffer>> results = co_await when_all(std::move(reads));
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i].ok()) co_return std::move(results[i]).error();
      parts.emplace_back(missing[i].first, *std::move(results[i]));
    }
  }
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Buffer> out;
  out.reserve(parts.size());
  for (auto& [begin, bytes] : parts) out.push_back(std::move(bytes));
  co_return out;
}

Task<void> SegmentReader::prefetch(SegmentId segment, uint64_t offset, uint64_t length) {
  Result<Known> known = co_await locate(segment, false);
  if (!known.ok() || length == 0 || offset >= known->location.length) co_return;
  const uint64_t end = std::min(offset + length, known->location.length);
  const uint64_t first = offset / kChunk;
  const uint64_t last = (end - 1) / kChunk;
  start_loads(segment, known->location.length, first, last);
  for (uint64_t chunk = first; chunk <= last; ++chunk) {
    auto at = chunks_.find({segment, chunk});
    if (at == chunks_.end() || at->second.loading == nullptr) continue;
    std::shared_ptr<Event> loading = at->second.loading;
    co_await loading->wait();
  }
}

// Every chunk of first … last that is neither there nor on its way; neighbours in one request.
void SegmentReader::start_loads(SegmentId segment, uint64_t segment_length, uint64_t first, uint64_t last) {
  for (uint64_t chunk = first; chunk <= last;) {
    if (chunks_.contains({segment, chunk})) {
      ++chunk;
      continue;
    }
    auto done = std::make_shared<Event>();
    uint64_t count = 0;
    while (chunk + count <= last && count < kMaxLoad / kChunk && !chunks_.contains({segment, chunk + count})) {
      chunks_[{segment, chunk + count}].loading = done;
      ++count;
    }
    if (!scope_.spawn(load(segment, segment_length, chunk, count, done))) {
      for (uint64_t i = 0; i < count; ++i) chunks_.erase({segment, chunk + i});
      return;
    }
    chunk += count;
  }
}

Task<void> SegmentReader::load(SegmentId segment, uint64_t segment_length, uint64_t first, uint64_t count,
                               std::shared_ptr<Event> done) {
  const uint64_t begin = first * kChunk;
  const uint64_t end = std::min(segment_length, (first + count) * kChunk);
  Result<Buffer> bytes = co_await read_exact(segment, begin, end - begin);
  for (uint64_t chunk = first; chunk < first + count; ++chunk) {
    auto at = chunks_.find({segment, chunk});
    HR_ASSERT(at != chunks_.end());
    if (!bytes.ok()) {
      chunks_.erase(at);
      continue;
    }
    const uint64_t from = (chunk - first) * kChunk;
    at->second.bytes = bytes->slice(from, std::min(kChunk, bytes->size() - from));
    at->second.loading = nullptr;
    used_.push_front(at->first);
    at->second.used = used_.begin();
    counters_.cache_bytes += at->second.bytes.size();
  }
  done->set();
  evict();
}

void SegmentReader::evict() {
  while (counters_.cache_bytes > cache_limit_ && !used_.empty()) {
    auto at = chunks_.find(used_.back());
    counters_.cache_bytes -= at->second.bytes.size();
    chunks_.erase(at);
    used_.pop_back();
  }
}

}  // namespace headrace
