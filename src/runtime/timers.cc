#include "runtime/timers.h"

namespace headrace {

void TimerNode::disarm() {
  if (timers_ == nullptr) return;
  timers_->armed_.erase(this);
  timers_ = nullptr;
}

Timers::~Timers() {
  for (TimerNode* node : armed_) node->timers_ = nullptr;
}

void Timers::arm(TimerNode& node, Nanos deadline) {
  node.disarm();
  node.timers_ = this;
  node.deadline_ = deadline;
  node.order_ = next_order_++;
  armed_.insert(&node);
}

Nanos Timers::next_deadline() const {
  HR_ASSERT(!armed_.empty());
  return (*armed_.begin())->deadline_;
}

uint64_t Timers::fire_due(Nanos now) {
  uint64_t fired = 0;
  while (!armed_.empty() && (*armed_.begin())->deadline_ <= now) {
    TimerNode* node = *armed_.begin();
    node->disarm();
    node->fire();
    ++fired;
  }
  return fired;
}

}  // namespace headrace
