// Two-phase commit among partitions: proto/transaction.h says how; ops/steps.h what.
#pragma once

#include <functional>

#include "meta/partition.h"
#include "proto/transaction.h"

namespace headrace {

// Runs steps that together are one operation, in their order; those of other partitions are prepared there first.
// Called from an Op's run(): the local changes and the decision go into txn. Attributes per step. kBusy: run again.
// Steps of other partitions come before local ones that need their result (kInsertEntry with file zero).
[[nodiscard]] Task<Result<std::vector<Attributes>>> run_steps(Transaction& txn, std::vector<Step> steps);

// The participant's side.
[[nodiscard]] Task<Result<StepsReply>> prepare(Partition& partition, Prepare request);
[[nodiscard]] Task<Result<Empty>> finish(Partition& partition, Finish request);
// The coordinator's answer to a participant in doubt.
[[nodiscard]] Task<Result<DecisionReply>> decision(Partition& partition, Decision request);
// Finishes what an earlier leader left: decisions not yet told, prepares in doubt. Runs while the partition serves.
[[nodiscard]] Task<void> resolve_loop(Partition& partition);

}  // namespace headrace
