#include "runtime/sim/world.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "base/codec.h"
#include "runtime/sync.h"

namespace headrace {
namespace {

// --- A small cluster that uses everything: a server that logs numbers durably, a client that sends
// them ---------

struct Counts {
  int frames_alive = 0;  // coroutines that hold a Tracked
  std::vector<uint64_t> acknowledged;
  bool finished = false;
};

struct Tracked {
  explicit Tracked(Counts& counts) : all(counts) { ++all.frames_alive; }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;
  ~Tracked() { --all.frames_alive; }
  Counts& all;
};

class LogServer final : public Process {
 public:
  LogServer(Env& env, Counts& counts, bool flushes) : env_(env), counts_(counts), flushes_(flushes) {}

  Task<void> run() override {
    Tracked tracked(counts_);
    Result<void> opened = co_await open();
    if (!opened.ok()) co_return;  // exits; its supervisor starts it again
    Result<std::unique_ptr<Listener>> listener = co_await env_.net.listen("sim:server");
    HR_ASSERT(listener.ok());
    while (true) {
      Result<std::unique_ptr<Connection>> accepted = co_await (*listener)->accept();
      if (!accepted.ok()) co_return;
      scope_.spawn(serve(*std::move(accepted)));
    }
  }

 private:
  Task<Result<void>> open() {
    Tracked tracked(counts_);
    HR_CO_TRY(co_await env_.disk.make_directories("/log"));
    HR_CO_TRY(file_, co_await env_.disk.open("/log/records", {.create = true}));
    if (flushes_) HR_CO_TRY(co_await env_.disk.sync_directory("/log"));
    HR_CO_TRY(uint64_t size, co_await file_->size());
    end_ = round_up(size, 8);
    co_return Result<void>();
  }
  Task<void> serve(std::unique_ptr<Connection> connection) {
    Tracked tracked(counts_);
    while (true) {
      Result<Frame> request = co_await connection->receive();
      if (!request.ok()) co_return;
      Result<void> stored = co_await store(request->head);
      if (!stored.ok()) co_return;
      Result<void> sent = co_await connection->send({request->head, {}});
      if (!sent.ok()) co_return;
    }
  }
  Task<Result<void>> store(Buffer record) {
    Tracked tracked(counts_);
    Mutex::Guard guard = co_await mutex_.lock();
    // Some work off the core, as a store would do.
    size_t size = co_await env_.blocking.run([record] { return record.size(); });
    HR_ASSERT(size == 8);
    std::vector<Buffer> pieces;
    pieces.push_back(record);
    HR_CO_TRY(co_await file_->write(end_, std::move(pieces)));
    end_ += 8;
    if (flushes_) HR_CO_TRY(co_await file_->flush());
    co_return Result<void>();
  }

  Env& env_;
  Counts& counts_;
  bool flushes_;
  std::unique_ptr<File> file_;
  uint64_t end_ = 0;
  Mutex mutex_;
  Scope scope_;
};

class LogClient final : public Process {
 public:
  LogClient(Env& env, Counts& counts, uint64_t records) : env_(env), counts_(counts), records_(records) {}

  Task<void> run() override {
    Tracked tracked(counts_);
    while (counts_.acknowledged.size() < records_) {
      Result<void> sent = co_await send_records();
      if (!sent.ok())
        co_await env_.clock.sleep(milliseconds(1) + Nanos{static_cast<int64_t>(env_.random.below(1'000'000))});
    }
    counts_.finished = true;
  }

 private:
  Task<Result<void>> send_records() {
    Tracked tracked(counts_);
    HR_CO_TRY(std::unique_ptr<Connection> connection, co_await env_.net.connect("sim:server"));
    while (counts_.acknowledged.size() < records_) {
      uint64_t number = env_.random.nonzero();
      HR_CO_TRY(
          co_await connection->send({Buffer::copy_of(std::as_bytes(std::span(&number, 1))), Buffer::zeroed(100)}));
      HR_CO_TRY(Frame reply, co_await connection->receive());
      uint64_t answered = 0;
      std::memcpy(&answered, reply.head.data(), 8);
      if (answered != number) co_return Error(Code::kCorrupt, "an answer to something else");
      counts_.acknowledged.push_back(number);
    }
    co_return Result<void>();
  }

