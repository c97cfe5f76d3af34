#include "hot/orphans.h"

#include <map>

#include "base/fault_point.h"

namespace headrace {

Task<Result<OrphanReport>> OrphanWorker::sweep(TargetId target, std::function<bool()> still_wanted) {
  OrphanReport report;
  Inventory request{target, {}, options_.page};
  bool more = true;
  while (more) {
    if (!still_wanted()) co_return Error(Code::kCancelled, "the sweep was stopped");
    HR_CO_TRY(InventoryReply page, co_await work_.inventory(request));
    more = page.more && !page.items.empty();
    if (more) request.after = page.items.back().fragment;
    std::map<PartitionId, std::vector<InventoryItem>> by_home;
    for (const InventoryItem& item : page.items) {
      ++report.seen;
      if (item.age_ms < options_.min_age_ms) continue;
      if (item.fragment.segment.name_space() != work_.map().name_space) {
        ++report.foreign;
        continue;
      }
      const PartitionInfo* home = work_.map().partition_of(item.fragment.segment.home());
      if (home != nullptr) by_home[home->id].push_back(item);
    }
    for (auto& [partition, items] : by_home) {
      Claims claims;
      claims.on = target;
      for (const InventoryItem& item : items) {
        claims.segments.push_back(item.fragment.segment);
        claims.indexes.push_back(item.fragment.index);
      }
      report.asked += items.size();
      HR_CO_TRY(ClaimsReply reply, co_await work_.claims(partition, std::move(claims)));
      if (reply.claimed.size() != items.size())
        co_return Error(Code::kCorrupt, "partition " + std::to_string(partition.value()) + " answered for " +
                                            std::to_string(reply.claimed.size()) + " of " +
                                            std::to_string(items.size()) + " fragments");
      FragmentFree unclaimed;
      unclaimed.target = target;
      uint64_t bytes = 0;
      for (size_t i = 0; i < items.size(); ++i) {
        if (reply.claimed[i] != 0 && !mutant("sweep_claimed")) continue;
        unclaimed.fragments.push_back(items[i].fragment);
        bytes += items[i].bytes;
      }
      if (unclaimed.fragments.empty()) continue;
      uint64_t count = unclaimed.fragments.size();
      HR_CO_TRY(co_await work_.free(partition, std::move(unclaimed)));
      report.freed += count;
      report.freed_bytes += bytes;
    }
  }
  co_return report;
}

}  // namespace headrace
