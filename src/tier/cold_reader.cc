#include "tier/cold_reader.h"

#include <algorithm>

#include "base/checksum.h"
#include "tier/bucket_io.h"

namespace headrace {
namespace {

constexpr int kAttempts = 4;
constexpr uint32_t kFramesPerPiece = kPieceBytes / kFrameBytes;

// Frames [first, first + count) from their stored bytes, cut into pieces.
Result<std::vector<Buffer>> decode_pieces(const PackedSegment& segment, size_t first_frame, size_t frames,
                                          Buffer stored) {
  std::vector<Buffer> pieces;
  uint64_t at = 0;
  for (size_t frame = first_frame; frame < first_frame + frames; frame += kFramesPerPiece) {
    size_t end = std::min(first_frame + frames, frame + kFramesPerPiece);
    uint64_t size = 0;
    for (size_t f = frame; f < end; ++f) size += segment.raw_size(f);
    Buffer piece = Buffer::allocate(size);
    uint64_t filled = 0;
    for (size_t f = frame; f < end; ++f) {
      uint64_t length = segment.frames[f].stored;
      if (at + length > stored.size()) return Error(Code::kCorrupt, "frames cut short");
      HR_TRY(decode_frame(segment, f, stored.view().subspan(at, length),
                          piece.span().subspan(filled, segment.raw_size(f))));
      at += length;
      filled += segment.raw_size(f);
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

}  // namespace

ColdReader::ColdReader(Env env, ObjectStore& store, PieceCache& cache, ColdReaderOptions options)
    : env_(env), store_(store), cache_(cache), options_(options), gets_(std::max<uint32_t>(1, options.gets)) {
  options_.max_get = std::max(options_.max_get, kPieceBytes);
}

Task<void> ColdReader::stop() {
  co_await scope_.join();
}

void ColdReader::keep(Index index) {
  if (by_object_.contains(index->object)) return;
  index_bytes_ += index->memory();
  ObjectId object = index->object;
  indexes_.push_front(std::move(index));
  by_object_[object] = indexes_.begin();
  while (index_bytes_ > options_.index_budget && indexes_.size() > 1) {
    const Index& oldest = indexes_.back();
    index_bytes_ -= oldest->memory();
    by_object_.erase(oldest->object);
    indexes_.pop_back();
  }
}

Task<Result<ColdReader::Index>> ColdReader::load_index(ObjectRef ref) {
  Error last(Code::kUnavailable, "not read");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env_.clock.sleep(retry_pause(env_.random, attempt - 1));
    ++counters_.gets;
    Result<Buffer> bytes = co_await store_.get_range(object_key(ref.object), ref.index_offset, ref.index_length);
    if (bytes.ok()) {
      counters_.got_bytes += bytes->size();
      Result<ObjectIndex> index = decode_object_index(bytes->view(), name_space_, ref);
      if (index.ok()) co_return Index(std::make_shared<const ObjectIndex>(*std::move(index)));
      ++counters_.corrupt;
      last = std::move(index).error();
    } else {
      last = std::move(bytes).error();
    }
    if (!may_pass(last.code())) break;
  }
  if (last.code() == Code::kNotFound || last.code() == Code::kRange)
    co_return Error(Code::kNoFragment, "object " + to_string(ref.object) + " is not in the bucket (any more)");
  co_return std::move(last).within(store_.url());
}

Task<void> ColdReader::load_index_into(ObjectRef ref, std::shared_ptr<Once<Result<Index>>> into) {
  Result<Index> index = co_await load_index(ref);
  if (index.ok()) keep(*index);
  index_flights_.erase(ref.object);
  into->set(std::move(index));
}

template <class T>
Task<Result<T>> ColdReader::by(Nanos deadline, Once<Result<T>>* flight) {
  if (deadline == kPatient) co_return co_await flight->wait();
  std::optional<Result<T>> landed = co_await flight->wait_until(env_.clock, deadline);
  if (landed) co_return *std::move(landed);
  co_return Error(Code::kUnavailable, store_.url() + " has not answered in time");
}

Task<Result<ColdReader::Index>> ColdReader::index_of(ObjectRef ref, Nanos deadline) {
  auto found = by_object_.find(ref.object);
  if (found != by_object_.end()) {
    indexes_.splice(indexes_.begin(), indexes_, found->second);
    co_return *found->second;
  }
  std::shared_ptr<Once<Result<Index>>>& slot = index_flights_[ref.object];
  std::shared_ptr<Once<Result<Index>>> flight = slot;
  if (flight == nullptr) {
    flight = slot = std::make_shared<Once<Result<Index>>>();
    if (!scope_.spawn(load_index_into(ref, flight))) {
      index_flights_.erase(ref.object);
      co_return Error(Code::kUnavailable, "this node stops");
    }
  }
  co_return co_await by(deadline, flight.get());
}

Task<Result<std::vector<Buffer>>> ColdReader::fetch_pieces(ObjectId object, Index index, const PackedSegment* segment,
                                                           uint32_t first, size_t count) {
  size_t first_frame = size_t{first} * kFramesPerPiece;
  size_t frames = std::min(segment->frames.size(), first_frame + count * kFramesPerPiece) - first_frame;
  uint64_t offset = segment->frame_offset(first_frame);
  uint64_t size = segment->frame_offset(first_frame + frames) - offset;
  Error last(Code::kUnavailable, "not read");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env_.clock.sleep(retry_pause(env_.random, attempt - 1));
    ++counters_.gets;
    Result<Buffer> stored = co_await store_.get_range(object_key(object), offset, size);
    if (stored.ok()) {
      counters_.got_bytes += stored->size();
      Result<std::vector<Buffer>> pieces =
          co_await env_.blocking.run([index, segment, first_frame, frames, bytes = *std::move(stored)]() {
            return decode_pieces(*segment, first_frame, frames, bytes);
          });
      if (pieces.ok()) co_return pieces;
      ++counters_.corrupt;
      last = std::move(pieces).error();
    } else {
      last = std::move(stored).error();
    }
    if (!may_pass(last.code())) break;
  }
  if (last.code() == Code::kNotFound || last.code() == Code::kRange)
    co_return Error(Code::kNoFragment, "object " + to_string(object) + " is not in the bucket (any more)");
  co_return std::move(last).within(store_.url() + ": object " + to_string(object));
}

Task<Result<Buffer>> ColdReader::read_frames(Index index, SegmentId id, uint64_t offset, uint64_t length,
                                             Nanos deadline) {
  const PackedSegment* segment = index->find(id);
  HR_ASSERT(segment != nullptr);
  co_await gets_.acquire();
  const Semaphore::Held held(gets_);
  const size_t first = offset / kFrameBytes;
  const size_t last = (offset + length - 1) / kFrameBytes;
  Buffer out = Buffer::allocate((last - first + 1) * kFrameBytes);
  for (size_t frame = first; frame <= last; ++frame) {
    if (env_.clock.now() > deadline) co_return Error(Code::kUnavailable, "nobody waits for it any more");
    ++counters_.gets;
    HR_CO_TRY(Buffer stored, co_await store_.get_range(object_key(index->object), segment->frame_offset(frame),
                                                       segment->frames[frame].stored));
    counters_.got_bytes += stored.size();
    HR_CO_TRY(decode_frame(*segment, frame, stored.view(),
                           out.span().subspan((frame - first) * kFrameBytes, segment->raw_size(frame))));
  }
  co_return out.slice(offset - first * kFrameBytes, length);
}

Task<void> ColdReader::read_frames_into(Index index, SegmentId id, uint64_t offset, uint64_t length, Nanos deadline,
                                        std::shared_ptr<Once<Result<Buffer>>> into) {
  into->set(co_await read_frames(std::move(index), id, offset, length, deadline));
}

Task<void> ColdReader::fetch(ObjectId object, Index index, const PackedSegment* segment, uint32_t first,
                             std::vector<std::shared_ptr<Flight>> flights) {
  Result<std::vector<Buffer>> pieces = Error(Code::kUnavailable, "nobody waits for it any more");
  co_await gets_.acquire();
  {
    const Semaphore::Held held(gets_);
    // Behind an outage those come first who are still there.
    const Nanos now = env_.clock.now();
    const bool wanted = std::ranges::any_of(flights, [now](const auto& flight) { return flight->wanted_until >= now; });
    if (wanted) pieces = co_await fetch_pieces(object, index, segment, first, flights.size());
  }
  if (!pieces.ok()) counters_.last_error = pieces.error().text();
  for (size_t i = 0; i < flights.size(); ++i) {
    PieceKey key{segment->segment, first + static_cast<uint32_t>(i)};
    if (pieces.ok()) co_await cache_.put(key, (*pieces)[i]);
    flights_.erase(key);
    flights[i]->piece.set(pieces.ok() ? Result<Buffer>((*pieces)[i]) : Result<Buffer>(pieces.error()));
  }
}

Task<Result<ColdReadReply>> ColdReader::read(ColdRead request, Nanos deadline) {
  const Location& location = request.location;
  if (request.length == 0 || request.length > kMaxSegment || location.length > kMaxSegment ||
      request.offset > location.length || request.length > location.length - request.offset)
    co_return Error(Code::kInvalid, "not a range of the segment");
  if (!location.object.object) co_return Error(Code::kNoFragment, "the segment is not in the bucket");
  if (location.object.index_length > kMaxObjectIndex) co_return Error(Code::kInvalid, "no object has such an index");
  if (location.segment.name_space() != name_space_ || (location.bucket && location.bucket != name_space_))
    co_return Error(Code::kNotSupported, "the segment is in another namespace's bucket");
  ++counters_.reads;

  const auto first = static_cast<uint32_t>(request.offset / kPieceBytes);
  const auto last = static_cast<uint32_t>((request.offset + request.length - 1) / kPieceBytes);
  std::vector<Buffer> pieces(last - first + 1);
  bool missing = false;
  for (uint32_t piece = first; piece <= last; ++piece) {
    std::optional<Buffer> cached = co_await cache_.get({location.segment, piece});
    if (cached) {
      ++counters_.piece_hits;
      pieces[piece - first] = *std::move(cached);
    } else {
      ++counters_.piece_misses;
      missing = true;
    }
  }
  if (missing) {
    Result<Index> index = co_await index_of(location.object, deadline);
    if (!index.ok()) {
      counters_.last_error = index.error().text();
      co_return std::move(index).error();
    }
    const PackedSegment* segment = (*index)->find(location.segment);
    if (segment == nullptr || segment->length != location.length)
      co_return Error(Code::kCorrupt, "object " + to_string(location.object.object) + " does not hold segment " +
                                          to_string(location.segment));
    std::vector<std::shared_ptr<Flight>> waits(pieces.size());
    std::vector<std::shared_ptr<Flight>> run;
    const size_t most = options_.max_get / kPieceBytes;
    for (uint32_t piece = first; piece <= last + 1; ++piece) {
      bool ours = false;
      if (piece <= last && pieces[piece - first].empty()) {
        auto [at, fresh] = flights_.emplace(PieceKey{location.segment, piece}, nullptr);
        if (fresh)
          at->second = std::make_shared<Flight>();
        else
          ++counters_.joined;
        ours = fresh;
        at->second->wanted_until = std::max(at->second->wanted_until, deadline);
        waits[piece - first] = at->second;
      }
      if (!run.empty() && (!ours || run.size() == most)) {
        uint32_t begin = piece - static_cast<uint32_t>(run.size());
        std::vector<std::shared_ptr<Flight>> flights = std::move(run);
        run.clear();
        if (!scope_.spawn(fetch(location.object.object, *index, segment, begin, flights))) {
          for (size_t i = 0; i < flights.size(); ++i) {
            flights_.erase({location.segment, begin + static_cast<uint32_t>(i)});
            flights[i]->piece.set(Error(Code::kUnavailable, "this node stops"));
          }
        }
      }
      if (ours) run.push_back(waits[piece - first]);
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (waits[i] == nullptr) continue;
      Result<Buffer> piece = co_await by(deadline, &waits[i]->piece);
      if (piece.code() == Code::kCorrupt) {
        auto frames = std::make_shared<Once<Result<Buffer>>>();
        if (!scope_.spawn(read_frames_into(*index, location.segment, request.offset, request.length, deadline, frames)))
          co_return Error(Code::kUnavailable, "this node stops");
        Result<Buffer> exact = co_await by(deadline, frames.get());
        if (exact.code() == Code::kUnavailable) co_return std::move(exact).error();
        if (!exact.ok()) co_return std::move(piece).error();
        ColdReadReply reply;
        reply.payload = *std::move(exact);
        reply.crc = crc32c(reply.payload.view());
        counters_.bytes += request.length;
        co_return reply;
      }
      if (!piece.ok()) co_return std::move(piece).error();
      pieces[i] = *std::move(piece);
    }
  }
  uint64_t held = 0;
  for (const Buffer& piece : pieces) held += piece.size();
  uint64_t skip = request.offset - uint64_t{first} * kPieceBytes;
  if (held < skip + request.length) co_return Error(Code::kCorrupt, "a cached piece is too short");
  ColdReadReply reply;
  if (pieces.size() == 1) {
    reply.payload = pieces[0].slice(skip, request.length);
  } else {
    reply.payload = Buffer::allocate(request.length);
    uint64_t done = 0;
    for (const Buffer& piece : pieces) {
      uint64_t take = std::min<uint64_t>(piece.size() - skip, request.length - done);
      std::memcpy(reply.payload.data() + done, piece.data() + skip, take);
      done += take;
      skip = 0;
    }
  }
  reply.crc = crc32c(reply.payload.view());
  counters_.bytes += request.length;
  co_return reply;
}

}  // namespace headrace
