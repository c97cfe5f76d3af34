// Awaitable primitives for the tasks of one core: Event, CancelToken, Mutex, Semaphore, Queue, Once.
// All are FIFO, none allocates, none is thread-safe. A wait with a deadline takes the Clock it is measured on.
#pragma once

#include <coroutine>
#include <deque>
#include <optional>
#include <utility>

#include "runtime/scheduler.h"
#include "runtime/task.h"
#include "runtime/timers.h"

namespace headrace {

// Waits on `list` until woken; with a clock, at most until the deadline. Resumes to false on time-out.
// The base of every wait below; usable directly with an own WaitList.
class ListWait : private TimerNode {
 public:
  explicit ListWait(WaitList& list) : list_(list) {}
  ListWait(WaitList& list, Clock& clock, Nanos deadline) : list_(list), clock_(&clock), deadline_(deadline) {}
  [[nodiscard]] bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    waiter_.handle = h;
    list_.push(waiter_);
    if (clock_ != nullptr) clock_->arm(*this, deadline_);
  }
  bool await_resume() {
    disarm();
    return !timed_out_;
  }

 private:
  void fire() override {
    if (!waiter_in_list()) return;  // already woken, about to resume
    timed_out_ = true;
    Scheduler::current().wake(waiter_);
  }
  [[nodiscard]] bool waiter_in_list() const { return waiter_.linked_in(list_); }

  WaitList& list_;
  Clock* clock_ = nullptr;
  Nanos deadline_{};
  bool timed_out_ = false;
  Waiter waiter_;
};

// Set once and for all waiters until reset.
class Event {
 public:
  void set() {
    set_ = true;
    if (!waiting_.empty()) Scheduler::current().wake_all(waiting_);
  }
  void reset() { set_ = false; }
  [[nodiscard]] bool is_set() const { return set_; }
  [[nodiscard]] Task<void> wait() {
    while (!set_) co_await ListWait(waiting_);
  }
  // False when the deadline came first.
  [[nodiscard]] Task<bool> wait_until(Clock& clock, Nanos deadline) {
    while (!set_) {
      bool woken = co_await ListWait(waiting_, clock, deadline);
      if (!woken && !set_) co_return false;
    }
    co_return true;
  }

 private:
  bool set_ = false;
  WaitList waiting_;
};

// A wish to stop, seen by whoever holds the token. Cancelling twice is cancelling once.
class CancelToken {
 public:
  void cancel() { event_.set(); }
  [[nodiscard]] bool cancelled() const { return event_.is_set(); }
  [[nodiscard]] Task<void> wait() { return event_.wait(); }
  // Sleeps; false when cancelled meanwhile (or before).
  [[nodiscard]] Task<bool> sleep(Clock& clock, Nanos duration) {
    bool cancelled = co_await event_.wait_until(clock, clock.now() + duration);
    co_return !cancelled;
  }

 private:
  Event event_;
};

// Counts units. acquire() waits while fewer are free; strictly FIFO: nobody overtakes, large requests neither.
// Units pass from release() to the first in line at once, so a waiter destroyed in between gives them back.
class Semaphore {
 public:
  explicit Semaphore(uint64_t units) : free_(units) {}

  class [[nodiscard]] Acquire : private Waiter {
   public:
    Acquire(Semaphore& semaphore, uint64_t units) : semaphore_(semaphore), units_(units) {}
    ~Acquire() {
      if (granted_) {
        semaphore_.release(units_);
      } else if (linked()) {
        unlink();
        semaphore_.grant();  // whom it kept waiting
      }
    }
    [[nodiscard]] bool await_ready() {
      if (!semaphore_.waiting_.empty() || semaphore_.free_ < units_) return false;
      semaphore_.free_ -= units_;
      return true;
    }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      semaphore_.waiting_.push(*this);
    }
    void await_resume() { granted_ = false; }  // the awaiter's now

