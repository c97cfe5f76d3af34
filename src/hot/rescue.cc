#include "hot/rescue.h"

#include <map>

#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr size_t kPage = 1000;

}  // namespace

Task<Result<Rescued>> find_claimed(std::shared_ptr<Target> target, WorkPort& work, std::function<bool()> still_wanted) {
  Rescued rescued;
  RescueReport& report = rescued.report;
  HR_CO_TRY(std::vector<FragmentEntry> candidates, co_await target->scan(still_wanted));
  report.candidates = candidates.size();
  std::map<PartitionId, std::vector<FragmentEntry>> by_home;
  for (const FragmentEntry& entry : candidates) {
    if (entry.name.segment.name_space() != work.map().name_space) continue;
    const PartitionInfo* home = work.map().partition_of(entry.name.segment.home());
    if (home == nullptr) co_return Error(Code::kUnavailable, "a fragment's home is not in the map");
    by_home[home->id].push_back(entry);
  }
  std::vector<FragmentEntry> confirmed;
  for (const auto& [partition, entries] : by_home) {
    for (size_t from = 0; from < entries.size(); from += kPage) {
      if (!still_wanted()) co_return Error(Code::kCancelled, "the target is not wanted any more");
      const size_t to = std::min(entries.size(), from + kPage);
      Claims claims;
      claims.on = target->id();
      for (size_t i = from; i < to; ++i) {
        claims.segments.push_back(entries[i].name.segment);
        claims.indexes.push_back(entries[i].name.index);
        claims.data.push_back(entries[i].protection.data);
      }
      HR_CO_TRY(ClaimsReply reply, co_await work.claims(partition, std::move(claims)));
      if (reply.claimed.size() != to - from)
        co_return Error(Code::kCorrupt, "partition " + std::to_string(partition.value()) + " answered for " +
                                            std::to_string(reply.claimed.size()) + " of " + std::to_string(to - from) +
                                            " fragments");
      for (size_t i = from; i < to; ++i) {
        if (reply.claimed[i - from] != 0) confirmed.push_back(entries[i]);
      }
    }
  }
  // Two cuts of one fragment lie side by side. Both are claimed where its home cannot tell yet which one counts: then
  // neither comes back, and what is missing is made from the others.
  for (size_t i = 0; i < confirmed.size();) {
    size_t next = i + 1;
    while (next < confirmed.size() && confirmed[next].name == confirmed[i].name) ++next;
    if (next == i + 1) {
      report.kept_bytes += fragment_size(confirmed[i].segment_length, confirmed[i].protection.data);
      rescued.confirmed.push_back(confirmed[i]);
    }
    i = next;
  }
  report.kept = rescued.confirmed.size();
  // A leader takes its epoch at the coordinator before it asks a target for anything: no promise that was lost is
  // higher.
  for (const PartitionInfo& partition : work.map().partitions)
    rescued.promises.emplace_back(partition.id, partition.epoch);
  co_return rescued;
}

}  // namespace headrace
