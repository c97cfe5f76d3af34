// Scenario: what one seed goes through: rounds of work under faults, each followed by calm and a verification of the
// whole tree; then the tree goes to the bucket, all disks are lost, and it comes back on another machine.
//
// Faults are drawn by a nemesis and counted by name in the world's FaultPlan. Disk faults touch at most as many targets
// as the protection stands.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace headrace::sim {

struct ScenarioOptions {
  uint64_t seed = 1;
  std::FILE* trace = nullptr;
  bool verbose = false;
};

struct ScenarioResult {
  std::vector<std::string> violations;
  std::map<std::string, uint64_t> counts;  // "op.…", "fault.…", "probe.…", "error.…"
  double simulated_s = 0;
  uint64_t trace_hash = 0;
  [[nodiscard]] bool ok() const { return violations.empty(); }
};

[[nodiscard]] ScenarioResult run_scenario(const ScenarioOptions& options);

// Kinds of operations and faults that a long run must have seen.
[[nodiscard]] const std::vector<std::string>& required_counts();

}  // namespace headrace::sim
