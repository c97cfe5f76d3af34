// The one place where the kernel's errno becomes a Code.
#pragma once

#include <string>

#include "base/result.h"

namespace headrace {

// `error` is a positive errno. The message is "WHAT: reason": name the call and its path or address
// in `what`.
[[nodiscard]] Code code_of_errno(int error);
[[nodiscard]] Error errno_error(int error, std::string what);

}  // namespace headrace
