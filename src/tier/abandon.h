// What a worker of this node reserved and does not fill. Otherwise it would count as on its way for an hour; a leader
// that is away has forgotten it.
#pragma once

#include <utility>

#include "coord/ports.h"
#include "proto/meta.h"

namespace headrace {

// Once, and whether it arrives or not.
[[nodiscard]] inline Task<void> abandon_work(PartitionPort& partitions, SegmentId segment, CallOptions options) {
  Reserve nothing;
  nothing.slot = segment.home();
  nothing.count = 0;
  nothing.abandoned.push_back(segment);
  (void)co_await partitions.call(segment.home(), std::move(nothing), options);
}

}  // namespace headrace
