#include "sim/scenario.h"

#include <fmt/core.h>

#include "hot/target_format.h"
#include "meta/row_check.h"
#include "sim/cluster.h"
#include "sim/leftovers.h"
#include "sim/model.h"
#include "sim/workload.h"

namespace headrace::sim {

namespace {

constexpr Nanos kPatience = seconds(400);  // for anything that must come right in calm

std::string target_path(uint32_t number) {
  return fmt::format("/state/targets/t{}/target.dat", number);
}

class Scenario {
 public:
  Scenario(World& world, const ScenarioOptions& options)
      : world_(world),
        options_(options),
        random_(derive_seed(options.seed, "scenario")),
        work_(world, model_),
        cluster_(world, ClusterShape::draw(random_)) {
    model_.when = [this] { return fmt::format("[{:.3f} s] ", world_.now().seconds()); };
    if (options_.verbose) model_.on_event = [this](const std::string& text) { log("  " + text); };
    cluster_.on_good_target_lost = [this](std::string target) { model_.violation("target " + target + " is lost"); };
    cluster_.on_client_crash = [this](int client) { work_.client_crashed(client); };
    cluster_.work_of = [this](int client) { return [this, client](Client& fs) { return work_.run(client, fs); }; };
    work_.directory_write_grants = cluster_.shape.client.directory_write_grants;
    work_.large_files = cluster_.shape.large_files;
    disk_faults_ = cluster_.shape.bad_targets > 0 && random_.chance(2, 3);
    world.network().options.unordered = random_.chance(1, 2);
    choose_bad_targets();
  }

  Task<void> run();
  [[nodiscard]] Model& model() { return model_; }
  [[nodiscard]] Workload& work() { return work_; }
  [[nodiscard]] Cluster& cluster() { return cluster_; }
  [[nodiscard]] const std::string& stage() const { return stage_; }
  bool ended = false;

 private:
  Task<bool> wait(std::string what, std::function<bool()> condition, Nanos patience = kPatience);
  Task<void> nemesis();
  Task<void> fault();
  Task<void> round(int number);
  Task<void> calm();
  Task<void> verify(std::string when);
  // Invariants of all rows; and once nothing is under way, nothing is left over.
  Task<void> check(std::string when);
  // Clients leave as they should: nothing is held for anybody.
  Task<void> everybody_leaves();
  Task<void> check_once(std::vector<std::string>* wrong, std::vector<std::string>* left, bool* done);
  Task<void> move();
  Task<void> lagging_take_over();
  Task<void> replace_a_target();
  Task<void> one_target_hangs();
  Task<void> crash_client_with_unsent_changes();
  Task<void> lose_power_at_a_superblock();
  void lose_target(uint32_t number);
  void choose_bad_targets();  // of the node that is there
  Task<bool> push_all();
  Task<bool> spin_down();
  Task<bool> undone_spin_down();
  // What is asked of a node runs in its process, and ends with it: then there is no answer.
  using Answer = std::shared_ptr<std::optional<Result<void>>>;
  static Task<void> push_node(Node& node, Answer answer);
  static Task<void> drop_from(Node& node, Answer answer);
  static Task<void> close_and_release(Node& node, Answer answer);
  static Task<void> undo(Node& node, Answer answer);
  static Task<void> fetch_into(Node& node, FaultPlan& faults);
  Task<std::optional<Result<void>>> ask(NodeProcess* process, Task<void> (*what)(Node&, Answer));
  Task<void> let_observer(std::function<Task<void>(Client&)> work, std::string what);
  void set_bucket_rates(uint32_t per_million);
  void set_disk_faults(bool on);
  void log(const std::string& text) {
    if (options_.verbose) std::fprintf(stderr, "[%.3f s] %s\n", world_.now().seconds(), text.c_str());
  }
  [[nodiscard]] int any_client() { return static_cast<int>(random_.below(kClients)); }
  [[nodiscard]] Nanos between_ms(uint64_t low, uint64_t high) {
    return milliseconds(static_cast<int64_t>(random_.between(low, high)));
  }
  // How long something is away: of a long round, minutes now and then.
  [[nodiscard]] Nanos outage_ms(uint64_t low, uint64_t high) {
    return long_round_ && random_.chance(1, 2) ? between_ms(high, 10 * high) : between_ms(low, high);
  }

