// `headrace recover`: a state directory out of a cluster's targets alone, where the one that was there is lost.
//
// Every target keeps a copy of the coordinator's file: beside its own file, or on its device (device_copies.h). The
// newest that any of them has is taken; then the state directory is as it was, and `headrace up` starts it. Nothing on
// a target is changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "proto/cluster.h"
#include "runtime/env.h"

namespace headrace {

struct RecoverOptions {
  std::string state;               // where there is no coordinator's file
  std::vector<std::string> paths;  // absolute: block devices, directories of targets, or directories with such in them
};
struct Recovered {
  ClusterId cluster;
  uint64_t revision = 0;             // of the coordinator's records
  std::string from;                  // the copy that they were taken from
  std::vector<std::string> placed;   // "t0 at /dev/sdb"
  std::vector<std::string> missing;  // "t3": not among the paths; its data is rebuilt
  std::vector<std::string> ignored;  // targets that the cluster has no more, and why
};
// kInvalid: not a target, of two clusters, or a state directory in use; kNotFound: no copy on any of them; kBusy: a
// node runs on one of them, or it is mounted. Durable on return. What failed half-way can be done again.
[[nodiscard]] Task<Result<Recovered>> recover_state(Env env, RecoverOptions options);

}  // namespace headrace
