// headrace-sim: many seeds of the whole cluster in simulation, on all cores.
//
//   headrace-sim --seeds N [--first SEED] [--jobs J] [--mutant NAME]
//   headrace-sim --seconds T       seeds that nobody has run yet, for so long: what the fixed ones do not find
//   headrace-sim --seed S [--trace FILE] [--verbose] [--twice]
//   headrace-sim --list S,S,…      these seeds: those that found a bug once
//   headrace-sim --all-mutants [--seeds N]
//
// Exit status: 0 when every seed was clean and (over 300 seeds and more) every kind of operation and fault occurred;
// with --mutant, 0 when a seed caught it; with --all-mutants, 0 when 95 % of them were caught within N seeds (200
// unless told); with --twice, 0 when both runs were clean and had one trace. Each batch of seeds runs in a process of
// its own, so that an assertion or a hang costs one seed.
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "base/fault_point.h"
#include "sim/mutants.h"
#include "sim/scenario.h"

namespace headrace::sim {
namespace {

struct Options {
  uint64_t seeds = 300;
  uint64_t first = 1;
  uint64_t seed = 0;
  double seconds = 0;  // 0: until all have run
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  std::string mutant;
  std::string trace;
  bool verbose = false;
  bool twice = false;
  bool all_mutants = false;
  std::vector<uint64_t> list;
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
  bool ended_by_us = false;
};

struct Run {
  Options options;
  bool quiet = false;
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
  for (uint64_t at = first; at < end; ++at) {
    uint64_t seed = options.list.empty() ? at : options.list[at];
    std::fprintf(out, "begin %llu %llu\n", static_cast<unsigned long long>(seed), static_cast<unsigned long long>(at));
    std::fflush(out);
    ::alarm(kSeedSeconds);
    ScenarioOptions scenario;
    scenario.seed = seed;
    scenario.verbose = options.verbose;
    ScenarioResult result = run_scenario(scenario);
    for (const auto& [name, count] : result.counts)
      std::fprintf(out, "count %s %llu\n", name.c_str(), static_cast<unsigned long long>(count));
    for (const std::string& violation : result.violations)
      std::fprintf(out, "violation %s\n", one_line(violation).c_str());
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
  if (run.quiet) return;
  if (first)
    std::fprintf(stderr, "seed %llu FAILED (again: headrace-sim --seed %llu%s%s)\n",
                 static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed),
                 run.options.mutant.empty() ? "" : " --mutant ", run.options.mutant.c_str());
  std::fprintf(stderr, "    %s\n", what.c_str());
}

void take_line(Run& run, Batch& batch, const std::string& line) {
  std::istringstream in(line);
  std::string word;
  in >> word;
  if (word == "begin") {
    in >> batch.running >> batch.next;
    ++batch.next;
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
  if (batch.running != 0 && !batch.ended_by_us) {
    fail(run, batch.running,
         WIFSIGNALED(status)
             ? (WTERMSIG(status) == SIGALRM ? "hangs" : "died of signal " + std::to_string(WTERMSIG(status)))
             : "exited");
    ++run.done;
  }
  return batch.next < batch.end;
}

int run_many(Run& run) {
  const Options& options = run.options;
  auto began = std::chrono::steady_clock::now();
  std::vector<Batch> batches(options.jobs);
  uint64_t next = options.list.empty() ? options.first : 0;
  uint64_t end = options.list.empty() ? options.first + options.seeds : options.list.size();
  uint64_t told = 0;
  bool stop = false;
  auto seconds_since = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
  auto feed = [&](Batch& batch) {
    if (options.seconds > 0 && seconds_since() >= options.seconds) stop = true;
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
          for (Batch& other : batches) {
            if (other.pid <= 0 || &other == &batch) continue;
            other.ended_by_us = true;
            ::kill(other.pid, SIGKILL);
          }
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
  double took = seconds_since();
  if (!options.mutant.empty()) {
    if (run.quiet) return run.failures.empty() ? 1 : 0;
    if (run.failures.empty()) {
      std::printf("mutant %s: NOT caught within %llu seeds (%.1f s)\n", options.mutant.c_str(),
                  static_cast<unsigned long long>(options.seeds), took);
      return 1;
    }
    std::printf("mutant %s: caught by seed %llu after %llu seeds (%.1f s)\n", options.mutant.c_str(),
                static_cast<unsigned long long>(run.failures.begin()->first), static_cast<unsigned long long>(run.done),
                took);
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
  if (run.done >= 300 && options.list.empty())
    for (const std::string& name : required_counts())
      if (!run.counts.contains(name) || run.counts.at(name) == 0) missing.push_back(name);
  for (const std::string& name : missing) std::printf("NEVER HAPPENED: %s\n", name.c_str());
  std::printf(
      "headrace-sim: %llu seeds, %zu failed, %llu operations, %llu faults, %.0f simulated s in %.1f s (%.1f seeds/s)\n",
      static_cast<unsigned long long>(run.done), run.failures.size(), static_cast<unsigned long long>(operations),
      static_cast<unsigned long long>(faults), run.simulated_s, took,
      static_cast<double>(run.done) / std::max(took, 0.001));
  if (!run.failures.empty()) {
    std::printf("failed seeds:");
    for (const auto& [seed, text] : run.failures) std::printf(" %llu", static_cast<unsigned long long>(seed));
    std::printf("\n");
  }
  return run.failures.empty() && missing.empty() ? 0 : 1;
}

int run_all_mutants(const Options& options) {
  size_t caught = 0;
  std::vector<std::string> escaped;
  std::printf("%-26s %-7s %6s %6s  %s\n", "mutant", "caught", "seeds", "s",
              "what is broken; what the first seed that caught it saw");
  for (const Mutant& mutant : kMutants) {
    Run run;
    run.options = options;
    run.options.mutant = mutant.name;
    run.quiet = true;
    select_mutant(mutant.name);
    auto began = std::chrono::steady_clock::now();
    bool found = run_many(run) == 0;
    double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    caught += found ? 1 : 0;
    if (!found) escaped.emplace_back(mutant.name);
    std::string saw = found ? run.failures.begin()->second.substr(0, run.failures.begin()->second.find('\n')) : "";
    std::printf("%-26s %-7s %6llu %6.0f  %s%s%s\n", mutant.name, found ? "yes" : "NO",
                static_cast<unsigned long long>(run.done), took, mutant.what, found ? "; " : "",
                saw.substr(0, 160).c_str());
    std::fflush(stdout);
  }
  std::printf("mutants: %zu of %zu caught within %llu seeds%s", caught, std::size(kMutants),
              static_cast<unsigned long long>(options.seeds), escaped.empty() ? "" : "; not:");
  for (const std::string& name : escaped) std::printf(" %s", name.c_str());
  std::printf("\n");
  return caught * 100 >= std::size(kMutants) * 95 ? 0 : 1;
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
    for (const auto& [name, count] : result.counts)
      std::printf("%s %llu\n", name.c_str(), static_cast<unsigned long long>(count));
  for (const std::string& violation : result.violations) std::printf("%s\n", violation.c_str());
  std::printf("seed %llu: %s, %.1f simulated s, trace %016llx\n", static_cast<unsigned long long>(options.seed),
              result.ok() ? "clean" : "FAILED", result.simulated_s, static_cast<unsigned long long>(result.trace_hash));
  bool caught = !result.ok();
  if (options.twice) {
    scenario.trace = nullptr;
    ScenarioResult again = run_scenario(scenario);
    bool same = again.trace_hash == result.trace_hash;
    std::printf("seed %llu again: trace %016llx%s\n", static_cast<unsigned long long>(options.seed),
                static_cast<unsigned long long>(again.trace_hash), same ? "" : ": ANOTHER TRACE");
    return same && result.ok() ? 0 : 1;
  }
  return caught == !options.mutant.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  Run run;
  Options& options = run.options;
  CLI::App app{"headrace-sim: the whole cluster in simulation, seed by seed"};
  CLI::Option* seeds = app.add_option("--seeds", options.seeds, "how many seeds");
  CLI::Option* first = app.add_option("--first", options.first, "the first of them");
  CLI::Option* seconds =
      app.add_option("--seconds", options.seconds, "as many as run in so many seconds, from a random one on")
          ->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "this one alone, in this process");
  app.add_option("--jobs", options.jobs, "processes at a time");
  app.add_option("--mutant", options.mutant, "our own code broken on purpose: see src/base/fault_point.h");
  app.add_option("--trace", options.trace, "with --seed: every event into this file");
  app.add_flag("--twice", options.twice, "with --seed: run it twice and compare the traces");
  app.add_flag("--all-mutants", options.all_mutants, "every mutant that there is, and a table");
  app.add_option("--list", options.list, "just these seeds")->delimiter(',');
  app.add_flag("--verbose", options.verbose, "stages as they begin");
  CLI11_PARSE(app, argc, argv);
  if (options.all_mutants && seeds->count() == 0) options.seeds = 200;
  if (seconds->count() > 0 && seeds->count() == 0) options.seeds = uint64_t{1} << 40;
  if (seconds->count() > 0 && first->count() == 0) {
    uint32_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) std::abort();
    options.first = (uint64_t{1} << 32) + random;  // none of the fixed ones
    std::fprintf(stderr, "fresh seeds from %llu\n", static_cast<unsigned long long>(options.first));
  }
  if (!options.mutant.empty() || options.all_mutants) {
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
  if (options.all_mutants) return run_all_mutants(options);
  return options.seed != 0 ? run_one(options) : run_many(run);
}

}  // namespace
}  // namespace headrace::sim

int main(int argc, char** argv) {
  return headrace::sim::run(argc, argv);
}
