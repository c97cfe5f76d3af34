#include "runtime/uring/thread_pool.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

#include "runtime/uring/reactor.h"

namespace headrace {

ThreadPool::ThreadPool(Reactor& reactor, unsigned most_threads) : reactor_(reactor), most_threads_(most_threads) {
  HR_ASSERT(most_threads > 0);
}

// False: there is none to be had at present (a limit of the process or its user, or of memory).
bool ThreadPool::start_thread() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = true;
  try {
    threads_.emplace_back([this] { work(); });
    pthread_setname_np(threads_.back().native_handle(), "hr-blocking");
  } catch (const std::system_error&) {
    started = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

void ThreadPool::try_again() {
  if (threads_.empty() && !start_thread()) reactor_.arm(again_, reactor_.now() + kAgain);
}

ThreadPool::~ThreadPool() {
  std::deque<std::shared_ptr<BlockingJob>> dropped;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(queue_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::submit(std::shared_ptr<BlockingJob> job) {
  bool lacks_one = false;
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
    lacks_one = queue_.size() > free_;
  }
  if (lacks_one && threads_.size() < most_threads_ && start_thread()) return;
  if (!threads_.empty()) {
    wake_.notify_one();
  } else if (!again_.armed()) {
    reactor_.arm(again_, reactor_.now() + kAgain);
  }
}

void ThreadPool::work() {
  for (;;) {
    std::shared_ptr<BlockingJob> job;
    {
      std::unique_lock lock(mutex_);
      ++free_;
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      --free_;
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job->work();
    // The last reference goes back too: what the job owns is destroyed on the core.
    reactor_.post([job = std::move(job)] { job->complete(); });
  }
}

}  // namespace headrace
