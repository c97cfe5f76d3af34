// STATE/node.json and STATE/mounts/PID.json: how the command line finds the processes of a state directory. 0600.
// Nothing removes them when a process is killed or the power fails, and after a restart of the machine their numbers
// belong to others: each names its process by the boot and the tick it started in as well.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace headrace {

struct NodeFile {
  int pid = 0;
  std::string address;  // of its rpc service
  int admin_port = 0;
  std::string admin_token;
};
struct MountFile {
  int pid = 0;
  std::string directory;
};

// kInvalid where it cannot be named in those files: they are JSON.
[[nodiscard]] Result<void> check_state_path(const std::string& state);
[[nodiscard]] Result<void> write_node_file(const std::string& state, const NodeFile& file);
// kNotFound: nothing runs there (a file left by a dead process counts as nothing).
[[nodiscard]] Result<NodeFile> read_node_file(const std::string& state);
void remove_node_file(const std::string& state);
[[nodiscard]] Result<void> write_mount_file(const std::string& state, const MountFile& file);
[[nodiscard]] std::vector<MountFile> read_mount_files(const std::string& state);  // of processes that live
void remove_mount_file(const std::string& state, int pid);

[[nodiscard]] bool alive(int pid);
// Of a live process: what no other has, on this machine, at any time. Empty: it has ended.
[[nodiscard]] std::string process_birth(int pid);

}  // namespace headrace
