#include "runtime/sim/clock.h"

namespace headrace {

namespace {
constexpr int64_t kMillion = 1'000'000;
}

SimClock::SimClock(const Nanos& true_now, Nanos boot_offset, Nanos wall_skew, int64_t drift_ppm)
    : true_now_(true_now),
      base_true_(true_now),
      base_local_(boot_offset),
      wall_offset_(kWorldBegins + true_now + wall_skew - boot_offset),
      drift_ppm_(drift_ppm) {
  HR_ASSERT(drift_ppm > -kMillion && drift_ppm < kMillion);
}

Nanos SimClock::local(Nanos true_time) const {
  __int128 passed = (true_time - base_true_).count;
  return base_local_ + Nanos{static_cast<int64_t>(passed * (kMillion + drift_ppm_) / kMillion)};
}

void SimClock::jump_boot(Nanos ahead) {
  HR_ASSERT(ahead >= Nanos{});
  base_local_ = base_local_ + ahead;
}

void SimClock::set_drift(int64_t ppm) {
  HR_ASSERT(ppm > -kMillion && ppm < kMillion);
  base_local_ = now();
  base_true_ = true_now_;
  drift_ppm_ = ppm;
}

std::optional<Nanos> SimClock::next_due() const {
  if (timers_.empty()) return std::nullopt;
  __int128 wait = (timers_.next_deadline() - base_local_).count;
  if (wait <= 0) return base_true_;
  __int128 rate = kMillion + drift_ppm_;
  __int128 true_wait = (wait * kMillion + rate - 1) / rate;  // rounded up: due then, not a nanosecond before
  constexpr int64_t kFarAway = int64_t{1} << 62;
  if (true_wait > kFarAway) return Nanos{kFarAway};
  return base_true_ + Nanos{static_cast<int64_t>(true_wait)};
}

}  // namespace headrace
