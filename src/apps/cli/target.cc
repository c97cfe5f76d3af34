// target list, target replace, target remove and target scrub.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <vector>

#include "apps/cli/cli.h"

namespace headrace {

using nlohmann::json;

namespace {

Result<uint32_t> target_number(const std::string& name) {
  uint32_t number = 0;
  const char* begin = name.data() + (name.starts_with('t') ? 1 : 0);
  auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || begin == end)
    return Error(Code::kInvalid, "'" + name + "' is no target: name it as `headrace target list` does, for example t2");
  return number;
}

std::string rebuild_text(const json& r) {
  std::string out = "rebuild " + r.value("state", "") + ": " + std::to_string(r.value("segments_done", 0ULL)) + " of " +
                    std::to_string(r.value("segments_total", 0ULL)) + " segments, " +
                    bytes_text(r.value("bytes", 0ULL));
  if (r.value("bytes_per_s", 0.0) > 0)
    out += ", " + bytes_text(static_cast<uint64_t>(r.value("bytes_per_s", 0.0))) + "/s";
  if (r.value("eta_s", 0.0) > 0) out += ", " + duration_text(r.value("eta_s", 0.0)) + " left";
  if (!r.value("last_error", "").empty()) out += " (" + r.value("last_error", "") + ")";
  return out;
}

std::string scrub_text(const json& s) {
  std::string out = "scrub: " + bytes_text(s.value("bytes", 0ULL)) + " of " + bytes_text(s.value("bytes_total", 0ULL)) +
                    ", " + std::to_string(s.value("targets_done", 0ULL)) + " of " +
                    std::to_string(s.value("targets", 0ULL)) + " targets";
  if (s.value("bytes_per_s", 0.0) > 0)
    out += ", " + bytes_text(static_cast<uint64_t>(s.value("bytes_per_s", 0.0))) + "/s";
  if (s.value("eta_s", 0.0) > 0) out += ", " + duration_text(s.value("eta_s", 0.0)) + " left";
  return out;
}

}  // namespace

int run_target_list(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> body = ask(*node, "/targets");
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  std::printf("%-6s %-9s %-17s %12s %12s %10s %8s\n", "target", "state", "id", "used", "capacity", "fragments",
              "corrupt");
  for (const json& t : body->value("targets", json::array())) {
    std::printf("%-6s %-9s %-17s %12s %12s %10llu %8llu\n", t.value("name", "").c_str(), t.value("state", "").c_str(),
                t.value("id", "").c_str(), bytes_text(t.value("used", 0ULL)).c_str(),
                bytes_text(t.value("capacity", 0ULL)).c_str(),
                static_cast<unsigned long long>(t.value("fragments", 0ULL)),
                static_cast<unsigned long long>(t.value("corrupt_blocks", 0ULL)));
    if (t.contains("rebuild")) std::printf("       %s\n", rebuild_text(t["rebuild"]).c_str());
    if (!t.value("reason", "").empty()) std::printf("       %s\n", t.value("reason", "").c_str());
  }
  return 0;
}

namespace {

// After a moment, a longer one in later rounds: the rebuilds of the targets called `name` that are in one of the
// states.
Result<std::vector<json>> rebuilds(const NodeFile& node, const std::string& name,
                                   const std::vector<std::string>& states, int round) {
  ::usleep(round < 10 ? 100'000 : 500'000);
  HR_TRY(json now, ask(node, "/targets"));
  std::vector<json> out;
  for (const json& t : now.value("targets", json::array()))
    if (t.value("name", "") == name && std::ranges::count(states, t.value("state", "")) > 0)
      out.push_back(t.value("rebuild", json::object()));
  return out;
}

}  // namespace

