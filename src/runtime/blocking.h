// Blocking: a small pool of threads for what cannot be asynchronous (RocksDB, libcurl, name look-up).
// In the simulator the work runs inline after a simulated delay.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "runtime/scheduler.h"
#include "runtime/task.h"

namespace headrace {

// One piece of work. The pool calls work() on any thread, then complete() on the submitting core.
// Shared with the pool: the awaiting frame may be destroyed first.
class BlockingJob {
 public:
  std::move_only_function<void()> work;
  void complete() {
    done_ = true;
    if (waiter != nullptr) Scheduler::current().wake(*waiter);
  }
  [[nodiscard]] bool done() const { return done_; }
  Waiter* waiter = nullptr;

 private:
  bool done_ = false;
};

class Blocking {
 public:
  virtual ~Blocking() = default;
  virtual void submit(std::shared_ptr<BlockingJob> job) = 0;

  // co_await blocking.run(f): runs f off the core and returns its result. f owns (or outlives) all that it touches:
  // it may go on after the awaiting task was destroyed.
  template <class F>
  [[nodiscard]] Task<std::invoke_result_t<F&>> run(F f) {
    using R = std::invoke_result_t<F&>;
    auto job = std::make_shared<BlockingJob>();
    if constexpr (std::is_void_v<R>) {
      job->work = std::move(f);
      co_await Wait(*this, job);
    } else {
      auto result = std::make_shared<std::optional<R>>();
      job->work = [result, f = std::move(f)]() mutable { result->emplace(f()); };
      co_await Wait(*this, job);
      co_return std::move(**result);
    }
  }

 private:
  struct Wait {
    Wait(Blocking& pool, std::shared_ptr<BlockingJob> job) : pool_(pool), job_(std::move(job)) {}
    ~Wait() { job_->waiter = nullptr; }
    [[nodiscard]] bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      waiter_.handle = h;
      job_->waiter = &waiter_;
      pool_.submit(job_);
    }
    void await_resume() const {}

   private:
    Blocking& pool_;
    std::shared_ptr<BlockingJob> job_;
    Waiter waiter_;
  };
};

}  // namespace headrace
