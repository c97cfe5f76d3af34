// Cluster: the machines and processes of one simulated Headrace: a node (and the machine on which the namespace comes
// back), three clients, an observer, and a bucket that outlives them all.
//
// One node leads every partition, as apps/node does at present. Whatever crashes is started again by supervise(), as an
// operator's service manager would, until told otherwise.
// Owner: the scenario. One thread.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "apps/node.h"
#include "client/client.h"
#include "coord/embedded/embedded_coordinator.h"
#include "meta/store/memory/memory_store.h"
#include "object/faulty_store.h"
#include "object/memory_store.h"
#include "runtime/sim/world.h"

namespace headrace::sim {

inline constexpr int kClients = 3;

// Drawn from the seed.
struct ClusterShape {
  Protection protection{4, 2};
  uint32_t targets = 6;
  uint32_t bad_targets = 0;  // t0 … that disk faults may touch; at most the parity
  uint64_t target_capacity = 24 * kMiB;
  bool large_files = false;  // of several leaves of extents, and segments
  Nanos device_patience = TargetOptions().patience;
  PartitionOptions partitions;
  TierOptions tier;
  uint64_t cache_bytes = kMiB;
  uint32_t miss_percent = 10;
  // With directory write grants no client dies or loses its sessions: the model takes names to be durable when
  // answered.
  ClientOptions client;
  [[nodiscard]] static ClusterShape draw(Random& random);
  // How segments are cut, over how many targets, and which of those disk faults may touch: once more for another place.
  void draw_protection(Random& random);
};

class Cluster;

class NodeProcess final : public Process {
 public:
  NodeProcess(Cluster& cluster, Env& env, std::string address, bool rehydrate, bool take_over);
  Task<void> run() override;

  [[nodiscard]] bool serving() const { return serving_; }
  [[nodiscard]] Node& node() { return *node_; }
  [[nodiscard]] bool partitions_serve();
  [[nodiscard]] bool a_device_hung() const { return a_device_hung_; }  // its target serves no more in this process
  [[nodiscard]] FaultyStore& bucket() { return *faulty_; }
  // Work of this process, which dies with it.
  void spawn(Task<void> work) { scope_.spawn(std::move(work)); }

 private:
  [[nodiscard]] Task<Result<void>> serve();
  void tell(const NodeEvent& event);
  Cluster& cluster_;
  Env env_;
  std::string address_;
  bool rehydrate_;
  bool take_over_;
  EmbeddedCoordinator coordinator_;
  MemoryStoreFactory stores_;
  FaultyStore* faulty_ = nullptr;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<Node> node_;
  bool serving_ = false;
  bool a_device_hung_ = false;
  Event never_;
  Scope scope_;  // last
};

// A client that starts, does its work over and over, and leaves when the node asks everybody to, or leave() does.
class ClientProcess final : public Process {
 public:
  using Work = std::function<Task<void>(Client&)>;
  ClientProcess(Cluster& cluster, Env& env, Work work) : cluster_(cluster), env_(env), work_(std::move(work)) {}
  Task<void> run() override;
  [[nodiscard]] Client* client() { return client_.get(); }
  [[nodiscard]] bool working() const { return working_; }
  // Work of this process, which dies with it, or when it is to leave.
  void spawn(Task<void> work) { scope_->spawn(std::move(work)); }
  void leave() { leave_.set(); }

 private:
  Task<void> leave_when_asked();
  Cluster& cluster_;
  Env env_;
  Work work_;
  bool working_ = false;
  std::unique_ptr<Client> client_;
  Event leave_;
  Scope* scope_ = nullptr;  // while it works
};

class Cluster {
 public:
  Cluster(World& world, ClusterShape shape);

  World& world;
  ClusterShape shape;
  std::shared_ptr<MemoryBucket> bucket = std::make_shared<MemoryBucket>();
  std::shared_ptr<FaultCounts> bucket_faults = std::make_shared<FaultCounts>();
  FaultRates bucket_rates{0, 0, 0, 0, 0, 0, 0};
  MemoryStoreFaults store_faults;  // of every process
  Nanos bucket_down_until{};
  SeededRandom bucket_random;

  // ---- the node that serves at present ----
  [[nodiscard]] Machine& node_machine() { return *node_machine_; }
  [[nodiscard]] Address address() const { return node_machine_->address(); }
  [[nodiscard]] NodeProcess* node();  // null unless it serves
  void start_node();
  bool supervised = true;
  std::string node_error;  // of the last start that failed
  uint64_t failed_starts = 0;
  bool released = false;  // the last start said that the namespace was spun down
  // The namespace goes to a machine with an empty disk. The old one is left as it is.
  void move_to(const std::string& machine, bool take_over);
  [[nodiscard]] Machine& previous_machine() { return *previous_machine_; }

  // ---- clients ----
  [[nodiscard]] Machine& client_machine(int client) { return *client_machines_[static_cast<size_t>(client)]; }
  [[nodiscard]] Machine& observer_machine() { return *observer_; }
  [[nodiscard]] ClientProcess* client(int client);
  void start_client(int client, ClientProcess::Work work);
  [[nodiscard]] ClientOptions client_options() const;

  // Starts again what crashed; for ever.
  Task<void> supervise();
  std::function<ClientProcess::Work(int)> work_of;  // for clients that come back
  std::function<void(int)> on_client_crash;
  std::function<void(std::string)> on_good_target_lost;  // which: no fault touches it, not even a lying flush
  void crash_client(int client, CrashKind kind);

 private:
  std::array<Machine*, kClients> client_machines_{};
  Machine* observer_ = nullptr;
  Machine* node_machine_ = nullptr;
  Machine* previous_machine_ = nullptr;
  bool rehydrate_ = false;
  bool take_over_ = false;
  friend class NodeProcess;
};

}  // namespace headrace::sim
