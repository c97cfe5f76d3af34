#include "stripe/segment_io.h"

#include <algorithm>
#include <array>
#include <optional>

#include "runtime/scope.h"
#include "stripe/erasure.h"
#include "stripe/fragment.h"
#include "stripe/placement_policy.h"

namespace headrace {
namespace {

constexpr Nanos kHedgeAfter = milliseconds(200);
constexpr size_t kMaxDamage = 1024;

// One fragment range being fetched. Shared between its fetcher and whoever may stop waiting for it.
struct Fetch {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool started = false;
  bool ended = false;
  Buffer bytes;  // [begin, end) of the fragment when it ended well
  std::optional<Error> error;
  [[nodiscard]] bool pending() const { return started && !ended; }
  [[nodiscard]] bool good() const { return ended && !error; }
  [[nodiscard]] bool bad() const { return ended && error.has_value(); }
};

bool final_refusal(Code code) {
  return code == Code::kDenied || code == Code::kCancelled || code == Code::kStale;
}

}  // namespace

// State of one read or rebuild: what was fetched of each fragment. It lives in shared_ptrs because
// a hedged fetch may still be suspended when the read returns; the Scope of the read then drops it.
struct SegmentIo::Gathering {
  SegmentId segment;
  uint64_t segment_length = 0;
  Placement placement;
  Capability capability;
  std::vector<Fetch> plain;     // what the caller asked of each data fragment
  std::vector<Fetch> degraded;  // the range that is being reconstructed
  Event progress;
};

Task<void> SegmentIo::fetch(std::shared_ptr<Gathering> g, uint8_t index, bool degraded) {
  FragmentRead request;
  {
    Fetch& fetch = degraded ? g->degraded[index] : g->plain[index];
    fetch.started = true;
    request.target = g->placement.targets[index];
    request.segment = g->segment;
    request.index = index;
    request.offset = fetch.begin;
    request.length = fetch.end - fetch.begin;
  }
  uint64_t offset = request.offset;
  uint64_t length = request.length;
  Result<FragmentReadReply> reply = co_await port_.read(std::move(request), g->capability);
  Fetch& fetch = degraded ? g->degraded[index] : g->plain[index];
  fetch.ended = true;
  if (reply) {
    Result<void> fits =
        reply->payload.size() == length
            ? verify_blocks(g->segment, index, static_cast<uint32_t>(offset / kBlock), reply->payload.view(),
                            reply->crcs)
            : Error(Code::kCorrupt, "target " + to_string(g->placement.targets[index]) + " returned " +
                                        std::to_string(reply->payload.size()) + " bytes for " + std::to_string(length));
    // Dropped and fetched again when more or fewer targets were there, it is cut otherwise than the reader was told:
    // what is here is another fragment of that name.
    if (fits && reply->protection.data != 0 && reply->protection.data != g->placement.protection.data) {
      fetch.error.emplace(Code::kNoFragment, "target " + to_string(g->placement.targets[index]) + " holds segment " +
                                                 to_string(g->segment) + " as " + to_string(reply->protection) +
                                                 ", not as " + to_string(g->placement.protection));
      g->progress.set();
      co_return;
    }
    if (fits && reply->segment_length != g->segment_length)
      fits = Error(Code::kCorrupt, "target " + to_string(g->placement.targets[index]) + " holds segment " +
                                       to_string(g->segment) + " with another length");
    if (fits) {
      fetch.bytes = std::move(reply->payload);
    } else {
      fetch.error = std::move(fits).error();
    }
  } else {
    fetch.error = std::move(reply).error();
  }
  if (fetch.error && (fetch.error->code() == Code::kCorrupt || fetch.error->code() == Code::kNoFragment))
    note_damage({g->segment, index, g->placement.targets[index]});
  g->progress.set();
}

void SegmentIo::note_damage(Damage damage) {
  if (damage_.size() >= kMaxDamage) return;
  for (const Damage& known : damage_)
    if (known.segment == damage.segment && known.index == damage.index && known.target == damage.target) return;
  damage_.push_back(damage);
}

std::vector<Damage> SegmentIo::take_damage() {
  return std::exchange(damage_, {});
}

// Reconstructs [begin, end) of the fragments in `wanted` from any D others; `wanted` itself is not
// asked.
Task<Result<std::vector<Buffer>>> SegmentIo::reconstruct_range(std::shared_ptr<Gathering> g, uint64_t begin,
                                                               uint64_t end, std::vector<uint8_t> wanted) {
  Protection protection = g->placement.protection;
  size_t width = protection.width();
  size_t needed = protection.data;
  g->degraded.assign(width, Fetch{begin, end});
  std::vector<bool> excluded(width, false);
  for (uint8_t index : wanted) excluded[index] = true;
  // What was read already serves where it covers the range.
  for (size_t i = 0; i < g->plain.size(); ++i) {
    const Fetch& have = g->plain[i];
    if (excluded[i] || !have.good() || have.begin > begin || have.end < end) continue;
    g->degraded[i].started = g->degraded[i].ended = true;
    g->degraded[i].bytes = have.bytes.slice(begin - have.begin, end - begin);
  }
  Scope scope;
  size_t next = 0;  // data first: they need no arithmetic; parity after them
  Nanos hedge = env_.clock.now() + kHedgeAfter;
  while (true) {
    size_t good = 0;
    size_t pending = 0;
    for (const Fetch& fetch : g->degraded) {
      good += fetch.good() ? 1 : 0;
      pending += fetch.pending() ? 1 : 0;
    }
    if (good >= needed) break;
    bool hedging = env_.clock.now() >= hedge;
    g->progress.reset();
    while (next < width && (good + pending < needed || hedging)) {
      size_t i = next++;
      // A fragment that failed in the plain phase is bad everywhere for our purpose.
      if (excluded[i] || g->degraded[i].started ||
          (i < g->plain.size() && (g->plain[i].bad() || g->plain[i].pending())))
        continue;
      scope.spawn(fetch(g, static_cast<uint8_t>(i), true));
      ++pending;
    }
    good = 0;
    pending = 0;
    for (const Fetch& fetch : g->degraded) {
      good += fetch.good() ? 1 : 0;
      pending += fetch.pending() ? 1 : 0;
    }
    if (good >= needed) break;
    if (pending == 0 && next >= width) {
      // Last resort: those that were slow in the plain phase may still answer.
      bool slow = false;
      for (size_t i = 0; i < g->plain.size(); ++i) slow = slow || g->plain[i].pending();
      if (!slow) co_return lost(*g, good);
      co_await g->progress.wait();
      for (size_t i = 0; i < g->plain.size(); ++i) {
        const Fetch& have = g->plain[i];
        if (!have.good() || g->degraded[i].started || have.begin > begin || have.end < end) continue;
        g->degraded[i].started = g->degraded[i].ended = true;
        g->degraded[i].bytes = have.bytes.slice(begin - have.begin, end - begin);
      }
      continue;
    }
    if (g->progress.is_set()) continue;
    if (hedging || next >= width) {
      co_await g->progress.wait();
    } else {
      (void)co_await g->progress.wait_until(env_.clock, hedge);
    }
  }
  std::vector<Buffer> fragments(width);
  for (size_t i = 0; i < width; ++i)
    if (g->degraded[i].good()) fragments[i] = g->degraded[i].bytes;
  co_return reconstruct(protection, fragments, wanted);
}

// Why fewer than D fragments came: decides what the caller can do about it.
Error SegmentIo::lost(const Gathering& g, size_t good) const {
  size_t absent = 0;
  size_t later = 0;
  std::optional<Error> refused;
  std::string why;
  for (size_t i = 0; i < g.placement.targets.size(); ++i) {
    const Error* error = nullptr;
    if (i < g.degraded.size() && g.degraded[i].error) error = &*g.degraded[i].error;
    if (error == nullptr && i < g.plain.size() && g.plain[i].error) error = &*g.plain[i].error;
    if (error == nullptr) continue;
    if (error->code() == Code::kNoFragment) ++absent;
    if (error->code() == Code::kDenied || error->code() == Code::kStale) refused = *error;
    if (error->code() != Code::kNoFragment && error->code() != Code::kCorrupt && error->code() != Code::kIo) ++later;
    if (why.size() < 400) why += (why.empty() ? "" : "; ") + std::to_string(i) + ": " + error->text();
  }
  std::string what = "segment " + to_string(g.segment) + ": " + std::to_string(good) + " of " +
                     std::to_string(g.placement.protection.data) + " needed fragments could be read (" + why + ")";
  if (refused) return Error(refused->code(), what);
  if (absent > 0) return Error(Code::kNoFragment, what);
  if (good + later >= g.placement.protection.data) return Error(Code::kUnavailable, what);
  return Error(Code::kIo, what);
}

Task<Result<Buffer>> SegmentIo::read(SegmentId segment, uint64_t segment_length, Placement placement, uint64_t offset,
                                     uint64_t length, Capability capability) {
  if (!placement.valid()) co_return Error(Code::kNoFragment, "segment " + to_string(segment) + " has no placement");
  if (segment_length == 0 || segment_length > kMaxSegment || offset > segment_length ||
      length > segment_length - offset)
    co_return Error(Code::kInvalid, "read beyond the end of segment " + to_string(segment));
  if (length == 0) co_return Buffer();
  auto g = std::make_shared<Gathering>();
  g->segment = segment;
  g->segment_length = segment_length;
  g->placement = std::move(placement);
  g->capability = capability;
  uint8_t data = g->placement.protection.data;
  uint64_t size = fragment_size(segment_length, data);
  uint64_t end = offset + length;

  // The block-aligned range that each data fragment contributes. Of a mirror's copies any one does.
  std::vector<uint8_t> asked;
  if (data == 1) {
    g->plain.resize(g->placement.protection.width());
    uint8_t copy = static_cast<uint8_t>(env_.random.below(g->placement.protection.width()));
    g->plain[copy] = Fetch{round_down(offset, kBlock), round_up(end, kBlock)};
    asked.push_back(copy);
  } else {
    g->plain.resize(data);
    for (uint64_t i = offset / size; i <= (end - 1) / size; ++i) {
      uint64_t begin = i * size;
      uint64_t from = offset > begin ? offset - begin : 0;
      uint64_t to = std::min(end - begin, size);
      g->plain[i] = Fetch{round_down(from, kBlock), round_up(to, kBlock)};
      asked.push_back(static_cast<uint8_t>(i));
    }
  }
  Scope scope;
  for (uint8_t i : asked) scope.spawn(fetch(g, i, false));
  Nanos hedge = env_.clock.now() + kHedgeAfter;
  bool late = false;
  std::vector<uint8_t> failed;
  while (true) {
    bool pending = false;
    failed.clear();
    for (uint8_t i : asked) {
      pending = pending || g->plain[i].pending();
      if (!g->plain[i].good()) failed.push_back(i);
    }
    if (!pending || late) break;
    g->progress.reset();
    bool in_time = co_await g->progress.wait_until(env_.clock, hedge);
    late = !in_time;
  }
  if (!failed.empty()) {
    for (uint8_t i : failed)
      if (g->plain[i].bad() && final_refusal(g->plain[i].error->code())) co_return *g->plain[i].error;
    uint64_t lo = ~uint64_t{0};
    uint64_t hi = 0;
    for (uint8_t i : failed) {
      lo = std::min(lo, g->plain[i].begin);
      hi = std::max(hi, g->plain[i].end);
    }
    ++counters_.degraded_reads;
    Result<std::vector<Buffer>> made = co_await reconstruct_range(g, lo, hi, failed);
    if (!made) {
      // A slow fragment may have come after all.
      for (uint8_t i : failed)
        if (!g->plain[i].good()) co_return std::move(made).error();
    } else {
      for (size_t n = 0; n < failed.size(); ++n) {
        Fetch& fetch = g->plain[failed[n]];
        fetch.bytes = (*made)[n].slice(fetch.begin - lo, fetch.end - fetch.begin);
      }
    }
  }
  counters_.bytes_read += length;
  if (asked.size() == 1) {
    const Fetch& fetch = g->plain[asked.front()];
    uint64_t begin = data == 1 ? 0 : asked.front() * size;
    co_return fetch.bytes.slice(offset - begin - fetch.begin, length);
  }
  Buffer out = Buffer::allocate(length);
  for (uint8_t i : asked) {
    const Fetch& fetch = g->plain[i];
    uint64_t begin = i * size;
    uint64_t from = std::max(offset, begin);
    uint64_t to = std::min(end, begin + size);
    std::memcpy(out.data() + (from - offset), fetch.bytes.data() + (from - begin - fetch.begin), to - from);
  }
  co_return out;
}

Task<Result<FragmentWrite>> SegmentIo::rebuild(SegmentId segment, uint64_t segment_length, Placement placement,
                                               uint8_t index, Capability capability) {
  if (!placement.valid() || index >= placement.protection.width() || segment_length == 0 ||
      segment_length > kMaxSegment)
    co_return Error(Code::kInvalid, "segment " + to_string(segment) + ": placement and fragment " +
                                        std::to_string(index) + " do not fit");
  auto g = std::make_shared<Gathering>();
  g->segment = segment;
  g->segment_length = segment_length;
  g->placement = std::move(placement);
  g->capability = capability;
  FragmentWrite out;
  out.segment = segment;
  out.index = index;
  out.protection = g->placement.protection;
  out.segment_length = segment_length;
  uint64_t size = fragment_size(segment_length, g->placement.protection.data);
  std::vector<uint8_t> wanted(1, index);
  HR_CO_TRY(std::vector<Buffer> made, co_await reconstruct_range(g, 0, size, std::move(wanted)));
  out.payload = std::move(made.front());
  out.crcs = block_crcs(segment, index, 0, out.payload.view());
  counters_.bytes_read += size * g->placement.protection.data;
  co_return out;
}

// ---- writing ----

struct SegmentIo::Writing {
  Placement placement;           // as it becomes
  std::vector<TargetId> spares;  // not used yet, next first
  Capability capability;
  std::optional<Error> error;  // the first fragment that found no place
};

Task<void> SegmentIo::write_fragment(std::shared_ptr<Writing> w, FragmentWrite request) {
  while (true) {
    FragmentWrite attempt = request;
    attempt.target = w->placement.targets[request.index];
    Result<void> written = co_await port_.write(std::move(attempt), w->capability);
    if (written) break;
    bool refused = final_refusal(written.code());
    if (refused || w->spares.empty()) {
      Code code = refused || written.code() == Code::kNoSpace ? written.code() : Code::kUnavailable;
      if (!w->error)
        w->error = Error(code, "segment " + to_string(request.segment) + ": fragment " + std::to_string(request.index) +
                                   " could not be written and no spare is left: " + written.error().text());
      co_return;
    }
    if (w->error) co_return;  // another fragment failed for good: the segment will not be committed
    ++counters_.spare_writes;
    w->placement.targets[request.index] = w->spares.front();
    w->spares.erase(w->spares.begin());
  }
  counters_.bytes_written += request.payload.size();
}

Task<Result<Placement>> SegmentIo::write(SegmentId segment, Buffer data, Placement placement,
                                         std::vector<TargetId> spares, Capability capability) {
  Protection protection = placement.protection;
  if (data.empty() || data.size() > kMaxSegment)
    co_return Error(Code::kInvalid, "a segment holds 1 byte to 16 MiB, not " + std::to_string(data.size()));
  if (!placement.valid())
    co_return Error(Code::kInvalid, "segment " + to_string(segment) + ": placement does not fit its protection");
  uint64_t length = data.size();
  uint64_t size = fragment_size(length, protection.data);
  bool aligned = reinterpret_cast<uintptr_t>(data.data()) % kBlock == 0;
  std::vector<Buffer> fragments;
  for (uint64_t i = 0; i < protection.data; ++i) {
    uint64_t begin = std::min(i * size, length);
    uint64_t end = std::min(begin + size, length);
    if (aligned && end - begin == size) {
      fragments.push_back(data.slice(begin, size));
      continue;
    }
    Buffer padded = Buffer::allocate(size);
    if (end > begin) std::memcpy(padded.data(), data.data() + begin, end - begin);
    std::memset(padded.data() + (end - begin), 0, size - (end - begin));
    fragments.push_back(std::move(padded));
  }
  std::vector<Buffer> parity = encode_parity(protection, fragments);
  fragments.insert(fragments.end(), parity.begin(), parity.end());

  auto w = std::make_shared<Writing>();
  w->placement = std::move(placement);
  w->spares = std::move(spares);
  w->capability = capability;
  Scope scope;
  for (size_t i = 0; i < fragments.size(); ++i) {
    FragmentWrite request;
    request.segment = segment;
    request.index = static_cast<uint8_t>(i);
    request.protection = protection;
    request.segment_length = length;
    request.crcs = block_crcs(segment, request.index, 0, fragments[i].view());
    request.payload = std::move(fragments[i]);
    scope.spawn(write_fragment(w, std::move(request)));
  }
  co_await scope.join();
  if (w->error) co_return std::move(*w->error);
  co_return std::move(w->placement);
}

}  // namespace headrace
