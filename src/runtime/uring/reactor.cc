#include "runtime/uring/reactor.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <csignal>
#include <ctime>

#include "runtime/uring/disk.h"
#include "runtime/uring/errors.h"
#include "runtime/uring/net.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {

namespace {

// So that a busy core still looks at the kernel, and what was prepared is sent while others compute.
constexpr uint64_t kMaxResumesPerTurn = 512;
constexpr uint64_t kResumesPerLook = 8;
constexpr Nanos kTurn = microseconds(200);
constexpr uint64_t kMaxPooledOperations = 4096;
constexpr Nanos kDrain = seconds(10);

Nanos read_clock(clockid_t id) {
  timespec time{};
  clock_gettime(id, &time);
  return {static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec};
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

iovec piece_of(const Buffer& buffer) {
  return {const_cast<std::byte*>(buffer.data()), buffer.size()};
}

}  // namespace

// --- OperationWait ---

OperationWait::~OperationWait() {
  if (operation_ == nullptr) return;
  if (operation_->done_) {
    reactor_.release(operation_);
  } else {
    reactor_.abandon(operation_);
  }
}

int OperationWait::await_resume() {
  HR_ASSERT(operation_->done_);
  int result = operation_->result_;
  operation_->result_is_descriptor = false;  // taken
  reactor_.release(std::exchange(operation_, nullptr));
  return result;
}

// --- Life ---

Result<std::unique_ptr<Reactor>> Reactor::create(ReactorOptions options) {
  std::unique_ptr<Reactor> reactor(new Reactor(options));
  HR_TRY(reactor->open_ring());
  return reactor;
}

Reactor::Reactor(ReactorOptions options) : options_(options), spin_now_(options.spin) {
  make_current();
}

Result<void> Reactor::open_ring() {
  constexpr unsigned kAlways = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
  constexpr unsigned kChoices[] = {
      kAlways | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
          IORING_SETUP_TASKRUN_FLAG,
      kAlways | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
          IORING_SETUP_TASKRUN_FLAG,
      kAlways | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      kAlways,
  };
  int failure = -EINVAL;
  for (unsigned flags : kChoices) {
    if (options_.plain_ring && flags != kAlways) continue;
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = options_.entries * 4;
    failure = io_uring_queue_init_params(options_.entries, &ring_, &params);
    if (failure == 0) {
      flags_task_work_ = (flags & IORING_SETUP_TASKRUN_FLAG) != 0;
      break;
    }
    if (failure != -EINVAL) break;
  }
  if (failure == -EPERM || failure == -EACCES || failure == -ENOSYS)
    return Error(Code::kNotPermitted,
                 "io_uring is not available to this process: allow it with "
                 "'sysctl kernel.io_uring_disabled=0', or in the container's seccomp profile");
  if (failure != 0) return errno_error(-failure, "open an io_uring");
  ring_open_ = true;
  if ((ring_.features & IORING_FEAT_EXT_ARG) == 0 || (ring_.features & IORING_FEAT_NODROP) == 0)
    return Error(Code::kNotSupported, "this kernel's io_uring is too old: 6.1 or newer is needed");
  (void)io_uring_register_ring_fd(&ring_);  // only a saving

  mailbox_fd_ = eventfd(0, EFD_CLOEXEC);
  if (mailbox_fd_ < 0) return errno_error(errno, "eventfd");
  arm_mailbox();
  blocking_ = std::make_unique<ThreadPool>(*this, options_.blocking_threads);
  disk_ = make_disk(*this, *blocking_);
  net_ = make_net(*this, *blocking_);
  return {};
}

Reactor::~Reactor() {
  blocking_.reset();
  net_.reset();
  disk_.reset();
  mailbox_.clear();  // may drop the last references to jobs, which may own anything
  if (ring_open_) {
    Nanos until = now() + kDrain;
    while ((in_flight_ > 0 || mailbox_armed_) && now() < until) {
      io_uring_sqe* sqe = next_sqe();
      io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
      sqe->user_data = kIgnored;
      io_uring_cqe* cqe = nullptr;
      __kernel_timespec pause{0, 10'000'000};
      (void)io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &pause, nullptr);
      reap();
    }
    // Whatever the kernel still holds after that keeps its memory: a leak is better than a stray
    // write.
    io_uring_queue_exit(&ring_);
  }
  while (free_ != nullptr) delete std::exchange(free_, free_->next_free_);
  if (mailbox_fd_ >= 0) ::close(mailbox_fd_);
  if (signal_fd_ >= 0) ::close(signal_fd_);
}

Env Reactor::env() {
  return {.clock = *this, .disk = *disk_, .net = *net_, .random = random_, .blocking = *blocking_};
}

Nanos Reactor::now() {
  return read_clock(CLOCK_BOOTTIME);
}
Nanos Reactor::wall() {
  return read_clock(CLOCK_REALTIME);
}

// --- The loop ---

