// Does a bucket really have compare-and-swap? Everything about ownership of a namespace rests on
// it.
#pragma once

#include "object/object_store.h"
#include "runtime/random.h"

namespace headrace {

inline constexpr int kProbeRounds = 20;

// Races two creations and two swaps of a scratch object per round, and checks that stale conditions
// are refused. kNotSupported, with the mend, when both of a race win or a condition is ignored; any
// other error: the bucket could not be tried. `store` and `random` outlive the task. Leaves nothing
// behind (unless the service fails).
[[nodiscard]] Task<Result<void>> probe_conditional_writes(ObjectStore& store, Random& random,
                                                          int rounds = kProbeRounds);

}  // namespace headrace
