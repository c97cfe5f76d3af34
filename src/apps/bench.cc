#include "apps/bench.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "apps/process.h"
#include "apps/state.h"
#include "client/client.h"
#include "gateway/fuse/mount.h"
#include "runtime/uring/reactor.h"
#include "runtime/when_all.h"

namespace headrace {
namespace {

using nlohmann::json;
using Steady = std::chrono::steady_clock;

double seconds_since(Steady::time_point start) { return std::chrono::duration<double>(Steady::now() - start).count(); }

// What several workers of one native measurement share. The runner's frame owns it until all have ended.
struct Work {
  Env env;
  Client* client = nullptr;
  std::vector<FileId> directories;
  std::string prefix;
  uint64_t next = 0;
  uint64_t total = 0;
  Buffer data;
  OpenFileRef file;
  std::optional<Error> error;

  void fail(const Error& e) {
    if (!error) error = e;
    next = total;
  }
};

Task<void> make_files(Work* work) {
  while (work->next < work->total) {
    const uint64_t n = work->next++;
    FileId parent = work->directories[n % work->directories.size()];
    Result<Attributes> made = co_await work->client->make(parent, work->prefix + std::to_string(n), {.type = FileType::kFile, .mode = 0644}, {});
    if (!made.ok()) work->fail(made.error());
  }
}

Task<void> ingest_files(Work* work) {
  while (work->next < work->total) {
    const uint64_t n = work->next++;
    FileId parent = work->directories[n % work->directories.size()];
    Result<FileSystem::Created> made = co_await work->client->create(parent, work->prefix + std::to_string(n), 0644, {.read = false, .write = true}, {});
    if (!made.ok()) {
      work->fail(made.error());
      co_return;
    }
    Result<uint64_t> written = co_await work->client->write(made->file, 0, work->data);
    if (!written.ok()) work->fail(written.error());
    Result<void> closed = co_await work->client->close(std::move(made->file));
    if (!closed.ok()) work->fail(closed.error());
  }
}

Task<void> write_pieces(Work* work) {
  while (work->next < work->total) {
    const uint64_t n = work->next++;
    Result<uint64_t> written = co_await work->client->write(work->file, n * work->data.size(), work->data);
    if (!written.ok()) work->fail(written.error());
  }
}

Task<void> read_in_order(Work* work, uint64_t piece) {
  for (; work->next < work->total; work->next += piece) {
    Result<std::vector<Buffer>> got = co_await work->client->read(work->file, work->next, piece);
    if (!got.ok()) work->fail(got.error());
  }
}

Task<void> read_anywhere(Work* work, uint64_t blocks) {
  while (work->next < work->total) {
    ++work->next;
    Result<std::vector<Buffer>> got = co_await work->client->read(work->file, work->env.random.below(blocks) * kBlock, kBlock);
    if (!got.ok()) work->fail(got.error());
  }
}

Task<Result<std::vector<FileId>>> make_directories(Client* client, std::string prefix, int count) {
  std::vector<FileId> out;
  for (int i = 0; i < count; ++i) {
    HR_CO_TRY(Attributes made, co_await client->make(kRootFile, prefix + "-" + std::to_string(i), {.type = FileType::kDirectory, .mode = 0755}, {}));
    out.push_back(made.id);
  }
  co_return out;
}

// One native client's life around one measurement. The number is what `measure` returns.
using Measure = Task<Result<double>> (*)(Env env, Client* client, std::string name);

Task<void> with_client(Reactor* reactor, std::string address, Measure measure, std::string name, Result<double>* out) {
  ClientOptions options;
  options.nodes = {address};
  Result<std::unique_ptr<Client>> client = co_await Client::start(reactor->env(), options);
  if (!client.ok()) {
    *out = client.error();
    co_return;
  }
  *out = co_await measure(reactor->env(), client->get(), std::move(name));
  Result<void> ended = co_await (*client)->shut_down();
  if (!ended.ok() && out->ok()) *out = ended.error();
}

Result<double> native(const std::string& address, Measure measure, const std::string& name) {
  HR_TRY(std::unique_ptr<Reactor> reactor, Reactor::create());
  Result<double> out = Error(Code::kIo, "not measured");
  reactor->run(with_client(reactor.get(), address, measure, name, &out));
  return out;
}

template <int kInFlight, int kTotal>
Task<Result<double>> measure_creates(Env env, Client* client, std::string name) {
  Work work{.env = env, .client = client, .prefix = "f", .total = kTotal};
  HR_CO_TRY(work.directories, co_await make_directories(client, name, 8));
  const Nanos start = env.clock.now();
  {
    Scope scope;
    for (int i = 0; i < kInFlight; ++i) scope.spawn(make_files(&work));
    co_await scope.join();
  }
  if (work.error) co_return *work.error;
  co_return kTotal * 1e9 / static_cast<double>((env.clock.now() - start).count);
}

Task<Result<double>> measure_ingest(Env env, Client* client, std::string name) {
  constexpr int kFiles = 20'000;
  Work work{.env = env, .client = client, .prefix = "f", .total = kFiles, .data = Buffer::zeroed(kBlock)};
  HR_CO_TRY(work.directories, co_await make_directories(client, name, 8));
  const Nanos start = env.clock.now();
  {
    Scope scope;
    for (int i = 0; i < 64; ++i) scope.spawn(ingest_files(&work));
    co_await scope.join();
  }
  if (work.error) co_return *work.error;
  HR_CO_TRY(co_await client->sync_all());
  co_return kFiles * 1e9 / static_cast<double>((env.clock.now() - start).count);
}

constexpr uint64_t kStream = kGiB;

// MB/s until durable.
Task<Result<double>> measure_write(Env env, Client* client, std::string name) {
  Work work{.env = env, .client = client, .total = kStream / kMiB, .data = Buffer::allocate(kMiB)};
  for (size_t i = 0; i < work.data.size(); i += 8) {
    const uint64_t noise = env.random.next();
    std::memcpy(work.data.data() + i, &noise, sizeof noise);
  }
  HR_CO_TRY(FileSystem::Created made, co_await client->create(kRootFile, name, 0644, {.write = true}, {}));
  work.file = made.file;
  const Nanos start = env.clock.now();
  {
    Scope scope;
    for (int i = 0; i < 4; ++i) scope.spawn(write_pieces(&work));
    co_await scope.join();
  }
  if (work.error) co_return *work.error;
  HR_CO_TRY(co_await client->sync(made.attributes.id));
  const Nanos took = env.clock.now() - start;
  work.file.reset();
  HR_CO_TRY(co_await client->close(std::move(made.file)));
  co_return static_cast<double>(kStream) * 1e3 / static_cast<double>(took.count);
}

Task<Result<OpenFileRef>> open_for_reading(Client* client, std::string name, bool direct) {
  HR_CO_TRY(Attributes found, co_await client->lookup(kRootFile, name));
  HR_CO_TRY(OpenFileRef file, co_await client->open(found.id, {.direct = direct}));
  co_return file;
}

Task<Result<double>> measure_read(Env env, Client* client, std::string name) {
  Work work{.env = env, .client = client, .total = kStream};
  HR_CO_TRY(work.file, co_await open_for_reading(client, std::move(name), false));
  const Nanos start = env.clock.now();
  co_await read_in_order(&work, kMiB);
  const Nanos took = env.clock.now() - start;
  if (work.error) co_return *work.error;
  co_return static_cast<double>(kStream) * 1e3 / static_cast<double>(took.count);
}

// Reads per second, 32 in flight.
Task<Result<double>> measure_random_read(Env env, Client* client, std::string name) {
  constexpr uint64_t kReads = 100'000;
  Work work{.env = env, .client = client, .total = kReads};
  HR_CO_TRY(work.file, co_await open_for_reading(client, std::move(name), true));
  const Nanos start = env.clock.now();
  {
    Scope scope;
    for (int i = 0; i < 32; ++i) scope.spawn(read_anywhere(&work, kStream / kBlock));
    co_await scope.join();
  }
  if (work.error) co_return *work.error;
  co_return kReads * 1e9 / static_cast<double>((env.clock.now() - start).count);
}

Task<Result<double>> fill(Env env, Client* client, uint64_t files) {
  HR_CO_TRY(std::vector<FileId> directories, co_await make_directories(client, "many", static_cast<int>(files / 1000 + 1)));
  Work work{.env = env, .client = client, .directories = std::move(directories), .prefix = "f", .total = files};
  Scope scope;
  for (int i = 0; i < 64; ++i) scope.spawn(make_files(&work));
  co_await scope.join();
  if (work.error) co_return *work.error;
  co_return 0.0;
}
Task<Result<double>> fill_some(Env env, Client* client, std::string) { return fill(env, client, 20'000); }
Task<Result<double>> fill_a_million(Env env, Client* client, std::string) { return fill(env, client, 1'000'000); }

// ---- what is not ours ----

Result<std::string> output_of(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return Error(Code::kIo, "cannot run: " + command);
  std::string out;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  int status = ::pclose(pipe);
  if (status != 0) return Error(Code::kIo, "failed: " + command);
  return out;
}

// Of fio's JSON: job 0, `direction`, `field`.
Result<double> fio(const std::string& file, const std::string& arguments, const char* direction, const char* field) {
  HR_TRY(std::string out, output_of("fio --name=limit --filename=" + file + " --size=1g --ioengine=io_uring --direct=1 --output-format=json " +
                                    arguments + " 2>/dev/null"));
  size_t begin = out.find('{');
  json body = json::parse(begin == std::string::npos ? out : out.substr(begin), nullptr, false);
  if (body.is_discarded()) return Error(Code::kIo, "fio is not installed, or said something else than JSON");
  return body["jobs"][0][direction].value(field, 0.0);
}

double resident_mib(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024.0;
  return 0;
}

// ---- the bench ----

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {}
  ~Bench() {
    stop();
    if (root_.empty()) return;
    std::error_code error;
    std::filesystem::remove_all(root_, error);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Result<void> run();
  [[nodiscard]] const std::map<std::string, double>& results() const { return results_; }
  [[nodiscard]] std::string machine() const;

 private:
  [[nodiscard]] bool wanted(const std::string& name) const {
    return options_.only.empty() || std::find(options_.only.begin(), options_.only.end(), name) != options_.only.end();
  }
  Result<void> start(const std::string& bucket_or_nothing, bool with_mount);
  void stop();
  Result<void> median(const std::string& name, const std::function<Result<double>(const std::string& unique)>& measure);
  Result<double> untar(const std::string& unique);
  Result<double> write_and_sync(const std::string& unique);
  Result<double> rehydrate();
  void note_memory();

  BenchOptions options_;
  std::string root_;
  std::string state_;
  std::string mount_;
  std::string tar_;
  uint64_t tar_files_ = 0;
  NodeFile node_;
  int mount_pid_ = 0;
  double rss_node_ = 0;
  double rss_mount_ = 0;
  int runs_ = 0;
  std::map<std::string, double> results_;
};

std::string Bench::machine() const {
  std::string cpu;
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  return cpu + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
}

Result<void> Bench::start(const std::string& rehydrated_from, bool with_mount) {
  std::error_code error;
  std::filesystem::create_directories(state_ + "/log", error);
  std::vector<std::string> arguments{"--state", state_};
  if (!rehydrated_from.empty()) arguments.insert(arguments.end(), {"--rehydrate", rehydrated_from});
  Result<int> started = start_daemon("headraced", arguments, state_ + "/log/headraced.log");
  if (!started.ok()) return started.error();
  HR_TRY(node_, read_node_file(state_));
  if (!with_mount) return {};
  std::filesystem::create_directories(mount_, error);
  HR_TRY(mount_pid_, start_daemon("headrace-mount", {mount_, "--node", node_.address, "--state", state_}, state_ + "/log/mount.log"));
  return {};
}

void Bench::note_memory() {
  if (node_.pid > 0) rss_node_ = std::max(rss_node_, resident_mib(node_.pid));
  if (mount_pid_ > 0) rss_mount_ = std::max(rss_mount_, resident_mib(mount_pid_));
}

void Bench::stop() {
  note_memory();
  if (mount_pid_ > 0) (void)end_process(std::exchange(mount_pid_, 0), 60);
  if (node_.pid > 0) (void)end_process(std::exchange(node_.pid, 0), 60);
}

Result<void> Bench::median(const std::string& name, const std::function<Result<double>(const std::string&)>& measure) {
  if (!wanted(name)) return {};
  std::vector<double> all;
  for (int i = 0; i < (options_.quick ? 1 : 5); ++i) {
    Result<double> one = measure(name + "-" + std::to_string(runs_++));
    if (!one.ok()) return std::move(one).error().within(name);
    all.push_back(*one);
    note_memory();
  }
  std::sort(all.begin(), all.end());
  results_[name] = all[all.size() / 2];
  if (!options_.as_json) {
    std::printf("%-24s %12.2f\n", name.c_str(), results_[name]);
    std::fflush(stdout);
  }
  return {};
}

Result<double> Bench::untar(const std::string& unique) {
  if (tar_.empty()) {
    tar_ = root_ + "/include.tar";
    HR_TRY(std::string made, output_of("tar -cf " + tar_ + " -C /usr include && tar -tf " + tar_ + " | wc -l"));
    tar_files_ = std::strtoull(made.c_str(), nullptr, 10);
  }
  const std::string into = mount_ + "/" + unique;
  auto start = Steady::now();
  HR_TRY(std::string said, output_of("mkdir " + into + " && tar -xf " + tar_ + " -C " + into + " && sync -f " + into));
  return static_cast<double>(tar_files_) / seconds_since(start);
}

// 16 writers of their own files, 4 KiB and fsync each.
Result<double> Bench::write_and_sync(const std::string& unique) {
  constexpr int kJobs = 16;
  constexpr double kSeconds = 4;
  std::atomic<bool> stop{false};
  std::atomic<bool> failed{false};
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> jobs;
  auto start = Steady::now();
  for (int i = 0; i < kJobs; ++i) {
    jobs.emplace_back([&, path = mount_ + "/" + unique + "-" + std::to_string(i)] {
      int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      std::string block(kBlock, 'x');
      for (uint64_t n = 0; !stop && !failed; ++n) {
        bool ok = fd >= 0 && ::pwrite(fd, block.data(), block.size(), static_cast<off_t>(n % 1024 * kBlock)) == static_cast<ssize_t>(block.size()) && ::fsync(fd) == 0;
        if (!ok) failed = true;
        ++total;
      }
      if (fd >= 0) ::close(fd);
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
  stop = true;
  for (std::thread& job : jobs) job.join();
  const double took = seconds_since(start);
  if (failed) return Error(Code::kIo, "a write or fsync on the mount failed");
  return static_cast<double>(total) / took;
}

Result<double> Bench::rehydrate() {
  const std::string bucket = "file://" + state_ + ".bucket";
  HR_TRY(start("", false));
  Result<double> filled = native(node_.address, options_.full ? fill_a_million : fill_some, "");
  if (!filled.ok()) return filled;
  std::error_code error;
  std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  HR_TRY(std::string down, output_of(self + " spin-down --state " + state_));
  node_.pid = 0;
  std::filesystem::remove_all(state_, error);
  auto start_time = Steady::now();
  HR_TRY(start(bucket, true));
  HR_TRY(std::string listed, output_of("ls " + mount_ + "/many-0 | wc -l"));
  const double took = seconds_since(start_time);
  stop();
  std::filesystem::remove_all(state_, error);
  std::filesystem::remove_all(state_ + ".bucket", error);
  return took;
}

Result<void> Bench::run() {
  std::string pattern = options_.directory + "/headrace-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return Error(Code::kIo, "cannot make a directory in " + options_.directory);
  root_ = pattern;
  state_ = root_ + "/state";
  mount_ = root_ + "/mnt";
  HR_TRY(start("", true));

  HR_TRY(median("creates_per_s_64", [&](const std::string& name) { return native(node_.address, measure_creates<64, 30'000>, name); }));
  HR_TRY(median("creates_per_s_1", [&](const std::string& name) { return native(node_.address, measure_creates<1, 3'000>, name); }));
  HR_TRY(median("small_files_per_s", [&](const std::string& name) { return native(node_.address, measure_ingest, name); }));
  HR_TRY(median("untar_files_per_s", [&](const std::string& name) { return untar(name); }));
  HR_TRY(median("write_fsync_per_s_16", [&](const std::string& name) { return write_and_sync(name); }));

  // Each ratio's two sides one after the other, so that both meet the same neighbours.
  const std::string limit = root_ + "/limit.dat";
  std::string stream;
  HR_TRY(median("seq_write_over_limit", [&](const std::string& name) -> Result<double> {
    HR_TRY(double bytes_per_s, fio(limit, "--rw=write --bs=1m --iodepth=8 --end_fsync=1 --overwrite=1", "write", "bw_bytes"));
    HR_TRY(double ours, native(node_.address, measure_write, name));
    stream = name;
    return ours * 1e6 / (bytes_per_s * 4 / 6);
  }));
  if (stream.empty() && (wanted("seq_read_over_fio") || wanted("rand_read_4k_over_fio"))) {
    stream = "stream";
    Result<double> written = native(node_.address, measure_write, stream);
    if (!written.ok()) return written.error();
  }
  HR_TRY(median("seq_read_over_fio", [&](const std::string&) -> Result<double> {
    HR_TRY(double bytes_per_s, fio(limit, "--rw=read --bs=1m --iodepth=8", "read", "bw_bytes"));
    HR_TRY(double ours, native(node_.address, measure_read, stream));
    return ours * 1e6 / bytes_per_s;
  }));
  HR_TRY(median("rand_read_4k_over_fio", [&](const std::string&) -> Result<double> {
    HR_TRY(double per_s, fio(limit, "--rw=randread --bs=4k --iodepth=32 --runtime=3 --time_based", "read", "iops"));
    HR_TRY(double ours, native(node_.address, measure_random_read, stream));
    return ours / per_s;
  }));
  stop();
  std::error_code error;
  std::filesystem::remove_all(state_, error);
  std::filesystem::remove_all(state_ + ".bucket", error);
  HR_TRY(median("rehydrate_first_ls_s", [&](const std::string&) { return rehydrate(); }));
  if (wanted("rss_node_mib")) results_["rss_node_mib"] = rss_node_;
  if (wanted("rss_mount_mib")) results_["rss_mount_mib"] = rss_mount_;
  return {};
}

}  // namespace

int run_bench(const BenchOptions& options) {
  Bench bench(options);
  Result<void> done = bench.run();
  if (options.as_json) {
    json out;
    out["machine"] = bench.machine();
    out["results"] = json::object();
    for (const auto& [name, number] : bench.results()) out["results"][name] = number;
    std::printf("%s\n", out.dump(2).c_str());
  }
  if (done.ok()) return 0;
  std::fprintf(stderr, "headrace: bench: %s\n", done.error().message().c_str());
  return 1;
}

}  // namespace headrace