   private:
    friend class Semaphore;
    Semaphore& semaphore_;
    uint64_t units_;
    bool granted_ = false;
  };
  // A unit that was acquired, given back at the end of its scope, also when the frame is destroyed.
  class [[nodiscard]] Held {
   public:
    explicit Held(Semaphore& semaphore) : semaphore_(semaphore) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { semaphore_.release(); }

   private:
    Semaphore& semaphore_;
  };
  // co_await semaphore.acquire(n); then release(n) when done.
  [[nodiscard]] Acquire acquire(uint64_t units = 1) { return {*this, units}; }
  void release(uint64_t units = 1) {
    free_ += units;
    grant();
  }
  [[nodiscard]] uint64_t free() const { return free_; }

 private:
  void grant() {
    while (Waiter* first = waiting_.at(0)) {
      auto* acquire = static_cast<Acquire*>(first);
      if (acquire->units_ > free_) return;
      free_ -= acquire->units_;
      acquire->granted_ = true;
      Scheduler::current().wake(*first);
    }
  }
  uint64_t free_;
  WaitList waiting_;
};

class Mutex {
 public:
  class [[nodiscard]] Guard {
   public:
    explicit Guard(Mutex& mutex) : mutex_(&mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (mutex_ != nullptr) mutex_->unit_.release();
    }

   private:
    Mutex* mutex_;
  };
  [[nodiscard]] Task<Guard> lock() {
    co_await unit_.acquire();
    co_return Guard(*this);
  }
  [[nodiscard]] bool locked() const { return unit_.free() == 0; }

 private:
  Semaphore unit_{1};
};

// Bounded FIFO. push() waits while full; pop() waits while empty; close() makes push() false and pop() drain, then end.
template <class T>
class Queue {
 public:
  explicit Queue(size_t bound) : bound_(bound) {}
  [[nodiscard]] Task<bool> push(T item) {
    while (!closed_ && items_.size() >= bound_) co_await ListWait(pushing_);
    if (closed_) co_return false;
    items_.push_back(std::move(item));
    if (!popping_.empty()) Scheduler::current().wake_one(popping_);
    co_return true;
  }
  [[nodiscard]] bool try_push(T item) {
    if (closed_ || items_.size() >= bound_) return false;
    items_.push_back(std::move(item));
    if (!popping_.empty()) Scheduler::current().wake_one(popping_);
    return true;
  }
  [[nodiscard]] Task<std::optional<T>> pop() {
    while (items_.empty() && !closed_) co_await ListWait(popping_);
    co_return try_pop();
  }
  [[nodiscard]] std::optional<T> try_pop() {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    if (!pushing_.empty()) Scheduler::current().wake_one(pushing_);
    return item;
  }
  void close() {
    closed_ = true;
    if (!pushing_.empty()) Scheduler::current().wake_all(pushing_);
    if (!popping_.empty()) Scheduler::current().wake_all(popping_);
  }
  [[nodiscard]] size_t size() const { return items_.size(); }
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  size_t bound_;
  bool closed_ = false;
  std::deque<T> items_;
  WaitList pushing_;
  WaitList popping_;
};

// One value, set once, for any number of waiters (each gets a copy).
template <class T>
class Once {
 public:
  void set(T value) {
    HR_ASSERT(!value_.has_value());
    value_.emplace(std::move(value));
    event_.set();
  }
  [[nodiscard]] bool is_set() const { return value_.has_value(); }
  [[nodiscard]] const T& value() const { return *value_; }
  [[nodiscard]] Task<T> wait() {
    co_await event_.wait();
    co_return *value_;
  }
  // Nothing when the deadline came first.
  [[nodiscard]] Task<std::optional<T>> wait_until(Clock& clock, Nanos deadline) {
    bool there = co_await event_.wait_until(clock, deadline);
    if (!there) co_return std::nullopt;
    co_return *value_;
  }

 private:
  std::optional<T> value_;
  Event event_;
};

}  // namespace headrace
