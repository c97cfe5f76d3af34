// ServerProcess: a program of somebody else's that tests and demos start, stopped by its pid in the
// destructor (and by the kernel when we die).
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace headrace {

class ServerProcess {
 public:
  // arguments[0] is the program's path; variables ("NAME=VALUE") are its whole environment. What it
  // says goes to the end of the file `log`.
  [[nodiscard]] static Result<std::unique_ptr<ServerProcess>> start(std::vector<std::string> arguments,
                                                                    std::vector<std::string> variables,
                                                                    std::string log);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // False from when it has ended.
  [[nodiscard]] bool running();
  // SIGSTOP and SIGCONT: a server that does not answer; on return all its threads stand still.
  void freeze(bool frozen);

  // From HEADRACE_TOOLS, build/tools of a parent directory, or PATH; empty when there is none.
  [[nodiscard]] static std::string find_program(const std::string& name);
  // Free now; another process may take it before the server does: try a few.
  [[nodiscard]] static int free_port();
  static void pause_ms(long ms);
  // The first 2,000 bytes.
  [[nodiscard]] static std::string text_of_log(const std::string& log);

 private:
  explicit ServerProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

}  // namespace headrace
