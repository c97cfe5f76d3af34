// headrace-sim: many seeds of the whole cluster in simulation, on all cores.
//
//   headrace-sim --seeds N [--first SEED] [--jobs J] [--mutant NAME]
//   headrace-sim --seed S [--trace FILE] [--verbose]
//
// Exit status: 0 when every seed was clean and (over 300 seeds and more) every kind of operation and fault occurred;
// with --mutant, 0 when a seed caught it. Each batch of seeds runs in a process of its own, so that an assertion or a
// hang costs one seed.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "base/fault_point.h"
#include "sim/scenario.h"

namespace headrace::sim {
namespace {

struct Options {
  uint64_t seeds = 300;
  uint64_t first = 1;
  uint64_t seed = 0;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  std::string mutant;
  std::string trace;
  bool verbose = false;
};

constexpr unsigned kSeedSeconds = 180;  // of wall time: then it hangs
constexpr uint64_t kBatch = 16;

struct Batch {
  pid_t pid = -1;
  int fd = -1;
  std::string partial;
  uint64_t next = 0;  // first seed not begun
  uint64_t end = 0;
  uint64_t running = 0;  // seed begun and not ended; 0: none
};

struct Run {
  Options options;
  std::map<std::string, uint64_t> counts;
  std::map<uint64_t, std::string> failures;
  uint64_t done = 0;
  double simulated_s = 0;
};

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

[[noreturn]] void run_batch(const Options& options, uint64_t first, uint64_t end, int fd) {
  std::FILE* out = ::fdopen(fd, "w");
  for (uint64_t seed = first; seed < end; ++seed) {
    std::fprintf(out, "begin %llu\n", static_cast<unsigned long long>(seed));
    std::fflush(out);
    ::alarm(kSeedSeconds);
    ScenarioOptions scenario;
    scenario.seed = seed;
    scenario.verbose = options.verbose;
    ScenarioResult result = run_scenario(scenario);
    for (const auto& [name, count] : result.counts) std::fprintf(out, "count %s %llu\n", name.c_str(), static_cast<unsigned long long>(count));
    for (const std::string& violation : result.violations) std::fprintf(out, "violation %s\n", one_line(violation).c_str());
    std::fprintf(out, "end %llu %.3f\n", static_cast<unsigned long long>(seed), result.simulated_s);
    std::fflush(out);
  }
  std::fflush(out);
  ::_exit(0);
}

void fail(Run& run, uint64_t seed, const std::string& what) {
  bool first = !run.failures.contains(seed);
  std::string& text = run.failures[seed];
  text += what + "\n";
  if (first) std::fprintf(stderr, "seed %llu FAILED (again: headrace-sim --seed %llu%s%s)\n", static_cast<unsigned long long>(seed),
                          static_cast<unsigned long long>(seed), run.options.mutant.empty() ? "" : " --mutant ", run.options.mutant.c_str());
  std::fprintf(stderr, "    %s\n", what.c_str());
}

void take_line(Run& run, Batch& batch, const std::string& line) {
  std::istringstream in(line);
  std::string word;
  in >> word;
  if (word == "begin") {
    in >> batch.running;
    batch.next = batch.running + 1;
  } else if (word == "count") {
    std::string name;
    uint64_t count = 0;
    in >> name >> count;
    run.counts[name] += count;
  } else if (word == "violation") {
    fail(run, batch.running, line.substr(10));
  } else if (word == "end") {
    uint64_t seed = 0;
    double simulated = 0;
    in >> seed >> simulated;
    run.simulated_s += simulated;
    ++run.done;
    batch.running = 0;
  }
}

void start_batch(Run& run, Batch& batch) {
  int fds[2];
  if (::pipe(fds) != 0) std::abort();
  std::fflush(stdout);
  std::fflush(stderr);
  pid_t pid = ::fork();
  if (pid == 0) {
    ::close(fds[0]);
    run_batch(run.options, batch.next, batch.end, fds[1]);
  }
  ::close(fds[1]);
  batch.pid = pid;
  batch.fd = fds[0];
  batch.partial.clear();
  batch.running = 0;
}

// The process is gone. True: seeds of the batch are left.
bool end_batch(Run& run, Batch& batch) {
  int status = 0;
  ::waitpid(batch.pid, &status, 0);
  ::close(batch.fd);
  batch.pid = -1;
  batch.fd = -1;
  if (batch.running != 0) {
    fail(run, batch.running, WIFSIGNALED(status) ? (WTERMSIG(status) == SIGALRM ? "hangs" : "died of signal " + std::to_string(WTERMSIG(status))) : "exited");
    ++run.done;
  }
  return batch.next < batch.end;
}

int run_many(Run& run) {
  const Options& options = run.options;
  auto began = std::chrono::steady_clock::now();
  std::vector<Batch> batches(options.jobs);
  uint64_t next = options.first;
  uint64_t end = options.first + options.seeds;
  uint64_t told = 0;
  bool stop = false;
  auto feed = [&](Batch& batch) {
    if (stop || next >= end) return;
    batch.next = next;
    next = std::min(end, next + kBatch);
    batch.end = next;
    start_batch(run, batch);
  };
  for (Batch& batch : batches) feed(batch);
  for (;;) {
    std::vector<pollfd> fds;
    std::vector<Batch*> of;
    for (Batch& batch : batches)
      if (batch.fd >= 0) {
        fds.push_back({batch.fd, POLLIN, 0});
        of.push_back(&batch);
      }
    if (fds.empty()) break;
    ::poll(fds.data(), fds.size(), 1'000);
    for (size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].revents == 0) continue;
      Batch& batch = *of[i];
      char bytes[4096];
      ssize_t got = ::read(batch.fd, bytes, sizeof bytes);
      if (got > 0) {
        batch.partial.append(bytes, static_cast<size_t>(got));
        for (size_t at; (at = batch.partial.find('\n')) != std::string::npos;) {
          take_line(run, batch, batch.partial.substr(0, at));
          batch.partial.erase(0, at + 1);
        }
        if (!options.mutant.empty() && !run.failures.empty() && !stop) {
          stop = true;
          for (Batch& other : batches)
            if (other.pid > 0 && &other != &batch) ::kill(other.pid, SIGKILL);
        }
        continue;
      }
      if (end_batch(run, batch) && !stop)
        start_batch(run, batch);
      else
        feed(batch);
    }
    if (run.done / 1000 != told) {
      told = run.done / 1000;
      std::fprintf(stderr, "%llu seeds, %zu failed\n", static_cast<unsigned long long>(run.done), run.failures.size());
    }
  }
  double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!options.mutant.empty()) {
    if (run.failures.empty()) {
      std::printf("mutant %s: NOT caught within %llu seeds (%.1f s)\n", options.mutant.c_str(), static_cast<unsigned long long>(options.seeds), took);
      return 1;
    }
    std::printf("mutant %s: caught by seed %llu after %llu seeds (%.1f s)\n", options.mutant.c_str(), static_cast<unsigned long long>(run.failures.begin()->first),
                static_cast<unsigned long long>(run.done), took);
    return 0;
  }
  std::string line;
  uint64_t operations = 0;
  uint64_t faults = 0;
  for (const auto& [name, count] : run.counts) {
    if (name.starts_with("op.")) operations += count;
    if (name.starts_with("fault.")) faults += count;
    line += " " + name + "=" + std::to_string(count);
  }
  std::printf("%s\n", line.c_str());
  std::vector<std::string> missing;
  if (options.seeds >= 300)
    for (const std::string& name : required_counts())
      if (!run.counts.contains(name) || run.counts.at(name) == 0) missing.push_back(name);
  for (const std::string& name : missing) std::printf("NEVER HAPPENED: %s\n", name.c_str());
  std::printf("headrace-sim: %llu seeds, %zu failed, %llu operations, %llu faults, %.0f simulated s in %.1f s (%.1f seeds/s)\n",
              static_cast<unsigned long long>(run.done), run.failures.size(), static_cast<unsigned long long>(operations), static_cast<unsigned long long>(faults),
              run.simulated_s, took, static_cast<double>(run.done) / std::max(took, 0.001));
  if (!run.failures.empty()) {
    std::printf("failed seeds:");
    for (const auto& [seed, text] : run.failures) std::printf(" %llu", static_cast<unsigned long long>(seed));
    std::printf("\n");
  }
  return run.failures.empty() && missing.empty() ? 0 : 1;
}

