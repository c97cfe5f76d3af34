// World: a whole cluster in one process, on one thread, from one seed. Machine: one of its
// computers.
//
//     World world(seed, {});
//     Machine& node = world.add_machine("node1");
//     node.start([](Env& env) { return std::make_unique<Node>(env); });
//     world.spawn(driver(world));
//     EXPECT_TRUE(world.run_until([&] { return done; }));
//     node.crash(CrashKind::kPower);
//
// Invariants
//  1. Everything that happens is a function of the seed, the options and the code: same
//  trace_hash(). Code under
//     test keeps to it by never ordering by address, and by taking time, I/O and randomness from
//     its Env.
//  2. Simulated time goes on only between steps: by step_cost per resumed coroutine, else to the
//  next timer.
//  3. A crash destroys the process between two steps, hence at one of its awaits.
// Owner: the test. One World per thread at a time; it is the thread's Scheduler. Machines live as
// long as it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sim/blocking.h"
#include "runtime/sim/core.h"
#include "runtime/sim/disk.h"
#include "runtime/sim/net.h"

namespace headrace {

class World;

// What runs on a machine. Holds the Env's references; owns its own Scopes.
struct Process {
  virtual ~Process() = default;
  virtual Task<void> run() = 0;  // when it ends, the process exits: as a crash of kind kProcess, but not counted
};

enum class CrashKind : uint8_t {
  kProcess,  // SIGKILL: the disk keeps every completed operation
  kPower,    // the disk keeps what was flushed and parts of the rest; peers notice late
};

struct MachineOptions {
  DiskOptions disk;
  BlockingOptions blocking;
  // Drawn from the seed within WorldOptions' bounds where absent.
  std::optional<Nanos> boot_offset;
  std::optional<Nanos> wall_skew;
  std::optional<int64_t> drift_ppm;
};

struct WorldOptions {
  NetOptions net;
  MachineOptions machine;         // of machines added without options of their own
  uint64_t shuffle_percent = 30;  // how often the next ready coroutine is drawn instead of the first taken
  Nanos step_cost = Nanos{200};   // simulated time per resumed coroutine; 0 would let busy loops stop time
  Nanos max_boot_offset = seconds(100'000);
  Nanos max_wall_skew = milliseconds(500);
  int64_t max_drift_ppm = 100;
};

class Machine {
 public:
  Machine(World& world, std::string name, MachineOptions options);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] Address address() const { return "sim:" + name_; }
  [[nodiscard]] Env& env() { return env_; }
  [[nodiscard]] SimClock& clock() { return clock_; }
  [[nodiscard]] SimDisk& disk() { return disk_; }

  using Factory = std::move_only_function<std::unique_ptr<Process>(Env&)>;
  // Makes a process and begins its run(). None may be running.
  void start(Factory factory);
  [[nodiscard]] bool running() const { return process_ != nullptr && !exited_; }
  [[nodiscard]] uint64_t starts() const { return starts_; }
  // The running process, for a test that knows its type; null when none runs.
  [[nodiscard]] Process* process() { return running() ? process_.get() : nullptr; }

  // Between steps or from a coroutine that is not the process's own; fine when nothing runs.
  // Counted as crash.process or crash.power.
  void crash(CrashKind kind);
  // Before the next step; from anywhere, the process itself included.
  void crash_soon(CrashKind kind);
  // Counted as clock.jump_wall and clock.jump_boot.
  void jump_wall(Nanos delta);
  void jump_boot(Nanos ahead);

 private:
  static Task<void> run(Machine& machine);
  void destroy_process(bool power);

  World& world_;
  std::string name_;
  SeededRandom random_;
  SimClock clock_;
  SimDisk disk_;
  SimNet net_;
  SimBlocking blocking_;
  Env env_;
  uint64_t starts_ = 0;
  bool exited_ = false;
  std::unique_ptr<Process> process_;
  std::unique_ptr<Scope> scope_;  // of run(); goes first
  friend class World;
};

class World final : public Scheduler {
 public:
  explicit World(uint64_t seed, WorldOptions options = {});
  ~World() override;

  [[nodiscard]] Machine& add_machine(std::string name);
  [[nodiscard]] Machine& add_machine(std::string name, MachineOptions options);
  [[nodiscard]] Machine& machine(std::string_view name);  // asserts that there is one
  [[nodiscard]] const std::vector<std::unique_ptr<Machine>>& machines() const { return machines_; }
  [[nodiscard]] SimNetwork& network() { return network_; }

  // A task of the test itself, on no machine: no crash touches it. Destroyed with the world.
  void spawn(Task<void> task);
  // Runs before the next step, outside every coroutine.
  void post(std::move_only_function<void()> work) { posted_.push_back(std::move(work)); }

  // One thing happens: a coroutine runs up to its next suspension, or time goes on to the next
  // timer. False: nothing is left that could ever happen.
  bool step();
  // Until the condition, looked at after each step, holds. False: nothing was left, or `limit`
  // passed.
  bool run_until(const std::function<bool()>& condition, Nanos limit = seconds(3600));
  // Until the task ended. False as above; then it is destroyed where it stands.
  bool run_until(Task<void> task, Nanos limit = seconds(3600));
  void run_for(Nanos duration);
  // The result of a task; asserts that it ends within the limit.
  template <class T>
  [[nodiscard]] T run(Task<T> task, Nanos limit = seconds(3600)) {
    std::optional<T> result;
    bool ended = run_until(store(std::move(task), &result), limit);
    if (!ended) complain("a task did not end");
    HR_ASSERT(ended);
    return std::move(*result);
  }

  [[nodiscard]] uint64_t seed() const { return core_.seed; }
  [[nodiscard]] Nanos now() const { return core_.now; }  // true time since the world began
  [[nodiscard]] Clock& clock() { return core_.clock; }   // the same for co_await
  [[nodiscard]] Random& random() { return random_; }     // for the test driver; no machine draws from it
  [[nodiscard]] FaultPlan& faults() { return core_.faults; }
  void probe(std::string_view name) { core_.probes.hit(name); }
  [[nodiscard]] const Probes& probes() const { return core_.probes; }
  // Folds a test's own observation into the trace.
  void note(std::string_view what, uint64_t value = 0) { core_.record(SimEvent::kNote, value, 0, what); }
  [[nodiscard]] uint64_t trace_hash() const { return core_.trace_hash(); }
  [[nodiscard]] uint64_t resumes() const { return resumes_; }
  [[nodiscard]] uint64_t steps() const { return steps_; }
  [[nodiscard]] SimCore& core() { return core_; }
  // Faults and probes that fired, with the seed: for the end of a run.
  [[nodiscard]] std::string summary() const;

 private:
  friend class Machine;
  [[nodiscard]] Waiter* pick(WaitList& ready) override;
  void run_posted();
  bool step_before(Nanos end);  // time goes no further than that
  void complain(const char* what) const;
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>* into) {
    T value = co_await std::move(task);
    into->emplace(std::move(value));
  }
  static Task<void> flag(Task<void> task, bool* ended) {
    co_await std::move(task);
    *ended = true;
  }

  SimCore core_;
  WorldOptions options_;
  SeededRandom random_;
  SimNetwork network_;
  uint64_t resumes_ = 0;
  uint64_t steps_ = 0;
  std::vector<std::unique_ptr<Machine>> machines_;
  std::vector<std::move_only_function<void()>> posted_;
  Scope driver_;  // last: destroyed before what it uses
};

}  // namespace headrace
