// For this room's tests: an Env over plain system calls on one thread plus a pool, without the
// reactor, and an Env with virtual time. run() drives one task to its end.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "runtime/env.h"
#include "runtime/scope.h"

namespace headrace::test {

class TestScheduler final : public Scheduler {
 public:
  TestScheduler() { make_current(); }
};

class TestClock final : public Clock {
 public:
  explicit TestClock(bool is_virtual) : virtual_(is_virtual) {}
  Nanos now() override { return virtual_ ? virtual_now_ : read(CLOCK_BOOTTIME); }
  Nanos wall() override { return (virtual_ ? virtual_now_ + seconds(1'700'000'000) : read(CLOCK_REALTIME)) + skew; }
  void arm(TimerNode& node, Nanos deadline) override { timers.arm(node, deadline); }
  void jump(Nanos to) {
    if (to > virtual_now_) virtual_now_ = to;
  }
  [[nodiscard]] bool is_virtual() const { return virtual_; }
  Nanos skew;
  Timers timers;

 private:
  static Nanos read(clockid_t id) {
    timespec t{};
    ::clock_gettime(id, &t);
    return Nanos{t.tv_sec * 1'000'000'000 + t.tv_nsec};
  }
  bool virtual_;
  Nanos virtual_now_ = seconds(1);
};

class ThreadBlocking final : public Blocking {
 public:
  explicit ThreadBlocking(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~ThreadBlocking() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void submit(std::shared_ptr<BlockingJob> job) override {
    std::lock_guard lock(mutex_);
    ++pending_;
    todo_.push_back(std::move(job));
    wake_.notify_one();
  }
  [[nodiscard]] bool pending() {
    std::lock_guard lock(mutex_);
    return pending_ > 0;
  }
  // Completes what is done; waits for at most `patience` when nothing is.
  void poll(Nanos patience) {
    std::deque<std::shared_ptr<BlockingJob>> done;
    {
      std::unique_lock lock(mutex_);
      if (done_.empty() && patience > Nanos{})
        finished_.wait_for(lock, std::chrono::nanoseconds(patience.count), [this] { return !done_.empty(); });
      done.swap(done_);
      pending_ -= done.size();
    }
    for (auto& job : done) job->complete();
  }

 private:
  void work() {
    while (true) {
      std::shared_ptr<BlockingJob> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stop_ || !todo_.empty(); });
        if (todo_.empty()) return;
        job = std::move(todo_.front());
        todo_.pop_front();
      }
      job->work();
      std::lock_guard lock(mutex_);
      done_.push_back(std::move(job));
      finished_.notify_one();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  std::deque<std::shared_ptr<BlockingJob>> todo_;
  std::deque<std::shared_ptr<BlockingJob>> done_;
  size_t pending_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

inline Error errno_error(const std::string& what) {
  const int number = errno;
  Code code = number == ENOENT    ? Code::kNotFound
              : number == EEXIST  ? Code::kExists
              : number == ENOTDIR ? Code::kNotDirectory
              : number == EISDIR  ? Code::kIsDirectory
              : number == ENOSPC  ? Code::kNoSpace
              : number == EACCES  ? Code::kAccess
                                  : Code::kIo;
  return Error(code, what + ": " + std::strerror(number));
}

struct DiskFaults {
  bool full = false;  // writes: kNoSpace
  bool fail_syncs = false;
  uint64_t syncs = 0;  // sync_directory calls
  uint64_t flushes = 0;
};

class PosixFile final : public File {
 public:
  PosixFile(int fd, DiskFaults& faults) : fd_(fd), faults_(faults) {}
  ~PosixFile() override { ::close(fd_); }
  Task<Result<size_t>> read(uint64_t offset, Buffer into) override {
    size_t have = 0;
    while (have < into.size()) {
      ssize_t n = ::pread(fd_, into.data() + have, into.size() - have, static_cast<off_t>(offset + have));
      if (n < 0) co_return errno_error("read");
      if (n == 0) break;
      have += static_cast<size_t>(n);
    }
    co_return have;
  }
  Task<Result<void>> write(uint64_t offset, std::vector<Buffer> pieces) override {
    if (faults_.full) co_return Error(Code::kNoSpace, "no space left on device");
    for (Buffer& piece : pieces) {
      size_t done = 0;
      while (done < piece.size()) {
        ssize_t n = ::pwrite(fd_, piece.data() + done, piece.size() - done, static_cast<off_t>(offset));
        if (n < 0) co_return errno_error("write");
        done += static_cast<size_t>(n);
        offset += static_cast<uint64_t>(n);
      }
    }
    co_return {};
  }
  Task<Result<void>> flush() override {
    ++faults_.flushes;
    if (::fdatasync(fd_) != 0) co_return errno_error("flush");
    co_return {};
  }
  Task<Result<uint64_t>> size() override {
    struct stat st{};
    if (::fstat(fd_, &st) != 0) co_return errno_error("size");
    co_return static_cast<uint64_t>(st.st_size);
  }
  Task<Result<void>> resize(uint64_t size) override {
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) co_return errno_error("resize");
    co_return {};
  }

 private:
  int fd_;
  DiskFaults& faults_;
};

class PosixDisk final : public Disk {
 public:
  DiskFaults faults;
  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override {
    int flags = O_CLOEXEC | (options.create ? O_RDWR | O_CREAT : O_RDONLY) | (options.exclusive ? O_EXCL : 0);
    int fd = ::open(path.c_str(), flags, 0666);
    if (fd < 0) co_return errno_error("open " + path);
    struct stat st{};
    if (::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
      ::close(fd);
      co_return Error(Code::kIsDirectory, "open " + path);
    }
    co_return std::unique_ptr<File>(std::make_unique<PosixFile>(fd, faults));
  }
  Task<Result<void>> remove(std::string path) override {
    if (::unlink(path.c_str()) != 0) co_return errno_error("remove " + path);
    co_return {};
  }
  Task<Result<void>> rename(std::string from, std::string to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) co_return errno_error("rename " + from);
    co_return {};
  }
  Task<Result<void>> sync_directory(std::string path) override {
    ++faults.syncs;
    if (faults.fail_syncs) co_return Error(Code::kIo, "sync " + path + ": injected");
    int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) co_return errno_error("sync " + path);
    int status = ::fsync(fd);
    ::close(fd);
    if (status != 0) co_return errno_error("sync " + path);
    co_return {};
  }
  Task<Result<void>> make_directories(std::string path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) {
      errno = error.value();
      co_return errno_error("make directories " + path);
    }
    co_return {};
  }
  Task<Result<std::vector<std::string>>> list(std::string) override { co_return Error(Code::kNotSupported, "list"); }
  Task<Result<uint64_t>> free_bytes(std::string) override { co_return Error(Code::kNotSupported, "free_bytes"); }
};

class NoNet final : public Net {
 public:
  Task<Result<std::unique_ptr<Connection>>> connect(Address) override {
    co_return Error(Code::kNotSupported, "no net");
  }
  Task<Result<std::unique_ptr<Listener>>> listen(Address) override { co_return Error(Code::kNotSupported, "no net"); }
};

// One core. Members that hold tasks must be destroyed before it.
class World {
 public:
  explicit World(bool virtual_time = false, int threads = 20, uint64_t seed = 1)
      : clock(virtual_time), random(seed), blocking(threads) {}
  TestScheduler scheduler;
  TestClock clock;
  PosixDisk disk;
  NoNet net;
  SeededRandom random;
  ThreadBlocking blocking;
  [[nodiscard]] Env env() { return {clock, disk, net, random, blocking}; }

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    Scope scope;
    scope.spawn(store(std::move(task), &result));
    while (!result) step();
    return *std::move(result);
  }
  // One turn: whatever is ready, then time or a thread's result.
  void step() {
    if (scheduler.run_ready(1000) > 0) {
      blocking.poll({});
      return;
    }
    Nanos patience = blocking.pending() || !clock.timers.empty() ? seconds(10) : Nanos{};
    if (!clock.timers.empty()) {
      Nanos next = clock.timers.next_deadline();
      if (clock.is_virtual() && !blocking.pending())
        clock.jump(next);
      else
        patience = std::min(patience, next - clock.now());
      if (clock.is_virtual() && clock.now() >= next) patience = {};
    }
    blocking.poll(patience);
    clock.timers.fire_due(clock.now());
  }

 private:
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>* result) {
    T value = co_await std::move(task);
    result->emplace(std::move(value));
  }
};

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "headrace-object-XXXXXX").string();
    HR_ASSERT(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

}  // namespace headrace::test
