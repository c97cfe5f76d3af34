#include "runtime/sim/world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace headrace {

namespace {

int64_t draw(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low) + 1));
}

}  // namespace

Machine::Machine(World& world, std::string name, MachineOptions options)
    : world_(world),
      name_(std::move(name)),
      random_(derive_seed(world.seed(), "machine " + name_)),
      clock_(world.core_.now, options.boot_offset.value_or(Nanos{}), options.wall_skew.value_or(Nanos{}),
             options.drift_ppm.value_or(0)),
      disk_(world.core_, name_, std::move(options.disk)),
      net_(world.network_, name_),
      blocking_(world.core_, options.blocking),
      env_{clock_, disk_, net_, random_, blocking_} {}

Machine::~Machine() {
  destroy_process(false);
}

void Machine::start(Factory factory) {
  HR_ASSERT(!running());
  destroy_process(false);
  ++starts_;
  world_.core_.record(SimEvent::kMachine, starts_, 0, name_);
  process_ = factory(env_);
  HR_ASSERT(process_ != nullptr);
  scope_ = std::make_unique<Scope>();
  scope_->spawn(run(*this));
}

Task<void> Machine::run(Machine& machine) {
  co_await machine.process_->run();
  machine.exited_ = true;
  uint64_t which = machine.starts_;
  machine.world_.post([&machine, which] {
    if (machine.starts_ == which) machine.destroy_process(false);
  });
}

void Machine::destroy_process(bool power) {
  if (process_ == nullptr) return;
  // Connections break as for a dead process before their owners' destructors could close them
  // politely.
  world_.network_.crash(name_, power);
  blocking_.crash();
  scope_.reset();
  process_.reset();
  exited_ = false;
}

void Machine::crash(CrashKind kind) {
  bool power = kind == CrashKind::kPower;
  world_.core_.faults.note(power ? "crash.power" : "crash.process");
  world_.core_.record(SimEvent::kMachine, starts_, power ? 2 : 1, name_);
  destroy_process(power);
  if (power) disk_.lose_power();
}

void Machine::crash_soon(CrashKind kind) {
  world_.post([this, kind] { crash(kind); });
}

void Machine::jump_wall(Nanos delta) {
  world_.core_.faults.note("clock.jump_wall");
  clock_.jump_wall(delta);
}

void Machine::jump_boot(Nanos ahead) {
  world_.core_.faults.note("clock.jump_boot");
  clock_.jump_boot(ahead);
}

World::World(uint64_t seed, WorldOptions options)
    : core_(seed), options_(std::move(options)), random_(derive_seed(seed, "driver")), network_(core_, options_.net) {
  make_current();
  for (const char* name : {"crash.process", "crash.power", "clock.jump_wall", "clock.jump_boot"})
    (void)core_.faults.point(name);
}

World::~World() {
  posted_.clear();
  for (auto& machine : machines_) machine->destroy_process(false);
}

Machine& World::add_machine(std::string name) {
  return add_machine(std::move(name), options_.machine);
}

Machine& World::add_machine(std::string name, MachineOptions options) {
  HR_ASSERT(!name.empty() && name.find(':') == std::string::npos);
  for (const auto& known : machines_) HR_ASSERT(known->name() != name);
  SeededRandom random(derive_seed(seed(), "clock " + name));
  if (!options.boot_offset) options.boot_offset = Nanos{draw(random, 0, options_.max_boot_offset.count)};
  if (!options.wall_skew)
    options.wall_skew = Nanos{draw(random, -options_.max_wall_skew.count, options_.max_wall_skew.count)};
  if (!options.drift_ppm) options.drift_ppm = draw(random, -options_.max_drift_ppm, options_.max_drift_ppm);
  network_.add_machine(name);
  machines_.push_back(std::make_unique<Machine>(*this, std::move(name), std::move(options)));
  return *machines_.back();
}

Machine& World::machine(std::string_view name) {
  auto found = std::ranges::find_if(machines_, [&](const auto& machine) { return machine->name() == name; });
  HR_ASSERT(found != machines_.end());
  return **found;
}

void World::spawn(Task<void> task) {
  driver_.spawn(std::move(task));
}

Waiter* World::pick(WaitList& ready) {
  uint64_t index = 0;
  if (ready.size() > 1 && core_.schedule.chance(options_.shuffle_percent, 100))
    index = core_.schedule.below(std::min<uint64_t>(ready.size(), 32));
  core_.record(SimEvent::kResume, ready.size(), index);
  Waiter* chosen = ready.at(index);
  chosen->unlink();
  return chosen;
}

void World::run_posted() {
  while (!posted_.empty()) {
    auto work = std::exchange(posted_, {});
    for (auto& one : work) one();
  }
}

bool World::step() {
  return step_before(Nanos{INT64_MAX});
}

bool World::step_before(Nanos end) {
  run_posted();
  std::optional<Nanos> due = core_.clock.next_due();
  for (const auto& machine : machines_) {
    std::optional<Nanos> other = machine->clock_.next_due();
    if (other && (!due || *other < *due)) due = other;
  }
  bool timers_now = due && *due <= core_.now;
  if (!timers_now && !idle()) {
    core_.now = core_.now + options_.step_cost;
    resumes_ += run_ready(1);
    ++steps_;
    return true;
  }
  if (due && *due > end) {
    core_.now = end;
    return true;
  }
  if (!due) return false;
  core_.now = std::max(core_.now, *due);
  uint64_t fired = core_.clock.fire_due();
  for (const auto& machine : machines_) fired += machine->clock_.fire_due();
  core_.record(SimEvent::kTimers, fired);
  ++steps_;
  return true;
}

bool World::run_until(const std::function<bool()>& condition, Nanos limit) {
  Nanos end = core_.now + limit;
  run_posted();
  while (!condition()) {
    if (core_.now >= end || !step_before(end)) return false;
  }
  return true;
}

bool World::run_until(Task<void> task, Nanos limit) {
  bool ended = false;
  Scope scope;
  scope.spawn(flag(std::move(task), &ended));
  return run_until([&] { return ended; }, limit);
}

void World::run_for(Nanos duration) {
  Nanos end = core_.now + duration;
  while (core_.now < end && step_before(end)) {
  }
  core_.now = std::max(core_.now, end);  // time passes even where nothing happens
}

void World::complain(const char* what) const {
  std::fprintf(stderr, "sim: seed %llu at %.6f s: %s\n%s", static_cast<unsigned long long>(core_.seed),
               core_.now.seconds(), what, summary().c_str());
}

std::string World::summary() const {
  std::string out = "seed " + std::to_string(core_.seed) + ": " + std::to_string(core_.now.count / 1'000'000) +
                    " ms simulated, " + std::to_string(resumes_) + " resumes\n" + core_.faults.summary();
  for (const auto& [name, count] : core_.probes.all()) out += "probe " + name + " " + std::to_string(count) + "\n";
  return out;
}

}  // namespace headrace
