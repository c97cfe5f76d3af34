// ThreadPool: the real Blocking. Threads take jobs in order of submission; one more is started where none is free, up
// to a number. Where the system has no thread to give, jobs wait for those there are, or for the first.
//
// The queue holds at most one job per waiting task: what bounds tasks bounds it. All signals are
// blocked in the threads, so that signals go to whoever catches them. Destruction finishes jobs
// that run and drops those that have not begun.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/blocking.h"
#include "runtime/timers.h"

namespace headrace {

class Reactor;

class ThreadPool final : public Blocking {
 public:
  ThreadPool(Reactor& reactor, unsigned most_threads);
  ~ThreadPool() override;
  void submit(std::shared_ptr<BlockingJob> job) override;

 private:
  static constexpr Nanos kAgain = milliseconds(10);
  struct Again final : TimerNode {
    explicit Again(ThreadPool& p) : pool(p) {}
    void fire() override { pool.try_again(); }
    ThreadPool& pool;
  };

  void work();
  [[nodiscard]] bool start_thread();
  void try_again();

  Reactor& reactor_;
  const unsigned most_threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<BlockingJob>> queue_;
  bool stopping_ = false;
  size_t free_ = 0;  // threads without a job
  std::vector<std::thread> threads_;
  Again again_{*this};
};

}  // namespace headrace
