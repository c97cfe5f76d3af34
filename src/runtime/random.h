// Random: unpredictable in a real process (seeded from the kernel), a function of the seed in the simulator.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace headrace {

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;

  // Uniform in [0, bound); bound > 0.
  uint64_t below(uint64_t bound) {
    HR_ASSERT(bound > 0);
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }  // both included
  bool chance(uint64_t numerator, uint64_t denominator) { return below(denominator) < numerator; }
  uint64_t nonzero() {
    uint64_t value = next();
    while (value == 0) value = next();
    return value;
  }
};

// xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed);
  uint64_t next() override;

 private:
  uint64_t state_[4];
};

[[nodiscard]] uint64_t random_seed_from_kernel();  // getrandom(2)

}  // namespace headrace
