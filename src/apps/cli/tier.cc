// tier push, fetch, pin, release, pins.
#include <unistd.h>

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
  UploadRate rate(total);
  Result<json> done = command(*node, "/tier/push", json::object(),
                              [&rate](const json& status) { return "pushing: " + rate.text(status); });
  if (!done.ok()) return fail(done.error());
  std::printf("everything is in the bucket; cut %s is published\n", done->value("published", "").c_str());
  return 0;
}

namespace {

std::string fetch_text(const json& p, double rate, double eta) {
  std::string out = bytes_text(p.value("bytes", 0ULL)) + " of " + bytes_text(p.value("bytes_cold", 0ULL));
  if (rate > 0) out += ", " + bytes_text(static_cast<uint64_t>(rate)) + "/s";
  if (eta > 0) out += ", " + duration_text(eta) + " left";
  return out;
}

// The pin of that path; null when there is none.
json pin_of(const json& body, const std::string& path) {
  for (const json& pin : body.value("pins", json::array()))
    if (pin.value("path", "") == path) return pin;
  return nullptr;
}

std::string pin_text(const json& pin) {
  if (!pin.value("walked", false)) return "being looked through";
  if (pin.value("running", false))
    return "fetching " + fetch_text(pin, pin.value("bytes_per_s", 0.0), pin.value("eta_s", 0.0));
  if (pin.value("no_room", false))
    return "incomplete: the hot tier has no room for " +
           bytes_text(pin.value("bytes_cold", 0ULL) - pin.value("bytes", 0ULL)) + " of it";
  if (pin.value("failed", 0ULL) > 0) return "incomplete: " + pin.value("last_error", "") + " (it is tried again)";
  return pin.value("complete", false) ? "hot: " + bytes_text(pin.value("bytes_total", 0ULL)) : "waiting";
}

}  // namespace

int run_fetch(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  std::string path = path_in_namespace(options.path);
  double seconds = 0;
  Result<json> done = command(*node, "/tier/fetch", json{{"path", path}}, [&seconds](const json& status) {
    const json p = status.value("fetch", json::object());
    seconds += 1;
    double rate = static_cast<double>(p.value("bytes", 0ULL)) / seconds;
    uint64_t left = p.value("bytes_cold", 0ULL) - p.value("bytes", 0ULL);
    return "fetching: " + fetch_text(p, rate, rate > 0 ? static_cast<double>(left) / rate : 0);
  });
  if (!done.ok()) return fail(done.error());
  if (options.as_json)
    std::printf("%s\n", done->dump(2).c_str());
  else
    std::printf("fetched %s in %llu segments; %s was hot already\n", bytes_text(done->value("bytes", 0ULL)).c_str(),
                static_cast<unsigned long long>(done->value("segments", 0ULL)),
                bytes_text(done->value("bytes_total", 0ULL) - done->value("bytes_cold", 0ULL)).c_str());
  if (done->value("no_room", false))
    return fail("the hot tier is full (it is filled to 90 %): " +
                bytes_text(done->value("bytes_cold", 0ULL) - done->value("bytes", 0ULL)) +
                " stay in the bucket; fetch less, release pins, or add targets");
  if (done->value("failed", 0ULL) > 0)
    return fail(std::to_string(done->value("failed", 0ULL)) +
                " segments could not be fetched, and stay in the bucket: " + done->value("last_error", ""));
  return 0;
}

int run_pin(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  std::string path = path_in_namespace(options.path);
  Result<json> done = command(*node, "/tier/pin", json{{"path", path}}, {});
  if (!done.ok()) return fail(done.error());
  std::printf("%s is pinned: what is at or below it stays hot\n", path.c_str());
  if (!options.wait) {
    std::printf("  what of it is cold is fetched in the background: headrace tier pins\n");
    return 0;
  }
  ProgressLine line;
  for (;;) {
    ::usleep(300'000);
    Result<json> now = ask(*node, "/tier/pins");
    if (!now.ok()) return fail(Error(now.error()).within("it is pinned, but how far it is cannot be told"));
    json pin = pin_of(*now, path);
    if (pin.is_null()) return fail("it was released, or removed, meanwhile");
    line.show(pin_text(pin));
    if (!pin.value("walked", false) || pin.value("running", false)) continue;
    line.end();
    if (pin.value("complete", false)) {
      std::printf("%s\n", pin_text(pin).c_str());
      return 0;
    }
    if (pin.value("no_room", false) || pin.value("failed", 0ULL) > 0) return fail(pin_text(pin));
  }
}

int run_release(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> done = command(*node, "/tier/release", json{{"path", path_in_namespace(options.path)}}, {});
  if (!done.ok()) return fail(done.error());
  std::printf("released: it may be dropped from the hot tier when space is needed\n");
  return 0;
}

int run_pins(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> body = ask(*node, "/tier/pins");
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  const json pins = body->value("pins", json::array());
  if (pins.empty()) std::printf("nothing is pinned\n");
  for (const json& pin : pins)
    std::printf("%-40s %8llu files  %s\n", pin.value("path", "").c_str(),
                static_cast<unsigned long long>(pin.value("files", 0ULL)), pin_text(pin).c_str());
  return 0;
}

}  // namespace headrace
