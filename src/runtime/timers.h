// Clock: what time it is, and timers. Nothing in Headrace reads time elsewhere.
#pragma once

#include <compare>
#include <cstdint>
#include <set>

#include "base/result.h"
#include "runtime/scheduler.h"
#include "runtime/task.h"

namespace headrace {

// A span or a point of time in nanoseconds; signed, so that differences work.
struct Nanos {
  int64_t count = 0;
  constexpr auto operator<=>(const Nanos&) const = default;
  constexpr Nanos operator+(Nanos other) const { return {count + other.count}; }
  constexpr Nanos operator-(Nanos other) const { return {count - other.count}; }
  constexpr Nanos operator*(int64_t factor) const { return {count * factor}; }
  constexpr Nanos operator/(int64_t divisor) const { return {count / divisor}; }
  [[nodiscard]] constexpr double seconds() const { return static_cast<double>(count) * 1e-9; }
};
constexpr Nanos microseconds(int64_t n) {
  return {n * 1'000};
}
constexpr Nanos milliseconds(int64_t n) {
  return {n * 1'000'000};
}
constexpr Nanos seconds(int64_t n) {
  return {n * 1'000'000'000};
}

class Timers;

// Something that happens at a time. Destroying it disarms it.
class TimerNode {
 public:
  TimerNode() = default;
  TimerNode(const TimerNode&) = delete;
  TimerNode& operator=(const TimerNode&) = delete;
  [[nodiscard]] bool armed() const { return timers_ != nullptr; }
  void disarm();

 protected:
  ~TimerNode() { disarm(); }
  virtual void fire() = 0;  // on the clock's core, outside any coroutine; the node is disarmed already

 private:
  friend class Timers;
  Timers* timers_ = nullptr;
  Nanos deadline_{};
  uint64_t order_ = 0;
};

// Deadline-ordered set of armed nodes; ties fire in the order of arming. Shared by the real and simulated clocks.
class Timers {
 public:
  ~Timers();
  void arm(TimerNode& node, Nanos deadline);
  [[nodiscard]] bool empty() const { return armed_.empty(); }
  [[nodiscard]] Nanos next_deadline() const;  // asserts not empty
  uint64_t fire_due(Nanos now);               // returns how many fired

 private:
  friend class TimerNode;
  struct Earlier {
    bool operator()(const TimerNode* a, const TimerNode* b) const {
      return a->deadline_ != b->deadline_ ? a->deadline_ < b->deadline_ : a->order_ < b->order_;
    }
  };
  std::set<TimerNode*, Earlier> armed_;
  uint64_t next_order_ = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Nanos now() = 0;   // boot clock: monotonic, counts suspend; leases are measured on it
  [[nodiscard]] virtual Nanos wall() = 0;  // since 1970, UTC; may jump: for timestamps and SigV4 only
  virtual void arm(TimerNode& node, Nanos deadline) = 0;

  struct Sleep : private TimerNode {
    Sleep(Clock& clock, Nanos deadline) : clock_(clock), deadline_(deadline) {}
    [[nodiscard]] bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      waiter_.handle = h;
      clock_.arm(*this, deadline_);
    }
    void await_resume() const {}

   private:
    void fire() override { Scheduler::current().wake(waiter_); }
    Clock& clock_;
    Nanos deadline_;
    Waiter waiter_;
  };
  [[nodiscard]] Sleep sleep(Nanos duration) { return Sleep(*this, now() + duration); }
  [[nodiscard]] Sleep sleep_until(Nanos deadline) { return Sleep(*this, deadline); }
};

}  // namespace headrace
