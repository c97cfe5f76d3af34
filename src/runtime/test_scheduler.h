// For this room's tests: a scheduler of the calling thread and a clock that a test moves by hand.
#pragma once

#include "runtime/scheduler.h"
#include "runtime/timers.h"

namespace headrace {

class TestScheduler final : public Scheduler {
 public:
  TestScheduler() { make_current(); }
};

class ManualClock final : public Clock {
 public:
  [[nodiscard]] Nanos now() override { return now_; }
  [[nodiscard]] Nanos wall() override { return now_; }
  void arm(TimerNode& node, Nanos deadline) override { timers_.arm(node, deadline); }
  uint64_t advance(Nanos by) {
    now_ = now_ + by;
    return timers_.fire_due(now_);
  }
  [[nodiscard]] bool nothing_armed() const { return timers_.empty(); }

 private:
  Nanos now_{};
  Timers timers_;
};

// Counts how many of itself live: held by a frame, it shows whether the frame was destroyed.
struct Counted {
  explicit Counted(int& count) : live(&count) { ++*live; }
  Counted(Counted&& other) noexcept : live(other.live) { ++*live; }
  Counted& operator=(Counted&&) = delete;
  ~Counted() { --*live; }
  int* live;
};

}  // namespace headrace
