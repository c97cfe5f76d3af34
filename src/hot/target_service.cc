#include "hot/target_service.h"

#include <algorithm>

#include "runtime/counting.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

// Of one target, while its device answers nothing. A channel has room for 1,024 calls in all.
constexpr size_t kMaxWaiting = 128;
constexpr Nanos kStandsStill = seconds(2);

Result<Empty> empty(Result<void> result) {
  if (!result) return std::move(result).error();
  return Empty{};
}

// What changes or reveals a target's metadata is the nodes' alone.
Result<void> nodes_only(const CallInfo& call) {
  if (call.header.client) return Error(Code::kDenied, "clients may only read and write fragments");
  return {};
}

}  // namespace

std::pair<uint64_t, uint64_t> segment_range(Protection protection, uint64_t segment_length, uint8_t index,
                                            uint64_t offset, uint64_t length) {
  uint64_t size = fragment_size(segment_length, protection.data);
  uint64_t begin = offset;
  uint64_t end = offset + length;
  if (protection.data > 1) {
    if (index < protection.data) {
      begin += index * size;
      end += index * size;
    } else {
      end += (protection.data - 1) * size;  // parity tells something about all data fragments
    }
  }
  return {std::min(begin, segment_length), std::min(end, segment_length)};
}

Result<void> TargetService::add(std::unique_ptr<Target> target) {
  TargetId id = target->id();
  if (targets_.contains(id))
    return Error(Code::kInvalid, target->name() + " and target t" + std::to_string(targets_[id]->number()) +
                                     " are both " + to_string(id) + ": one is a copy of the other; take the copy away");
  failed_.erase(id);
  targets_.emplace(id, std::move(target));
  return {};
}

void TargetService::add_failed(TargetId id, uint32_t number, std::string reason) {
  failed_[id] = {number, std::move(reason)};
}

void TargetService::remove(TargetId id) {
  targets_.erase(id);
  failed_.erase(id);
}

std::shared_ptr<Target> TargetService::find(TargetId id) const {
  auto at = targets_.find(id);
  return at == targets_.end() ? nullptr : at->second;
}

std::optional<std::string> TargetService::why_out(TargetId id) const {
  if (auto target = find(id)) return target->fenced() ? std::optional(target->status().reason) : std::nullopt;
  auto at = failed_.find(id);
  return at == failed_.end() ? std::nullopt : std::optional<std::string>(at->second.reason);
}

std::vector<std::shared_ptr<Target>> TargetService::targets() const {
  std::vector<std::shared_ptr<Target>> out;
  for (const auto& [id, target] : targets_) out.push_back(target);
  return out;
}

std::vector<std::pair<TargetId, TargetStatusReply>> TargetService::statuses() const {
  std::vector<std::pair<TargetId, TargetStatusReply>> out;
  for (const auto& [id, target] : targets_) out.emplace_back(id, target->status());
  for (const auto& [id, failed] : failed_) {
    TargetStatusReply status;
    status.fenced = true;
    status.reason = failed.reason;
    out.emplace_back(id, std::move(status));
  }
  return out;
}

Task<void> TargetService::close_one(std::shared_ptr<Target> target) {
  co_await target->close();
}

Task<void> TargetService::close() {
  Scope all;
  for (const auto& [id, target] : targets_) all.spawn(close_one(target));
  co_await all.join();
}

Result<std::shared_ptr<Target>> TargetService::serving(TargetId id) const {
  if (auto target = find(id)) return target;
  if (auto at = failed_.find(id); at != failed_.end())
    return Error(Code::kUnavailable,
                 "target t" + std::to_string(at->second.number) + " is not in service: " + at->second.reason);
  return Error(Code::kUnavailable, "target " + to_string(id) + " is not on this node");
}

Result<void> TargetService::may_wait(const Target& target) {
  if (waiting_[target.id()] < kMaxWaiting || target.silent() < kStandsStill) return {};
  return Error(Code::kUnavailable, target.name() + ": its device stands still");
}

Result<void> TargetService::allow(const CallInfo& call, SegmentId segment, uint64_t begin, uint64_t end, Right right) {
  if (!verifier_ || !call.header.client) return {};
  auto now_s = static_cast<uint32_t>(env_.clock.wall().count / seconds(1).count);
  return verifier_->verify(call.header.capability, segment, begin, end, right, now_s);
}

