// The process's environment variables, or a test's: whence credentials come.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace headrace {

using EnvironmentLookup = std::function<std::optional<std::string>(const std::string&)>;
[[nodiscard]] std::optional<std::string> process_environment(const std::string& name);

}  // namespace headrace
