#include "runtime/scheduler.h"

namespace headrace {

namespace {
thread_local Scheduler* current_scheduler = nullptr;
}

void Waiter::unlink() {
  if (list_ == nullptr) return;
  (previous_ != nullptr ? previous_->next_ : list_->first_) = next_;
  (next_ != nullptr ? next_->previous_ : list_->last_) = previous_;
  --list_->size_;
  list_ = nullptr;
  previous_ = next_ = nullptr;
}

void WaitList::push(Waiter& waiter) {
  HR_ASSERT(!waiter.linked());
  waiter.list_ = this;
  waiter.previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = &waiter;
  last_ = &waiter;
  ++size_;
}

Waiter* WaitList::pop() {
  Waiter* waiter = first_;
  if (waiter != nullptr) waiter->unlink();
  return waiter;
}

Waiter* WaitList::at(uint64_t index) {
  Waiter* waiter = first_;
  while (waiter != nullptr && index-- > 0) waiter = waiter->next_;
  return waiter;
}

Scheduler::~Scheduler() {
  if (current_scheduler == this) current_scheduler = nullptr;
}

Scheduler& Scheduler::current() {
  HR_ASSERT(current_scheduler != nullptr);
  return *current_scheduler;
}

bool Scheduler::present() {
  return current_scheduler != nullptr;
}

void Scheduler::make_current() {
  HR_ASSERT(current_scheduler == nullptr);
  current_scheduler = this;
}

void Scheduler::wake(Waiter& waiter) {
  waiter.unlink();
  ready_.push(waiter);
}

void Scheduler::wake_all(WaitList& list) {
  while (Waiter* waiter = list.pop()) ready_.push(*waiter);
}

void Scheduler::wake_one(WaitList& list) {
  if (Waiter* waiter = list.pop()) ready_.push(*waiter);
}

uint64_t Scheduler::run_ready(uint64_t limit) {
  uint64_t resumed = 0;
  while (resumed < limit && !ready_.empty()) {
    Waiter* waiter = pick(ready_);
    HR_ASSERT(waiter != nullptr && !waiter->linked());
    ++resumed;
    waiter->handle.resume();
  }
  return resumed;
}

}  // namespace headrace
