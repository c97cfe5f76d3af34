// up, rehydrate, stop, mount, umount, spin-down: they start and end processes.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "apps/cli/cli.h"
#include "apps/devices.h"
#include "apps/process.h"
#include "gateway/fuse/mount.h"

namespace headrace {

using nlohmann::json;

namespace {

constexpr int kStopSeconds = 60;
constexpr const char* kDefaultMount = "/mnt/headrace";

std::string log_of(const std::string& state, const char* name) {
  return state + "/log/" + name;
}

Result<int> start_mount(const std::string& state, const std::string& directory, const NodeFile& node,
                        bool noatime = false) {
  std::error_code error;
  std::filesystem::create_directories(state + "/log", error);
  std::vector<std::string> arguments{directory, "--node", node.address, "--state", state};
  if (noatime) arguments.push_back("--noatime");
  return start_daemon("headrace-mount", arguments, log_of(state, "mount.log"));
}

Result<void> make_state(const std::string& state) {
  HR_TRY(check_state_path(state));
  std::error_code error;
  std::filesystem::create_directories(state + "/log", error);
  if (!error && ::access(state.c_str(), W_OK | X_OK) != 0) error = std::error_code(errno, std::generic_category());
  if (!error) return {};
  std::string mend = error == std::errc::permission_denied ? ": run as the user who owns it, or choose another --state"
                     : error == std::errc::no_space_on_device ? ": free some space, or choose another --state"
                                                              : ": choose another --state";
  return Error(Code::kInvalid, "the state directory " + state + " cannot be used: " + error.message() + mend);
}

Result<std::vector<std::string>> node_arguments(const CliOptions& options) {
  std::vector<std::string> out{"--state", options.state};
  if (!options.protection.empty()) out.insert(out.end(), {"--protection", options.protection});
  if (!options.targets.empty()) {
    // Paths are the caller's, and the node has another working directory.
    HR_TRY(TargetPlaces places, parse_target_places(options.targets));
    std::string text = places.paths.empty() ? std::to_string(places.count) : "";
    for (const std::string& path : places.paths) text += (text.empty() ? "" : ",") + path;
    out.insert(out.end(), {"--targets", text});
  }
  if (!options.bucket.empty()) out.insert(out.end(), {options.rehydrate ? "--rehydrate" : "--bucket", options.bucket});
  if (options.take_over) out.push_back("--take-over");
  if (options.force) out.push_back("--force");
  if (options.scrub_days > 0) out.insert(out.end(), {"--scrub-days", std::to_string(options.scrub_days)});
  if (options.capacity_mib > 0) out.insert(out.end(), {"--capacity-mib", std::to_string(options.capacity_mib)});
  return out;
}

}  // namespace

int run_up(CliOptions options) {
  options.state = absolute_path(options.state);
  Result<std::vector<std::string>> arguments = node_arguments(options);
  if (!arguments.ok()) return fail(arguments.error());
  Result<void> made = make_state(options.state);
  if (!made.ok()) return fail(made.error());
  Result<NodeFile> running = read_node_file(options.state);
  if (running.ok() && options.rehydrate)
    return fail("a node runs on " + options.state + " already (pid " + std::to_string(running->pid) +
                "): choose an empty --state");
  if (!running.ok()) {
    Result<int> started = start_daemon("headraced", *arguments, log_of(options.state, "headraced.log"));
    if (!started.ok()) return fail(started.error());
    running = read_node_file(options.state);
    if (!running.ok()) return fail(running.error());
  }
  if (!options.mount.empty()) {
    Result<int> mounted = start_mount(options.state, options.mount, *running);
    if (!mounted.ok()) return fail(Error(mounted.error()).within("the node serves, but it could not be mounted"));
  }
  Result<json> now = ask(*running, "/status");
  if (!now.ok()) return fail(now.error());
  std::printf("headrace: serving %s%s%s\n", options.state.c_str(), options.mount.empty() ? ", not mounted" : " at ",
              options.mount.c_str());
  if (options.mount.empty()) std::printf("  mount it: headrace mount DIR --state %s\n", options.state.c_str());
  const json targets = now->value("targets", json::array());
  uint64_t capacity = 0;
  size_t live = 0;
  for (const json& target : targets) {
    if (target.value("state", "") != "live") continue;
    ++live;
    capacity += target.value("capacity", 0ULL);
  }
  std::printf("  namespace %s, epoch %d: %llu files, %s\n", now->value("namespace", "").c_str(),
              now->value("namespace_epoch", 0), static_cast<unsigned long long>(now->value("files", 0ULL)),
              bytes_text(now->value("bytes", 0ULL)).c_str());
  std::printf("  targets %zu under %s/targets, %s in all, protection %s\n", live, options.state.c_str(),
              bytes_text(capacity).c_str(), now->value("protection", "").c_str());
  std::printf("  bucket %s\n", now->value("bucket", "").c_str());
  if (!now->value("read_only", "").empty()) std::printf("  read-only: %s\n", now->value("read_only", "").c_str());
  for (const json& target : targets)
    if (target.value("state", "") == "lost") {
      const std::string name = target.value("name", ""), reason = target.value("reason", "");
      std::printf("  target %s is lost: headrace target replace %s --state %s\n", name.c_str(), name.c_str(),
                  options.state.c_str());
      if (!reason.empty()) std::printf("    %s\n", reason.c_str());
    }
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
  return run_stop(options);
}

int run_stop(const CliOptions& options) {
  bool all = true;
  // Twice: one that was being taken over has a successor, which was told to end as well.
  for (int round = 0; round < 2 && all; ++round) {
    for (const MountFile& mount : read_mount_files(options.state)) {
      if (end_process(mount.pid, kStopSeconds)) continue;
      std::fprintf(stderr, "headrace: the mount at %s does not end: files are open there (fuser -m %s shows whose)\n",
                   mount.directory.c_str(), mount.directory.c_str());
      all = false;
    }
  }
  Result<NodeFile> node = read_node_file(options.state);
  // One that is just starting has the lock of the state and no file there yet.
  const std::optional<int> pid = node.ok() ? std::optional(node->pid) : holder_of_lock(options.state + "/lock");
  if (!pid) return all ? 0 : 1;
  if (!end_process(*pid, kStopSeconds))
    return fail("the node (pid " + std::to_string(*pid) + ") does not end within " + std::to_string(kStopSeconds) +
                " s; nothing that was acknowledged is lost if it is killed");
  return all ? 0 : 1;
}

namespace {

// As mount files name it. What is mounted there is not looked at: it may hang.
std::string resolved_mount_point(const std::string& directory) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(directory, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::filesystem::path parent = std::filesystem::canonical(path.parent_path(), error);
  return error ? path.string() : (parent / path.filename()).string();
}

std::optional<MountFile> mount_at(const std::string& state, const std::string& directory, int other_than = 0) {
  const std::string resolved = resolved_mount_point(directory);
  for (MountFile& mount : read_mount_files(state))
    if (mount.directory == resolved && mount.pid != other_than) return std::move(mount);
  return std::nullopt;
}

int upgrade_mount(const std::string& state, const NodeFile& node, const std::string& directory) {
  std::optional<MountFile> mount = mount_at(state, directory);
  if (!mount)
    return fail("no process of " + state + " serves a mount at " + directory + ": mount it with `headrace mount " +
                directory + " --state " + state + "`");
  Result<int> started = start_daemon(
      "headrace-mount",
      {mount->directory, "--node", node.address, "--state", state, "--take-over", std::to_string(mount->pid)},
      log_of(state, "mount.log"));
  if (!started.ok())
    return fail(Error(started.error()).within("the mount at " + mount->directory + " is served as before"));
  std::printf("%s is served by process %d now\n", mount->directory.c_str(), *started);
  return 0;
}

}  // namespace

int run_mount(const CliOptions& options) {
  const std::string state = absolute_path(options.state);
  Result<NodeFile> node = read_node_file(state);
  if (!node.ok()) return fail(node.error());
  const std::string directory = options.mount.empty() ? kDefaultMount : options.mount;
  if (options.upgrade) return upgrade_mount(state, *node, directory);
  Result<int> mounted = start_mount(state, directory, *node, options.noatime);
  if (!mounted.ok()) return fail(mounted.error());
  if (options.detach) return 0;
  for (int pid = *mounted;;) {
    while (alive(pid)) ::sleep(1);
    std::optional<MountFile> successor = mount_at(state, directory, pid);
    if (!successor) return 0;
    pid = successor->pid;
  }
}

int run_umount(const CliOptions& options) {
  Result<void> done = unmount_directory(options.mount, false);
  return done.ok() ? 0 : fail(done.error());
}

int run_spin_down(const CliOptions& options) {
  Result<NodeFile> node = read_node_file(options.state);
  if (!node.ok()) return fail(node.error());
  if (options.undo) {
    Result<json> undone = command(*node, "/spin-down/undo", json::object(), {});
    if (!undone.ok()) return fail(undone.error());
    std::printf("the spin-down was undone; the namespace serves again\n");
    return 0;
  }
  Result<json> before = ask(*node, "/tier");
  uint64_t total = before.ok() ? before->value("pending_bytes", 0ULL) + before->value("staged_bytes", 0ULL) : 0;
  UploadRate rate(total);
  Result<json> done = command(*node, "/spin-down", json::object(), [&rate](const json& status) {
    json down = status.value("spin_down", json::object());
    uint64_t sessions = down.value("sessions", 0ULL);
    std::string waits = sessions > 0 ? "waiting for " + std::to_string(sessions) + " client sessions with " +
                                           std::to_string(down.value("grants", 0ULL)) + " grants; "
                                     : "";
    return "spinning down: " + waits + rate.text(status);
  });
  if (!done.ok())
    return fail(Error(done.error()).within("not spun down (again, or undo it with `headrace spin-down --undo`)"));
  for (const json& client : done->value("evicted", json::array()))
    std::fprintf(stderr, "headrace: client %s did not answer: what it had not synced is lost\n",
                 client.get<std::string>().c_str());
  bool all = true;
  for (const MountFile& mount : read_mount_files(options.state)) {
    if (end_process(mount.pid, kStopSeconds)) continue;
    std::fprintf(stderr,
                 "headrace: everything is in the bucket, but the mount at %s does not end: files are open there\n",
                 mount.directory.c_str());
    all = false;
  }
  if (!end_process(node->pid, kStopSeconds))
    return fail("everything is in the bucket, but the node (pid " + std::to_string(node->pid) + ") does not end");
  std::printf("everything is in the bucket; %s may be deleted\n", options.state.c_str());
  return all ? 0 : 1;
}

}  // namespace headrace
