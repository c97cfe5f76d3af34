// OrphanWorker: frees fragments that nobody claims: written and never committed, replaced, or
// forgotten by a crash.
//
// It shows a target's inventory to the homes, by partition; a home claims what any row,
// reservation, checkpoint or running rebuild of its names. Only fragments older than `min_age` are
// shown, so that one whose claim is just being journaled is not. The free carries the partition's
// epoch, so a deposed leader's answer frees nothing. Owner: the node. One core. Bounded: one page
// of inventory in memory.
#pragma once

#include <functional>

#include "hot/work_port.h"

namespace headrace {

struct OrphanOptions {
  uint64_t min_age_ms = 10 * 60 * 1000;
  uint32_t page = 1000;
};

struct OrphanReport {
  uint64_t seen = 0;
  uint64_t asked = 0;  // old enough
  uint64_t freed = 0;
  uint64_t freed_bytes = 0;
  uint64_t foreign = 0;  // of another namespace: left alone
};

class OrphanWorker {
 public:
  OrphanWorker(WorkPort& work, OrphanOptions options = {}) : work_(work), options_(options) {}
  // The whole inventory of one target, once. `still_wanted` is asked before each page: kCancelled.
  [[nodiscard]] Task<Result<OrphanReport>> sweep(TargetId target, std::function<bool()> still_wanted);

 private:
  WorkPort& work_;
  OrphanOptions options_;
};

}  // namespace headrace
