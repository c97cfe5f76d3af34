// Operation: one request to the kernel, and all the memory that the kernel may touch on its behalf.
//
// An Operation belongs to the Reactor's pool and lives until its completion has arrived, whatever
// happens to the coroutine that awaits it: buffers, iovecs, addresses and the descriptor stay
// valid. Destroying the awaiter (a crash, a cancelled scope) unhooks it, asks the kernel to cancel,
// and lets the completion return the Operation to the pool.
#pragma once

#include <liburing.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <coroutine>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "runtime/scheduler.h"

namespace headrace {

class Reactor;

// An open descriptor, closed with the last reference. Operations hold one, because a number that is
// closed and opened again before the kernel has taken the request would name another file.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

class Operation {
 public:
  // What a prepared request points to goes here; all of it is dropped after the completion.
  std::vector<Buffer> buffers;
  std::vector<iovec> pieces;
  std::shared_ptr<const void> owner;  // a Descriptor, or anything else that must outlive the request
  msghdr message{};
  sockaddr_storage address{};
  __kernel_timespec timeout{};
  bool result_is_descriptor = false;  // closed when nobody takes it

 private:
  friend class Reactor;
  friend class OperationWait;
  Waiter* waiter_ = nullptr;
  Operation* next_free_ = nullptr;
  int result_ = 0;
  bool done_ = false;
};

// co_await gives the kernel's answer: ≥ 0, or a negative errno.
class OperationWait {
 public:
  OperationWait(Reactor& reactor, Operation* operation) : reactor_(reactor), operation_(operation) {}
  OperationWait(const OperationWait&) = delete;
  OperationWait& operator=(const OperationWait&) = delete;
  ~OperationWait();

  [[nodiscard]] bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    waiter_.handle = h;
    operation_->waiter_ = &waiter_;
  }
  [[nodiscard]] int await_resume();

 private:
  Reactor& reactor_;
  Operation* operation_;
  Waiter waiter_;
};

}  // namespace headrace
