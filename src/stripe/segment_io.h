// SegmentIo: whole segments through fragments on targets: used by the client, the packer, rebuild and checkpoints.
#pragma once

#include <memory>

#include "proto/placement.h"
#include "proto/target.h"
#include "runtime/env.h"

namespace headrace {

// How fragments are reached (coord/fragment_calls.h has the one over rpc; tests have faulty ones).
class FragmentPort {
 public:
  virtual ~FragmentPort() = default;
  [[nodiscard]] virtual Task<Result<void>> write(FragmentWrite request, Capability capability) = 0;
  [[nodiscard]] virtual Task<Result<FragmentReadReply>> read(FragmentRead request, Capability capability) = 0;
};

struct SegmentIoCounters {
  uint64_t degraded_reads = 0;  // reads that needed parity or another mirror because a fragment was absent or bad
  uint64_t spare_writes = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
};

class SegmentIo {
 public:
  SegmentIo(Env env, FragmentPort& port) : env_(env), port_(port) {}

  // Encodes `data` (1 … kMaxSegment bytes) and writes all fragments in parallel; a failed one goes to the next spare.
  // Returns the placement as written, all D+P durable; kUnavailable when spares ran out (nothing may be committed).
  [[nodiscard]] Task<Result<Placement>> write(SegmentId segment, Buffer data, Placement placement,
                                              std::vector<TargetId> spares, Capability capability);
  // Bytes [offset, offset + length) of the segment, every block verified here. A 4 KiB read touches one target; with a
  // bad, absent or slow (hedged after 200 ms) fragment any D others serve. kNoFragment when fewer than D answered and
  // some said that they hold nothing (the caller asks the home for the current placement); kIo when lost.
  [[nodiscard]] Task<Result<Buffer>> read(SegmentId segment, uint64_t segment_length, Placement placement,
                                          uint64_t offset, uint64_t length, Capability capability);
  // Recomputes fragment `index` from the others (rebuild), with its crcs; not written anywhere.
  [[nodiscard]] Task<Result<FragmentWrite>> rebuild(SegmentId segment, uint64_t segment_length, Placement placement,
                                                    uint8_t index, Capability capability);

  [[nodiscard]] const SegmentIoCounters& counters() const { return counters_; }
  // Bounded list of what reads found damaged since the last call.
  [[nodiscard]] std::vector<Damage> take_damage();

 private:
  struct Gathering;
  struct Writing;
  Task<void> fetch(std::shared_ptr<Gathering> g, uint8_t index, bool degraded);
  Task<Result<std::vector<Buffer>>> reconstruct_range(std::shared_ptr<Gathering> g, uint64_t begin, uint64_t end,
                                                      std::vector<uint8_t> wanted);
  Task<void> write_fragment(std::shared_ptr<Writing> w, FragmentWrite request);
  [[nodiscard]] Error lost(const Gathering& g, size_t good) const;
  void note_damage(Damage damage);

  Env env_;
  FragmentPort& port_;
  SegmentIoCounters counters_;
  std::vector<Damage> damage_;
};

}  // namespace headrace
