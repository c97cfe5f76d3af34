#include "runtime/uring/thread_pool.h"

#include <pthread.h>

#include <csignal>

#include "runtime/uring/reactor.h"

namespace headrace {

ThreadPool::ThreadPool(Reactor& reactor, unsigned threads) : reactor_(reactor) {
  HR_ASSERT(threads > 0);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (unsigned i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { work(); });
    pthread_setname_np(threads_.back().native_handle(), "hr-blocking");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
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
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void ThreadPool::work() {
  for (;;) {
    std::shared_ptr<BlockingJob> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
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
