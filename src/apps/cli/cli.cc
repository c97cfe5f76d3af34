#include "apps/cli/cli.h"

#include <httplib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "apps/json_text.h"

namespace headrace {

using nlohmann::json;

std::string default_state() {
  if (const char* named = std::getenv("HEADRACE_STATE"); named != nullptr && *named != '\0') return named;
  if (::geteuid() == 0) return "/var/lib/headrace";
  if (const char* base = std::getenv("XDG_STATE_HOME"); base != nullptr && *base == '/')
    return std::string(base) + "/headrace";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::string(home) + "/.local/state/headrace";
  return "/var/lib/headrace";
}

int fail(const std::string& what) {
  std::fprintf(stderr, "headrace: %s\n", what.c_str());
  return 1;
}
int fail(const Error& error) {
  return fail(error.message());
}

namespace {

Result<json> parse_answer(const httplib::Result& answer) {
  json body = json::parse(answer->body, nullptr, false);
  if (answer->status == 200) return body;
  std::string said = "HTTP " + std::to_string(answer->status);
  if (body.is_object() && body.contains("error") && body["error"].is_object())
    said = body["error"].value("message", said);
  return Error(Code::kUnavailable, said);
}

httplib::Headers headers_of(const NodeFile& node) {
  return {{"Authorization", "Bearer " + node.admin_token}};
}

}  // namespace

Result<json> ask(const NodeFile& node, const std::string& path) {
  httplib::Client client("127.0.0.1", node.admin_port);
  client.set_read_timeout(60);
  httplib::Result answer = client.Get(path, headers_of(node));
  if (!answer)
    return Error(Code::kUnavailable,
                 "the node (pid " + std::to_string(node.pid) + ") does not answer on its admin port " +
                     std::to_string(node.admin_port) +
                     ": it is starting, stopping or stuck; see log/headraced.jsonl in its state directory");
  return parse_answer(answer);
}

Result<json> command(const NodeFile& node, const std::string& path, const json& body,
                     const std::function<std::string(const json& status)>& line) {
  httplib::Client client("127.0.0.1", node.admin_port);
  client.set_read_timeout(24 * 3600);
  std::atomic<bool> done = false;
  std::thread progress([&] {
    ProgressLine shown;
    for (int i = 0; !done; ++i) {
      ::usleep(100'000);
      if (!shown.terminal() || !line || i % 10 != 9 || done) continue;
      Result<json> now = ask(node, "/status");
      if (now.ok() && !done) shown.show(line(*now));
    }
  });
  httplib::Result answer = client.Post(path, headers_of(node), json_text(body), "application/json");
  done = true;
  progress.join();
  if (!answer)
    return Error(Code::kUnavailable,
                 "the node (pid " + std::to_string(node.pid) +
                     ") went away before it was done: see log/headraced.jsonl in its state directory");
  return parse_answer(answer);
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  std::string out = std::filesystem::absolute(path, error).lexically_normal().string();
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

std::string bytes_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  auto whole = static_cast<uint64_t>(std::ceil(seconds));
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

ProgressLine::ProgressLine() : terminal_(::isatty(2) != 0) {}

void ProgressLine::show(const std::string& text) {
  if (!terminal_) return;
  std::string padded = text;
  if (padded.size() < width_) padded.append(width_ - padded.size(), ' ');
  width_ = text.size();
  std::fprintf(stderr, "\r%s", padded.c_str());
  std::fflush(stderr);
}

std::string UploadRate::text(const json& status) {
  uint64_t now = status.value("upload", json::object()).value("bytes", 0ULL);
  if (!begun_) first_ = now;
  begun_ = true;
  seconds_ += 1;
  uint64_t sent = now - first_;
  double rate = static_cast<double>(sent) / seconds_;
  std::string line = bytes_text(sent) + " of about " + bytes_text(std::max(total_, sent)) + ", " +
                     bytes_text(static_cast<uint64_t>(rate)) + "/s";
  if (rate > 0 && total_ > sent) line += ", " + duration_text(static_cast<double>(total_ - sent) / rate) + " left";
  if (std::string trouble = status.value("bucket_trouble", ""); !trouble.empty()) line += "; " + trouble;
  return line;
}

void ProgressLine::end() {
  if (terminal_ && width_ > 0) std::fprintf(stderr, "\n");
  width_ = 0;
}

namespace {

struct MountOfPath {
  std::string directory;
  std::string state;
  std::string inside;  // the path below it, from "/"
};

// The mounting process names its directory and its state in its arguments. (Nothing is asked of the mount itself: it
// may hang.)
std::optional<MountOfPath> mount_of(const std::string& path) {
  std::error_code error;
  const std::string whole = absolute_path(path);
  std::optional<MountOfPath> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    std::ifstream in(entry.path() / "cmdline", std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    std::vector<std::string> arguments;
    for (size_t at = 0; at < text.size();) {
      size_t end = text.find('\0', at);
      if (end == std::string::npos) end = text.size();
      arguments.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    if (arguments.size() < 2 || !arguments[0].ends_with("headrace-mount")) continue;
    const std::string directory = absolute_path(arguments[1]);
    if (whole != directory && !whole.starts_with(directory + "/")) continue;
    if (found && found->directory.size() >= directory.size()) continue;  // the innermost
    auto at = std::find(arguments.begin(), arguments.end(), "--state");
    if (at == arguments.end() || at + 1 == arguments.end()) continue;
    std::string inside = whole.substr(directory.size());
    found = MountOfPath{directory, *(at + 1), inside.empty() ? "/" : inside};
  }
  return found;
}

}  // namespace

std::string state_of_mount(const std::string& path, const std::string& otherwise) {
  std::optional<MountOfPath> mount = mount_of(path);
  return mount ? mount->state : otherwise;
}

std::string path_in_namespace(const std::string& path) {
  std::optional<MountOfPath> mount = mount_of(path);
  if (mount) return mount->inside;
  return path.starts_with('/') ? path : "/" + path;
}

}  // namespace headrace
