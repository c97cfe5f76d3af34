// Reactor: the event loop of one core on io_uring, and the real back end of runtime/env.h.
//
// Lifecycle: create() on the thread that will run(); destroy there too, after everything that holds
// its Env. A loop resumes what is ready, hands the kernel all prepared requests in one system call,
// reaps completions, fires timers. With nothing to do it spins for a short, self-adjusting while,
// then sleeps in the kernel. Other threads reach it by post() alone. Features of newer kernels are
// used where they are and done without where not; the oldest kernel that is meant to work is 6.1.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/uring/operation.h"

namespace headrace {

class ThreadPool;

struct ReactorOptions {
  unsigned entries = 1024;        // of the submission ring; more requests than that may be in flight
  Nanos spin = microseconds(30);  // at most, before sleeping
  unsigned blocking_threads = 8;
  bool plain_ring = false;  // without what newer kernels offer; for tests
};

class Reactor final : public Scheduler, public Clock {
 public:
  // kNotPermitted where io_uring is switched off, with the mend in the message.
  [[nodiscard]] static Result<std::unique_ptr<Reactor>> create(ReactorOptions options = {});
  ~Reactor() override;

  [[nodiscard]] Env env();

  // Returns when `main` has ended. Children that main left in scopes of its own are gone with it.
  void run(Task<void> main);

  // Runs f on the reactor's thread, outside any coroutine, soon. The only member for other threads;
  // never waits.
  void post(std::move_only_function<void()> f);

  // From now on these signals are taken from the process and given to wait_signal(); SIGPIPE is
  // ignored. Call once, before any thread is started that is not the reactor's own.
  [[nodiscard]] Result<void> catch_signals(std::vector<int> signals);
  [[nodiscard]] Task<int> wait_signal();  // the signal's number

  [[nodiscard]] Nanos now() override;   // CLOCK_BOOTTIME
  [[nodiscard]] Nanos wall() override;  // CLOCK_REALTIME
  void arm(TimerNode& node, Nanos deadline) override { timers_.arm(node, deadline); }

  // Raw descriptors, for gateways. Each returns bytes (which may be fewer than asked for) or a
  // negative errno; the caller keeps fd open until it returns, or, if the task is destroyed first,
  // until the loop has gone round once. Offset kStream reads and writes at the descriptor's own
  // position.
  static constexpr uint64_t kStream = ~uint64_t{0};
  [[nodiscard]] Task<int> read(int fd, Buffer into, uint64_t offset);
  [[nodiscard]] Task<int> write(int fd, Buffer from, uint64_t offset);
  [[nodiscard]] Task<int> writev(int fd, std::vector<Buffer> pieces, uint64_t offset);
  [[nodiscard]] Task<int> poll(int fd,
                               unsigned events);  // POLLIN…; returns the events that are there
  // For devices that io_uring would hand to its worker threads (/dev/fuse, signalfd): fd must be
  // O_NONBLOCK. Reads at once where it can, otherwise after a poll.
  [[nodiscard]] Task<int> read_ready(int fd, Buffer into);
  // writev(2) here and now; for descriptors whose write never waits (/dev/fuse). At most 1,024
  // pieces.
  [[nodiscard]] int write_now(int fd, const std::vector<Buffer>& pieces);

  // Any request: prepare(io_uring_sqe*, Operation&) is called at once and fills both. The kernel
  // sees it when the loop next submits, or earlier when the ring is full.
  template <class Prepare>
  [[nodiscard]] OperationWait submit(Prepare&& prepare) {
    Operation* operation = acquire();
    io_uring_sqe* sqe = next_sqe();
    prepare(sqe, *operation);
    io_uring_sqe_set_data(sqe, operation);
    ++in_flight_;
    return OperationWait(*this, operation);
  }
  // As submit(), but the kernel gives up after `timeout`: the result is then -ECANCELED.
  template <class Prepare>
  [[nodiscard]] OperationWait submit_with_timeout(Nanos timeout, Prepare&& prepare) {
    Operation* operation = acquire();
    reserve_sqes(2);
    io_uring_sqe* sqe = next_sqe();
    prepare(sqe, *operation);
    sqe->flags |= IOSQE_IO_LINK;
    io_uring_sqe_set_data(sqe, operation);
    ++in_flight_;
    operation->timeout = {timeout.count / 1'000'000'000, timeout.count % 1'000'000'000};
    io_uring_sqe* link = next_sqe();
    io_uring_prep_link_timeout(link, &operation->timeout, 0);
    link->user_data = kIgnored;
    return OperationWait(*this, operation);
  }
  [[nodiscard]] uint64_t in_flight() const { return in_flight_; }  // requests that the kernel has not answered

 private:
  friend class OperationWait;
  static constexpr uint64_t kIgnored = 0;  // user_data of requests whose completion means nothing
  static constexpr uint64_t kMailbox = 1;

  explicit Reactor(ReactorOptions options);
  [[nodiscard]] Result<void> open_ring();
  Task<void> root(Task<void> main);

  void turn();
  void submit_prepared();
  void sleep_in_kernel();
  bool spin();
  [[nodiscard]] bool work_pending();
  bool reap();  // whether there was any completion
  void complete(Operation& operation, int result);
  bool run_mailbox();
  void arm_mailbox();

  [[nodiscard]] Operation* acquire();
  void release(Operation* operation);
  void abandon(Operation* operation);
  void reserve_sqes(unsigned count);
  [[nodiscard]] io_uring_sqe* next_sqe();

  ReactorOptions options_;
  io_uring ring_{};
  bool ring_open_ = false;
  bool flags_task_work_ = false;  // the kernel tells in the ring that completions wait for us to enter it
  Timers timers_;
  uint64_t in_flight_ = 0;
  Operation* free_ = nullptr;
  uint64_t free_count_ = 0;
  Nanos spin_now_{};
  bool main_ended_ = false;

  std::mutex mailbox_mutex_;
  std::vector<std::move_only_function<void()>> mailbox_;
  bool sleeping_ = false;  // under the mutex: post() must write to the eventfd
  std::atomic<bool> mail_{false};
  int mailbox_fd_ = -1;
  uint64_t mailbox_count_ = 0;  // the kernel reads the eventfd into it
  bool mailbox_armed_ = false;

  int signal_fd_ = -1;

  ProcessRandom random_;
  std::unique_ptr<ThreadPool> blocking_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<Net> net_;
  Scope scope_;
};

}  // namespace headrace
