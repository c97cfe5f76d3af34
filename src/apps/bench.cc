#include "apps/bench.h"

#include <fcntl.h>
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

#include "apps/bench_client.h"
#include "apps/process.h"
#include "apps/state.h"
#include "base/bytes.h"

namespace headrace {
namespace {

using nlohmann::json;
using Steady = std::chrono::steady_clock;

constexpr int kEndSeconds = 60;
constexpr double kDataShare = 4.0 / 6;  // of the bytes that 4+2 writes

double seconds_since(Steady::time_point start) {
  return std::chrono::duration<double>(Steady::now() - start).count();
}

Result<std::string> output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return Error(Code::kIo, "cannot run: " + command);
  std::string out;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  if (::pclose(pipe) == 0) return out;
  return Error(Code::kIo, "`" + command + "` failed: " + out.substr(0, 400));
}

// Of fio's JSON: job 0, `direction`, `field`.
Result<double> fio(const std::string& file, const std::string& arguments, const char* direction, const char* field) {
  std::string command = "fio --name=limit --filename=" + file + " --size=" + std::to_string(kBenchStream) +
                        " --ioengine=io_uring --direct=1 --output-format=json " + arguments;
  Result<std::string> out = output_of(command);
  if (!out.ok()) return std::move(out).error().within("fio (is it installed?)");
  size_t begin = out->find('{');
  json body = json::parse(begin == std::string::npos ? *out : out->substr(begin), nullptr, false);
  double number = 0;
  if (!body.is_discarded() && body.contains("jobs")) number = body["jobs"][0][direction].value(field, 0.0);
  if (number <= 0) return Error(Code::kIo, "fio measured nothing: " + out->substr(0, 400));
  return number;
}

// Peak since the process began.
double resident_mib(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024.0;
  return 0;
}

// User and system time of all threads of a process, in seconds.
double cpu_seconds(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  uint64_t user = 0;
  uint64_t system = 0;
  fields >> user >> system;
  return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::string machine() {
  std::string cpu = "unknown processor";
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  return cpu + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores";
}

struct Sample {
  double number = 0;        // the result
  uint64_t operations = 0;  // for time per operation; 0: not told
};

struct Outcome {
  std::vector<double> numbers;
  std::vector<double> node_us;  // per operation
  std::vector<double> mount_us;
  std::vector<double> self_us;
  std::string failed;
};

double median_of(std::vector<double> all) {
  if (all.empty()) return 0;
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

Result<Sample> rate(Result<Measured> measured) {
  if (!measured.ok()) return std::move(measured).error();
  return Sample{measured->per_s, measured->operations};
}

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {}
  ~Bench() {
    stop();
    std::error_code error;
    if (!root_.empty()) std::filesystem::remove_all(root_, error);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Result<void> run();
  [[nodiscard]] json results() const;
  [[nodiscard]] bool complete() const { return failed_ == 0; }

 private:
  using Measure = std::function<Result<Sample>(const std::string& unique)>;

  [[nodiscard]] bool wanted(const std::string& name) const {
    return options_.only.empty() || std::find(options_.only.begin(), options_.only.end(), name) != options_.only.end();
  }
  [[nodiscard]] std::string self() const { return std::filesystem::read_symlink("/proc/self/exe").string(); }
  Result<void> start();
  Result<void> adopt();
  void stop();
  void note_memory();
  void measure(const std::string& name, const Measure& once);
  void report(const std::string& name, const Outcome& outcome) const;

  void metadata();
  void streams();
  void rehydration();
  Result<Sample> untar(const std::string& unique);
  Result<Sample> write_and_sync(const std::string& unique);
  Result<Sample> first_ls();

  BenchOptions options_;
  std::string root_;
  std::string state_;
  std::string mount_;
  bool adopted_ = false;
  std::string tar_;
  uint64_t tar_files_ = 0;
  NodeFile node_;
  int mount_pid_ = 0;
  double rss_node_ = 0;
  double rss_mount_ = 0;
  int runs_ = 0;
  int failed_ = 0;
  std::map<std::string, Outcome> outcomes_;
};

// ---- what is measured ----

Result<void> Bench::start() {
  std::error_code error;
  std::filesystem::create_directories(mount_, error);
  Result<std::string> up = output_of(self() + " up --state " + state_ + " --mount " + mount_ + " --detach");
  Result<void> adopted = adopt();  // also what came up in part: it has to go down again
  if (!up.ok()) return up.error();
  return adopted;
}

Result<void> Bench::adopt() {
  HR_TRY(node_, read_node_file(state_));
  for (const MountFile& mount : read_mount_files(state_)) {
    mount_pid_ = mount.pid;
    mount_ = mount.directory;
  }
  return {};
}

void Bench::note_memory() {
  if (node_.pid > 0) rss_node_ = std::max(rss_node_, resident_mib(node_.pid));
  if (mount_pid_ > 0) rss_mount_ = std::max(rss_mount_, resident_mib(mount_pid_));
}

void Bench::stop() {
  note_memory();
  if (adopted_) return;
  if (mount_pid_ > 0) (void)end_process(std::exchange(mount_pid_, 0), kEndSeconds);
  if (node_.pid > 0) (void)end_process(std::exchange(node_.pid, 0), kEndSeconds);
}

// ---- measuring ----

void Bench::measure(const std::string& name, const Measure& once) {
  if (!wanted(name)) return;
  Outcome& outcome = outcomes_[name];
  for (int i = 0; i < (options_.quick ? 1 : 5) && outcome.failed.empty(); ++i) {
    const double node = cpu_seconds(node_.pid);
    const double mount = cpu_seconds(mount_pid_);
    const double own = cpu_seconds(::getpid());
    Result<Sample> sample = once(name + "-" + std::to_string(::getpid()) + "-" + std::to_string(runs_++));
    note_memory();
    if (!sample.ok()) {
      outcome.failed = sample.error().message();
      ++failed_;
      break;
    }
    outcome.numbers.push_back(sample->number);
    if (sample->operations == 0) continue;
    const double scale = 1e6 / static_cast<double>(sample->operations);
    outcome.node_us.push_back((cpu_seconds(node_.pid) - node) * scale);
    outcome.mount_us.push_back((cpu_seconds(mount_pid_) - mount) * scale);
    outcome.self_us.push_back((cpu_seconds(::getpid()) - own) * scale);
  }
  if (!options_.as_json) report(name, outcome);
}

void Bench::report(const std::string& name, const Outcome& outcome) const {
  std::printf("%-22s", name.c_str());
  if (!outcome.failed.empty()) std::printf(" failed: %s", outcome.failed.c_str());
  if (!outcome.numbers.empty() && outcome.failed.empty()) {
    auto [low, high] = std::minmax_element(outcome.numbers.begin(), outcome.numbers.end());
    std::printf(" %10.2f  (%.2f - %.2f)", median_of(outcome.numbers), *low, *high);
    if (!outcome.node_us.empty())
      std::printf("  us of processor per operation: node %.1f, mount %.1f, client %.1f", median_of(outcome.node_us),
                  median_of(outcome.mount_us), median_of(outcome.self_us));
  }
  std::printf("\n");
  std::fflush(stdout);
}

json Bench::results() const {
  json numbers = json::object();
  json failed = json::object();
  json details = json::object();
  for (const auto& [name, outcome] : outcomes_) {
    if (!outcome.failed.empty()) {
      failed[name] = outcome.failed;
      continue;
    }
    numbers[name] = median_of(outcome.numbers);
    details[name]["all"] = outcome.numbers;
    if (outcome.node_us.empty()) continue;
    details[name]["processor_us_per_operation"] = {{"node", median_of(outcome.node_us)},
                                                   {"mount", median_of(outcome.mount_us)},
                                                   {"client", median_of(outcome.self_us)}};
  }
  return {{"machine", machine()}, {"results", numbers}, {"failed", failed}, {"details", details}};
}

// `tar -x` of /usr/include on the mount, then sync.
Result<Sample> Bench::untar(const std::string& unique) {
  if (tar_.empty()) {
    std::string tar = root_ + "/include.tar";
    HR_TRY(std::string made, output_of("tar -cf " + tar + " -C /usr include && tar -tf " + tar + " | wc -l"));
    tar_files_ = std::strtoull(made.c_str(), nullptr, 10);
    tar_ = std::move(tar);
  }
  const std::string into = mount_ + "/" + unique;
  auto begun = Steady::now();
  HR_TRY(output_of("mkdir " + into + " && tar -xf " + tar_ + " -C " + into + " && sync -f " + into));
  return Sample{static_cast<double>(tar_files_) / seconds_since(begun), tar_files_};
}

// 16 writers of their own files, 4 KiB and fsync each.
Result<Sample> Bench::write_and_sync(const std::string& unique) {
  constexpr int kJobs = 16;
  constexpr int kSeconds = 4;
  constexpr uint64_t kBlocks = 1024;
  std::atomic<bool> stop{false};
  std::atomic<int> failure{0};
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> jobs;
  auto begun = Steady::now();
  for (int i = 0; i < kJobs; ++i) {
    jobs.emplace_back([&, path = mount_ + "/" + unique + "-" + std::to_string(i)] {
      int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      const std::string block(kBlock, 'x');
      for (uint64_t n = 0; !stop && failure == 0; ++n) {
        const auto at = static_cast<off_t>(n % kBlocks * kBlock);
        const bool ok = fd >= 0 && ::pwrite(fd, block.data(), block.size(), at) == static_cast<ssize_t>(block.size()) &&
                        ::fsync(fd) == 0;
        if (!ok) failure = errno == 0 ? EIO : errno;
        ++total;
      }
      if (fd >= 0) ::close(fd);
    });
  }
  std::this_thread::sleep_for(std::chrono::seconds(kSeconds));
  stop = true;
  for (std::thread& job : jobs) job.join();
  if (failure != 0) return Error(Code::kIo, "write or fsync on the mount: " + std::generic_category().message(failure));
  return Sample{static_cast<double>(total) / seconds_since(begun), total};
}

void Bench::metadata() {
  const uint64_t creates = options_.quick ? 30'000 : 60'000;
  measure("creates_per_s_64",
          [&](const std::string& name) { return rate(measure_creates(node_.address, name, 64, creates)); });
  measure("creates_per_s_1",
          [&](const std::string& name) { return rate(measure_creates(node_.address, name, 1, creates / 10)); });
  measure("small_files_per_s",
          [&](const std::string& name) { return rate(measure_ingest(node_.address, name, 20'000)); });
  auto on_mount = [&](Result<Sample> (Bench::*once)(const std::string&)) {
    return [this, once](const std::string& name) -> Result<Sample> {
      if (mount_pid_ == 0) return Error(Code::kInvalid, "this node has no mount: headrace mount DIR --state " + state_);
      return (this->*once)(name);
    };
  };
  measure("untar_files_per_s", on_mount(&Bench::untar));
  measure("write_fsync_per_s_16", on_mount(&Bench::write_and_sync));
}

// Each ratio's two sides one after the other, so that both meet the same neighbours.
void Bench::streams() {
  const std::string limit = root_ + "/limit.dat";
  std::string stream;
  measure("seq_write_over_limit", [&](const std::string& name) -> Result<Sample> {
    HR_TRY(double theirs,
           fio(limit, "--rw=write --bs=1m --iodepth=8 --end_fsync=1 --overwrite=1", "write", "bw_bytes"));
    HR_TRY(Measured ours, measure_write(node_.address, name));
    stream = name;
    return Sample{ours.per_s / (theirs * kDataShare), ours.operations};
  });
  auto with_stream = [&](const std::function<Result<Sample>()>& once) {
    return [&, once](const std::string& name) -> Result<Sample> {
      if (stream.empty()) {
        const std::string kept = adopted_ ? "bench-stream" : name;  // a later run finds it
        Result<Measured> written = measure_write(node_.address, kept);
        if (!written.ok() && written.code() != Code::kExists) return written.error();
        stream = kept;
      }
      return once();
    };
  };
  measure("seq_read_over_fio", with_stream([&]() -> Result<Sample> {
            HR_TRY(double theirs, fio(limit, "--rw=read --bs=1m --iodepth=8", "read", "bw_bytes"));
            HR_TRY(Measured ours, measure_read(node_.address, stream));
            return Sample{ours.per_s / theirs, ours.operations};
          }));
  measure("rand_read_4k_over_fio", with_stream([&]() -> Result<Sample> {
            HR_TRY(double theirs,
                   fio(limit, "--rw=randread --bs=4k --iodepth=32 --runtime=3 --time_based", "read", "iops"));
            HR_TRY(Measured ours, measure_random_read(node_.address, stream, 100'000));
            return Sample{ours.per_s / theirs, ours.operations};
          }));
  std::error_code error;
  std::filesystem::remove(limit, error);
}

// From the command to the first listing, on an empty state; then everything goes into the bucket again.
Result<Sample> Bench::first_ls() {
  std::error_code error;
  HR_TRY(output_of(self() + " spin-down --state " + state_));
  node_ = {};
  mount_pid_ = 0;
  std::filesystem::remove_all(state_, error);
  auto begun = Steady::now();
  HR_TRY(output_of(self() + " rehydrate file://" + state_ + ".bucket --state " + state_ + " --mount " + mount_ +
                   " --detach"));
  HR_TRY(adopt());
  HR_TRY(std::string listed, output_of("ls " + mount_ + "/many-0 | wc -l"));
  const double took = seconds_since(begun);
  if (std::strtoull(listed.c_str(), nullptr, 10) == 0) return Error(Code::kIo, "the re-hydrated directory is empty");
  return Sample{took, 0};
}

void Bench::rehydration() {
  const char* name = "rehydrate_first_ls_s";
  if (!wanted(name)) return;
  Result<void> filled = make_many_files(node_.address, "many", options_.full ? 1'000'000 : 20'000);
  note_memory();
  measure(name, [&](const std::string&) -> Result<Sample> {
    if (!filled.ok()) return filled.error();
    return first_ls();
  });
}

Result<void> Bench::run() {
  std::string pattern = options_.directory + "/headrace-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return Error(Code::kIo, "cannot make a directory in " + options_.directory);
  root_ = pattern;
  adopted_ = !options_.state.empty();
  state_ = adopted_ ? options_.state : root_ + "/state";
  mount_ = root_ + "/mnt";
  HR_TRY(adopted_ ? adopt() : start());
  metadata();
  streams();
  if (!adopted_) rehydration();
  stop();
  for (auto [name, mib] : {std::pair("rss_node_mib", rss_node_), std::pair("rss_mount_mib", rss_mount_)})
    measure(name, [mib](const std::string&) { return Result<Sample>(Sample{mib, 0}); });
  return {};
}

}  // namespace

int run_bench(const BenchOptions& options) {
  Bench bench(options);
  Result<void> done = bench.run();
  if (options.as_json) std::printf("%s\n", bench.results().dump(2).c_str());
  if (done.ok()) return bench.complete() ? 0 : 1;
  std::fprintf(stderr, "headrace: bench: %s\n", done.error().message().c_str());
  return 1;
}

}  // namespace headrace
