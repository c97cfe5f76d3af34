#include "apps/node_status.h"

#include <nlohmann/json.hpp>
#include <set>

#include "apps/json_text.h"
#include "stripe/placement_policy.h"

namespace headrace {

using nlohmann::json;

namespace {

const char* state_name(TargetState state) {
  switch (state) {
    case TargetState::kLive:
      return "live";
    case TargetState::kLost:
      return "lost";
    case TargetState::kRetired:
      return "retired";
    case TargetState::kDraining:
      return "draining";
  }
  return "unknown";
}

json targets_of(Node& node) {
  std::map<TargetId, TargetStatusReply> statuses;
  for (auto& [id, status] : node.targets().statuses()) statuses[id] = status;
  std::vector<TargetInfo> infos = node.map().targets;
  std::ranges::sort(infos, {}, [](const TargetInfo& i) { return std::pair(i.number, i.id); });
  json out = json::array();
  for (const TargetInfo& info : infos) {
    TargetStatusReply s = statuses[info.id];
    json one{{"name", "t" + std::to_string(info.number)},
             {"id", to_string(info.id)},
             {"state", state_name(info.state)},
             {"capacity", info.capacity},
             {"used", s.used},
             {"fragments", s.fragments},
             {"corrupt_blocks", s.corrupt_blocks},
             {"fenced", s.fenced},
             {"reason", s.reason}};
    TargetRebuild rebuild = node.keeper().rebuild_of(info.id);
    if (info.state != TargetState::kLive) {
      const RebuildProgress& p = rebuild.progress;
      one["rebuild"] = {{"state", std::string(to_string(rebuild.step))},
                        {"segments_total", p.segments_total},
                        {"segments_done", p.segments_done},
                        {"segments_failed", p.segments_failed},
                        {"bytes", p.bytes},
                        {"bytes_per_s", p.bytes_per_s},
                        {"eta_s", p.eta_s},
                        {"last_error", rebuild.last_error}};
    }
    out.push_back(std::move(one));
  }
  return out;
}

json scrub_of(Node& node) {
  ScrubStatus s = node.keeper().scrubber().status();
  KeeperCounters keeper = node.keeper().counters();
  const TargetInfo* at = node.map().target(s.target);
  return {{"running", s.running},
          {"asked", s.asked},
          {"target", s.running && at != nullptr ? "t" + std::to_string(at->number) : ""},
          {"targets_done", s.targets_done},
          {"targets", s.targets},
          {"fragments", s.here.fragments},
          {"bytes", s.here.bytes},
          {"bytes_total", s.bytes_total},
          {"bytes_per_s", s.bytes_per_s},
          {"eta_s", s.eta_s},
          {"found", s.ever.damaged + s.ever.missing + s.ever.parity_wrong},
          {"damaged", s.ever.damaged},
          {"missing", s.ever.missing},
          {"stripes", s.ever.stripes},
          {"parity_wrong", s.ever.parity_wrong},
          {"failed", s.ever.failed},
          {"fragments_ever", s.ever.fragments},
          {"bytes_ever", s.ever.bytes},
          {"repaired", keeper.repaired},
          {"waiting", keeper.damage_waiting},
          {"passes", s.passes},
          {"began_s", s.began_s},
          {"ended_s", s.ended_s},
          {"next_s", s.next_s},
          {"run", s.run},
          {"run_ended", s.run_ended},
          {"last_error", s.last_error}};
}

}  // namespace

std::string targets_json(Node& node) {
  return json_text(json{{"targets", targets_of(node)}, {"scrub", scrub_of(node)}});
}

std::string status_json(Node& node, const EmbeddedCoordinator& coordinator) {
  json out;
  const ClusterMap& map = node.map();
  out["cluster"] = hex(map.cluster.value());
  out["namespace"] = hex(map.name_space.value(), 12);
  out["namespace_epoch"] = map.namespace_epoch.value();
  out["protection"] = to_string(map.protection);
  out["bucket"] = node.bucket_url();
  Report reported = node.reported();
  out["degraded_reads"] = reported.degraded_reads;
  out["bytes_read"] = reported.bytes_read;
  out["bytes_written"] = reported.bytes_written;
  uint64_t inodes = 0, bytes = 0, hot = 0, bucket = 0, objects = 0, staged = 0, sessions = 0, grants = 0;
  json partitions = json::array();
  for (const auto& [id, partition] : node.partitions().all()) {
    PartitionStatusReply s = partition->status();
    inodes += s.inodes;
    bytes += s.bytes;
    hot += s.hot_bytes;
    bucket += s.bucket_bytes;
    objects += s.objects;
    staged += s.staged_bytes;
    sessions += s.sessions;
    grants += s.grants;
    partitions.push_back({{"id", id.value()},
                          {"epoch", s.epoch.value()},
                          {"state", s.state},
                          {"last", s.last.value()},
                          {"checkpoint_at", s.checkpoint_at.value()},
                          {"operations", s.operations},
                          {"fully_copied", partition->journal().fully_copied() && partition->checkpoint_whole()},
                          {"last_error", partition->last_error()}});
  }
  uint64_t cached = node.cache_bytes();
  for (const auto& [id, s] : node.targets().statuses()) cached += s.cached;
  TierStatus tier = node.tier().status();
  out["published"] = to_string(tier.published);
  out["published_s"] = tier.published_s;
  out["upload"] = {{"segments", tier.upload.segments},
                   {"objects", tier.upload.objects},
                   {"bytes", tier.upload.bytes},
                   {"last_error", tier.upload.last_error}};
  out["evict"] = {{"segments", tier.evict.segments},
                  {"bytes", tier.evict.bytes},
                  {"short_of", tier.evict.short_of},
                  {"last_error", tier.evict.last_error}};
  const FetchProgress& fetch = node.tier().fetch_progress();
  out["fetch"] = {{"running", fetch.running},       {"segments_cold", fetch.segments_cold},
                  {"bytes_cold", fetch.bytes_cold}, {"segments", fetch.segments},
                  {"bytes", fetch.bytes},           {"failed", fetch.failed},
                  {"no_room", fetch.no_room},       {"last_error", fetch.last_error}};
  out["publish"] = {{"manifests", tier.publish.manifests}, {"last_error", tier.publish.last_error}};
  SpinDownProgress down = node.tier().spin_down_progress();
  out["spin_down"] = {{"step", static_cast<int>(down.step)}, {"sessions", down.sessions}, {"grants", down.grants}};
  out["files"] = inodes;
  out["bytes"] = bytes;
  out["hot_bytes"] = hot;
  out["cache_bytes"] = cached;
  out["bucket_bytes"] = bucket;
  out["objects"] = objects;
  out["staged_bytes"] = staged;
  out["sessions"] = sessions;
  out["grants"] = grants;
  bool confirmed = node.why_read_only().empty();
  out["owner"] = confirmed                ? "this cluster (" + hex(map.cluster.value()) + ")"
                 : !node.winner().empty() ? node.winner()
                                          : "unconfirmed: " + node.why_read_only();
  out["owned"] = confirmed;
  out["bucket_trouble"] = node.bucket_trouble();
  out["read_only"] = node.why_read_only();
  KeeperCounters keeper = node.keeper().counters();
  out["upkeep"] = {{"targets_lost", keeper.targets_lost},     {"targets_rescued", keeper.rescued},
                   {"fragments_repaired", keeper.repaired},   {"repairs_failed", keeper.repair_failed},
                   {"damage_waiting", keeper.damage_waiting}, {"segments_rebuilt", keeper.segments_rebuilt},
                   {"bytes_rebuilt", keeper.bytes_rebuilt},   {"orphans_freed", keeper.orphans_freed},
                   {"last_error", keeper.last_error}};
  out["scrub"] = scrub_of(node);
  out["coordinator"] = {{"copies", coordinator.copies()}, {"last_error", coordinator.copy_error()}};
  const Node::Times& times = node.start_times();
  out["start"] = {{"targets_s", times.targets}, {"partitions_s", times.partitions}, {"bucket_s", times.bucket}};
  out["partitions"] = std::move(partitions);
  out["targets"] = targets_of(node);
  return json_text(out);
}

Task<Result<std::string>> tier_json(Node* node) {
  HR_CO_TRY(Node::Pending pending, co_await node->pending_upload());
  uint64_t hot = 0, bucket = 0, objects = 0, staged = 0;
  for (const auto& [id, partition] : node->partitions().all()) {
    PartitionStatusReply s = partition->status();
    hot += s.hot_bytes;
    bucket += s.bucket_bytes;
    objects += s.objects;
    staged += s.staged_bytes;
  }
  uint64_t used = 0, capacity = 0, cached = node->cache_bytes();
  for (const auto& [id, s] : node->targets().statuses()) {
    used += s.used;
    capacity += s.capacity;
    cached += s.cached;
  }
  TierStatus tier = node->tier().status();
  json out{{"hot_bytes", hot},
           {"hot_used", used},
           {"hot_capacity", capacity},
           {"cache_bytes", cached},
           {"bucket_bytes", bucket},
           {"objects", objects},
           {"pending_bytes", pending.bytes},
           {"pending_segments", pending.segments},
           {"staged_bytes", staged},
           {"published", to_string(tier.published)},
           {"published_s", tier.published_s},
           {"evicted_bytes", tier.evict.bytes},
           {"evict_short", tier.evict.short_of},
           {"evict_stuck", tier.evict.stuck},
           {"rewritten_bytes", tier.upload.rewritten},
           {"objects_deleted", tier.publish.objects_deleted},
           {"strays_deleted", tier.publish.strays_deleted},
           {"cold_reads", tier.cold.reads},
           {"cold_bytes", tier.cold.bytes},
           {"last_error", !tier.upload.last_error.empty() ? tier.upload.last_error : tier.publish.last_error},
           {"owner", tier.owner}};
  co_return json_text(out);
}

namespace {

json fetch_json(const FetchProgress& p, Nanos now) {
  double took = ((p.running ? now : p.ended) - p.began).seconds();
  double rate = took > 0 ? static_cast<double>(p.bytes) / took : 0;
  uint64_t left = p.bytes_cold - std::min(p.bytes_cold, p.bytes);
  return {{"running", p.running},
          {"segments_total", p.segments_total},
          {"bytes_total", p.bytes_total},
          {"segments_cold", p.segments_cold},
          {"bytes_cold", p.bytes_cold},
          {"segments", p.segments},
          {"bytes", p.bytes},
          {"failed", p.failed},
          {"no_room", p.no_room},
          {"bytes_per_s", rate},
          {"eta_s", p.running && rate > 0 ? static_cast<double>(left) / rate : 0.0},
          {"last_error", p.last_error}};
}

// {"path": "/…"}, a path of the namespace.
Result<std::string> path_of(const std::string& body) {
  json asked = json::parse(body, nullptr, false);
  if (!asked.is_object() || !asked.contains("path") || !asked["path"].is_string())
    return Error(Code::kInvalid, "which path? {\"path\": \"/…\"}");
  return asked["path"].get<std::string>();
}

}  // namespace

std::string pins_json(Node& node, Clock& clock) {
  json pins = json::array();
  for (const PinState& state : node.tier().pins().states()) {
    json one = fetch_json(state.progress, clock.now());
    one["path"] = state.pin.path;
    one["since_s"] = state.pin.since / 1'000'000'000;
    one["walked"] = state.walked;
    one["complete"] = state.complete;
    one["files"] = state.files;
    pins.push_back(std::move(one));
  }
  return json_text(json{{"pins", std::move(pins)}, {"last_error", node.tier().pins().last_error()}});
}

Task<Result<std::string>> fetch_path(Node* node, Clock* clock, std::string body) {
  HR_CO_TRY(std::string path, path_of(body));
  HR_CO_TRY(FetchProgress done, co_await node->tier().fetch(std::move(path)));
  co_return json_text(fetch_json(done, clock->now()));
}

Task<Result<std::string>> pin_path(Node* node, std::string body) {
  HR_CO_TRY(std::string path, path_of(body));
  HR_CO_TRY(co_await node->tier().pins().pin(std::move(path)));
  co_return std::string("{}");
}

Task<Result<std::string>> release_path(Node* node, std::string body) {
  HR_CO_TRY(std::string path, path_of(body));
  HR_CO_TRY(co_await node->tier().pins().release(std::move(path)));
  co_return std::string("{}");
}

Task<Result<std::string>> where_path(Node* node, std::string body) {
  HR_CO_TRY(std::string path, path_of(body));
  HR_CO_TRY(TierService::Where w, co_await node->tier().where(path));
  co_return json_text(json{{"path", path},
                           {"files", w.files},
                           {"directories", w.directories},
                           {"segments", w.segments},
                           {"bytes", w.bytes},
                           {"hot_bytes", w.hot},
                           {"not_in_bucket_bytes", w.not_in_bucket},
                           {"cached_bytes", w.cached},
                           {"bucket_only_bytes", w.bytes - w.hot - std::min(w.cached, w.bytes - w.hot)},
                           {"pinned", w.pinned}});
}

}  // namespace headrace
