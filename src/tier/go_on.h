// Whether something long goes on: asked on its way, and an error ends it there and is what it returns.
#pragma once

#include <functional>

#include "base/result.h"

namespace headrace {

using GoOn = std::function<Result<void>()>;  // empty: it does

[[nodiscard]] inline Result<void> may_go_on(const GoOn& go_on) {
  return go_on ? go_on() : Result<void>();
}

}  // namespace headrace
