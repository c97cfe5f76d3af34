#include "apps/state.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/json_text.h"

namespace headrace {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string node_path(const std::string& state) {
  return state + "/node.json";
}
std::string mount_path(const std::string& state, int pid) {
  return state + "/mounts/" + std::to_string(pid) + ".json";
}

Result<void> write_file(const std::string& path, const std::string& text) {
  std::string beside = path + ".new";
  int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool written = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) ::close(fd);
  if (!written || ::rename(beside.c_str(), path.c_str()) != 0)
    return Error(errno == ENOSPC ? Code::kNoSpace : Code::kIo, path + ": " + std::strerror(errno));
  return {};
}

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Null when the file is absent or is none of ours.
json read_json(const std::string& path) {
  json parsed = json::parse(read_text(path), nullptr, false);
  return parsed.is_object() ? parsed : json(nullptr);
}

// The fields of /proc/PID/stat behind the name, which may hold anything: the first is the state.
std::vector<std::string> stat_fields(int pid) {
  std::string text = read_text("/proc/" + std::to_string(pid) + "/stat");
  size_t name_end = text.rfind(')');
  std::istringstream in(name_end == std::string::npos ? "" : text.substr(name_end + 1));
  return {std::istream_iterator<std::string>(in), {}};
}

// The process that wrote it lives. Files of earlier versions have no birth.
bool lives(const json& file) {
  const int pid = file.value("pid", 0);
  const std::string birth = file.value("birth", "");
  return alive(pid) && (birth.empty() || birth == process_birth(pid));
}

}  // namespace

bool alive(int pid) {
  if (pid <= 0 || ::kill(pid, 0) != 0) return false;
  // A zombie has ended, but for its other threads: they may still be on their way out, and hold its files and locks.
  constexpr size_t kState = 0;
  constexpr size_t kThreads = 17;  // fields 3 and 20 of proc(5)
  std::vector<std::string> fields = stat_fields(pid);
  return fields.size() <= kThreads || fields[kState] != "Z" || std::atoi(fields[kThreads].c_str()) > 1;
}

std::string process_birth(int pid) {
  constexpr size_t kStartTime = 19;  // field 22 of proc(5), of which the name is the second
  std::vector<std::string> fields = stat_fields(pid);
  if (fields.size() <= kStartTime) return "";
  std::string boot = read_text("/proc/sys/kernel/random/boot_id");
  return boot.substr(0, boot.find('\n')) + "/" + fields[kStartTime];
}

Result<void> check_state_path(const std::string& state) {
  if (json::parse(json_text(json(state))) == state) return {};
  return Error(Code::kInvalid, "the state directory " + state +
                                   " has a name that is not UTF-8, and the files of the node's processes could not "
                                   "name it: choose another --state");
}

Result<void> write_node_file(const std::string& state, const NodeFile& file) {
  json out{{"pid", file.pid},
           {"birth", process_birth(file.pid)},
           {"address", file.address},
           {"admin_port", file.admin_port},
           {"admin_token", file.admin_token}};
  return write_file(node_path(state), json_text(out, 2) + "\n");
}

Result<NodeFile> read_node_file(const std::string& state) {
  json in = read_json(node_path(state));
  NodeFile file;
  if (in.is_object() && lives(in)) {
    file.pid = in.value("pid", 0);
    file.address = in.value("address", "");
    file.admin_port = in.value("admin_port", 0);
    file.admin_token = in.value("admin_token", "");
  }
  if (file.pid == 0)
    return Error(Code::kNotFound, "no node runs on " + state + ": start it with `headrace up --state " + state + "`");
  return file;
}

void remove_node_file(const std::string& state) {
  ::unlink(node_path(state).c_str());
}

Result<void> write_mount_file(const std::string& state, const MountFile& file) {
  std::error_code error;
  fs::create_directories(state + "/mounts", error);
  json out{{"pid", file.pid}, {"birth", process_birth(file.pid)}, {"directory", file.directory}};
  return write_file(mount_path(state, file.pid), json_text(out) + "\n");
}

std::vector<MountFile> read_mount_files(const std::string& state) {
  std::vector<MountFile> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(state + "/mounts", error)) {
    json in = read_json(entry.path().string());
    if (in.is_object() && lives(in)) out.push_back({in.value("pid", 0), in.value("directory", "")});
  }
  return out;
}

void remove_mount_file(const std::string& state, int pid) {
  ::unlink(mount_path(state, pid).c_str());
}

}  // namespace headrace