  Env& env_;
  Counts& counts_;
  uint64_t records_;
};

struct Cluster {
  explicit Cluster(uint64_t seed, uint64_t records = 8, bool flushes = true, WorldOptions options = {})
      : world(seed, options),
        server(world.add_machine("server")),
        client(world.add_machine("client")),
        records(records),
        flushes(flushes) {}

  void start_server() {
    server.start([this](Env& env) { return std::make_unique<LogServer>(env, counts, flushes); });
  }
  void start_client() {
    client.start([this](Env& env) { return std::make_unique<LogClient>(env, counts, records); });
  }
  void start_what_is_down() {
    if (!server.running()) start_server();
    if (!client.running() && !counts.finished) start_client();
  }
  bool run_to_the_end(Nanos limit = seconds(600)) {
    Nanos end = world.now() + limit;
    while (!counts.finished && world.now() < end) {
      start_what_is_down();
      if (!world.step()) return false;
    }
    return counts.finished;
  }
  // How many acknowledged records the server's disk lacks.
  size_t lost() {
    std::set<uint64_t> stored;
    Buffer log = server.disk().contents("/log/records");
    for (size_t at = 0; at + 8 <= log.size(); at += 8) {
      uint64_t number = 0;
      std::memcpy(&number, log.data() + at, 8);
      stored.insert(number);
    }
    size_t missing = 0;
    for (uint64_t number : counts.acknowledged) missing += stored.contains(number) ? 0 : 1;
    return missing;
  }

  Counts counts;  // outlives the world's frames
  World world;
  Machine& server;
  Machine& client;
  uint64_t records;
  bool flushes;
};

// Everything that can go wrong, at once.
uint64_t stormy_hash(uint64_t seed) {
  Cluster cluster(seed, 300);
  FaultPlan& faults = cluster.world.faults();
  for (const char* name :
       {"net.cut", "net.delay_burst", "net.refuse", "disk.read_fails", "disk.write_fails", "disk.flush_fails",
        "disk.flush_lies", "disk.lost_write", "disk.misdirected", "disk.bit_flip", "disk.latent_sector"})
    faults.set(name, 0.02);
  Random& random = cluster.world.random();
  for (int i = 0; i < 20'000 && !cluster.counts.finished; ++i) {
    cluster.start_what_is_down();
    cluster.world.step();
    if (!random.chance(1, 150)) continue;
    Machine& victim = random.chance(1, 2) ? cluster.server : cluster.client;
    switch (random.below(6)) {
      case 0:
        victim.crash(CrashKind::kPower);
        break;
      case 1:
        victim.crash(CrashKind::kProcess);
        break;
      case 2:
        cluster.world.network().partition("server", "client", milliseconds(5), random.chance(1, 2));
        break;
      case 3:
        victim.jump_wall(seconds(-3));
        break;
      case 4:
        victim.jump_boot(milliseconds(20));
        break;
      default:
        (void)cluster.world.network().cut_any();
    }
  }
  EXPECT_GT(cluster.world.resumes(), 500u);
  return cluster.world.trace_hash();
}

TEST(World, SameSeedSameTraceHash) {
  for (uint64_t seed = 0; seed < 25; ++seed) EXPECT_EQ(stormy_hash(seed), stormy_hash(seed)) << "seed " << seed;
}

TEST(World, DifferentSeedsDiffer) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 0; seed < 25; ++seed) hashes.insert(stormy_hash(seed));
  EXPECT_EQ(hashes.size(), 25u);
}

constexpr uint64_t kFewRecords = 6;

