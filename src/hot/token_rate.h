// TokenRate: at most so many bytes per second, a second's worth saved up at most. 0: no limit.
// Owner: a worker. One core.
#pragma once

#include <algorithm>

#include "runtime/timers.h"

namespace headrace {

class TokenRate {
 public:
  TokenRate(Clock& clock, uint64_t bytes_per_s) : clock_(clock), bytes_per_s_(bytes_per_s), paid_until_(clock.now()) {}
  void set(uint64_t bytes_per_s) { bytes_per_s_ = bytes_per_s; }
  // Returns when these bytes may move.
  [[nodiscard]] Task<void> take(uint64_t bytes) {
    if (bytes_per_s_ == 0) co_return;
    Nanos now = clock_.now();
    paid_until_ = std::max(paid_until_, now - seconds(1));
    paid_until_ =
        paid_until_ + Nanos{static_cast<int64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(bytes_per_s_))};
    if (paid_until_ > now) co_await clock_.sleep_until(paid_until_);
  }

 private:
  Clock& clock_;
  uint64_t bytes_per_s_;
  Nanos paid_until_;
};

}  // namespace headrace
