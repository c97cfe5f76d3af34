#include "hot/scrub.h"

#include <algorithm>

#include "stripe/erasure.h"
#include "stripe/fragment.h"

namespace headrace {

ScrubWorker::ScrubWorker(Env env, WorkPort& work, FragmentPort& fragments, Found found, ScrubOptions options)
    : work_(work), fragments_(fragments), found_(std::move(found)), options_(options), rate_(env.clock, 0) {}

Task<Result<void>> ScrubWorker::scrub(std::shared_ptr<Target> target, FragmentName after, bool unasked) {
  cancelled_ = false;
  progress_ = ScrubProgress{};
  progress_.target = target->id();
  progress_.at = after;
  progress_.fragments_total = target->status().fragments;
  progress_.unasked = unasked;
  if (after == FragmentName{}) {
    Result<void> asked = co_await find_missing(target);
    if (asked.code() == Code::kCancelled) co_return asked;
    progress_.unasked = !asked.ok();
  }
  Inventory request{target->id(), after, options_.page};
  bool more = true;
  while (more) {
    HR_CO_TRY(InventoryReply page, target->inventory(request));
    more = page.more && !page.items.empty();
    for (const InventoryItem& item : page.items) {
      if (cancelled_) co_return Error(Code::kCancelled, "scrub was stopped");
      co_await rate_.take(item.bytes);
      co_await look_at(target, item.fragment);
      ++progress_.fragments;
      progress_.bytes += item.bytes;
      progress_.at = item.fragment;
    }
    request.after = progress_.at;
  }
  if (!progress_.unasked) co_return Result<void>();
  progress_.missing = 0;  // a home did not answer: by now it may
  HR_CO_TRY(co_await find_missing(target));
  progress_.unasked = false;
  co_return Result<void>();
}

Task<Result<void>> ScrubWorker::find_missing(std::shared_ptr<Target> target) {
  const std::vector<PartitionInfo> partitions = work_.map().partitions;
  for (const PartitionInfo& partition : partitions) {
    HR_CO_TRY(co_await find_missing(target, partition.id, {target->id(), {}, options_.page}));
    HR_CO_TRY(co_await find_missing(target, partition.id, {target->id(), {}, options_.page, true}));
  }
  co_return Result<void>();
}

Task<Result<void>> ScrubWorker::find_missing(std::shared_ptr<Target> target, PartitionId partition,
                                             FragmentsOn request) {
  bool more = true;
  while (more) {
    if (cancelled_) co_return Error(Code::kCancelled, "scrub was stopped");
    HR_CO_TRY(SegmentsReply page, co_await work_.fragments_on(partition, request));
    more = page.more && !page.segments.empty();
    if (more) request.after = page.segments.back().segment;
    for (const Location& location : page.segments) {
      const std::vector<TargetId>& targets = location.placement.targets;
      const auto at = std::ranges::find(targets, target->id());
      if (at == targets.end()) continue;
      const auto index = static_cast<uint8_t>(at - targets.begin());
      if (target->find({location.segment, index})) continue;
      // Moved or freed since the home answered, it is no damage: whoever repairs asks again.
      ++progress_.missing;
      co_await found_({location.segment, index, target->id()}, false);
    }
  }
  co_return Result<void>();
}

Task<void> ScrubWorker::look_at(std::shared_ptr<Target> target, FragmentName name) {
  Result<uint64_t> whole = co_await target->verify(name);
  if (whole.code() == Code::kCorrupt) {
    ++progress_.damaged;
    progress_.last_error = whole.error().message();
    co_await found_({name.segment, name.index, target->id()}, false);
  } else if (!whole && whole.code() != Code::kNoFragment) {  // freed meanwhile is fine
    progress_.last_error = whole.error().message();
  }
  // The one that holds a stripe's first fragment sees to its parity.
  if (whole && name.index == 0 && options_.stripes > 0 &&
      name.segment.sequence() % options_.stripes == turn_ % options_.stripes)
    co_await check_stripe(name.segment);
}

Task<void> ScrubWorker::check_stripe(SegmentId segment) {
  if (segment.name_space() != work_.map().name_space) co_return;
  Result<Location> location = co_await work_.locate(segment);
  if (!location) co_return;  // dead, or its home does not serve just now
  const Placement placement = location->placement;
  const Protection protection = placement.protection;
  if (protection.parity == 0 || placement.targets.size() != protection.width()) co_return;
  FragmentRead request;
  request.segment = segment;
  request.length = fragment_size(location->length, protection.data);
  std::vector<Buffer> pieces;
  for (uint8_t index = 0; index < protection.width(); ++index) {
    request.target = placement.targets[index];
    request.index = index;
    co_await rate_.take(request.length);
    Result<FragmentReadReply> reply = co_await fragments_.read(request, Capability{});
    // Lost, damaged or moved: the next pass, or whoever mends that, will see.
    if (!reply || reply->payload.size() != request.length) co_return;
    pieces.push_back(std::move(reply->payload));
    progress_.bytes += request.length;
  }
  ++progress_.stripes;
  const std::vector<Buffer> data(pieces.begin(), pieces.begin() + protection.data);
  const std::vector<Buffer> parity = encode_parity(protection, data);
  std::vector<uint8_t> wrong;
  for (uint8_t i = 0; i < protection.parity; ++i)
    if (parity[i].text() != pieces[protection.data + i].text())
      wrong.push_back(static_cast<uint8_t>(protection.data + i));
  if (wrong.empty()) co_return;
  ++progress_.parity_wrong;
  const bool others_fit = wrong.size() < protection.parity;
  progress_.last_error = "segment " + to_string(segment) + ": " + std::to_string(wrong.size()) + " of " +
                         std::to_string(protection.parity) + " parity fragments do not fit the data" +
                         (others_fit ? "" : "; which of them is wrong cannot be told");
  if (!others_fit) co_return;
  for (uint8_t index : wrong) co_await found_({segment, index, placement.targets[index]}, true);
}

}  // namespace headrace
