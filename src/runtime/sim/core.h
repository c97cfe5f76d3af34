// SimCore: what disks, networks and clocks of one world share: true time, randomness, faults, the
// trace. Owner: World, which outlives everything else that is simulated.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string_view>

#include "runtime/random.h"
#include "runtime/sim/clock.h"
#include "runtime/sim/faults.h"

namespace headrace {

enum class SimEvent : uint8_t { kResume, kTimers, kDisk, kNet, kFault, kMachine, kBlocking, kNote };

// A seed for one purpose: independent streams, so that a change in one part disturbs the others
// less.
[[nodiscard]] uint64_t derive_seed(uint64_t seed, std::string_view purpose);

class SimCore {
 public:
  explicit SimCore(uint64_t seed);
  SimCore(const SimCore&) = delete;
  SimCore& operator=(const SimCore&) = delete;

  const uint64_t seed;
  Nanos now{};     // true time, from 0
  SimClock clock;  // true time as a Clock; delays of devices are measured on it
  SeededRandom schedule;
  SeededRandom disk;
  SeededRandom net;
  FaultPlan faults;
  Probes probes;

  // Folds an event into the trace hash (and prints it where a trace was asked for).
  void record(SimEvent event, uint64_t a, uint64_t b = 0, std::string_view what = {});
  [[nodiscard]] uint64_t trace_hash() const { return trace_; }
  // Prints every event from now on: to find where two runs of one seed part. nullptr: off.
  void trace_to(std::FILE* file) { trace_file_ = file; }

 private:
  uint64_t trace_;
  std::FILE* trace_file_ = nullptr;
};

}  // namespace headrace
