// headrace bench: what this machine does with Headrace, as numbers to compare in one run: ratios over what fio does on
// the same device at the same time, operations per second. Starts a node and a mount of its own below a directory and
// removes them again, or measures a node that runs.
#pragma once

#include <string>
#include <vector>

namespace headrace {

struct BenchOptions {
  std::string directory = "/var/tmp";  // a fresh directory is made below it: on the device that is to be measured
  std::string state;                   // measure the node (and its first mount) that runs there; not re-hydration
  bool as_json = false;
  bool quick = false;             // each once; otherwise the median of five
  bool full = false;              // re-hydration of a million files
  std::vector<std::string> only;  // names of results; empty: all
};

// Exit status of the process: 1 when a result could not be had; the others are printed all the same.
[[nodiscard]] int run_bench(const BenchOptions& options);

}  // namespace headrace