uint64_t steps_of_a_calm_run(uint64_t seed) {
  Cluster cluster(seed, kFewRecords);
  EXPECT_TRUE(cluster.run_to_the_end());
  return cluster.world.steps();
}

void crash_at_every_await(bool server, CrashKind kind, uint64_t seed) {
  uint64_t steps = steps_of_a_calm_run(seed);
  ASSERT_GT(steps, 50u);
  for (uint64_t at = 0; at <= steps; ++at) {
    Cluster cluster(seed, kFewRecords);
    cluster.start_what_is_down();
    for (uint64_t i = 0; i < at && !cluster.counts.finished; ++i) cluster.world.step();
    Machine& victim = server ? cluster.server : cluster.client;
    victim.crash(kind);
    EXPECT_FALSE(victim.running());
    ASSERT_TRUE(cluster.run_to_the_end()) << "seed " << seed << ", crashed after step " << at;
    EXPECT_EQ(cluster.lost(), 0u) << "seed " << seed << ", crashed after step " << at;
    cluster.server.crash(CrashKind::kPower);
    cluster.client.crash(CrashKind::kPower);
    EXPECT_EQ(cluster.lost(), 0u) << "seed " << seed << ", crashed after step " << at;
    EXPECT_EQ(cluster.counts.frames_alive, 0) << "seed " << seed << ", crashed after step " << at;
  }
}

void crash_at_every_await(bool server, CrashKind kind) {
  for (uint64_t seed = 7; seed < 12; ++seed) crash_at_every_await(server, kind, seed);
}

TEST(World, AServerKilledAtAnyAwaitLeaksNothingAndLosesNothing) {
  crash_at_every_await(true, CrashKind::kProcess);
}
TEST(World, AServerWithoutPowerAtAnyAwaitLeaksNothingAndLosesNothing) {
  crash_at_every_await(true, CrashKind::kPower);
}
TEST(World, AClientKilledAtAnyAwaitLeaksNothing) {
  crash_at_every_await(false, CrashKind::kProcess);
}
TEST(World, AClientWithoutPowerAtAnyAwaitLeaksNothing) {
  crash_at_every_await(false, CrashKind::kPower);
}

TEST(World, DestroyedAtAnyStepLeaksNothing) {
  uint64_t steps = steps_of_a_calm_run(3);
  for (uint64_t at = 0; at <= steps; ++at) {
    Counts counts;
    {
      World world(3);
      Machine& server = world.add_machine("server");
      Machine& client = world.add_machine("client");
      server.start([&](Env& env) { return std::make_unique<LogServer>(env, counts, true); });
      client.start([&](Env& env) { return std::make_unique<LogClient>(env, counts, kFewRecords); });
      for (uint64_t i = 0; i < at; ++i) world.step();
    }
    EXPECT_EQ(counts.frames_alive, 0) << "destroyed after step " << at;
  }
}

TEST(World, CatchesAServerThatDoesNotFlush) {
  size_t caught = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Cluster cluster(seed, 5, false);
    ASSERT_TRUE(cluster.run_to_the_end());
    cluster.server.crash(CrashKind::kProcess);
    ASSERT_EQ(cluster.lost(), 0u) << "a killed process loses nothing that was written";
    cluster.start_server();
    cluster.server.crash(CrashKind::kPower);
    caught += cluster.lost() > 0 ? 1 : 0;
  }
  EXPECT_GT(caught, 20u);
}

// --- The loop
// ---------------------------------------------------------------------------------------------------

Task<void> sleep_for(Clock* clock, Nanos duration, int* woke) {
  co_await clock->sleep(duration);
  ++*woke;
}
Task<void> wait_forever(Event* event) {
  co_await event->wait();
}
Task<void> append(std::vector<int>* out, int id, int times) {
  for (int i = 0; i < times; ++i) {
    out->push_back(id);
    co_await yield();
  }
}
Task<int> answer(Clock* clock) {
  co_await clock->sleep(seconds(100));
  co_return 42;
}

