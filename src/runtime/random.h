// Random: unpredictable in a real process (seeded from the kernel), a function of the seed in the simulator.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace headrace {

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;
  // For keys and tokens: whoever has seen any number of those of next() (ids that are published) cannot tell it.
  virtual uint64_t secret() = 0;

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

// xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64. A few of its numbers tell all others: its secrets are
// none, which is what the simulator needs.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed);
  uint64_t next() override;
  uint64_t secret() override { return next(); }

 private:
  uint64_t state_[4];
};

[[nodiscard]] uint64_t random_seed_from_kernel();  // getrandom(2)

// A real process's: numbers of a generator seeded by the kernel, secrets from the kernel itself.
class ProcessRandom final : public Random {
 public:
  ProcessRandom() : numbers_(random_seed_from_kernel()) {}
  uint64_t next() override { return numbers_.next(); }
  uint64_t secret() override { return random_seed_from_kernel(); }

 private:
  SeededRandom numbers_;
};

}  // namespace headrace
