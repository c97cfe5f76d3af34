// Starting daemons and waiting for them, for the command line; what a daemon says to whoever started it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/timers.h"

namespace headrace {

// Starts `program` (of this executable's own directory) in a session of its own, its output appended to `log`, with
// `--ready-fd N` added, and waits until it says that it is ready. The error is the one that it told.
[[nodiscard]] Result<int> start_daemon(const std::string& program, std::vector<std::string> arguments,
                                       const std::string& log);
// Whoever started this process is told once, a line "ready" or "error: …", on the descriptor that it gave; what there
// is to say afterwards, `ready_fd` being -1 from then on, is said on standard error.
void tell_starter(int& ready_fd, const std::string& line);
// SIGTERM, then waits; false when it still lives after that many seconds.
[[nodiscard]] bool end_process(int pid, int seconds);
// The process that has the flock of this file; none where nobody has, or it cannot be told.
[[nodiscard]] std::optional<int> holder_of_lock(const std::string& path);
// A process that begins anew of its own, since something failed: how long it waits before, for the so many-th time, and
// how often it has, once it served for so long. Trouble that comes back soon after counts on.
[[nodiscard]] Nanos pause_before_restart(uint32_t restarts);
[[nodiscard]] uint32_t restarts_that_count(uint32_t restarts, Nanos served);
// As many open files as the system lets this process have: the usual limit, 1,024, is for programs that use select(2).
void raise_descriptor_limit();

}  // namespace headrace
