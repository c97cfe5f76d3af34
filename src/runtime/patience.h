// within: a task that is waited for as long as patience lasts.
//
// Patience runs out while this process runs: in slices of which one that stood still for an hour misses one.
#pragma once

#include <optional>
#include <utility>

#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

inline constexpr int kPatienceSlices = 30;

namespace patience_detail {
template <class T>
Task<void> into(std::optional<T>* slot, Event* done, Task<T> task) {
  T value = co_await std::move(task);
  slot->emplace(std::move(value));
  done->set();
}
}  // namespace patience_detail

// Nothing: it had not ended when patience ran out, and was destroyed where it stood. The clock outlives it.
template <class T>
[[nodiscard]] Task<std::optional<T>> within(Clock& clock, Nanos patience, Task<T> task) {
  std::optional<T> slot;
  Event done;
  Scope scope;  // last: destroyed first, so that no child outlives its slot
  scope.spawn(patience_detail::into(&slot, &done, std::move(task)));
  for (int slice = 0; slice < kPatienceSlices && !done.is_set(); ++slice)
    (void)co_await done.wait_until(clock, clock.now() + patience / kPatienceSlices);
  co_return std::move(slot);
}

}  // namespace headrace
