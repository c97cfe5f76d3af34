#include "sim/cluster.h"

#include <fmt/core.h>

#include <map>
#include <string>

#include "object/retrying_store.h"

namespace headrace::sim {

void ClusterShape::draw_protection(Random& random) {
  switch (random.below(5)) {
    case 0:
    case 1:
      protection = {4, 2};
      targets = 6;
      break;
    case 2:
      protection = {1, 2};
      targets = 5;
      break;
    case 3:
      protection = {2, 1};
      targets = 4;
      break;
    case 4:  // no target to spare: while one is away, segments are cut into fewer fragments
      protection = {3, 1};
      targets = 4;
      break;
  }
  bad_targets = random.chance(1, 2) ? protection.parity : static_cast<uint32_t>(random.between(0, protection.parity));
}

ClusterShape ClusterShape::draw(Random& random) {
  ClusterShape shape;
  shape.draw_protection(random);
  shape.partitions.checkpoint_bytes = random.chance(1, 2) ? 16 * kKiB : 256 * kKiB;
  shape.partitions.checkpoint_interval = milliseconds(static_cast<int64_t>(random.between(500, 10'000)));
  if (random.chance(1, 4))
    shape.partitions.checkpoint_interval = seconds(300);  // what a checkpoint mends stays to be seen
  if (random.chance(1, 2))
    shape.partitions.append_timeout = milliseconds(static_cast<int64_t>(random.between(500, 3'000)));
  shape.partitions.cut_patience = seconds(10);
  if (random.chance(1, 2)) shape.partitions.cut_delay = milliseconds(80);
  shape.tier.publish_interval = milliseconds(static_cast<int64_t>(random.between(2'000, 20'000)));
  shape.tier.upload.min_age = milliseconds(static_cast<int64_t>(random.between(100, 5'000)));
  shape.tier.upload.interval = seconds(1);
  shape.tier.publish.horizon = seconds(random.chance(1, 2) ? 5 : 60);
  shape.tier.publish.stray_interval = seconds(5);
  shape.tier.description = "sim";
  shape.miss_percent = random.chance(1, 2) ? 0 : 15;
  shape.cache_bytes = random.chance(1, 2) ? 64 * kKiB : 4 * kMiB;
  shape.client.read_cache = random.chance(1, 2) ? 64 * kKiB : 4 * kMiB;
  shape.client.dirty_limit = random.chance(1, 3) ? 256 * kKiB : 16 * kMiB;
  shape.client.file_dirty_limit = random.chance(1, 3) ? 128 * kKiB : 16 * kMiB;
  shape.client.stage_limit = random.chance(1, 3) ? 0 : random.chance(1, 2) ? 4 * kKiB : 64 * kKiB;
  shape.client.flush_after = milliseconds(static_cast<int64_t>(random.between(100, 5'000)));
  shape.client.max_files = random.chance(1, 3) ? 8 : 1'000;
  shape.client.idle_grant = seconds(random.chance(1, 3) ? 2 : 60);
  shape.client.directory_write_grants = random.chance(1, 2);
  shape.client.max_unsent = random.chance(1, 3) ? 3 : 1'000;
  if (random.chance(1, 20)) {
    shape.large_files = true;
    shape.target_capacity = 512 * kMiB;
  }
  // Disks that hang, all of them sometimes, are fenced then.
  if (random.chance(1, 3)) shape.device_patience = milliseconds(static_cast<int64_t>(random.between(1'500, 8'000)));
  return shape;
}

// ---- NodeProcess ----

NodeProcess::NodeProcess(Cluster& cluster, Env& env, std::string address, bool rehydrate, bool take_over)
    : cluster_(cluster),
      env_(env),
      address_(std::move(address)),
      rehydrate_(rehydrate),
      take_over_(take_over),
      coordinator_(env, "/state/coord", "/state/targets"),
      stores_(MemoryStoreLatency{.clock = &env.clock,
                                 .random = &env.random,
                                 .miss_percent = cluster.shape.miss_percent,
                                 .faults = &cluster.store_faults}) {
  auto memory = std::make_unique<MemoryStore>(cluster.bucket, &env.clock, milliseconds(4));
  auto faulty = std::make_unique<FaultyStore>(std::move(memory), env.clock, cluster.bucket_random, cluster.bucket_rates,
                                              cluster.bucket_faults);
  faulty_ = faulty.get();
  RetryOptions retries;
  retries.attempts = 5;
  retries.total = seconds(20);
  store_ = std::make_unique<RetryingStore>(std::move(faulty), env.clock, env.random, retries);
}

Task<void> NodeProcess::run() {
  Result<void> done = co_await serve();
  if (!done.ok()) {
    cluster_.node_error = done.error().text();
    ++cluster_.failed_starts;
    if (done.code() == Code::kStale) cluster_.released = true;
    co_return;
  }
  serving_ = true;
  co_await never_.wait();
}

void NodeProcess::tell(const NodeEvent& event) {
  cluster_.world.probe("node." + event.name);
  if (event.name != "target_lost" && event.name != "target_not_rescued") return;
  std::map<std::string, std::string> about(event.fields.begin(), event.fields.end());
  if (about["why"].contains("has not answered")) {
    a_device_hung_ = true;  // no fault of what is on it: it serves again after a start
    return;
  }
  if (event.name != "target_lost") return;
  const std::string& target = about["target"];
  if (std::stoul(target.substr(1)) >= cluster_.shape.bad_targets && cluster_.on_good_target_lost)
    cluster_.on_good_target_lost(target);
}

bool NodeProcess::partitions_serve() {
  for (const auto& [id, partition] : node_->partitions().all())
    if (!partition->serving()) {
      cluster_.node_error = "partition " + std::to_string(id.value()) + ": " + partition->state();
      return false;
    }
  return true;
}

// The steps of apps/headraced.
Task<Result<void>> NodeProcess::serve() {
  HR_CO_TRY(co_await env_.disk.make_directories("/state"));
  HR_CO_TRY(co_await env_.disk.sync_directory("/"));
  HR_CO_TRY(co_await coordinator_.load());
  HR_CO_TRY(CoordRecord map, co_await coordinator_.get(kMapKey));
  TargetOptions targets;
  targets.prewrite_ahead = 256 * kKiB;
  targets.prewrite_chunk = 256 * kKiB;
  targets.large_fragment = 16 * kKiB;
  targets.reserve_ahead = 128 * kKiB;
  targets.patience = cluster_.shape.device_patience;
  std::optional<HeadVersion> held;
  if (map.version == 0) {
    BootstrapOptions bootstrap;
    bootstrap.state = "/state";
    bootstrap.address = address_;
    bootstrap.protection = cluster_.shape.protection;
    bootstrap.targets = cluster_.shape.targets;
    bootstrap.target_capacity = cluster_.shape.target_capacity;
    bootstrap.target_options = targets;
    if (rehydrate_) {
      AttachOptions attach_options;
      attach_options.cluster = ClusterId(env_.random.nonzero());
      attach_options.description = "sim:" + address_;
      attach_options.take_over = take_over_;
      attach_options.probe = false;
      HR_CO_TRY(bootstrap.attached, co_await attach(env_, coordinator_, *store_, attach_options));
      held = bootstrap.attached->head;
    }
    HR_CO_TRY(co_await Node::bootstrap(env_, coordinator_, bootstrap));
  }
  NodeOptions options;
  options.state = "/state";
  options.listen = address_;
  options.partitions = cluster_.shape.partitions;
  options.targets = targets;
  options.tier = cluster_.shape.tier;
  options.cache_bytes = cluster_.shape.cache_bytes;
  options.on_event = [this](const NodeEvent& event) { tell(event); };
  // Passes follow each other: what flipped at rest is met by scrub as often as by readers.
  options.keeper.scrub.first = seconds(2);
  options.keeper.scrub.pass = seconds(20);
  options.keeper.scrub.save = seconds(3);
  options.keeper.scrub.work.stripes = 2;
  // Longer than a lease and the requests of whoever lost it: nobody writes what was reserved for him before.
  options.keeper.orphans.min_age_ms = 40'000;
  options.keeper.first_sweep = seconds(10);
  options.keeper.sweep = seconds(10);
  node_ = std::make_unique<Node>(env_, coordinator_, stores_, *store_, options);
  co_return co_await node_->start(std::move(held));
}

// ---- ClientProcess ----

Task<void> ClientProcess::run() {
  for (;;) {
    Result<std::unique_ptr<Client>> started = co_await Client::start(env_, cluster_.client_options());
    if (started.ok()) {
      client_ = *std::move(started);
      break;
    }
    co_await env_.clock.sleep(milliseconds(500));
  }
  {
    // As a mount does: once the node asks everybody to leave, no more work, and out.
    Scope scope;
    scope_ = &scope;
    working_ = true;
    scope.spawn(work_(*client_));
    scope.spawn(leave_when_asked());
    co_await leave_.wait();
    working_ = false;
    scope_ = nullptr;
  }
  (void)co_await client_->shut_down();
}

Task<void> ClientProcess::leave_when_asked() {
  co_await client_->closing().wait();
  leave_.set();
}

// ---- Cluster ----

Cluster::Cluster(World& w, ClusterShape s)
    : world(w), shape(std::move(s)), bucket_random(derive_seed(w.seed(), "bucket")) {
  node_machine_ = &world.add_machine("node");
  for (int i = 0; i < kClients; ++i)
    client_machines_[static_cast<size_t>(i)] = &world.add_machine(fmt::format("client{}", i));
  observer_ = &world.add_machine("observer");
}

NodeProcess* Cluster::node() {
  auto* process = static_cast<NodeProcess*>(node_machine_->process());
  return process != nullptr && process->serving() ? process : nullptr;
}

void Cluster::start_node() {
  bool rehydrate = rehydrate_;
  bool take_over = take_over_;
  node_machine_->start([this, rehydrate, take_over](Env& env) {
    return std::make_unique<NodeProcess>(*this, env, address(), rehydrate, take_over);
  });
}

void Cluster::move_to(const std::string& machine, bool take_over) {
  previous_machine_ = node_machine_;
  node_machine_ = &world.add_machine(machine);
  rehydrate_ = true;
  take_over_ = take_over;
}

ClientProcess* Cluster::client(int client) {
  return static_cast<ClientProcess*>(client_machine(client).process());
}

ClientOptions Cluster::client_options() const {
  ClientOptions options = shape.client;
  options.nodes = {address()};
  return options;
}

void Cluster::start_client(int client, ClientProcess::Work work) {
  client_machine(client).start([this, w = std::move(work)](Env& env) mutable {
    return std::make_unique<ClientProcess>(*this, env, std::move(w));
  });
}

void Cluster::crash_client(int client, CrashKind kind) {
  if (!client_machine(client).running()) return;
  client_machine(client).crash(kind);
  if (on_client_crash) on_client_crash(client);
}

Task<void> Cluster::supervise() {
  for (;;) {
    co_await world.clock().sleep(milliseconds(50 + static_cast<int64_t>(world.random().below(400))));
    if (!supervised) continue;
    if (!node_machine_->running()) {
      start_node();
    } else if (NodeProcess* process = node(); process != nullptr && !process->partitions_serve()) {
      world.faults().note("node.partition_failed");
      node_machine_->crash(CrashKind::kProcess);
    } else if (process != nullptr && process->a_device_hung() && node_machine_->disk().options.slow_factor == 1) {
      world.faults().note("node.restarted_for_a_device");
      node_machine_->crash(CrashKind::kProcess);
    }
    if (!work_of) continue;
    for (int i = 0; i < kClients; ++i)
      if (!client_machine(i).running()) start_client(i, work_of(i));
  }
}

}  // namespace headrace::sim
