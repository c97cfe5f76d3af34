// Scheduler: the ready queue of one core. Waiter: one suspended coroutine, in exactly one list at a time.
//
// Every awaitable of Headrace suspends through a Waiter that lives in its awaiter, hence in the coroutine
// frame. Destroying a suspended frame unlinks it from wherever it waits: that is how the simulator
// crashes a process at any await, and why no awaitable may register a bare handle anywhere.
// Nothing resumes inline: a wake puts the waiter on the ready queue, so no caller is re-entered.
// Concurrency: one Scheduler per thread, current() in a thread-local; no member may be called from another.
#pragma once

#include <coroutine>
#include <cstdint>

#include "base/result.h"

namespace headrace {

class WaitList;

class Waiter {
 public:
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() { unlink(); }

  std::coroutine_handle<> handle;
  [[nodiscard]] bool linked() const { return list_ != nullptr; }
  [[nodiscard]] bool linked_in(const WaitList& list) const { return list_ == &list; }
  void unlink();

 private:
  friend class WaitList;
  WaitList* list_ = nullptr;
  Waiter* previous_ = nullptr;
  Waiter* next_ = nullptr;
};

// Intrusive FIFO; not owning. Destroying a list leaves its waiters unlinked and suspended for ever.
class WaitList {
 public:
  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() {
    while (pop() != nullptr) {
    }
  }

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] uint64_t size() const { return size_; }
  void push(Waiter& waiter);
  [[nodiscard]] Waiter* pop();
  [[nodiscard]] Waiter* at(uint64_t index);  // O(index); the simulator's choice among ready waiters

 private:
  friend class Waiter;
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
  uint64_t size_ = 0;
};

class Scheduler {
 public:
  Scheduler() = default;
  virtual ~Scheduler();
  // The calling thread's; asserts that there is one.
  [[nodiscard]] static Scheduler& current();
  [[nodiscard]] static bool present();

  void wake(Waiter& waiter);  // moves it from wherever it is linked to the ready queue
  void wake_all(WaitList& list);
  void wake_one(WaitList& list);
  [[nodiscard]] bool idle() const { return ready_.empty(); }
  // Resumes ready waiters until none is left or `limit` were resumed; returns how many.
  uint64_t run_ready(uint64_t limit = ~uint64_t{0});

 protected:
  // Which ready waiter runs next; the simulator draws it from its seed.
  [[nodiscard]] virtual Waiter* pick(WaitList& ready) { return ready.pop(); }
  void make_current();

 private:
  WaitList ready_;
};

// co_await yield(): lets everything that is ready run first.
struct Yield {
  Waiter waiter;
  [[nodiscard]] bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    waiter.handle = h;
    Scheduler::current().wake(waiter);
  }
  void await_resume() const {}
};
[[nodiscard]] inline Yield yield() {
  return {};
}

}  // namespace headrace
