// when_all: runs tasks side by side and returns their results in order. Bounded by its argument.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "runtime/scope.h"

namespace headrace {

namespace when_all_detail {
template <class T>
Task<void> into(std::optional<T>* slot, Task<T> task) {
  T value = co_await std::move(task);
  slot->emplace(std::move(value));
}
}  // namespace when_all_detail

template <class T>
[[nodiscard]] Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
  std::vector<std::optional<T>> slots(tasks.size());
  Scope scope;  // last: destroyed first, so that no child outlives its slot
  for (size_t i = 0; i < tasks.size(); ++i) scope.spawn(when_all_detail::into(&slots[i], std::move(tasks[i])));
  co_await scope.join();
  std::vector<T> results;
  results.reserve(slots.size());
  for (std::optional<T>& slot : slots) results.push_back(std::move(*slot));
  co_return results;
}

}  // namespace headrace
