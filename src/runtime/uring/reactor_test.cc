#include "runtime/uring/reactor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "runtime/uring/errors.h"
#include "runtime/uring/uring_test.h"

namespace headrace {
namespace {

class ReactorTest : public UringTest {};

struct Pipe {
  Pipe() { HR_ASSERT(pipe2(fds, O_CLOEXEC) == 0); }
  ~Pipe() {
    ::close(fds[0]);
    ::close(fds[1]);
  }
  int fds[2];
};

Task<void> sleep_and_note(Clock* clock, Nanos duration, std::vector<int>* order, int name) {
  co_await clock->sleep(duration);
  order->push_back(name);
}

Task<void> three_sleepers(Clock* clock, std::vector<int>* order) {
  Scope scope;
  scope.spawn(sleep_and_note(clock, milliseconds(30), order, 3));
  scope.spawn(sleep_and_note(clock, milliseconds(1), order, 1));
  scope.spawn(sleep_and_note(clock, milliseconds(15), order, 2));
  co_await scope.join();
}

TEST_F(ReactorTest, TimersFireInOrderOfTheirDeadlinesAndNotBefore) {
  std::vector<int> order;
  Nanos before = reactor_->now();
  run(three_sleepers(reactor_.get(), &order));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(reactor_->now() - before, milliseconds(30));
}

Task<void> yield_often(int* count) {
  for (int i = 0; i < 5000; ++i) {
    co_await yield();
    ++*count;
  }
}

Task<void> busy_with_a_timer(Clock* clock, int* count, bool* overtook) {
  Scope scope;
  scope.spawn(yield_often(count));
  co_await clock->sleep(microseconds(1));
  *overtook = *count < 5000;
  co_await scope.join();
}

TEST_F(ReactorTest, ABusyCoreStillFiresTimers) {
  int count = 0;
  bool overtook = false;
  run(busy_with_a_timer(reactor_.get(), &count, &overtook));
  EXPECT_EQ(count, 5000);
  EXPECT_TRUE(overtook);
}

TEST_F(ReactorTest, WallClockIsThisCentury) {
  EXPECT_GT(reactor_->wall(), seconds(1'700'000'000));
}

Task<void> read_into(Reactor* reactor, int fd, Buffer into, int* result) {
  *result = co_await reactor->read(fd, into, Reactor::kStream);
}

Task<void> destroy_while_reading(Reactor* reactor, Pipe* pipe, uint64_t* in_flight) {
  int result = -1;
  {
    Scope scope;
    scope.spawn(read_into(reactor, pipe->fds[0], Buffer::allocate(100), &result));
    co_await reactor->sleep(milliseconds(1));  // now the kernel has it
    *in_flight = reactor->in_flight();
  }
  // The kernel still owns the buffer; the cancellation brings the completion.
  while (reactor->in_flight() > 0) co_await yield();
  EXPECT_EQ(result, -1);
}

TEST_F(ReactorTest, DestroyingAnAwaitingFrameCancelsItsRequestAndKeepsTheBuffer) {
  Pipe pipe;
  uint64_t in_flight = 0;
  run(destroy_while_reading(reactor_.get(), &pipe, &in_flight));
  EXPECT_EQ(in_flight, 1u);
  EXPECT_EQ(reactor_->in_flight(), 0u);
}

Task<void> destroy_before_submission(Reactor* reactor, Pipe* pipe) {
  int result = -1;
  {
    Scope scope;
    for (int i = 0; i < 100; ++i) scope.spawn(read_into(reactor, pipe->fds[0], Buffer::allocate(100), &result));
  }
  while (reactor->in_flight() > 0) co_await yield();
}

TEST_F(ReactorTest, DestroyingAFrameBeforeItsRequestWasSubmittedIsSafe) {
  Pipe pipe;
  run(destroy_before_submission(reactor_.get(), &pipe));
  run(destroy_before_submission(reactor_.get(), &pipe));
}

Task<void> leave_reading(Reactor* reactor, Scope* scope, Pipe* pipe, int* result) {
  scope->spawn(read_into(reactor, pipe->fds[0], Buffer::allocate(100), result));
  co_await yield();
}

TEST_F(ReactorTest, DestructionDrainsWhatIsInFlight) {
  Pipe pipe;
  int result = -1;
  {
    Scope scope;
    run(leave_reading(reactor_.get(), &scope, &pipe, &result));
    EXPECT_GT(reactor_->in_flight(), 0u);
  }
  reactor_.reset();
}

Task<void> write_and_read_many(Reactor* reactor, int fd, int count, int* good) {
  Scope scope;
  std::vector<int> results(static_cast<size_t>(count), -1);
  for (int i = 0; i < count; ++i)
    scope.spawn(read_into(reactor, fd, Buffer::allocate(8), &results[static_cast<size_t>(i)]));
  co_await scope.join();
  for (int result : results) *good += result == 8 ? 1 : 0;
}

TEST_F(ReactorTest, TakesManyMoreRequestsThanTheRingHasEntries) {
  int fd = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  int good = 0;
  run(write_and_read_many(reactor_.get(), fd, 20'000, &good));
  EXPECT_EQ(good, 20'000);
  ::close(fd);
}

Task<void> through_a_pipe(Reactor* reactor, Pipe* pipe, std::string* got) {
  std::vector<Buffer> pieces{Buffer::copy_of(bytes_of("head")), Buffer::copy_of(bytes_of("race"))};
  int put = co_await reactor->writev(pipe->fds[1], pieces, Reactor::kStream);
  EXPECT_EQ(put, 8);
  int events = co_await reactor->poll(pipe->fds[0], POLLIN);
  EXPECT_EQ(events & POLLIN, POLLIN);
  Buffer into = Buffer::allocate(100);
  int size = co_await reactor->read(pipe->fds[0], into, Reactor::kStream);
  EXPECT_EQ(size, 8);
  if (size == 8) *got = std::string(into.slice(0, 8).text());
}

TEST_F(ReactorTest, ReadsWritesAndPollsRawDescriptors) {
  Pipe pipe;
  std::string got;
  run(through_a_pipe(reactor_.get(), &pipe, &got));
  EXPECT_EQ(got, "headrace");
}

Task<void> write_later(Reactor* reactor, int fd) {
  co_await reactor->sleep(milliseconds(2));
  EXPECT_EQ(reactor->write_now(fd, {Buffer::copy_of(bytes_of("now")), Buffer::copy_of(bytes_of("!"))}), 4);
}

Task<void> read_when_ready(Reactor* reactor, Pipe* pipe, int* size) {
  Scope scope;
  scope.spawn(write_later(reactor, pipe->fds[1]));
  *size = co_await reactor->read_ready(pipe->fds[0], Buffer::allocate(100));
  co_await scope.join();
}

TEST_F(ReactorTest, ReadReadyWaitsForADescriptorThatDoesNotBlock) {
  Pipe pipe;
  fcntl(pipe.fds[0], F_SETFL, O_NONBLOCK);
  int size = 0;
  run(read_when_ready(reactor_.get(), &pipe, &size));
  EXPECT_EQ(size, 4);
}

Task<void> read_bad_descriptor(Reactor* reactor, int* result) {
  *result = co_await reactor->read(-1, Buffer::allocate(1), 0);
}

TEST_F(ReactorTest, GivesTheKernelsErrorAsANegativeErrno) {
  int result = 0;
  run(read_bad_descriptor(reactor_.get(), &result));
  EXPECT_EQ(result, -EBADF);
}

TEST_F(ReactorTest, WorksOnARingWithoutNewerFeatures) {
  make_reactor({.entries = 4, .blocking_threads = 1, .plain_ring = true});
  int fd = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  int good = 0;
  run(write_and_read_many(reactor_.get(), fd, 2000, &good));
  EXPECT_EQ(good, 2000);
  ::close(fd);
  Pipe pipe;
  uint64_t in_flight = 0;
  run(destroy_while_reading(reactor_.get(), &pipe, &in_flight));
  EXPECT_EQ(in_flight, 1u);
}

// --- Other threads ---

Task<void> wait_for(Event* event) {
  co_await event->wait();
}

TEST_F(ReactorTest, RunsWhatOtherThreadsPostEvenWhileItSleeps) {
  Event event;
  int count = 0;
  std::thread other([this, &event, &count] {
    for (int i = 0; i < 1000; ++i) {
      if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      reactor_->post([&event, &count] {
        if (++count == 1000) event.set();
      });
    }
  });
  run(wait_for(&event));
  other.join();
  EXPECT_EQ(count, 1000);
}

Task<void> run_blocking(Blocking* blocking, std::thread::id* where, int* result) {
  *where = co_await blocking->run([] { return std::this_thread::get_id(); });
  std::unique_ptr<int> moved = co_await blocking->run([] { return std::make_unique<int>(7); });
  co_await blocking->run([] {});
  *result = *moved;
}

Task<void> many_blocking(Blocking* blocking, int count) {
  Scope scope;
  std::vector<std::thread::id> where(static_cast<size_t>(count));
  std::vector<int> results(static_cast<size_t>(count));
  for (size_t i = 0; i < where.size(); ++i) scope.spawn(run_blocking(blocking, &where[i], &results[i]));
  co_await scope.join();
  for (size_t i = 0; i < where.size(); ++i) {
    EXPECT_NE(where[i], std::this_thread::get_id());
    EXPECT_EQ(results[i], 7);
  }
}

TEST_F(ReactorTest, BlockingWorkRunsOnOtherThreadsAndReturnsToTheCore) {
  run(many_blocking(&env().blocking, 500));
}

Task<void> slow_work(Blocking* blocking, std::shared_ptr<std::atomic<int>> steps) {
  co_await blocking->run([steps] {
    ++*steps;
    while (*steps < 2) std::this_thread::yield();
  });
  *steps = 100;
}

Task<void> abandon_blocking(Blocking* blocking, Clock* clock, std::shared_ptr<std::atomic<int>> steps) {
  {
    Scope scope;
    scope.spawn(slow_work(blocking, steps));
    while (*steps < 1) co_await clock->sleep(microseconds(100));
  }
  ++*steps;
}

TEST_F(ReactorTest, AbandonedBlockingWorkFinishesWithoutItsTask) {
  auto steps = std::make_shared<std::atomic<int>>(0);
  run(abandon_blocking(&env().blocking, reactor_.get(), steps));
  reactor_.reset();
  EXPECT_EQ(*steps, 2);
}

// Root has as many threads as it likes.
void limit_threads(bool few) {
  if (geteuid() == 0) HR_ASSERT(setresuid(54'321, 54'321, 54'321) == 0);
  rlimit limit{};
  HR_ASSERT(getrlimit(RLIMIT_NPROC, &limit) == 0);
  limit.rlim_cur = few ? 1 : limit.rlim_max;
  HR_ASSERT(setrlimit(RLIMIT_NPROC, &limit) == 0);
}

Task<void> block_until(Blocking* blocking, std::shared_ptr<std::atomic<bool>> free) {
  co_await blocking->run([free] {
    while (!*free) std::this_thread::yield();
  });
}

Task<void> waits_for_a_thread(Reactor* reactor) {
  Blocking& blocking = reactor->env().blocking;
  // None yet.
  limit_threads(true);
  auto free = std::make_shared<std::atomic<bool>>(false);
  Scope scope;
  scope.spawn(block_until(&blocking, free));
  scope.spawn(block_until(&blocking, free));
  co_await reactor->sleep(milliseconds(50));
  HR_ASSERT(scope.running() == 2);
  limit_threads(false);
  *free = true;
  co_await scope.join();
  // One, which is busy.
  limit_threads(true);
  *free = false;
  Scope more;
  for (int i = 0; i < 3; ++i) more.spawn(block_until(&blocking, free));
  *free = true;
  co_await more.join();
}

[[noreturn]] void run_out_of_threads() {
  auto reactor = *Reactor::create();
  reactor->run(waits_for_a_thread(reactor.get()));
  reactor.reset();
  std::_Exit(0);
}

TEST(ThreadPool, JobsWaitForAThreadWhereTheSystemHasNoneToGive) {
  EXPECT_EXIT(run_out_of_threads(), testing::ExitedWithCode(0), "");
}

TEST_F(ReactorTest, ServesOneLoopPerThread) {
  std::vector<std::thread> threads;
  std::atomic<int> ended{0};
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&ended] {
      Result<std::unique_ptr<Reactor>> made = Reactor::create({.blocking_threads = 2});
      HR_ASSERT(made.ok());
      std::vector<int> order;
      (*made)->run(three_sleepers(made->get(), &order));
      ended += static_cast<int>(order.size());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, 9);
}

// --- Signals ---

Task<void> take_signal(Reactor* reactor, int* got) {
  kill(getpid(), SIGUSR1);
  *got = co_await reactor->wait_signal();
}

TEST_F(ReactorTest, SignalsArriveAsValues) {
  ASSERT_TRUE(reactor_->catch_signals({SIGUSR1}).ok());
  int got = 0;
  run(take_signal(reactor_.get(), &got));
  EXPECT_EQ(got, SIGUSR1);
}

TEST(Errno, BecomesACodeAndAMessageWithThePath) {
  EXPECT_EQ(errno_error(ENOENT, "open /x").text(), "not_found: open /x: No such file or directory");
  EXPECT_EQ(code_of_errno(ENOSPC), Code::kNoSpace);
  EXPECT_EQ(code_of_errno(EEXIST), Code::kExists);
  EXPECT_EQ(code_of_errno(EACCES), Code::kAccess);
  EXPECT_EQ(code_of_errno(EPERM), Code::kNotPermitted);
  EXPECT_EQ(code_of_errno(EIO), Code::kIo);
  EXPECT_EQ(code_of_errno(ECONNREFUSED), Code::kUnavailable);
  EXPECT_EQ(code_of_errno(EPIPE), Code::kDisconnected);
}

}  // namespace
}  // namespace headrace
