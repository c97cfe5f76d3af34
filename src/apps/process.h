// Starting daemons and waiting for them, for the command line.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace headrace {

// Starts `program` (of this executable's own directory) in a session of its own, its output appended to `log`, with
// `--ready-fd N` added, and waits until it says that it is ready. The error is the one that it told.
[[nodiscard]] Result<int> start_daemon(const std::string& program, std::vector<std::string> arguments,
                                       const std::string& log);
// SIGTERM, then waits; false when it still lives after that many seconds.
[[nodiscard]] bool end_process(int pid, int seconds);

}  // namespace headrace
