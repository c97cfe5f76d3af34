// headrace: the command line. It starts and stops the processes of a state directory and asks the node's admin API.
#include <fcntl.h>
#include <httplib.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/process.h"
#include "apps/state.h"
#include "gateway/fuse/mount.h"

namespace headrace {
namespace {

using nlohmann::json;
constexpr const char* kVersion = "0.1.0";
constexpr int kStopSeconds = 60;

struct Options {
  std::string state = "/var/lib/headrace";
  std::string mount;
  std::string protection;
  std::string targets;
  std::string bucket;
  uint64_t capacity_mib = 0;
  bool detach = false;
  bool as_json = false;
  bool rehydrate = false;
  bool take_over = false;
  std::string path;
  bool wait = false;
};

int fail(const std::string& what) {
  std::fprintf(stderr, "headrace: %s\n", what.c_str());
  return 1;
}
int fail(const Error& error) { return fail(error.message()); }

Result<json> ask(const NodeFile& node, const std::string& path) {
  httplib::Client client("127.0.0.1", node.admin_port);
  client.set_read_timeout(60);
  httplib::Result answer = client.Get(path, {{"Authorization", "Bearer " + node.admin_token}});
  if (!answer) return Error(Code::kUnavailable, "the node (pid " + std::to_string(node.pid) + ") does not answer on its admin port");
  json body = json::parse(answer->body, nullptr, false);
  if (answer->status != 200)
    return Error(Code::kUnavailable, body.is_object() && body.contains("error") ? body["error"].value("message", "") : "HTTP " + std::to_string(answer->status));
  return body;
}

// A POST that may take long: what it does is told from /status meanwhile.
Result<json> command(const NodeFile& node, const std::string& path, const char* doing) {
  httplib::Client client("127.0.0.1", node.admin_port);
  client.set_read_timeout(24 * 3600);
  std::atomic<bool> done = false;
  std::thread progress([&] {
    bool terminal = ::isatty(2) != 0;
    for (int i = 0; !done; ++i) {
      ::usleep(100'000);
      if (!terminal || i % 10 != 9) continue;
      Result<json> now = ask(node, "/status");
      if (!now.ok() || done) continue;
      std::fprintf(stderr, "\r%s: %llu segments sent, %.1f MiB in the bucket   ", doing,
                   static_cast<unsigned long long>((*now)["upload"].value("segments", 0ULL)),
                   static_cast<double>(now->value("bucket_bytes", 0ULL)) / 1048576.0);
    }
    if (terminal) std::fprintf(stderr, "\n");
  });
  httplib::Result answer = client.Post(path, {{"Authorization", "Bearer " + node.admin_token}}, "{}", "application/json");
  done = true;
  progress.join();
  if (!answer) return Error(Code::kUnavailable, "the node (pid " + std::to_string(node.pid) + ") went away: see its log");
  json body = json::parse(answer->body, nullptr, false);
  if (answer->status != 200)
    return Error(Code::kUnavailable, body.is_object() && body.contains("error") ? body["error"].value("message", "") : "HTTP " + std::to_string(answer->status));
  return body;
}

Result<int> start_mount(const Options& options, const NodeFile& node) {
  std::error_code error;
  std::filesystem::create_directories(options.state + "/log", error);
  return start_daemon("headrace-mount", {options.mount, "--node", node.address, "--state", options.state}, options.state + "/log/mount.log");
}

int stop(const Options& options) {
  bool all = true;
  for (const MountFile& mount : read_mount_files(options.state)) {
    if (end_process(mount.pid, kStopSeconds)) continue;
    std::fprintf(stderr, "headrace: the mount at %s does not end: files are open there\n", mount.directory.c_str());
    all = false;
  }
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return all ? 0 : 1;
  if (!end_process(node->pid, kStopSeconds)) return fail("the node (pid " + std::to_string(node->pid) + ") does not end");
  return all ? 0 : 1;
}

int up(Options& options) {
  std::error_code error;
  std::filesystem::create_directories(options.state + "/log", error);
  if (error) return fail(options.state + ": " + error.message());
  options.state = std::filesystem::absolute(options.state).string();
  Result<NodeFile> running = read_node_file(options.state);
  if (!running.ok()) {
    std::vector<std::string> arguments{"--state", options.state};
    if (!options.protection.empty()) arguments.insert(arguments.end(), {"--protection", options.protection});
    if (!options.targets.empty()) arguments.insert(arguments.end(), {"--targets", options.targets});
    if (!options.bucket.empty()) arguments.insert(arguments.end(), {options.rehydrate ? "--rehydrate" : "--bucket", options.bucket});
    if (options.take_over) arguments.push_back("--take-over");
    if (options.capacity_mib > 0) arguments.insert(arguments.end(), {"--capacity-mib", std::to_string(options.capacity_mib)});
    Result<int> started = start_daemon("headraced", arguments, options.state + "/log/headraced.log");
    if (!started.ok()) return fail(started.error());
    running = read_node_file(options.state);
    if (!running.ok()) return fail(running.error());
  }
  if (!options.mount.empty()) {
    Result<int> mounted = start_mount(options, *running);
    if (!mounted.ok()) return fail(mounted.error());
  }
  std::printf("headrace: serving %s%s%s\n", options.state.c_str(), options.mount.empty() ? "" : " at ", options.mount.c_str());
  std::printf("  survives lost files and bad blocks of its targets, not the loss of the disk under them\n");
  if (options.detach) return 0;
  std::printf("  press Ctrl-C to stop\n");
  std::fflush(stdout);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  int signal = 0;
  sigwait(&signals, &signal);
  return stop(options);
}

int status(const Options& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> body = ask(*node, "/status");
  if (!body.ok()) return fail(body.error());
  if (options.as_json) {
    std::printf("%s\n", body->dump(2).c_str());
    return 0;
  }
  std::printf("namespace  %s, epoch %d, %s\n", body->value("namespace", "").c_str(), body->value("namespace_epoch", 0), body->value("protection", "").c_str());
  std::printf("owner      %s\n", body->value("owner", "").c_str());
  std::printf("files      %llu, %.1f MiB\n", static_cast<unsigned long long>(body->value("files", 0ULL)), static_cast<double>(body->value("bytes", 0ULL)) / 1048576.0);
  std::printf("hot        %.1f MiB; in the bucket %.1f MiB in %llu objects\n", static_cast<double>(body->value("hot_bytes", 0ULL)) / 1048576.0,
              static_cast<double>(body->value("bucket_bytes", 0ULL)) / 1048576.0, static_cast<unsigned long long>(body->value("objects", 0ULL)));
  std::printf("degraded   %llu reads\n", static_cast<unsigned long long>(body->value("degraded_reads", 0ULL)));
  for (const json& target : (*body)["targets"])
    std::printf("target     %s  %.1f of %.1f MiB%s%s\n", target.value("id", "").c_str(), static_cast<double>(target.value("used", 0ULL)) / 1048576.0,
                static_cast<double>(target.value("capacity", 0ULL)) / 1048576.0, target.value("reason", "").empty() ? "" : "  ", target.value("reason", "").c_str());
  for (const json& partition : (*body)["partitions"])
    std::printf("partition  %d  %s\n", partition.value("id", 0), partition.value("state", "").c_str());
  return 0;
}

// The state directory whose mount a path lies in: the mounting process names it in its arguments.
std::string state_of_mount(const std::string& path, const std::string& otherwise) {
  std::error_code error;
  std::string whole = std::filesystem::absolute(path, error).string();
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
    std::string directory = std::filesystem::weakly_canonical(arguments[1], error).string();
    if (whole != directory && !whole.starts_with(directory + "/")) continue;
    auto at = std::find(arguments.begin(), arguments.end(), "--state");
    if (at != arguments.end() && at + 1 != arguments.end()) return *(at + 1);
  }
  return otherwise;
}

int push(const Options& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  // (The node asks every client for what it still holds in memory.)
  Result<json> done = command(*node, "/tier/push", "pushing");
  if (!done.ok()) return fail(done.error());
  std::printf("everything is in the bucket; cut %s is published\n", done->value("published", "").c_str());
  return 0;
}

int spin_down(const Options& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<json> done = command(*node, "/spin-down", "spinning down");
  if (!done.ok()) return fail(done.error());
  for (const json& client : (*done)["evicted"]) std::fprintf(stderr, "headrace: client %s: what it had not synced is lost\n", client.get<std::string>().c_str());
  bool all = true;
  for (const MountFile& mount : read_mount_files(options.state)) all &= end_process(mount.pid, kStopSeconds);
  if (!end_process(node->pid, kStopSeconds)) return fail("everything is in the bucket, but the node (pid " + std::to_string(node->pid) + ") does not end");
  std::printf("everything is in the bucket; %s may be deleted\n", options.state.c_str());
  return all ? 0 : 1;
}

int mount(Options& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  Result<int> mounted = start_mount(options, *node);
  if (!mounted.ok()) return fail(mounted.error());
  if (options.detach) return 0;
  while (alive(*mounted)) ::sleep(1);
  return 0;
}

int umount(const Options& options) {
  Result<void> done = unmount_directory(options.mount, false);
  return done.ok() ? 0 : fail(done.error());
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"headrace: one POSIX namespace over the NVMe of many instances"};
  app.require_subcommand(1);
  auto state = [&](CLI::App* command) { command->add_option("--state", options.state, "directory of the node's state")->capture_default_str(); };
  CLI::App* c_up = app.add_subcommand("up", "start a node on this machine (again, on an existing state), and mount it");
  state(c_up);
  c_up->add_option("--targets", options.targets, "how many targets a new namespace gets (default 6)");
  c_up->add_option("--protection", options.protection, "of a new namespace: D+P or replica-N (default 4+2)");
  c_up->add_option("--capacity-mib", options.capacity_mib, "of each new target (default: from the free space)");
  c_up->add_option("--bucket", options.bucket, "where everything is tiered to");
  c_up->add_option("--mount", options.mount, "where to mount");
  c_up->add_flag("--detach", options.detach, "return when it serves");
  CLI::App* c_stop = app.add_subcommand("stop", "unmount, then stop the node; nothing is lost");
  state(c_stop);
  CLI::App* c_status = app.add_subcommand("status", "what the node says of itself");
  state(c_status);
  c_status->add_flag("--json", options.as_json, "all of it, for programs");
  CLI::App* c_mount = app.add_subcommand("mount", "one more mount of a running node");
  c_mount->add_option("directory", options.mount, "where")->required();
  state(c_mount);
  c_mount->add_flag("--detach", options.detach, "return when it is mounted");
  CLI::App* c_umount = app.add_subcommand("umount", "unmount");
  c_umount->add_option("directory", options.mount, "where")->required();
  CLI::App* c_tier = app.add_subcommand("tier", "what is in the bucket");
  c_tier->require_subcommand(1);
  CLI::App* c_push = c_tier->add_subcommand("push", "bring everything into the bucket and publish it");
  c_push->add_option("path", options.path, "a path of the mount: its unsynced data is sent first");
  c_push->add_flag("--wait", options.wait, "return when it is done (it always does)");
  CLI::App* c_tier_status = c_tier->add_subcommand("status", "as `headrace status`");
  c_tier_status->add_flag("--json", options.as_json, "for programs");
  c_push->add_option("--state", options.state, "directory of the node's state");
  state(c_tier_status);
  CLI::App* c_spin_down = app.add_subcommand("spin-down", "everything into the bucket, then end mounts and node");
  state(c_spin_down);
  CLI::App* c_rehydrate = app.add_subcommand("rehydrate", "bring a namespace back from its bucket");
  c_rehydrate->add_option("bucket", options.bucket, "its URL")->required();
  state(c_rehydrate);
  c_rehydrate->add_option("--mount", options.mount, "where to mount");
  c_rehydrate->add_option("--targets", options.targets, "how many targets (default 6)");
  c_rehydrate->add_option("--protection", options.protection, "of new data (default 4+2)");
  c_rehydrate->add_option("--capacity-mib", options.capacity_mib, "of each target (default: from the free space)");
  c_rehydrate->add_flag("--take-over", options.take_over, "although another cluster still owns it; that one turns read-only");
  c_rehydrate->add_flag("--detach", options.detach, "return when it serves");
  CLI::App* c_version = app.add_subcommand("version", "print the version");
  CLI11_PARSE(app, argc, argv);

  if (*c_up) return up(options);
  if (*c_rehydrate) {
    options.rehydrate = true;
    return up(options);
  }
  if (*c_push) {
    if (c_push->count("--state") == 0) options.state = state_of_mount(options.path, options.state);
    return push(options);
  }
  if (*c_tier_status) return status(options);
  if (*c_spin_down) return spin_down(options);
  if (*c_stop) return stop(options);
  if (*c_status) return status(options);
  if (*c_mount) return mount(options);
  if (*c_umount) return umount(options);
  if (*c_version) std::printf("headrace %s\n", kVersion);
  return 0;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) { return headrace::run(argc, argv); }
