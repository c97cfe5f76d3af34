// What the kernel and FuseSession cost by themselves: a file system that does nothing, behind a
// real mount. Needs root.
//   null_fuse_bench [seconds per measurement]
// Prints {"results": {name: operations or MiB per second}}. One process serves, another asks.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <thread>

#include "gateway/fuse/gateway.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {
namespace {

constexpr uint64_t kSize = kGiB;

// "file" is there, with zeros; whatever is made is forgotten at once.
class NullFileSystem final : public FileSystem {
 public:
  Task<Result<Attributes>> lookup(FileId, std::string name) override {
    if (name == "file") co_return file(FileId(2));
    co_return Error(Code::kNotFound, "");
  }
  Task<Result<Attributes>> get_attributes(FileId id) override { co_return id == kRootFile ? root() : file(id); }
  Task<Result<Attributes>> set_attributes(FileId id, AttributeChange) override { co_return file(id); }
  Task<Result<Attributes>> make(FileId, std::string, MakeOptions, Credentials) override {
    co_return file(FileId(next_++));
  }
  Task<Result<Created>> create(FileId, std::string, uint32_t, OpenMode, Credentials) override {
    FileId id(next_++);
    co_return Created{file(id), std::make_shared<Opened>(id)};
  }
  Task<Result<Created>> create_unnamed(FileId, uint32_t, OpenMode, Credentials) override {
    FileId id(next_++);
    co_return Created{file(id), std::make_shared<Opened>(id)};
  }
  Task<Result<void>> unlink(FileId, std::string) override { co_return Result<void>(); }
  Task<Result<void>> remove_directory(FileId, std::string) override { co_return Result<void>(); }
  Task<Result<void>> rename(RenameOptions) override { co_return Result<void>(); }
  Task<Result<Attributes>> link(FileId id, FileId, std::string) override { co_return file(id); }
  Task<Result<std::string>> read_link(FileId) override { co_return std::string(); }
  Task<Result<ReadDirectoryReply>> read_directory(FileId, uint64_t, uint32_t, bool) override {
    ReadDirectoryReply reply;
    reply.end = true;
    co_return reply;
  }
  Task<Result<std::string>> get_xattr(FileId, std::string) override { co_return Error(Code::kNoAttribute, ""); }
  Task<Result<void>> set_xattr(FileId, std::string, std::string, XattrOptions) override { co_return Result<void>(); }
  Task<Result<std::vector<std::string>>> list_xattr(FileId) override { co_return std::vector<std::string>(); }
  Task<Result<void>> remove_xattr(FileId, std::string) override { co_return Result<void>(); }
  Task<Result<OpenFileRef>> open(FileId id, OpenMode) override { co_return OpenFileRef(std::make_shared<Opened>(id)); }
  Task<Result<std::vector<Buffer>>> read(OpenFileRef, uint64_t offset, uint64_t length) override {
    length = offset >= kSize ? 0 : std::min(length, kSize - offset);
    co_return std::vector<Buffer>{zeros_.slice(0, length)};
  }
  Task<Result<uint64_t>> write(OpenFileRef, uint64_t, Buffer data) override { co_return data.size(); }
  Task<Result<void>> sync(OpenFileRef) override { co_return Result<void>(); }
  Task<Result<void>> sync(FileId) override { co_return Result<void>(); }
  Task<Result<void>> punch(OpenFileRef, uint64_t, uint64_t) override { co_return Result<void>(); }
  Task<Result<uint64_t>> copy(OpenFileRef, uint64_t, OpenFileRef, uint64_t, uint64_t length) override {
    co_return length;
  }
  Task<Result<void>> grow(OpenFileRef, uint64_t) override { co_return Result<void>(); }
  Task<Result<uint64_t>> seek(OpenFileRef, uint64_t offset, bool hole) override {
    if (offset >= kSize) co_return Error(Code::kNotFound, "");
    co_return hole ? kSize : offset;
  }
  Task<Result<bool>> lock(FileId, FileLock, Nanos) override { co_return true; }
  Task<Result<std::optional<FileLock>>> find_lock(FileId, FileLock) override { co_return std::optional<FileLock>(); }
  Task<Result<void>> unlock_all(FileId, uint64_t, bool) override { co_return Result<void>(); }
  Task<Result<void>> close(OpenFileRef) override { co_return Result<void>(); }
  Task<Result<FileSystemStatistics>> statistics() override { co_return FileSystemStatistics{}; }
  Task<Result<void>> sync_all() override { co_return Result<void>(); }
  void on_invalidate(Invalidate) override {}
  Event& closing() override { return closing_; }
  Task<Result<void>> shut_down() override { co_return Result<void>(); }

