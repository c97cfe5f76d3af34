#include "rpc/channel.h"

#include <utility>

namespace headrace {

PendingCall* Channel::pending(uint64_t request) const {
  size_t slot = request % kMaxInFlight;
  PendingCall* call = slot < slots_.size() ? slots_[slot] : nullptr;
  return call != nullptr && call->request() == request ? call : nullptr;
}

void Channel::close() {
  broken_ = true;
  connection_->close();
}

void Channel::fail_all(const Error& why) {
  broken_ = true;
  for (PendingCall* call : slots_) {
    if (call != nullptr && !call->done()) call->fail(why);
  }
  Scheduler::current().wake_all(full_);
  Scheduler::current().wake_all(storage_line_);
}

PendingCall::PendingCall(std::shared_ptr<Channel> channel) : channel_(std::move(channel)) {
  HR_ASSERT(channel_->has_slot());
  size_t slot = channel_->slots_.size();
  if (channel_->free_.empty()) {
    channel_->slots_.push_back(nullptr);
  } else {
    slot = channel_->free_.back();
    channel_->free_.pop_back();
  }
  request_ = ++channel_->calls_ * kMaxInFlight + slot;
  channel_->slots_[slot] = this;
}

PendingCall::~PendingCall() {
  size_t slot = request_ % kMaxInFlight;
  channel_->slots_[slot] = nullptr;
  channel_->free_.push_back(static_cast<uint16_t>(slot));
  // All of them: a waiter that was woken alone may be destroyed before it runs, and the slot would be forgotten.
  if (!channel_->full_.empty() && Scheduler::present()) Scheduler::current().wake_all(channel_->full_);
}

void PendingCall::answer(Frame frame, size_t body) {
  frame_ = std::move(frame);
  body_ = body;
  answered_ = true;
  Scheduler::current().wake_one(waiting_);
}

void PendingCall::fail(Error error) {
  error_ = std::move(error);
  Scheduler::current().wake_one(waiting_);
}

StorageTurn::~StorageTurn() {
  if (!had_) return;
  Waiter* next = Scheduler::present() ? channel_->storage_line_.at(0) : nullptr;
  if (next == nullptr) {
    --channel_->storage_turns_;
    return;
  }
  static_cast<StorageTurn*>(next)->had_ = true;
  Scheduler::current().wake(*next);
}

bool StorageTurn::await_ready() {
  had_ = channel_->storage_turns_ < kMaxStorageCalls;
  if (had_) ++channel_->storage_turns_;
  return had_;
}

void StorageTurn::await_suspend(std::coroutine_handle<> h) {
  handle = h;
  channel_->storage_line_.push(*this);
  clock_.arm(*this, deadline_);
}

bool StorageTurn::await_resume() {
  disarm();
  return had_;
}

void StorageTurn::fire() {
  if (linked_in(channel_->storage_line_)) Scheduler::current().wake(*this);
}

}  // namespace headrace
