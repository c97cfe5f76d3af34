// What lies on targets and in the bucket though nothing names it: nothing, once nobody works and what collects it has
// had its time.
#pragma once

#include <string>
#include <vector>

#include "apps/node.h"
#include "object/memory_store.h"

namespace headrace::sim {

// One line for each: fragments that their home does not claim, objects that no partition knows, keys that the manifest
// in head does not name, not even as garbage. Runs in a frame of the node's process.
[[nodiscard]] Task<Result<std::vector<std::string>>> leftover_storage(Node& node, MemoryBucket& bucket);

}  // namespace headrace::sim