 private:
  struct Opened final : OpenFile {
    explicit Opened(FileId file) : file_id(file) {}
    [[nodiscard]] FileId id() const override { return file_id; }
    FileId file_id;
  };
  static Attributes root() {
    return {.id = kRootFile, .generation = 1, .type = FileType::kDirectory, .mode = 0777, .links = 2};
  }
  static Attributes file(FileId id) {
    return {.id = id, .generation = 1, .type = FileType::kFile, .mode = 0666, .links = 1, .size = kSize};
  }
  uint64_t next_ = 3;
  Buffer zeros_ = Buffer::zeroed(kFuseMaxWrite);
  Event closing_;
};

Task<void> serve(FuseGateway& gateway, std::string directory, int ready,
                 bool& failed) {  // NOLINT: they outlive it
  Result<void> mounted = co_await gateway.mount(std::move(directory));
  if (!mounted.ok()) std::fprintf(stderr, "%s\n", mounted.error().text().c_str());
  char byte = mounted.ok() ? 1 : 0;
  (void)!write(ready, &byte, 1);
  failed = !mounted.ok();
  if (failed) co_return;
  Result<void> served = co_await gateway.serve();
  failed = !served.ok();
}

int server(const std::string& directory, int ready) {
  Result<std::unique_ptr<Reactor>> made = Reactor::create();
  HR_ASSERT(made.ok());
  Reactor& reactor = **made;
  NullFileSystem files;
  ThreadPool notifiers(reactor, 1);
  ThreadPool quick(reactor, 1);
  FuseGateway gateway(
      reactor.env(), files, [&reactor](int fd, unsigned events) { return reactor.poll(fd, events); }, notifiers, quick);
  bool failed = false;
  reactor.run(serve(gateway, directory, ready, failed));
  return failed ? 1 : 0;
}

// Calls per second of `work(thread, number)` on so many threads.
double rate(int threads, double seconds, const std::function<void(int, uint64_t)>& work) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> running;
  auto start = std::chrono::steady_clock::now();
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      uint64_t count = 0;
      while (!stop.load(std::memory_order_relaxed)) work(t, count++);
      total += count;
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& thread : running) thread.join();
  return static_cast<double>(total) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void measure(const std::string& directory, double seconds) {
  std::string path = directory + "/file";
  int direct = open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  HR_ASSERT(direct >= 0);
  constexpr int kMaxThreads = 16;
  std::vector<Buffer> buffers;
  for (int i = 0; i < kMaxThreads; ++i) buffers.push_back(Buffer::zeroed(kMiB));
  auto get_attributes = [&](int, uint64_t) {
    struct stat status{};
    HR_ASSERT(fstat(direct, &status) == 0);
  };
  auto read_at = [&](size_t size) {
    return [&, size](int thread, uint64_t i) {
      uint64_t offset = i * 7919 % (kSize / size) * size;
      HR_ASSERT(pread(direct, buffers[static_cast<size_t>(thread)].data(), size, static_cast<off_t>(offset)) ==
                static_cast<ssize_t>(size));
    };
  };
  auto write_at = [&](size_t size) {
    return [&, size](int thread, uint64_t i) {
      uint64_t offset = i % (kSize / size) * size;
      HR_ASSERT(pwrite(direct, buffers[static_cast<size_t>(thread)].data(), size, static_cast<off_t>(offset)) ==
                static_cast<ssize_t>(size));
    };
  };
  auto make = [&](int thread, uint64_t i) {
    std::string name = directory + "/t" + std::to_string(thread) + "-" + std::to_string(i);
    int fd = open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    HR_ASSERT(fd >= 0);
    close(fd);
    (void)unlink(name.c_str());
  };
  constexpr double kMebi = 1.0 / static_cast<double>(kMiB);
  std::printf("{\"results\": {");
  std::printf("\"getattr_1\": %.0f", rate(1, seconds, get_attributes));
  std::printf(", \"getattr_16\": %.0f", rate(16, seconds, get_attributes));
  std::printf(", \"read_4k_1\": %.0f", rate(1, seconds, read_at(4096)));
  std::printf(", \"read_4k_16\": %.0f", rate(16, seconds, read_at(4096)));
  std::printf(", \"write_4k_1\": %.0f", rate(1, seconds, write_at(4096)));
  std::printf(", \"write_4k_16\": %.0f", rate(16, seconds, write_at(4096)));
  std::printf(", \"read_1m_mib\": %.0f", rate(2, seconds, read_at(kMiB)) * static_cast<double>(kMiB) * kMebi);
  std::printf(", \"write_1m_mib\": %.0f", rate(2, seconds, write_at(kMiB)) * static_cast<double>(kMiB) * kMebi);
  std::printf(", \"create_close_unlink_1\": %.0f", rate(1, seconds, make));
  std::printf(", \"create_close_unlink_16\": %.0f}}\n", rate(16, seconds, make));
  close(direct);
}

int run(double seconds) {
  std::string directory = "/tmp/headrace-null-fuse-XXXXXX";
  HR_ASSERT(mkdtemp(directory.data()) != nullptr);
  int ready[2];
  HR_ASSERT(pipe2(ready, O_CLOEXEC) == 0);
  pid_t child = fork();
  if (child == 0) _exit(server(directory, ready[1]));
  close(ready[1]);
  char mounted = 0;
  bool started = read(ready[0], &mounted, 1) == 1 && mounted == 1;
  if (started) {
    measure(directory, seconds);
    (void)unmount_directory(directory, false);
  }
  int status = 0;
  waitpid(child, &status, 0);
  rmdir(directory.c_str());
  return started && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  return headrace::run(argc > 1 ? std::atof(argv[1]) : 2.0);
}
