// JSON of what may hold anything: names, and error texts of others. What is not UTF-8 in it is written as U+FFFD; the
// library would throw, and end the process.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace headrace {

inline std::string json_text(const auto& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace headrace