Task<void> Reactor::root(Task<void> main) {
  co_await std::move(main);
  main_ended_ = true;
}

void Reactor::run(Task<void> main) {
  HR_ASSERT(&Scheduler::current() == this);
  HR_ASSERT(scope_.running() == 0);
  main_ended_ = false;
  scope_.spawn(root(std::move(main)));
  while (!main_ended_) turn();
}

void Reactor::turn() {
  uint64_t resumed = 0;
  const Nanos over = now() + kTurn;
  do resumed += run_ready(kResumesPerLook);
  while (!idle() && resumed < kMaxResumesPerTurn && now() < over);
  if (main_ended_) return;
  bool progress = run_mailbox();
  submit_prepared();
  progress |= reap();
  if (!timers_.empty()) progress |= timers_.fire_due(now()) > 0;
  if (progress || !idle()) return;
  if (spin()) return;
  sleep_in_kernel();
}

void Reactor::submit_prepared() {
  if (io_uring_sq_ready(&ring_) > 0) {
    // An error here is shortage (EAGAIN, EBUSY): what was not taken is offered again in the next
    // turn.
    (void)io_uring_submit_and_get_events(&ring_);
  } else if (flags_task_work_ && (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_TASKRUN) != 0) {
    (void)io_uring_get_events(&ring_);
  }
}

bool Reactor::work_pending() {
  return io_uring_cq_ready(&ring_) > 0 || mail_.load(std::memory_order_acquire) ||
         (flags_task_work_ && (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_TASKRUN) != 0);
}

bool Reactor::spin() {
  if (spin_now_.count == 0) return false;
  Nanos until = now() + spin_now_;
  if (!timers_.empty()) until = std::min(until, timers_.next_deadline());
  do {
    for (int i = 0; i < 16; ++i) {
      if (work_pending()) {
        spin_now_ = options_.spin;
        return true;
      }
      relax();
    }
  } while (now() < until);
  return work_pending();
}

void Reactor::sleep_in_kernel() {
  {
    std::lock_guard lock(mailbox_mutex_);
    if (!mailbox_.empty()) return;
    sleeping_ = true;
  }
  arm_mailbox();
  Nanos before = now();
  Nanos wait = seconds(3600);
  if (!timers_.empty()) wait = std::min(wait, timers_.next_deadline() - before);
  if (wait.count > 0) {
    __kernel_timespec timeout{wait.count / 1'000'000'000, wait.count % 1'000'000'000};
    io_uring_cqe* cqe = nullptr;
    (void)io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout,
                                           nullptr);  // ETIME, EINTR: fine
  }
  {
    std::lock_guard lock(mailbox_mutex_);
    sleeping_ = false;
  }
  reap();
  // A spin would have caught what came this soon; after long sleeps it is only heat.
  Nanos slept = now() - before;
  if (slept <= options_.spin) {
    spin_now_ = options_.spin;
  } else {
    spin_now_ = spin_now_ / 2;
    if (spin_now_ < microseconds(1)) spin_now_ = {};
  }
}

bool Reactor::reap() {
  constexpr unsigned kBatch = 64;
  io_uring_cqe* batch[kBatch];
  bool any = false;
  while (unsigned count = io_uring_peek_batch_cqe(&ring_, batch, kBatch)) {
    any = true;
    for (unsigned i = 0; i < count; ++i) {
      uint64_t data = batch[i]->user_data;
      if (data == kIgnored) continue;
      if (data == kMailbox) {
        mailbox_armed_ = false;
        continue;
      }
      complete(*reinterpret_cast<Operation*>(data), batch[i]->res);
    }
    io_uring_cq_advance(&ring_, count);
    if (count < kBatch) break;
  }
  return any;
}

void Reactor::complete(Operation& operation, int result) {
  HR_ASSERT(!operation.done_ && in_flight_ > 0);
  --in_flight_;
  operation.done_ = true;
  operation.result_ = result;
  if (operation.waiter_ != nullptr) {
    wake(*operation.waiter_);
  } else {
    release(&operation);
  }
}

// --- Requests ---

Operation* Reactor::acquire() {
  if (free_ == nullptr) return new Operation;
  Operation* operation = std::exchange(free_, free_->next_free_);
  --free_count_;
  operation->done_ = false;
  return operation;
}

void Reactor::release(Operation* operation) {
  if (operation->result_is_descriptor && operation->result_ >= 0) ::close(operation->result_);
  operation->result_is_descriptor = false;
  operation->waiter_ = nullptr;
  operation->buffers.clear();
  operation->pieces.clear();
  operation->owner.reset();
  if (free_count_ >= kMaxPooledOperations) {
    delete operation;
    return;
  }
  operation->next_free_ = std::exchange(free_, operation);
  ++free_count_;
}

void Reactor::abandon(Operation* operation) {
  operation->waiter_ = nullptr;
  // The pool may reuse the operation before the kernel sees this: harmless, for a request that is
  // prepared later is submitted later too.
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_cancel64(sqe, reinterpret_cast<uint64_t>(operation), 0);
  sqe->user_data = kIgnored;
}

