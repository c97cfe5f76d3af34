// rescue: brings a target back whose superblocks are good and whose log or table is lost.
//
// Its device is scanned for fragments; each is shown to its home, and what a home claims is the target's again. Nothing
// that was freed comes back: no home claims it. What a home misses is its scrub's to find and the others' to rebuild.
// Its journal runs are gone (their other copies have them), and no leader below the epochs that the map names is
// obeyed. Owner: the node. One core.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "hot/target.h"
#include "hot/work_port.h"

namespace headrace {

struct RescueReport {
  uint64_t candidates = 0;  // whole fragments found on the device
  uint64_t kept = 0;        // that their homes claim
  uint64_t kept_bytes = 0;
};

// What Target::adopt() is to be given.
struct Rescued {
  RescueReport report;
  std::vector<FragmentEntry> confirmed;
  std::vector<std::pair<PartitionId, PartitionEpoch>> promises;
};

// Changes nothing. `still_wanted` is asked all along: kCancelled. kUnavailable when a home does not answer: try again.
// A fragment that is claimed in two cuts is not confirmed in either.
[[nodiscard]] Task<Result<Rescued>> find_claimed(std::shared_ptr<Target> target, WorkPort& work,
                                                 std::function<bool()> still_wanted);

}  // namespace headrace