TEST(World, TimeJumpsToTheNextEvent) {
  World world(1);
  int woke = 0;
  EXPECT_TRUE(world.run_until(sleep_for(&world.clock(), seconds(1000), &woke)));
  EXPECT_EQ(woke, 1);
  EXPECT_GE(world.now(), seconds(1000));
  EXPECT_LT(world.now(), seconds(1000) + milliseconds(1));
  EXPECT_EQ(world.run(answer(&world.clock())), 42);
}

TEST(World, RunForPassesThatMuchTimeAndNoMore) {
  World world(1);
  int woke = 0;
  world.spawn(sleep_for(&world.clock(), seconds(10), &woke));
  Nanos before = world.now();
  world.run_for(seconds(9));
  EXPECT_EQ(world.now(), before + seconds(9));
  EXPECT_EQ(woke, 0);
  world.run_for(seconds(2));
  EXPECT_EQ(woke, 1);
}

TEST(World, RunUntilGivesUpAtItsLimitAndWhenNothingIsLeft) {
  World world(1);
  int woke = 0;
  Event never;
  EXPECT_FALSE(world.run_until(sleep_for(&world.clock(), seconds(10), &woke), seconds(5)));
  EXPECT_EQ(world.now(), seconds(5));
  EXPECT_FALSE(world.run_until(wait_forever(&never)));
  EXPECT_LT(world.now(), seconds(6)) << "nothing could happen any more";
  EXPECT_FALSE(world.step());
  EXPECT_EQ(woke, 0) << "the task went with run_until";
}

TEST(World, ABusyLoopDoesNotStopTime) {
  World world(1);
  std::vector<int> spins;
  int woke = 0;
  world.spawn(append(&spins, 1, 1'000'000));
  world.spawn(sleep_for(&world.clock(), microseconds(100), &woke));
  EXPECT_TRUE(world.run_until([&] { return woke == 1; }));
  EXPECT_LT(spins.size(), 1000u);
}

TEST(World, DrawsTheOrderOfReadyTasksFromTheSeed) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    World world(seed);
    std::vector<int> out;
    for (int id = 0; id < 4; ++id) world.spawn(append(&out, id, 3));
    while (world.step()) {
    }
    EXPECT_EQ(out.size(), 12u);
    orders.insert(out);
  }
  EXPECT_GT(orders.size(), 10u);
  World fifo(1, {.shuffle_percent = 0});
  std::vector<int> out;
  for (int id = 0; id < 3; ++id) fifo.spawn(append(&out, id, 2));
  while (fifo.step()) {
  }
  EXPECT_EQ(out, (std::vector<int>{0, 1, 2, 0, 1, 2}));
}

TEST(World, PostedWorkRunsBeforeTheNextStep) {
  World world(1);
  int ran = 0;
  world.post([&] {
    ++ran;
    world.post([&] { ++ran; });
  });
  EXPECT_EQ(ran, 0);
  EXPECT_FALSE(world.step());
  EXPECT_EQ(ran, 2);
}

// --- Machines
// ---------------------------------------------------------------------------------------------------

struct Short final : Process {
  Short(Env& e, Counts& c) : env(e), counts(c) {}
  Task<void> run() override {
    Tracked tracked(counts);
    Result<std::unique_ptr<Listener>> listener = co_await env.net.listen("sim:m");
    co_await env.clock.sleep(milliseconds(1));
  }
  Env& env;
  Counts& counts;
};

TEST(Machine, AProcessWhoseRunEndsExitsAndMayBeStartedAgain) {
  Counts counts;
  World world(1);
  Machine& machine = world.add_machine("m");
  for (uint64_t i = 1; i <= 2; ++i) {
    machine.start([&](Env& env) { return std::make_unique<Short>(env, counts); });
    EXPECT_TRUE(machine.running());
    EXPECT_NE(machine.process(), nullptr);
    ASSERT_TRUE(world.run_until([&] { return !machine.running(); }));
    EXPECT_EQ(machine.process(), nullptr);
    EXPECT_EQ(machine.starts(), i);
  }
  EXPECT_EQ(counts.frames_alive, 0);
  EXPECT_EQ(world.faults().fired("crash.process"), 0u);
}

