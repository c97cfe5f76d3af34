// tier push.
#include <cstdio>

#include "apps/cli/cli.h"

namespace headrace {

using nlohmann::json;

int run_push(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  // (The node asks every client for what it still holds in memory.)
  Result<json> before = ask(*node, "/tier");
  uint64_t total = before.ok() ? before->value("pending_bytes", 0ULL) + before->value("staged_bytes", 0ULL) : 0;
  struct {
    bool begun = false;
    uint64_t sent = 0;
    double seconds = 0;
  } since;
  Result<json> done = command(*node, "/tier/push", json::object(), [&since, total](const json& status) {
    uint64_t now = status.value("upload", json::object()).value("bytes", 0ULL);
    if (!since.begun) since = {true, now, 0};
    since.seconds += 1;
    uint64_t sent = now - since.sent;
    double rate = static_cast<double>(sent) / since.seconds;
    std::string line = "pushing: " + bytes_text(sent) + " of about " + bytes_text(total) + ", " + bytes_text(static_cast<uint64_t>(rate)) + "/s";
    if (rate > 0 && total > sent) line += ", " + duration_text(static_cast<double>(total - sent) / rate) + " left";
    return line;
  });
  if (!done.ok()) return fail(done.error());
  std::printf("everything is in the bucket; cut %s is published\n", done->value("published", "").c_str());
  return 0;
}

}  // namespace headrace