  World& world_;
  ScenarioOptions options_;
  SeededRandom random_;
  Model model_;
  Workload work_;
  Cluster cluster_;
  std::string stage_ = "start";
  bool storm_ = false;
  bool disk_faults_ = false;
  bool one_hangs_ = false;
  bool long_round_ = false;
  bool everybody_left_ = false;
  Event storm_begins_;
};

Task<bool> Scenario::wait(std::string what, std::function<bool()> condition, Nanos patience) {
  Nanos deadline = world_.now() + patience;
  while (!condition()) {
    if (model_.failed()) co_return false;
    if (world_.now() >= deadline) {
      model_.violation(fmt::format("{} did not come about within {} s of calm (node: {})", what,
                                   patience.count / 1'000'000'000, cluster_.node_error));
      co_return false;
    }
    co_await world_.clock().sleep(milliseconds(100));
  }
  co_return true;
}

void Scenario::set_bucket_rates(uint32_t per_million) {
  FaultRates rates = FaultRates::all(per_million);
  rates.wrong_etag = per_million / 8;
  rates.expired = per_million / 8;
  rates.stored_other = per_million / 8;
  rates.timeout = seconds(2);
  rates.slow_for = seconds(1);
  cluster_.bucket_rates = rates;
  if (NodeProcess* node = cluster_.node()) node->bucket().rates() = rates;
}

void Scenario::set_disk_faults(bool on) {
  DiskOptions& disk = cluster_.node_machine().disk().options;
  double rate = on && disk_faults_ ? 1 : 0;
  disk.read_fails = 0.003 * rate;
  disk.write_fails = 0.0005 * rate;
  disk.flush_fails = 0.0003 * rate;
  disk.flush_lies = 0.02 * rate;
  disk.lost_write = 0.004 * rate;
  disk.misdirected = 0.002 * rate;
  disk.bit_flip = 0.01 * rate;
  disk.latent_sector = 0.002 * rate;
}

// ---- faults ----

Task<void> Scenario::nemesis() {
  for (;;) {
    co_await storm_begins_.wait();
    co_await world_.clock().sleep(between_ms(50, 3'000));
    if (!storm_ || model_.failed()) continue;
    co_await fault();
  }
}

Task<void> Scenario::fault() {
  Machine& node = cluster_.node_machine();
  SimNetwork& net = world_.network();
  uint64_t dice = random_.below(100);
  log(fmt::format("  fault {}", dice));
  if (dice < 14) {
    if (node.running()) node.crash(CrashKind::kProcess);
  } else if (dice < 26) {
    if (node.running()) node.crash(CrashKind::kPower);
  } else if (dice < 28) {
    co_await lose_power_at_a_superblock();
  } else if (dice < 30) {
    // A device that does not come back.
    if (!disk_faults_) co_return;
    if (node.running()) node.crash(CrashKind::kPower);
    lose_target(static_cast<uint32_t>(random_.below(cluster_.shape.bad_targets)));
  } else if (dice < 33) {
    co_await one_target_hangs();
  } else if (dice < 40) {
    int client = any_client();
    cluster_.crash_client(client, random_.chance(1, 2) ? CrashKind::kProcess : CrashKind::kPower);
  } else if (dice < 44) {
    world_.faults().note("crash.everything");
    if (node.running()) node.crash(CrashKind::kPower);
    for (int i = 0; i < kClients; ++i) cluster_.crash_client(i, CrashKind::kPower);
  } else if (dice < 54) {
    int client = any_client();
    bool lasting = random_.chance(1, 3);
    Nanos duration = lasting ? outage_ms(2'000, 25'000) : between_ms(10, 1'500);
    world_.faults().note(lasting ? "net.long_partition" : "net.short_partition");
    if (lasting) work_.disturb(client, world_.now() + duration + seconds(40));
    net.partition(cluster_.client_machine(client).name(), node.name(), duration, random_.chance(1, 3));
  } else if (dice < 64) {
    (void)net.cut_any();
    world_.faults().note("net.cut_any");
  } else if (dice < 65) {
    co_await replace_a_target();
  } else if (dice < 66) {
    world_.faults().note("disk.full");
    node.disk().options.capacity = 1;
    const Nanos duration = outage_ms(100, 9'000);
    work_.may_be_full = true;  // until the next calm: a sync may tell late of what found no room
    co_await world_.clock().sleep(duration);
    node.disk().options.capacity = 64 * kGiB;
  } else if (dice < 67) {
    world_.faults().note("disk.hangs");
    node.disk().options.slow_factor = 20'000;
    co_await world_.clock().sleep(outage_ms(200, 6'000));
    node.disk().options.slow_factor = 1;
  } else if (dice < 68) {
    // As a node that is stopped for longer than its clients' leases: nobody hears of it, and its disk does nothing.
    world_.faults().note("node.frozen");
    Nanos duration = outage_ms(1'000, 14'000);
    for (int i = 0; i < kClients; ++i) {
      work_.disturb(i, world_.now() + duration + seconds(40));
      net.partition(cluster_.client_machine(i).name(), node.name(), duration);
    }
    node.disk().options.slow_factor = 20'000;
    co_await world_.clock().sleep(duration);
    node.disk().options.slow_factor = 1;
  } else if (dice < 70) {
    world_.faults().note("disk.slow");
    node.disk().options.slow_factor = static_cast<double>(random_.between(10, 200));
    co_await world_.clock().sleep(between_ms(200, 3'000));
    node.disk().options.slow_factor = 1;
  } else if (dice < 76) {
    int client = any_client();
    bool on_node = random_.chance(1, 2);
    Nanos delta = random_.chance(1, 4) ? between_ms(2'000'000, 3'600'000) : between_ms(10, 2'000'000);
    if (random_.chance(1, 2)) delta = Nanos{} - delta;
    (on_node ? node : cluster_.client_machine(client)).jump_wall(delta);
  } else if (dice < 80) {
    int client = any_client();
    Nanos ahead = random_.chance(1, 2) ? between_ms(10, 3'000) : between_ms(3'000, 40'000);
    work_.disturb(client, world_.now() + seconds(40));
    cluster_.client_machine(client).jump_boot(ahead);
  } else if (dice < 85) {
    NodeProcess* process = cluster_.node();
    if (process == nullptr) co_return;
    world_.faults().note("bucket.down");
    process->bucket().down(true);
    co_await world_.clock().sleep(outage_ms(500, 15'000));
    if (NodeProcess* now = cluster_.node()) now->bucket().down(false);
  } else if (dice < 90) {
    // With a target less and none to spare, what comes back is cut into fewer fragments than clients believe.
    const bool none_to_spare = cluster_.shape.targets == cluster_.shape.protection.width();
    if (disk_faults_ && cluster_.shape.bad_targets > 0 && (none_to_spare || random_.chance(1, 3))) {
      if (node.running()) node.crash(CrashKind::kPower);
      lose_target(static_cast<uint32_t>(random_.below(cluster_.shape.bad_targets)));
      co_await world_.clock().sleep(between_ms(1'000, 6'000));
    }
    NodeProcess* process = cluster_.node();
    if (process == nullptr) co_return;
    // Everything that the bucket has leaves the hot tier: reads go to the bucket from now on.
    world_.faults().note("tier.drop");
    (void)co_await ask(process, drop_from);
    // And some of it comes back, wherever there is room by now.
    process = cluster_.node();
    if (process != nullptr && random_.chance(2, 3)) process->spawn(fetch_into(process->node(), world_.faults()));
  } else if (dice < 94 && disk_faults_) {
    // A block at rest goes bad.
    std::string path = target_path(static_cast<uint32_t>(random_.below(cluster_.shape.bad_targets)));
    uint64_t size = node.disk().file_size(path);
    if (size == 0) co_return;
    for (int i = 0; i < 20; ++i) {
      uint64_t at = random_.below(size);
      if (random_.chance(1, 2)) {
        if (node.disk().flip(path, at)) world_.faults().note("disk.flip_at_rest");
      } else {
        if (node.disk().damage(path, at)) world_.faults().note("disk.damage_at_rest");
      }
    }
  } else {
    set_bucket_rates(random_.chance(1, 2) ? 0 : static_cast<uint32_t>(random_.between(1'000, 100'000)));
  }
}

// ---- stages ----

Task<void> Scenario::round(int number) {
  stage_ = fmt::format("round {}", number);
  log(stage_);
  long_round_ = random_.chance(1, 10);
  if (long_round_) ++work_.counts["stage.long_round"];
  work_.pause = milliseconds(long_round_ ? 900 : 90);
  work_.start();
  storm_ = random_.chance(9, 10);
  const bool crash_unsent = work_.directory_write_grants && random_.chance(1, 2);
  work_.undisturbed = !storm_ && !crash_unsent;
  if (storm_) {
    set_disk_faults(true);
    cluster_.store_faults.applies_per_million = random_.chance(1, 3) ? 300 : 0;
    world_.faults().set("net.cut", 0.0005);
    world_.faults().set("net.delay_burst", 0.001);
    world_.faults().set("net.refuse", 0.02);
    world_.faults().set("net.duplicate", 0.001);
    world_.faults().set("net.reorder", 0.002);
    storm_begins_.set();
  }
  co_await world_.clock().sleep(long_round_ ? between_ms(60'000, 200'000) : between_ms(4'000, 16'000));
  if (crash_unsent) co_await crash_client_with_unsent_changes();
  while (one_hangs_) co_await world_.clock().sleep(milliseconds(100));
  storm_ = false;
  storm_begins_.reset();
}

// No fault any more; what is under way ends, everything runs.
Task<void> Scenario::calm() {
  stage_ += ", calm";
  log(stage_);
  work_.stop();
  set_disk_faults(false);
  set_bucket_rates(0);
  cluster_.store_faults.applies_per_million = 0;
  for (const char* point : {"net.cut", "net.delay_burst", "net.refuse", "net.duplicate", "net.reorder"})
    world_.faults().set(point, 0);
  world_.network().heal();
  cluster_.node_machine().disk().options.slow_factor = 1;
  cluster_.node_machine().disk().options.slow = {};
  cluster_.node_machine().disk().options.capacity = 64 * kGiB;
  if (NodeProcess* node = cluster_.node()) node->bucket().down(false);
  bool on = co_await wait("a serving node", [this] { return cluster_.node() != nullptr; });
  if (!on) co_return;
  cluster_.node()->bucket().down(false);
  cluster_.node()->bucket().rates() = cluster_.bucket_rates;
  on = co_await wait("the end of all operations", [this] { return work_.under_way() == 0; });
  if (!on) co_return;
  if (random_.chance(1, 2)) co_await replace_a_target();
  on = co_await wait("clients", [this] {
    for (int i = 0; i < kClients; ++i) {
      ClientProcess* process = cluster_.client(i);
      if (process == nullptr || !process->working()) return false;
    }
    return true;
  });
  if (!on) co_return;
  for (int i = 0; i < kClients; ++i) {
    ClientProcess* process = cluster_.client(i);
    if (process == nullptr || process->client() == nullptr) continue;
    work_.counts["probe.client.unsent_changes"] += process->client()->counters().changes.changes;
    co_await work_.sync_calm(i, *process->client());
  }
  work_.judge_arena();
  if (work_.undisturbed) ++work_.counts["stage.undisturbed"];
  work_.undisturbed = false;
  work_.may_be_full = false;
  // Whoever lived through it can work again, and holds nothing back.
  for (int i = 0; i < kClients && !model_.failed(); ++i) {
    bool works = false;
    ClientProcess* process = cluster_.client(i);
    if (process == nullptr || process->client() == nullptr) continue;
    process->spawn(work_.prove_working(i, *process->client(), works));
    (void)co_await wait(fmt::format("client {} to work again", i), [&works] { return works; }, seconds(150));
  }
  // What crashed clients had on its way arrives or is refused; their sessions end.
  co_await world_.clock().sleep(seconds(25));
}

struct ObserverProcess final : public Process {
  ObserverProcess(Cluster& c, Env& e, std::function<Task<void>(Client&)> w, std::string* result)
      : cluster(c), env(e), work(std::move(w)), error(result) {}
  Task<void> run() override {
    ClientOptions options = cluster.client_options();
    Result<std::unique_ptr<Client>> started = co_await Client::start(env, options);
    if (!started.ok()) {
      *error = "a new client cannot start: " + started.error().text();
      co_return;
    }
    client = *std::move(started);
    co_await work(*client);
    Result<void> ended = co_await client->shut_down();
    if (!ended.ok()) *error = "a client cannot shut down: " + ended.error().text();
  }
  Cluster& cluster;
  Env env;
  std::function<Task<void>(Client&)> work;
  std::string* error;
  std::unique_ptr<Client> client;
};

Task<void> Scenario::let_observer(std::function<Task<void>(Client&)> work, std::string what) {
  std::string error;
  cluster_.observer_machine().start(
      [&](Env& env) { return std::make_unique<ObserverProcess>(cluster_, env, std::move(work), &error); });
  (void)co_await wait(what, [this] { return !cluster_.observer_machine().running(); });
  if (!error.empty()) model_.violation(what + ": " + error);
}

Task<void> Scenario::verify(std::string when) {
  if (model_.failed()) co_return;
  stage_ = "verify " + when;
  log(stage_);
  co_await let_observer([this, when](Client& fs) { return work_.verify(fs, when); }, "verification " + when);
}

void Scenario::choose_bad_targets() {
  const uint32_t bad = cluster_.shape.bad_targets;
  cluster_.node_machine().disk().options.eligible = [bad](const std::string& path) {
    for (uint32_t i = 0; i < bad; ++i)
      if (path == target_path(i)) return true;
    return false;
  };
}

void Scenario::lose_target(uint32_t number) {
  if (cluster_.node_machine().disk().erase(target_path(number))) world_.faults().note("disk.lost");
}

// One that answered what no partition knows yet, if there is one within three seconds.
Task<void> Scenario::crash_client_with_unsent_changes() {
  const Nanos until = world_.now() + seconds(3);
  while (world_.now() < until) {
    for (int i = 0; i < kClients; ++i) {
      ClientProcess* process = cluster_.client(i);
      if (process == nullptr || process->client() == nullptr) continue;
      if (process->client()->counters().unsent_changes == 0) continue;
      world_.faults().note("crash.unsent");
      cluster_.crash_client(i, random_.chance(1, 2) ? CrashKind::kProcess : CrashKind::kPower);
      co_return;
    }
    co_await world_.clock().sleep(milliseconds(1));
  }
}

// While one is written that names the next table, if one is within three seconds: nothing of both is flushed.
Task<void> Scenario::lose_power_at_a_superblock() {
  auto written = std::make_shared<Event>();
  SimDisk& disk = cluster_.node_machine().disk();
  disk.options.on_write = [written](const std::string& path, uint64_t offset) {
    if (path.ends_with("target.dat") && std::ranges::find(kSuperblockOffsets, offset) != kSuperblockOffsets.end())
      written->set();
  };
  const bool met = co_await written->wait_until(world_.clock(), world_.now() + seconds(3));
  if (met) co_await world_.clock().sleep(microseconds(static_cast<int64_t>(random_.below(400))));
  disk.options.on_write = {};
  if (!met || !cluster_.node_machine().running()) co_return;
  world_.faults().note("crash.superblock");
  cluster_.node_machine().crash(CrashKind::kPower);
}

// For longer than appends to it are waited for; then, perhaps, all that may be lost are. It is one that keeps a journal
// together with those: what was acknowledged without it would be lost.
Task<void> Scenario::one_target_hangs() {
  NodeProcess* process = cluster_.node();
  if (process == nullptr) co_return;
  const uint32_t bad = cluster_.shape.bad_targets;
  std::map<TargetId, uint32_t> numbers;
  for (const TargetInfo& target : process->node().map().targets) numbers[target.id] = target.number;
  std::vector<uint32_t> hanging;
  for (const auto& [id, partition] : process->node().partitions().all()) {
    if (partition->journal().record().runs.empty()) continue;
    uint32_t among = 0;
    std::optional<uint32_t> other;
    for (TargetId copy : partition->journal().record().runs.back().copies) {
      const uint32_t number = numbers[copy];
      if (number < bad)
        ++among;
      else
        other = number;
    }
    if (among == bad && other) hanging.push_back(*other);
  }
  if (hanging.empty()) co_return;
  const std::string path = target_path(hanging[random_.below(hanging.size())]);
  world_.faults().note("disk.one_hangs");
  DiskOptions& disk = cluster_.node_machine().disk().options;
  disk.slow = [path](const std::string& file) { return file == path; };
  disk.slow_factor = 50'000;
  one_hangs_ = true;
  co_await world_.clock().sleep(between_ms(11'000, 19'000));
  one_hangs_ = false;
  disk.slow_factor = 1;
  disk.slow = {};
  if (!disk_faults_ || random_.chance(1, 3)) co_return;
  if (cluster_.node_machine().running()) cluster_.node_machine().crash(CrashKind::kPower);
  for (uint32_t i = 0; i < bad; ++i) lose_target(i);
}

Task<void> Scenario::replace_a_target() {
  NodeProcess* process = cluster_.node();
  if (process == nullptr) co_return;
  for (const TargetInfo& target : process->node().map().targets) {
    if (target.state != TargetState::kLost || target.number >= cluster_.shape.bad_targets) continue;
    // In a frame of the node's process: it dies with it.
    uint32_t number = target.number;
    world_.faults().note("target.replaced");
    process->spawn(
        [](Node& node, uint32_t n) -> Task<void> { (void)co_await node.keeper().replace(n); }(process->node(), number));
    co_return;
  }
}

Task<void> Scenario::check_once(std::vector<std::string>* wrong, std::vector<std::string>* left, bool* done) {
  Node& node = cluster_.node()->node();
  for (const auto& [id, partition] : node.partitions().all()) {
    auto add = [id = id](Result<std::vector<std::string>> lines, std::vector<std::string>* into) {
      if (!lines.ok()) lines = std::vector<std::string>{lines.error().text()};
      for (const std::string& line : *lines) into->push_back(fmt::format("partition {}: {}", id.value(), line));
    };
    Result<std::vector<std::string>> found = co_await check_rows(*partition);
    add(std::move(found), wrong);
    found = co_await leftover_rows(*partition);
    add(std::move(found), left);
    PartitionStatusReply status = partition->status();
    if (!partition->journal().fully_copied())
      left->push_back(fmt::format("partition {}: a journal short of copies", id.value()));
    if (!partition->checkpoint_whole())
      left->push_back(fmt::format("partition {}: a checkpoint short of copies", id.value()));
    if (status.sessions > (everybody_left_ ? 0 : kClients))
      left->push_back(fmt::format("partition {}: {} sessions", id.value(), status.sessions));
    if (everybody_left_ && status.grants + status.reservations > 0)
      left->push_back(
          fmt::format("partition {}: {} grants, {} reservations", id.value(), status.grants, status.reservations));
  }
  Result<std::vector<std::string>> stored = co_await leftover_storage(node, *cluster_.bucket);
  if (!stored.ok()) stored = std::vector<std::string>{stored.error().text()};
  for (std::string& line : *stored) left->push_back(std::move(line));
  *done = true;
}

Task<void> Scenario::check(std::string when) {
  if (model_.failed()) co_return;
  stage_ = "check " + when;
  log(stage_);
  const Nanos deadline = world_.now() + kPatience;
  for (;;) {
    bool on = co_await wait("a serving node", [this] { return cluster_.node() != nullptr; });
    if (!on) co_return;
    auto wrong = std::make_shared<std::vector<std::string>>();
    auto left = std::make_shared<std::vector<std::string>>();
    auto done = std::make_shared<bool>(false);
    cluster_.node()->spawn([](Scenario& self, auto w, auto l, auto d) -> Task<void> {
      co_await self.check_once(w.get(), l.get(), d.get());
    }(*this, wrong, left, done));
    Nanos patience = world_.now() + seconds(30);
    while (!*done && world_.now() < patience) co_await world_.clock().sleep(milliseconds(20));
    if (*done && !wrong->empty()) {
      for (const std::string& line : *wrong) model_.violation("rows " + when + ": " + line);
      co_return;
    }
    if (*done && left->empty()) break;
    if (world_.now() >= deadline) {
      if (!*done) model_.violation("rows " + when + ": the check does not end");
      for (const std::string& line : *left) model_.violation("left over " + when + ": " + line);
      co_return;
    }
    co_await world_.clock().sleep(seconds(1));
  }
  ++work_.counts["verify.rows"];
}

Task<void> Scenario::everybody_leaves() {
  if (model_.failed()) co_return;
  stage_ = "everybody leaves";
  log(stage_);
  cluster_.work_of = nullptr;
  for (int i = 0; i < kClients; ++i)
    if (ClientProcess* process = cluster_.client(i)) process->leave();
  (void)co_await wait("clients that have left", [this] {
    for (int i = 0; i < kClients; ++i)
      if (cluster_.client_machine(i).running()) return false;
    return true;
  });
  everybody_left_ = true;
  co_await check("after everybody has left");
  ++work_.counts["stage.everybody_left"];
}

Task<std::optional<Result<void>>> Scenario::ask(NodeProcess* process, Task<void> (*what)(Node&, Answer)) {
  auto answer = std::make_shared<std::optional<Result<void>>>();
  process->spawn(what(process->node(), answer));
  while (!*answer && answer.use_count() > 1) co_await world_.clock().sleep(milliseconds(5));
  co_return *answer;
}

Task<void> Scenario::push_node(Node& node, Answer answer) {
  Result<Cut> done = co_await node.push();
  *answer = done.ok() ? Result<void>() : Result<void>(std::move(done).error());
}

Task<void> Scenario::drop_from(Node& node, Answer answer) {
  (void)co_await node.tier().drop(kGiB);
  *answer = Result<void>();
}

Task<void> Scenario::fetch_into(Node& node, FaultPlan& faults) {
  Result<FetchProgress> done = co_await node.tier().fetch("/");
  if (done.ok() && done->segments > 0) faults.note("tier.fetch");
}

Task<void> Scenario::close_and_release(Node& node, Answer answer) {
  *answer = co_await node.tier().spin_down(seconds(60));
}

Task<void> Scenario::undo(Node& node, Answer answer) {
  *answer = co_await node.tier().undo_spin_down();
}

// Everything into the bucket, over its faults.
Task<bool> Scenario::push_all() {
  stage_ = "push";
  log(stage_);
  for (int attempt = 0; attempt < 8; ++attempt) {
    if (attempt == 6) set_bucket_rates(0);
    bool on = co_await wait("a serving node", [this] { return cluster_.node() != nullptr; });
    if (!on) co_return false;
    std::optional<Result<void>> done = co_await ask(cluster_.node(), push_node);
    if (!done) done = Result<void>(Error(Code::kDisconnected, "the node is gone"));
    if (done->ok()) co_return true;
    log("push: " + done->error().text());
    ++work_.counts["error.push." + std::string(code_name(done->code()))];
    if (attempt == 7) model_.violation("push: " + done->error().text());
    co_await world_.clock().sleep(seconds(2));
  }
  co_return false;
}

// In the middle of work, and somebody thinks better of it: what was there goes on.
Task<bool> Scenario::undone_spin_down() {
  stage_ = "a spin-down that is undone";
  log(stage_);
  bool on = co_await wait("a serving node", [this] { return cluster_.node() != nullptr; });
  if (!on) co_return false;
  work_.start();
  co_await world_.clock().sleep(between_ms(0, 1'000));
  NodeProcess* node = cluster_.node();
  auto down = std::make_shared<std::optional<Result<void>>>();
  node->spawn(close_and_release(node->node(), down));
  co_await world_.clock().sleep(between_ms(0, 3'000));
  std::optional<Result<void>> undone;
  for (int attempt = 0; attempt < 8; ++attempt) {
    if (attempt == 6) set_bucket_rates(0);
    undone = co_await ask(node, undo);
    if (!undone || undone->ok() || undone->code() == Code::kInvalid) break;
    log("undo: " + undone->error().text());
    ++work_.counts["error.undo." + std::string(code_name(undone->code()))];
    co_await world_.clock().sleep(seconds(2));
  }
  if (!undone || !undone->ok()) {
    // Head was released before it could be: what is asked for next finds it so.
    work_.stop();
    if (!undone || undone->code() != Code::kInvalid)
      model_.violation("undoing a spin-down: " + (undone ? undone->error().text() : std::string("the node is gone")));
    co_return !model_.failed();
  }
  ++work_.counts["stage.undo"];
  if (*down && (*down)->ok()) model_.violation("a spin-down that was undone said that it was done");
  co_await world_.clock().sleep(between_ms(500, 4'000));
  co_await calm();
  co_await verify("after an undone spin-down");
  co_await check("after an undone spin-down");
  co_return !model_.failed();
}

// Perhaps with crashes on the way.
Task<bool> Scenario::spin_down() {
  stage_ = "spin-down";
  log(stage_);
  cluster_.work_of = nullptr;  // clients that end stay away
  cluster_.released = false;
  int crashes = random_.chance(1, 3) ? 1 + static_cast<int>(random_.below(2)) : 0;
  for (int attempt = 0; attempt < 12; ++attempt) {
    if (attempt == 8) set_bucket_rates(0);
    bool on = co_await wait("a serving node", [this] { return cluster_.node() != nullptr || cluster_.released; });
    if (!on) co_return false;
    if (cluster_.released) break;
    auto answer = std::make_shared<std::optional<Result<void>>>();
    bool crash = crashes > 0;
    Nanos crash_at = world_.now() + (crash ? between_ms(1, 2'500) : seconds(100'000));
    cluster_.node()->spawn(close_and_release(cluster_.node()->node(), answer));
    while (!*answer && world_.now() < crash_at && !model_.failed()) co_await world_.clock().sleep(milliseconds(20));
    if (model_.failed()) co_return false;
    const std::optional<Result<void>> done = *answer;
    if (!done) {
      --crashes;
      world_.faults().note("crash.spin_down");
      cluster_.node_machine().crash(random_.chance(1, 2) ? CrashKind::kProcess : CrashKind::kPower);
      continue;
    }
    if (done->ok()) break;
    log("spin-down: " + done->error().text());
    ++work_.counts["error.spin_down." + std::string(code_name(done->code()))];
    if (attempt == 11) {
      model_.violation("spin-down: " + done->error().text());
      co_return false;
    }
    co_await world_.clock().sleep(seconds(1));
  }
  co_return !model_.failed();
}

Task<void> Scenario::move() {
  bool take_over = random_.chance(1, 3);
  set_bucket_rates(random_.chance(1, 3) ? 0 : static_cast<uint32_t>(random_.between(1'000, 60'000)));
  if (take_over) {
    ++work_.counts["stage.take_over"];
    bool pushed = co_await push_all();
    if (!pushed) co_return;
    cluster_.work_of = nullptr;
  } else {
    ++work_.counts["stage.spin_down"];
    if (random_.chance(1, 2)) {
      bool pushed = co_await push_all();
      if (!pushed) co_return;
    }
    if (random_.chance(1, 4)) {
      bool undone = co_await undone_spin_down();
      if (!undone) co_return;
    }
    bool down = co_await spin_down();
    if (!down) co_return;
    cluster_.supervised = false;
    cluster_.node_machine().crash(CrashKind::kPower);
    cluster_.node_machine().disk().wipe();
  }
  for (int i = 0; i < kClients; ++i)
    if (!take_over && cluster_.client_machine(i).running()) cluster_.client_machine(i).crash(CrashKind::kProcess);

  stage_ = take_over ? "take-over" : "re-hydrate";
  log(stage_);
  cluster_.supervised = true;
  cluster_.released = false;
  cluster_.node_error.clear();
  cluster_.shape.draw_protection(random_);  // another place has other disks
  cluster_.move_to("node2", take_over);
  int crashes = random_.chance(1, 3) ? 1 + static_cast<int>(random_.below(3)) : 0;
  for (int i = 0; i < crashes; ++i) {
    co_await world_.clock().sleep(between_ms(1, 1'500));
    if (!cluster_.node_machine().running()) continue;
    world_.faults().note("crash.rehydrate");
    cluster_.node_machine().crash(random_.chance(1, 2) ? CrashKind::kProcess : CrashKind::kPower);
  }
  co_await world_.clock().sleep(seconds(5));
  set_bucket_rates(0);
  bool on = co_await wait("the namespace on the new machine", [this] { return cluster_.node() != nullptr; });
  if (!on) co_return;
  cluster_.node()->bucket().rates() = cluster_.bucket_rates;

  if (take_over) {
    // The old owner learns of it within 20 s and refuses from then on.
    co_await world_.clock().sleep(seconds(20));
    ClientProcess* old = cluster_.client(0);
    if (old != nullptr && old->client() != nullptr) {
      ++work_.counts["verify.deposed"];
      MakeOptions options;
      options.type = FileType::kFile;
      Result<Attributes> made = co_await old->client()->make(kRootFile, "too-late", options, {});
      if (made.code() != Code::kReadOnly)
        model_.violation("a client of the deposed node could still write 20 s after the take-over: " +
                         (made.ok() ? std::string("ok") : made.error().text()));
    }
    for (int i = 0; i < kClients; ++i)
      if (cluster_.client_machine(i).running()) cluster_.client_machine(i).crash(CrashKind::kProcess);
    Machine& old_node = cluster_.previous_machine();
    if (old_node.running()) old_node.crash(CrashKind::kPower);
    old_node.disk().wipe();
  }
  ++work_.counts["stage.moved"];
}

// The cluster goes on working while a manifest is published; another one takes over from that manifest. What was done
// since is lost, by design; what comes back is one point in time.
Task<void> Scenario::lagging_take_over() {
  ++work_.counts["stage.lagging_take_over"];
  stage_ = "lagging take-over";
  log(stage_);
  work_.chain(true);
  uint64_t least = 0;
  int pushes = 1 + static_cast<int>(random_.below(3));
  for (int i = 0; i < pushes; ++i) {
    co_await world_.clock().sleep(between_ms(20, 600));
    least = work_.chain_length();
    bool pushed = co_await push_all();
    if (!pushed) co_return;
  }
  co_await world_.clock().sleep(between_ms(0, 100));
  stage_ = "take-over in the middle";
  log(stage_);
  cluster_.work_of = nullptr;
  cluster_.node_error.clear();
  cluster_.move_to("node2", true);
  cluster_.node_machine().disk().options.eligible = [](const std::string&) { return false; };
  bool on = co_await wait("the namespace on the new machine", [this] { return cluster_.node() != nullptr; });
  if (!on) co_return;
  work_.chain(false);
  for (int i = 0; i < kClients; ++i)
    if (cluster_.client_machine(i).running()) cluster_.client_machine(i).crash(CrashKind::kProcess);
  if (cluster_.previous_machine().running()) cluster_.previous_machine().crash(CrashKind::kPower);
  stage_ = "verify the chain";
  log(stage_);
  co_await let_observer([this, least](Client& fs) { return work_.verify_chain(fs, least); },
                        "verification of the chain");
  co_await check("after the take-over in the middle");
}

Task<void> Scenario::run() {
  world_.spawn(cluster_.supervise());
  world_.spawn(nemesis());
  cluster_.start_node();
  bool on = co_await wait("the first start", [this] { return cluster_.node() != nullptr; });
  if (!on) co_return;
  int rounds = 1 + static_cast<int>(random_.below(2));
  for (int i = 0; i < rounds && !model_.failed(); ++i) {
    co_await round(i);
    co_await calm();
    co_await verify(fmt::format("after round {}", i));
    co_await check(fmt::format("after round {}", i));
  }
  if (model_.failed()) co_return;
  if (random_.chance(1, 5)) {
    co_await lagging_take_over();
    co_return;
  }
  co_await move();
  co_await verify("after the move");
  co_await check("after the move");
  if (model_.failed()) co_return;
  // And it can be worked on, and survives that too.
  cluster_.work_of = [this](int client) { return [this, client](Client& fs) { return work_.run(client, fs); }; };
  if (random_.chance(1, 3)) {
    disk_faults_ = cluster_.shape.bad_targets > 0 && random_.chance(2, 3);
    choose_bad_targets();
    co_await round(rounds);
    co_await calm();
    co_await verify("after work in the new place");
    co_await check("after work in the new place");
  }
  co_await everybody_leaves();
}

Task<void> run_and_tell(Scenario& scenario) {
  co_await scenario.run();
  scenario.ended = true;
}

}  // namespace

ScenarioResult run_scenario(const ScenarioOptions& options) {
  ScenarioResult result;
  {
    // The scenario's model is destroyed after the world, whose frames refer to it.
    std::unique_ptr<Scenario> scenario;
    World world(options.seed);
    if (options.trace != nullptr) world.core().trace_to(options.trace);
    scenario = std::make_unique<Scenario>(world, options);
    world.spawn(run_and_tell(*scenario));
    bool ended = world.run_until([&] { return scenario->ended || scenario->model().failed(); }, seconds(7'200));
    if (!ended) scenario->model().violation("stuck in stage: " + scenario->stage());
    result.violations = scenario->model().violations();
    if (!result.violations.empty()) result.violations.push_back("stage: " + scenario->stage());
    for (const auto& [name, count] : scenario->work().counts) result.counts[name] += count;
    for (const FaultPoint& point : world.faults().all()) result.counts["fault." + point.name] += point.fired;
    for (const auto& [name, count] : *scenario->cluster().bucket_faults) result.counts["fault." + name] += count;
    for (const auto& [name, count] : world.probes().all()) result.counts["probe." + name] += count;
    result.counts["fault.store.apply_fails"] += scenario->cluster().store_faults.failed_applies;
    result.counts["node.failed_starts"] += scenario->cluster().failed_starts;
    result.simulated_s = world.now().seconds();
    result.trace_hash = world.trace_hash();
    for (const auto& machine : world.machines())
      if (machine->running()) machine->crash(CrashKind::kProcess);
  }
  return result;
}

const std::vector<std::string>& required_counts() {
  static const std::vector<std::string> kRequired{
      "op.mkdir",
      "op.symlink",
      "op.mknod",
      "op.racing_make",
      "op.create",
      "op.create_unnamed",
      "op.unlink",
      "op.rmdir",
      "op.rename",
      "op.rename_directory",
      "op.link",
      "op.set_xattr",
      "op.remove_xattr",
      "op.get_xattr",
      "op.default_acl",
      "op.chmod",
      "op.write",
      "op.fsync",
      "op.sync_all",
      "op.truncate",
      "op.punch",
      "op.copy",
      "op.read",
      "op.unlink_open",
      "op.lookup",
      "op.append",
      "op.arena",
      "op.read_log",
      "op.lock",
      "op.lock_refused",
      "verify.unlocked",
      "op.stat",
      "op.readdir",
      "verify.trees",
      "verify.files",
      "verify.large_files",
      "verify.acls",
      "verify.unknown",
      "verify.rows",
      "verify.arena",
      "verify.chains",
      "verify.deposed",
      "verify.worked_again",
      "verify.unsent_kept",
      "verify.unsent_lost",
      "op.burst",
      "op.chain",
      "stage.lagging_take_over",
      "stage.spin_down",
      "stage.take_over",
      "stage.moved",
      "stage.long_round",
      "stage.undo",
      "stage.undisturbed",
      "stage.everybody_left",
      "fault.crash.process",
      "fault.crash.power",
      "fault.crash.everything",
      "fault.crash.superblock",
      "fault.crash.unsent",
      "fault.crash.spin_down",
      "fault.crash.rehydrate",
      "fault.net.short_partition",
      "fault.net.long_partition",
      "fault.net.cut",
      "fault.net.cut_any",
      "fault.net.delay_burst",
      "fault.net.refuse",
      "fault.disk.slow",
      "fault.disk.read_fails",
      "fault.disk.write_fails",
      "fault.disk.flush_fails",
      "fault.disk.flush_lies",
      "fault.disk.lost_write",
      "fault.disk.misdirected",
      "fault.disk.bit_flip",
      "fault.disk.latent_sector",
      "fault.disk.torn",
      "fault.disk.in_flight",
      "fault.disk.flip_at_rest",
      "fault.disk.damage_at_rest",
      "fault.disk.lost",
      "fault.disk.full",
      "fault.disk.hangs",
      "fault.disk.one_hangs",
      "fault.node.restarted_for_a_device",
      "fault.node.frozen",
      "fault.target.replaced",
      "fault.net.duplicate",
      "fault.net.reorder",
      "fault.net.partition",
      "fault.clock.jump_wall",
      "fault.clock.jump_boot",
      "fault.bucket.down",
      "fault.tier.drop",
      "fault.tier.fetch",
      "fault.bucket_unavailable",
      "fault.bucket_timeout_before",
      "fault.bucket_timeout_after",
      "fault.bucket_truncated",
      "fault.bucket_corrupt",
      "fault.bucket_slow",
      "probe.node.client_evicted",
      "probe.node.fragments_repaired",
      "probe.node.orphans_freed",
      "probe.node.rebuilt",
      "probe.node.scrubbed",
      "probe.node.taken_over",
      "probe.node.target_rescued",
      "fault.bucket_stale",
      "fault.bucket_wrong_etag",
      "fault.bucket_expired",
      "fault.bucket_down",
      "fault.bucket_stored_other",
      "fault.store.apply_fails",
  };
  return kRequired;
}

}  // namespace headrace::sim