struct Suicidal final : Process {
  Suicidal(Machine& m, Counts& c) : machine(m), counts(c) {}
  Task<void> run() override {
    Tracked tracked(counts);
    machine.crash_soon(CrashKind::kPower);
    co_await machine.env().clock.sleep(seconds(1));
    counts.finished = true;
  }
  Machine& machine;
  Counts& counts;
};

TEST(Machine, MayAskForItsOwnCrash) {
  Counts counts;
  World world(1);
  Machine& machine = world.add_machine("m");
  machine.start([&](Env&) { return std::make_unique<Suicidal>(machine, counts); });
  while (world.step()) {
  }
  EXPECT_FALSE(machine.running());
  EXPECT_FALSE(counts.finished);
  EXPECT_EQ(counts.frames_alive, 0);
  EXPECT_EQ(world.faults().fired("crash.power"), 1u);
}

TEST(Machine, PeersOfAKilledProcessSeeTheEndSoonAndThoseOfADeadMachineLate) {
  for (CrashKind kind : {CrashKind::kProcess, CrashKind::kPower}) {
    Nanos slowest{};
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Cluster cluster(seed, 1000);
      cluster.start_what_is_down();
      cluster.world.run_until([&] { return cluster.counts.acknowledged.size() == 2; });
      Result<std::unique_ptr<Connection>> watch = cluster.world.run(cluster.client.env().net.connect("sim:server"));
      ASSERT_TRUE(watch.ok());
      Nanos before = cluster.world.now();
      cluster.server.crash(kind);
      EXPECT_EQ(cluster.world.run((*watch)->receive()).code(), Code::kDisconnected);
      slowest = std::max(slowest, cluster.world.now() - before);
      EXPECT_EQ(cluster.world.run(cluster.client.env().net.connect("sim:server")).code(), Code::kUnavailable);
    }
    if (kind == CrashKind::kProcess) {
      EXPECT_LT(slowest, milliseconds(10));
    } else {
      EXPECT_GT(slowest, seconds(2));
    }
  }
}

