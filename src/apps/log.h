// EventLog: what happened to a node, one JSON object per line, in STATE/log/headraced.jsonl.
//
// Every line has "time" (RFC 3339, UTC, milliseconds), "level" (info, warning) and "event"; the rest depends on the
// event. Rotated at 16 MiB, three old files are kept. No secret is ever given to it. Any thread. Owner: the process's
// main.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spdlog {
class logger;
}

namespace headrace {

class EventLog {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  // Makes the directory. A log that cannot be opened is an error; the process may go on without.
  [[nodiscard]] static Result<EventLog> open(const std::string& state);
  void info(const std::string& event, const Fields& fields = {}) const { write(false, event, fields); }
  void warning(const std::string& event, const Fields& fields = {}) const { write(true, event, fields); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  void write(bool warning, const std::string& event, const Fields& fields) const;
  std::shared_ptr<spdlog::logger> logger_;
  std::string path_;
};

}  // namespace headrace
