// SimClock: one machine's idea of time, over the world's true time.
//
// boot  now() = boot base + true time since × (1 + drift): monotonic, goes on over crashes, may
// jump ahead
//       (a suspended machine) but never back.
// wall  wall() = boot time + an offset that may jump either way.
// Concurrency: the world's thread. Owner: World or Machine; outlives every process.
#pragma once

#include <optional>

#include "runtime/timers.h"

namespace headrace {

class SimClock final : public Clock {
 public:
  // true_now: the world's time, read at each call; it outlives the clock.
  explicit SimClock(const Nanos& true_now, Nanos boot_offset = {}, Nanos wall_skew = {}, int64_t drift_ppm = 0);

  [[nodiscard]] Nanos now() override { return local(true_now_); }
  [[nodiscard]] Nanos wall() override { return now() + wall_offset_; }
  void arm(TimerNode& node, Nanos deadline) override { timers_.arm(node, deadline); }

  void jump_wall(Nanos delta) { wall_offset_ = wall_offset_ + delta; }
  void jump_boot(Nanos ahead);  // ≥ 0; timers that it passes are due at once
  void set_drift(int64_t ppm);  // runs faster (> 0) or slower than the world by so many parts per million
  [[nodiscard]] int64_t drift() const { return drift_ppm_; }

  // For the world's loop: the true time at which the next timer is due, and firing it then.
  [[nodiscard]] std::optional<Nanos> next_due() const;
  uint64_t fire_due() { return timers_.fire_due(now()); }

 private:
  [[nodiscard]] Nanos local(Nanos true_time) const;

  const Nanos& true_now_;
  Nanos base_true_;
  Nanos base_local_;
  Nanos wall_offset_;
  int64_t drift_ppm_ = 0;
  Timers timers_;
};

// The wall time at which every world begins, 2026-01-01 UTC.
inline constexpr Nanos kWorldBegins = seconds(1'767'225'600);

}  // namespace headrace
