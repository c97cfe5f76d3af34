#include "sim/leftovers.h"

#include <fmt/core.h>

#include <map>
#include <set>

#include "meta/ops/work.h"
#include "tier/packed_object.h"
#include "tier/publisher.h"
#include "tier/records.h"

namespace headrace::sim {

namespace {

Task<Result<void>> unclaimed_fragments(Node& node, Target& target, std::vector<std::string>& left) {
  Inventory request{target.id(), {}, 1'000};
  for (bool more = true; more;) {
    HR_CO_TRY(InventoryReply page, target.inventory(request));
    more = page.more && !page.items.empty();
    if (more) request.after = page.items.back().fragment;
    std::map<PartitionId, Claims> asks;
    for (const InventoryItem& item : page.items) {
      const SegmentId segment = item.fragment.segment;
      if (segment.name_space() != node.map().name_space) continue;
      Claims& ask = asks[node.map().partition_of(segment.home())->id];
      ask.on = request.target;
      ask.segments.push_back(segment);
      ask.indexes.push_back(item.fragment.index);
    }
    for (auto& [id, ask] : asks) {
      const Claims asked = ask;
      const std::shared_ptr<Partition> partition = node.partitions().find(id);
      if (partition == nullptr) co_return Error(Code::kNotLeader, "a partition is not led here");
      HR_CO_TRY(ClaimsReply reply, co_await handle(*partition, std::move(ask), {}));
      for (size_t i = 0; i < asked.segments.size(); ++i)
        if (reply.claimed[i] == 0)
          left.push_back(fmt::format("target {}: fragment {} of segment {} that nothing names", to_string(target.id()),
                                     asked.indexes[i], to_string(asked.segments[i])));
    }
  }
  co_return {};
}

Task<Result<void>> unknown_objects(Node& node, const std::map<std::string, MemoryBucket::Object>& keys,
                                   std::vector<std::string>& left) {
  std::map<PartitionId, KnownObjects> asks;
  for (const auto& [key, object] : keys) {
    if (!key.starts_with("d/")) continue;
    HR_CO_TRY(uint64_t packed, parse_hex(std::string_view(key).substr(key.rfind('/') + 1)));
    asks[PartitionId(static_cast<uint16_t>(packed >> 32))].objects.emplace_back(packed);
  }
  for (auto& [id, ask] : asks) {
    const std::vector<ObjectId> objects = ask.objects;
    const std::shared_ptr<Partition> partition = node.partitions().find(id);
    if (partition == nullptr) co_return Error(Code::kNotLeader, "a partition is not led here");
    HR_CO_TRY(KnownObjectsReply reply, co_await handle(*partition, std::move(ask), {}));
    for (size_t i = 0; i < objects.size(); ++i)
      if (reply.known[i] == 0) left.push_back("object " + object_key(objects[i]) + " that no partition knows");
  }
  co_return {};
}

Result<void> unnamed_keys(const std::map<std::string, MemoryBucket::Object>& keys, std::vector<std::string>& left) {
  auto head = keys.find("head");
  if (head == keys.end()) return {};
  HR_TRY(HeadRecord record, decode_bucket_head(head->second.body.view()));
  std::set<std::string> named{record.manifest};
  auto current = keys.find(record.manifest);
  if (current != keys.end()) {
    HR_TRY(ManifestRecord manifest, decode_manifest(current->second.body.view()));
    named.merge(keys_of(manifest));
    for (const GarbageKey& garbage : manifest.garbage) named.insert(garbage.key);
  }
  for (const auto& [key, object] : keys)
    if (parse_published_key(key) && !named.contains(key)) left.push_back("key " + key + " that no manifest names");
  return {};
}

}  // namespace

Task<Result<std::vector<std::string>>> leftover_storage(Node& node, MemoryBucket& bucket) {
  std::vector<std::string> left;
  for (const std::shared_ptr<Target>& target : node.targets().targets())
    if (!target->status().fenced) HR_CO_TRY(co_await unclaimed_fragments(node, *target, left));
  const std::map<std::string, MemoryBucket::Object> keys = bucket.contents();
  HR_CO_TRY(co_await unknown_objects(node, keys, left));
  HR_CO_TRY(unnamed_keys(keys, left));
  co_return left;
}

}  // namespace headrace::sim
