#include "runtime/sim/blocking.h"

#include <utility>

namespace headrace {

void SimBlocking::submit(std::shared_ptr<BlockingJob> job) {
  if (running_.size() < options.threads) {
    start(std::move(job));
  } else {
    waiting_.push_back(std::move(job));
  }
}

void SimBlocking::start(std::shared_ptr<BlockingJob> job) {
  running_.emplace_back(*this, std::move(job));
  arm(running_.back());
}

void SimBlocking::arm(Running& running) {
  Nanos delay{static_cast<int64_t>(core_.schedule.below(static_cast<uint64_t>(options.max_delay.count) + 1))};
  core_.clock.arm(running, core_.now + delay);
}

void SimBlocking::advance(Running& running) {
  core_.record(SimEvent::kBlocking, running.worked ? 1 : 0, jobs());
  if (!running.worked) {
    running.worked = true;
    running.job->work();
    return arm(running);
  }
  std::shared_ptr<BlockingJob> job = std::move(running.job);
  running_.remove_if([&](const Running& other) { return &other == &running; });
  job->complete();
  if (!waiting_.empty()) {
    std::shared_ptr<BlockingJob> next = std::move(waiting_.front());
    waiting_.pop_front();
    start(std::move(next));
  }
}

void SimBlocking::crash() {
  auto running = std::exchange(running_, {});
  auto waiting = std::exchange(waiting_, {});
}

}  // namespace headrace
