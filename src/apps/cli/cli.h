// The commands of `headrace`: what they share, and one function per command that returns the exit status.
//
// A command finds the processes of a state directory by its files (apps/state.h), asks the node's admin API, and says
// on stderr what is wrong and how to mend it. Results go to stdout; progress to stderr, on a terminal only.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/state.h"
#include "base/result.h"

namespace headrace {

struct CliOptions {
  std::string state;  // default_state() unless given
  std::string mount;
  std::string protection;
  std::string targets;
  std::string bucket;
  uint64_t capacity_mib = 0;
  bool force = false;
  double scrub_days = 0;  // 0: as the node has it
  bool detach = false;
  bool noatime = false;
  bool as_json = false;
  bool rehydrate = false;
  bool take_over = false;
  bool undo = false;
  bool wait = false;
  bool upgrade = false;
  std::string path;
  std::string target;  // "t3"
  std::string destination;
  std::string shell;
};

// As root /var/lib/headrace, otherwise ~/.local/state/headrace.
[[nodiscard]] std::string default_state();

// ---- lifecycle.cc ----
[[nodiscard]] int run_up(CliOptions options);  // also rehydrate
[[nodiscard]] int run_stop(const CliOptions& options);
[[nodiscard]] int run_mount(const CliOptions& options);
[[nodiscard]] int run_umount(const CliOptions& options);
[[nodiscard]] int run_spin_down(const CliOptions& options);
// ---- status.cc ----
[[nodiscard]] int run_status(const CliOptions& options);
[[nodiscard]] int run_tier_status(const CliOptions& options);
// ---- tier.cc ----
[[nodiscard]] int run_push(const CliOptions& options);
[[nodiscard]] int run_fetch(const CliOptions& options);
[[nodiscard]] int run_pin(const CliOptions& options);
[[nodiscard]] int run_release(const CliOptions& options);
[[nodiscard]] int run_pins(const CliOptions& options);
// ---- target.cc ----
[[nodiscard]] int run_target_list(const CliOptions& options);
[[nodiscard]] int run_target_replace(const CliOptions& options);
[[nodiscard]] int run_target_remove(const CliOptions& options);
[[nodiscard]] int run_target_scrub(const CliOptions& options);
// ---- recover_command.cc ----
[[nodiscard]] int run_recover(const CliOptions& options);
// ---- unpack_command.cc ----
[[nodiscard]] int run_unpack(const CliOptions& options);
// ---- completion.cc ----
struct CommandNames {  // the tree of commands, as the parser has it
  std::string name;
  std::string about;
  std::vector<std::string> options;  // "--state"
  std::vector<CommandNames> commands;
};
[[nodiscard]] int run_completion(const std::string& shell, const CommandNames& root);

// ---- shared (cli.cc) ----
int fail(const std::string& what);  // on stderr; 1
int fail(const Error& error);
// Asks the node's admin API. kUnavailable, with what the node said, when it did not answer with success.
[[nodiscard]] Result<nlohmann::json> ask(const NodeFile& node, const std::string& path);
// A POST that may take long; while it does, `line` of /status is shown every second on a terminal.
[[nodiscard]] Result<nlohmann::json> command(const NodeFile& node, const std::string& path, const nlohmann::json& body,
                                             const std::function<std::string(const nlohmann::json& status)>& line);
[[nodiscard]] std::string absolute_path(const std::string& path);  // without a slash at its end
[[nodiscard]] std::string bytes_text(uint64_t bytes);              // "12.3 MiB"
[[nodiscard]] std::string duration_text(double seconds);           // "3 min 5 s"
// One line on stderr that is written over; nothing where stderr is no terminal.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { end(); }
  void show(const std::string& text);
  void end();
  [[nodiscard]] bool terminal() const { return terminal_; }

 private:
  bool terminal_;
  size_t width_ = 0;
};
// How far an upload is, from one /status to the next, a second apart.
class UploadRate {
 public:
  explicit UploadRate(uint64_t total) : total_(total) {}         // bytes, as far as known
  [[nodiscard]] std::string text(const nlohmann::json& status);  // "12 MiB of about 80 MiB, 3 MiB/s, 23 s left"

 private:
  uint64_t total_;
  bool begun_ = false;
  uint64_t first_ = 0;
  double seconds_ = 0;
};
// The state directory of the mount that a path lies in; `otherwise` when it is in none.
[[nodiscard]] std::string state_of_mount(const std::string& path, const std::string& otherwise);
// The path as the namespace has it: below the mount that it lies in. One in no mount is the namespace's own, from "/".
[[nodiscard]] std::string path_in_namespace(const std::string& path);

}  // namespace headrace
