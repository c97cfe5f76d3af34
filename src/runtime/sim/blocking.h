// SimBlocking: work that would block runs inline on the world's thread, some simulated time after
// it was asked for and some before its result is seen. A crash in between: done, but nobody learned
// of it; before: never done. At most `threads` jobs at once, as in the real pool. Owner: Machine.
#pragma once

#include <deque>
#include <list>

#include "runtime/blocking.h"
#include "runtime/sim/core.h"

namespace headrace {

struct BlockingOptions {
  Nanos max_delay = milliseconds(2);  // of each half
  size_t threads = 4;
};

class SimBlocking final : public Blocking {
 public:
  SimBlocking(SimCore& core, BlockingOptions opts) : options(opts), core_(core) {}
  void submit(std::shared_ptr<BlockingJob> job) override;
  void crash();  // forgets all jobs
  [[nodiscard]] size_t jobs() const { return running_.size() + waiting_.size(); }

  BlockingOptions options;

 private:
  struct Running final : public TimerNode {
    Running(SimBlocking& owner, std::shared_ptr<BlockingJob> what) : pool(owner), job(std::move(what)) {}
    void fire() override { pool.advance(*this); }
    SimBlocking& pool;
    std::shared_ptr<BlockingJob> job;
    bool worked = false;
  };
  void start(std::shared_ptr<BlockingJob> job);
  void arm(Running& running);
  void advance(Running& running);

  SimCore& core_;
  std::list<Running> running_;
  std::deque<std::shared_ptr<BlockingJob>> waiting_;  // bounded by its callers
};

}  // namespace headrace
