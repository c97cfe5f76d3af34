// What must hold of all rows of one partition at any moment: references, counts and sums agree with each other. For
// tests and the simulator; reads everything, so only for small ones.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/task.h"

namespace headrace {

class Partition;

// What is wrong; empty: nothing.
[[nodiscard]] Task<Result<std::vector<std::string>>> check_rows(Partition& partition);

// What is still on its way to be removed, or held for somebody: nothing, once all clients have closed their files and
// enough time has passed. One line each.
[[nodiscard]] Task<Result<std::vector<std::string>>> leftover_rows(Partition& partition);

}  // namespace headrace