TEST(Machine, ClocksDifferGoOnOverCrashesAndJump) {
  World world(5, {.max_drift_ppm = 1000});
  Machine& a = world.add_machine("a");
  Machine& b = world.add_machine("b", {.boot_offset = seconds(7), .wall_skew = seconds(60), .drift_ppm = 500'000});
  EXPECT_EQ(b.clock().now(), seconds(7));
  EXPECT_EQ(b.clock().wall(), kWorldBegins + seconds(60));
  EXPECT_NE(a.clock().now(), b.clock().now());
  world.run_for(seconds(10));
  EXPECT_EQ(b.clock().now(), seconds(22)) << "half as fast again";
  b.crash(CrashKind::kPower);
  EXPECT_EQ(b.clock().now(), seconds(22));
  b.jump_wall(seconds(-3600));
  EXPECT_EQ(b.clock().wall(), kWorldBegins + seconds(60 + 15 - 3600));
  EXPECT_EQ(b.clock().now(), seconds(22)) << "the boot clock does not know";
  int woke = 0;
  world.spawn(sleep_for(&b.clock(), seconds(300), &woke));
  b.jump_boot(seconds(301));
  Nanos before = world.now();
  EXPECT_TRUE(world.run_until([&] { return woke == 1; }));
  EXPECT_LT(world.now() - before, milliseconds(1)) << "a suspended machine finds its timers due";
  before = world.now();
  EXPECT_TRUE(world.run_until(sleep_for(&b.clock(), seconds(3), &woke)));
  EXPECT_GE(world.now() - before, seconds(2));
  EXPECT_LT(world.now() - before, seconds(2) + milliseconds(1));
}

TEST(Machine, DrawsRandomnessFromSeedAndName) {
  World world(5);
  Machine& a = world.add_machine("a");
  Machine& b = world.add_machine("b");
  uint64_t first = a.env().random.next();
  EXPECT_NE(first, b.env().random.next());
  a.crash(CrashKind::kProcess);
  EXPECT_NE(first, a.env().random.next()) << "a new process does not repeat the last one's ids";
}

struct Worker final : Process {
  Worker(Env& e, int& w, int& s) : env(e), worked(w), seen(s) {}
  Task<void> run() override {
    for (int i = 0; i < 10; ++i) scope.spawn(job());
    co_await scope.join();
  }
  Task<void> job() {
    int* count = &worked;
    int result = co_await env.blocking.run([count] { return ++*count; });
    seen += result > 0 ? 1 : 0;
  }
  Env& env;
  int& worked;
  int& seen;
  Scope scope;
};

TEST(Machine, BlockingWorkRunsLaterAndItsResultIsSeenLaterStill) {
  World world(1);
  Machine& machine = world.add_machine("m");
  int worked = 0, seen = 0;
  machine.start([&](Env& env) { return std::make_unique<Worker>(env, worked, seen); });
  EXPECT_EQ(worked, 0);
  ASSERT_TRUE(world.run_until([&] { return worked > seen; }));
  ASSERT_TRUE(world.run_until([&] { return seen == 10; }));
  EXPECT_EQ(worked, 10);
}

TEST(Machine, ACrashForgetsBlockingWorkNotYetDone) {
  World world(1);
  Machine& machine = world.add_machine("m");
  int worked = 0, seen = 0;
  machine.start([&](Env& env) { return std::make_unique<Worker>(env, worked, seen); });
  ASSERT_TRUE(world.run_until([&] { return worked == 3; }));
  machine.crash(CrashKind::kProcess);
  world.run_for(seconds(1));
  EXPECT_EQ(worked, 3);
  EXPECT_LE(seen, 3);
}

// --- Faults and probes
// ------------------------------------------------------------------------------------------

TEST(FaultPlan, FiresAsOftenAsItsProbabilitySays) {
  FaultPlan faults(1);
  faults.set("often", 0.5);
  int fired = 0;
  for (int i = 0; i < 1000; ++i) {
    fired += faults.hit("often") ? 1 : 0;
    EXPECT_FALSE(faults.hit("never"));
    EXPECT_TRUE(faults.hit("always", 1.0));
  }
  EXPECT_GT(fired, 400);
  EXPECT_LT(fired, 600);
  EXPECT_EQ(faults.fired("often"), static_cast<uint64_t>(fired));
  EXPECT_EQ(faults.fired("unheard of"), 0u);
  EXPECT_NE(faults.summary().find("never 0/1000\n"), std::string::npos) << "a kind that never fired is listed";
  EXPECT_NE(faults.summary().find("always 1000/1000\n"), std::string::npos);
}

TEST(FaultPlan, AnUnlikelyFaultDrawsNothingFromTheSeed) {
  FaultPlan a(1), b(1);
  a.set("f", 0.5);
  b.set("f", 0.5);
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(a.hit("never"));
    EXPECT_EQ(a.hit("f"), b.hit("f"));
  }
}

TEST(World, CountsProbesAndListsThemWithTheSeed) {
  World world(77);
  world.probe("rare.path");
  world.probe("rare.path");
  EXPECT_EQ(world.probes().count("rare.path"), 2u);
  EXPECT_EQ(world.probes().count("other"), 0u);
  EXPECT_NE(world.summary().find("seed 77"), std::string::npos);
  EXPECT_NE(world.summary().find("probe rare.path 2"), std::string::npos);
}

}  // namespace
}  // namespace headrace
