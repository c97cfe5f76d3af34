// What helps where an object of the bucket that something names is damaged or gone.
#pragma once

#include <string>

#include "base/result.h"

namespace headrace {

// A service that lied once may tell the truth the next time; what stays damaged is damaged.
inline constexpr int kCorruptAttempts = 4;

// To be appended to the error's message; "" for errors that it does not help with.
[[nodiscard]] inline std::string put_back_hint(Code code) {
  if (code == Code::kCorrupt) return ": it is damaged; put the object back from a copy or a version of it";
  if (code == Code::kNotFound) return ": it is gone; put the object back from a copy or a version of it";
  return "";
}

}  // namespace headrace