Task<Result<Empty>> TargetService::fragment_write(FragmentWrite request, CallInfo call) {
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  HR_CO_TRY(allow(call, request.segment, 0, request.segment_length, Right::kWrite));
  HR_CO_TRY(may_wait(*target));
  Counting waiting(waiting_[target->id()]);
  co_return empty(co_await target->write(std::move(request)));
}

Task<Result<FragmentReadReply>> TargetService::fragment_read(FragmentRead request, CallInfo call) {
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  if (verifier_ && call.header.client) {
    std::optional<FragmentEntry> entry = target->find({request.segment, request.index});
    // Of a fragment that is not here nothing is told but that, and only to bearers of something for
    // the segment.
    std::pair<uint64_t, uint64_t> range{0, 0};
    if (entry)
      range = segment_range(entry->protection, entry->segment_length, request.index, request.offset, request.length);
    HR_CO_TRY(allow(call, request.segment, range.first, range.second, Right::kRead));
  }
  HR_CO_TRY(may_wait(*target));
  Counting waiting(waiting_[target->id()]);
  co_return co_await target->read(std::move(request));
}

Task<Result<Empty>> TargetService::fragment_free(FragmentFree request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return empty(co_await target->free(std::move(request), call.header.partition, call.header.partition_epoch));
}

Task<Result<InventoryReply>> TargetService::inventory(Inventory request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return target->inventory(request);
}

Task<Result<TargetStatusReply>> TargetService::status(TargetStatus request, CallInfo) {
  for (auto& [id, status] : statuses())
    if (id == request.target) co_return std::move(status);
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return target->status();
}

Task<Result<Empty>> TargetService::journal_open(JournalOpen request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return empty(
      co_await target->journal_open(std::move(request), call.header.partition, call.header.partition_epoch));
}

Task<Result<Empty>> TargetService::journal_append(JournalAppend request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return empty(
      co_await target->journal_append(std::move(request), call.header.partition, call.header.partition_epoch));
}

Task<Result<JournalSealReply>> TargetService::journal_seal(JournalSeal request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return co_await target->journal_seal(std::move(request), call.header.partition, call.header.partition_epoch);
}

Task<Result<JournalReadReply>> TargetService::journal_read(JournalRead request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return co_await target->journal_read(std::move(request));
}

Task<Result<Empty>> TargetService::journal_trim(JournalTrim request, CallInfo call) {
  HR_CO_TRY(nodes_only(call));
  HR_CO_TRY(std::shared_ptr<Target> target, serving(request.target));
  co_return empty(
      co_await target->journal_trim(std::move(request), call.header.partition, call.header.partition_epoch));
}

void TargetService::register_handlers(Handlers& handlers) {
  handlers.on<FragmentWrite>(
      [this](FragmentWrite r, CallInfo c) { return fragment_write(std::move(r), std::move(c)); });
  handlers.on<FragmentRead>([this](FragmentRead r, CallInfo c) { return fragment_read(std::move(r), std::move(c)); });
  handlers.on<FragmentFree>([this](FragmentFree r, CallInfo c) { return fragment_free(std::move(r), std::move(c)); });
  handlers.on<Inventory>([this](Inventory r, CallInfo c) { return inventory(std::move(r), std::move(c)); });
  handlers.on<TargetStatus>([this](TargetStatus r, CallInfo c) { return status(std::move(r), std::move(c)); });
  handlers.on<JournalOpen>([this](JournalOpen r, CallInfo c) { return journal_open(std::move(r), std::move(c)); });
  handlers.on<JournalAppend>(
      [this](JournalAppend r, CallInfo c) { return journal_append(std::move(r), std::move(c)); });
  handlers.on<JournalSeal>([this](JournalSeal r, CallInfo c) { return journal_seal(std::move(r), std::move(c)); });
  handlers.on<JournalRead>([this](JournalRead r, CallInfo c) { return journal_read(std::move(r), std::move(c)); });
  handlers.on<JournalTrim>([this](JournalTrim r, CallInfo c) { return journal_trim(std::move(r), std::move(c)); });
}

}  // namespace headrace
