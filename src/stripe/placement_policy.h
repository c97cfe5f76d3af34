// Chooses targets for new segments: declustered, weighted by free space, over the highest domain level that has enough
// members. Randomness comes from the caller; never a function of compiler, build or member order.
#pragma once

#include "proto/cluster.h"
#include "proto/placement.h"
#include "runtime/random.h"

namespace headrace {

// Below D+P live targets P is kept and D shrinks (2+2 on four); below P+1 targets: kUnavailable naming the mend.
// `avoid`: not to be chosen at all.
struct Choice {
  Placement placement;
  std::vector<TargetId> spares;  // up to 2, on further targets
};
[[nodiscard]] Result<Choice> choose_targets(const ClusterMap& map, Protection wanted, Random& random,
                                            const std::vector<TargetId>& avoid = {});
// `count` different live targets for copies of a journal run or a checkpoint (as many as there are, at least one).
[[nodiscard]] Result<std::vector<TargetId>> choose_copies(const ClusterMap& map, uint8_t count, Random& random,
                                                          const std::vector<TargetId>& avoid = {});
// "4+2", "replica-3" (a mirror of three copies). kInvalid with the list of what is known.
[[nodiscard]] Result<Protection> parse_protection(std::string_view text);
[[nodiscard]] std::string to_string(Protection protection);

}  // namespace headrace
