// Packer: moves staged bytes out of metadata rows into full segments, oldest first, for each partition of this node.
//
// Whatever was overwritten meanwhile stays as it is: the partition replaces only pieces that still name their row. A
// round that fails half-way leaves a segment that nobody names, an orphan. Owner: TierService. One core.
#pragma once

#include "coord/ports.h"
#include "proto/meta.h"
#include "proto/work.h"
#include "runtime/scope.h"
#include "stripe/segment_io.h"

namespace headrace {

struct PackerOptions {
  Nanos interval = seconds(2);
  uint64_t least_bytes = 256 * kKiB;  // fewer staged bytes wait, up to `patience`
  Nanos patience = seconds(30);
};

class Packer {
 public:
  Packer(Env env, PartitionPort& partitions, SegmentIo& segments, PackerOptions options = {})
      : env_(env), partitions_(partitions), segments_(segments), options_(options) {}

  [[nodiscard]] Task<void> run(CancelToken& stop);
  // One segment's worth of one partition; false when there was nothing (worth) packing.
  [[nodiscard]] Task<Result<bool>> pack(PartitionInfo partition, bool everything);
  [[nodiscard]] const std::string& last_error() const { return last_error_; }

 private:
  [[nodiscard]] Task<Result<void>> fill(PartitionId partition, Packed packed, Buffer data, Reservation reservation);

  Env env_;
  PartitionPort& partitions_;
  SegmentIo& segments_;
  PackerOptions options_;
  std::string last_error_;
};

}  // namespace headrace
