// How a file's times move on, in nanoseconds since 1970. They do not go back because clocks differ a little. One that
// somebody set further ahead than that says nothing of clocks: the next change is now.
#pragma once

#include <algorithm>
#include <cstdint>

namespace headrace {

inline constexpr int64_t kClocksDiffer = 1'000'000'000;

[[nodiscard]] constexpr bool lies_ahead(int64_t time, int64_t now) {
  return time > now && time - kClocksDiffer > now;
}
// After a change at `to`.
[[nodiscard]] constexpr int64_t moved_to(int64_t time, int64_t to, int64_t now) {
  return lies_ahead(time, now) ? to : std::max(time, to);
}
// After a change that must show: never the same as before.
[[nodiscard]] constexpr int64_t moved_on(int64_t time, int64_t now) {
  return lies_ahead(time, now) ? now : std::max(time + 1, now);
}

}  // namespace headrace
