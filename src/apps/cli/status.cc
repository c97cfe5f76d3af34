// status and tier status.
#include <cstdio>
#include <ctime>

#include "apps/cli/cli.h"

namespace headrace {

using nlohmann::json;

namespace {

std::string ago(uint64_t unix_s) {
  if (unix_s == 0) return "never";
  auto now = static_cast<uint64_t>(std::time(nullptr));
  return duration_text(now > unix_s ? static_cast<double>(now - unix_s) : 0) + " ago";
}

void print(const char* name, const std::string& value) {
  std::printf("%-11s%s\n", name, value.c_str());
}

}  // namespace

int run_status(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> body = ask(*node, "/status");
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  const json& s = *body;
  print("namespace", s.value("namespace", "") + ", epoch " + std::to_string(s.value("namespace_epoch", 0)) + ", " +
                         s.value("protection", ""));
  print("owner", s.value("owner", ""));
  if (!s.value("read_only", "").empty()) print("read-only", s.value("read_only", ""));
  print("files", std::to_string(s.value("files", 0ULL)) + ", " + bytes_text(s.value("bytes", 0ULL)));
  print("hot", bytes_text(s.value("hot_bytes", 0ULL)) + "; cache " + bytes_text(s.value("cache_bytes", 0ULL)));
  print("bucket", bytes_text(s.value("bucket_bytes", 0ULL)) + " in " + std::to_string(s.value("objects", 0ULL)) +
                      " objects; manifest " + s.value("published", "") + ", " + ago(s.value("published_s", 0ULL)));
  if (!s.value("bucket_trouble", "").empty()) print("bucket", s.value("bucket_trouble", ""));
  print("degraded", std::to_string(s.value("degraded_reads", 0ULL)) + " reads");
  for (const json& target : s.value("targets", json::array())) {
    std::string line = target.value("name", "") + "  " + target.value("state", "") + "  " +
                       bytes_text(target.value("used", 0ULL)) + " of " + bytes_text(target.value("capacity", 0ULL));
    if (target.contains("rebuild")) {
      const json& r = target["rebuild"];
      line += "  rebuild " + r.value("state", "") + " " + std::to_string(r.value("segments_done", 0ULL)) + "/" +
              std::to_string(r.value("segments_total", 0ULL));
      if (r.value("eta_s", 0.0) > 0) line += ", " + duration_text(r.value("eta_s", 0.0)) + " left";
    }
    if (!target.value("reason", "").empty()) line += "  " + target.value("reason", "");
    print("target", line);
  }
  for (const json& partition : s.value("partitions", json::array())) {
    std::string line = std::to_string(partition.value("id", 0)) + "  " + partition.value("state", "");
    if (!partition.value("fully_copied", true)) line += "  (journal or checkpoint has too few copies)";
    if (!partition.value("last_error", "").empty()) line += "  last error: " + partition.value("last_error", "");
    print("partition", line);
  }
  for (const char* part : {"upload", "publish", "evict", "upkeep", "coordinator"}) {
    std::string error = s.value(part, json::object()).value("last_error", "");
    if (!error.empty()) print(part, "last error: " + error);
  }
  return 0;
}

namespace {

int status_of_path(const CliOptions& options, const NodeFile& node) {
  Result<json> body = command(node, "/tier/of", json{{"path", path_in_namespace(options.path)}}, {});
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  const json& w = *body;
  print("path", w.value("path", "") + (w.value("pinned", false) ? ", pinned" : ""));
  print("files", std::to_string(w.value("files", 0ULL)) + " in " + std::to_string(w.value("directories", 0ULL)) +
                     " directories");
  print("stored", bytes_text(w.value("bytes", 0ULL)) + " in " + std::to_string(w.value("segments", 0ULL)) +
                      " segments (shared ones counted whole)");
  print("hot", bytes_text(w.value("hot_bytes", 0ULL)) + ", of which " +
                   bytes_text(w.value("not_in_bucket_bytes", 0ULL)) + " are not in the bucket yet");
  print("cached", bytes_text(w.value("cached_bytes", 0ULL)));
  print("bucket", bytes_text(w.value("bucket_only_bytes", 0ULL)) + " are in the bucket only");
  return 0;
}

}  // namespace

int run_tier_status(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  if (!options.path.empty()) return status_of_path(options, *node);
  Result<json> body = ask(*node, "/tier");
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  const json& t = *body;
  uint64_t capacity = t.value("hot_capacity", 0ULL);
  print("hot", bytes_text(t.value("hot_bytes", 0ULL)) + "; with parity " + bytes_text(t.value("hot_used", 0ULL)) +
                   " of " + bytes_text(capacity) +
                   (capacity > 0 ? " (" + std::to_string(t.value("hot_used", 0ULL) * 100 / capacity) +
                                       " %, dropped from 95 to 90 %)"
                                 : ""));
  print("cached", bytes_text(t.value("cache_bytes", 0ULL)));
  print("bucket",
        bytes_text(t.value("bucket_bytes", 0ULL)) + " in " + std::to_string(t.value("objects", 0ULL)) + " objects");
  print("pending",
        bytes_text(t.value("pending_bytes", 0ULL) + t.value("staged_bytes", 0ULL)) + " not in the bucket yet");
  print("manifest", t.value("published", "") + ", " + ago(t.value("published_s", 0ULL)));
  print("evicted", bytes_text(t.value("evicted_bytes", 0ULL)) +
                       (t.value("evict_short", false) ? "; over the mark, and nothing is left to drop" : ""));
  print("cold reads", std::to_string(t.value("cold_reads", 0ULL)) + ", " + bytes_text(t.value("cold_bytes", 0ULL)));
  print("owner", t.value("owner", ""));
  if (!t.value("last_error", "").empty()) print("last error", t.value("last_error", ""));
  return 0;
}

}  // namespace headrace