void Reactor::reserve_sqes(unsigned count) {
  while (io_uring_sq_space_left(&ring_) < count) {
    (void)io_uring_submit_and_get_events(&ring_);
    reap();
  }
}

io_uring_sqe* Reactor::next_sqe() {
  reserve_sqes(1);
  return io_uring_get_sqe(&ring_);
}

Task<int> Reactor::read(int fd, Buffer into, uint64_t offset) {
  co_return co_await submit([&](io_uring_sqe* sqe, Operation& operation) {
    io_uring_prep_read(sqe, fd, into.data(), static_cast<unsigned>(into.size()), offset);
    operation.buffers.push_back(std::move(into));
  });
}

Task<int> Reactor::write(int fd, Buffer from, uint64_t offset) {
  co_return co_await submit([&](io_uring_sqe* sqe, Operation& operation) {
    io_uring_prep_write(sqe, fd, from.data(), static_cast<unsigned>(from.size()), offset);
    operation.buffers.push_back(std::move(from));
  });
}

Task<int> Reactor::writev(int fd, std::vector<Buffer> pieces, uint64_t offset) {
  co_return co_await submit([&](io_uring_sqe* sqe, Operation& operation) {
    for (const Buffer& piece : pieces) operation.pieces.push_back(piece_of(piece));
    operation.buffers = std::move(pieces);
    io_uring_prep_writev(sqe, fd, operation.pieces.data(), static_cast<unsigned>(operation.pieces.size()), offset);
  });
}

Task<int> Reactor::poll(int fd, unsigned events) {
  co_return co_await submit([&](io_uring_sqe* sqe, Operation&) { io_uring_prep_poll_add(sqe, fd, events); });
}

Task<int> Reactor::read_ready(int fd, Buffer into) {
  for (;;) {
    ssize_t got = ::read(fd, into.data(), into.size());
    if (got >= 0) co_return static_cast<int>(got);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) co_return -errno;
    int polled = co_await poll(fd, POLLIN);
    if (polled < 0) co_return polled;
  }
}

int Reactor::write_now(int fd, const std::vector<Buffer>& pieces) {
  iovec vector[1024];
  HR_ASSERT(pieces.size() <= std::size(vector));
  for (size_t i = 0; i < pieces.size(); ++i) vector[i] = piece_of(pieces[i]);
  for (;;) {
    ssize_t put = ::writev(fd, vector, static_cast<int>(pieces.size()));
    if (put >= 0) return static_cast<int>(put);
    if (errno != EINTR) return -errno;
  }
}

// --- Other threads, signals ---

void Reactor::post(std::move_only_function<void()> f) {
  bool wake;
  {
    std::lock_guard lock(mailbox_mutex_);
    mailbox_.push_back(std::move(f));
    wake = std::exchange(sleeping_, false);
    mail_.store(true, std::memory_order_release);
  }
  if (wake) {
    uint64_t one = 1;
    ssize_t put = ::write(mailbox_fd_, &one, sizeof one);
    HR_ASSERT(put == static_cast<ssize_t>(sizeof one));
  }
}

bool Reactor::run_mailbox() {
  if (!mail_.load(std::memory_order_acquire)) return false;
  std::vector<std::move_only_function<void()>> mail;
  {
    std::lock_guard lock(mailbox_mutex_);
    mail.swap(mailbox_);
    mail_.store(false, std::memory_order_relaxed);
  }
  for (auto& f : mail) f();
  return !mail.empty();
}

void Reactor::arm_mailbox() {
  if (mailbox_armed_) return;
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_read(sqe, mailbox_fd_, &mailbox_count_, sizeof mailbox_count_, 0);
  sqe->user_data = kMailbox;
  mailbox_armed_ = true;
}

Result<void> Reactor::catch_signals(std::vector<int> signals) {
  HR_ASSERT(signal_fd_ < 0);
  sigset_t set;
  sigemptyset(&set);
  for (int signal : signals) sigaddset(&set, signal);
  int failure = pthread_sigmask(SIG_BLOCK, &set, nullptr);
  if (failure != 0) return errno_error(failure, "block signals");
  signal_fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signal_fd_ < 0) return errno_error(errno, "signalfd");
  std::signal(SIGPIPE, SIG_IGN);
  return {};
}

Task<int> Reactor::wait_signal() {
  HR_ASSERT(signal_fd_ >= 0);
  Buffer buffer = Buffer::allocate(sizeof(signalfd_siginfo));
  int got = co_await read_ready(signal_fd_, buffer);
  HR_ASSERT(got == static_cast<int>(sizeof(signalfd_siginfo)));
  signalfd_siginfo info;
  std::memcpy(&info, buffer.data(), sizeof info);
  co_return static_cast<int>(info.ssi_signo);
}

}  // namespace headrace