int run_one(const Options& options) {
  ScenarioOptions scenario;
  scenario.seed = options.seed;
  scenario.verbose = options.verbose;
  if (!options.trace.empty()) {
    scenario.trace = std::fopen(options.trace.c_str(), "w");
    if (scenario.trace == nullptr) {
      std::fprintf(stderr, "%s cannot be written\n", options.trace.c_str());
      return 2;
    }
  }
  ScenarioResult result = run_scenario(scenario);
  if (scenario.trace != nullptr) std::fclose(scenario.trace);
  if (options.verbose)
    for (const auto& [name, count] : result.counts) std::printf("%s %llu\n", name.c_str(), static_cast<unsigned long long>(count));
  for (const std::string& violation : result.violations) std::printf("%s\n", violation.c_str());
  std::printf("seed %llu: %s, %.1f simulated s, trace %016llx\n", static_cast<unsigned long long>(options.seed), result.ok() ? "clean" : "FAILED",
              result.simulated_s, static_cast<unsigned long long>(result.trace_hash));
  bool caught = !result.ok();
  return caught == !options.mutant.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  Run run;
  Options& options = run.options;
  CLI::App app{"headrace-sim: the whole cluster in simulation, seed by seed"};
  app.add_option("--seeds", options.seeds, "how many seeds");
  app.add_option("--first", options.first, "the first of them");
  app.add_option("--seed", options.seed, "this one alone, in this process");
  app.add_option("--jobs", options.jobs, "processes at a time");
  app.add_option("--mutant", options.mutant, "our own code broken on purpose: see src/base/fault_point.h");
  app.add_option("--trace", options.trace, "with --seed: every event into this file");
  app.add_flag("--verbose", options.verbose, "stages as they begin");
  CLI11_PARSE(app, argc, argv);
  if (!options.mutant.empty()) {
    if (!kMutantsCompiledIn) {
      // The sources that hold mutants are compiled twice: the other binary lies beside this one.
      std::string other = std::filesystem::read_symlink("/proc/self/exe").string() + "-mutants";
      argv[0] = other.data();
      ::execv(other.c_str(), argv);
      std::fprintf(stderr, "%s cannot be started\n", other.c_str());
      return 2;
    }
    select_mutant(options.mutant);
  }
  return options.seed != 0 ? run_one(options) : run_many(run);
}

}  // namespace
}  // namespace headrace::sim

int main(int argc, char** argv) { return headrace::sim::run(argc, argv); }