int run_target_replace(const CliOptions& options) {
  Result<uint32_t> number = target_number(options.target);
  if (!number.ok()) return fail(number.error());
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> before = ask(*node, "/targets");
  if (!before.ok()) return fail(before.error());
  Result<json> done = command(*node, "/targets/replace", json{{"number", *number}, {"force", options.force}}, {});
  if (!done.ok()) return fail(done.error());
  std::printf("target t%u is a fresh one now (%s)\n", *number, done->value("id", "").c_str());
  if (options.detach) {
    std::printf("what it held is rebuilt in the background: headrace target list --state %s\n", options.state.c_str());
    return 0;
  }
  // Those that were in its place are retired; done when none of them holds anything any more.
  std::string name = "t" + std::to_string(*number);
  ProgressLine line;
  std::string trouble;
  uint64_t segments = 0;
  for (int i = 0;; ++i) {
    Result<std::vector<json>> now = rebuilds(*node, name, {"retired"}, i);
    if (!now.ok())
      return fail(Error(now.error()).within("the target is replaced, but how far rebuilding is cannot be told"));
    bool busy = false;
    for (const json& r : *now) {
      std::string state = r.value("state", "");
      segments = std::max<uint64_t>(segments, r.value("segments_total", 0ULL));
      trouble = r.value("last_error", "");
      busy |= state != "done" && (trouble.empty() || state == "running");
      line.show(rebuild_text(r));
    }
    if (!busy) break;
  }
  line.end();
  if (!trouble.empty())
    return fail("the target is replaced, but not all could be rebuilt yet (it is tried again every minute): " +
                trouble);
  std::printf("rebuilt: %llu segments are whole again\n", static_cast<unsigned long long>(segments));
  return 0;
}

int run_target_remove(const CliOptions& options) {
  Result<uint32_t> number = target_number(options.target);
  if (!number.ok()) return fail(number.error());
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> done = command(*node, "/targets/remove", json{{"number", *number}}, {});
  if (!done.ok()) return fail(done.error());
  const std::string name = "t" + std::to_string(*number);
  if (options.detach) {
    std::printf(
        "target %s takes nothing new; what it holds is moved in the background: headrace target list --state %s\n",
        name.c_str(), options.state.c_str());
    return 0;
  }
  ProgressLine line;
  uint64_t segments = 0;
  for (int i = 0;; ++i) {
    Result<std::vector<json>> now = rebuilds(*node, name, {"draining", "retired"}, i);
    if (!now.ok())
      return fail(
          Error(now.error())
              .within("the target is being removed, and goes on when the node does; how far it is cannot be told"));
    for (const json& r : *now) {
      segments = std::max<uint64_t>(segments, r.value("segments_done", 0ULL));
      const std::string trouble = r.value("last_error", "");
      if (r.value("state", "") == "waiting" && !trouble.empty()) {
        line.end();
        return fail("target " + name + " is not empty yet (it is tried again every minute): " + trouble);
      }
      line.show(r.value("state", "") == "done" ? "it is empty; waiting until nobody can name it any more"
                                               : "removing " + name + ": " + rebuild_text(r));
    }
    if (now->empty()) break;
  }
  line.end();
  std::printf("target %s is removed: %llu segments were moved; %s/targets/%s may be deleted\n", name.c_str(),
              static_cast<unsigned long long>(segments), options.state.c_str(), name.c_str());
  return 0;
}

int run_target_scrub(const CliOptions& options) {
  json request = json::object();
  if (!options.target.empty()) {
    Result<uint32_t> number = target_number(options.target);
    if (!number.ok()) return fail(number.error());
    request["number"] = *number;
  }
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> before = ask(*node, "/targets");
  if (!before.ok()) return fail(before.error());
  Result<json> begun = command(*node, "/targets/scrub", request, {});
  if (!begun.ok()) return fail(begun.error());
  if (options.detach) {
    std::printf("scrub runs in the background: headrace status --json --state %s\n", options.state.c_str());
    return 0;
  }
  const uint64_t run = begun->value("run", 0ULL);
  ProgressLine line;
  json s;
  for (int i = 0;; ++i) {
    ::usleep(i < 10 ? 100'000 : 500'000);
    Result<json> now = ask(*node, "/targets");
    if (!now.ok()) return fail(Error(now.error()).within("scrub was begun, but how far it is cannot be told"));
    s = now->value("scrub", json::object());
    line.show(scrub_text(s));
    if (s.value("run_ended", 0ULL) >= run && s.value("waiting", 0ULL) == 0) break;
  }
  line.end();
  const json was = before->value("scrub", json::object());
  auto since = [&](const char* name) {
    return static_cast<unsigned long long>(s.value(name, 0ULL) - was.value(name, 0ULL));
  };
  std::printf(
      "scrubbed: %llu fragments, %s; %llu damaged, %llu missing, %llu stripes with wrong parity; %llu repaired\n",
      since("fragments_ever"), bytes_text(since("bytes_ever")).c_str(), since("damaged"), since("missing"),
      since("parity_wrong"), since("repaired"));
  if (since("found") > since("repaired"))
    return fail("not all that was found is repaired: " + s.value("last_error", ""));
  if (since("failed") > 0) return fail("not all could be judged, what there is was read: " + s.value("last_error", ""));
  return 0;
}

}  // namespace headrace
