#include "coord/ports.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coord/fragment_calls.h"
#include "proto/messages.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

// Serves a target and, while `leads`, a partition.
struct Node : Process {
  Node(Env& e, Address where) : env(e), address(std::move(where)), hub(e, identity, handlers) {
    handlers.on<TargetStatus>([this](TargetStatus r, CallInfo) { return status(r); });
    handlers.on<FragmentRead>([this](FragmentRead r, CallInfo i) { return read(r, i); });
    handlers.on<Lookup>([this](Lookup r, CallInfo i) { return lookup(std::move(r), std::move(i)); });
  }
  Task<void> run() override {
    Result<Address> served = co_await hub.serve(address);
    HR_ASSERT(served.ok());
    co_await stop.wait();
  }
  Task<Result<TargetStatusReply>> status(TargetStatus request) {
    co_return TargetStatusReply{.capacity = request.target.value()};
  }
  Task<Result<FragmentReadReply>> read(FragmentRead, CallInfo info) {
    if (info.header.capability.rights == 0) co_return Error(Code::kDenied, "no capability");
    co_return Error(Code::kNoFragment, "not here");
  }
  Task<Result<EntryReply>> lookup(Lookup request, CallInfo info) {
    ++asked;
    seen = info.header;
    if (hang) co_await stop.wait();
    if (!leads) co_return Error(Code::kNotLeader, "not I");
    if (request.name == "stale") co_return Error(Code::kStale, "the namespace epoch has ended");
    co_return EntryReply{};
  }

  Env env;
  Address address;
  Identity identity;
  Handlers handlers;
  int asked = 0;
  bool leads = false;
  bool hang = false;
  Header seen;
  Event stop;
  Hub hub;
};

struct Cluster {
  explicit Cluster(uint64_t seed = 1) : world(seed) {
    for (const char* name : {"a", "b", "client"}) start(world.add_machine(name));
    Node& client = node("client");
    targets = std::make_unique<TargetPort>(client.hub, view);
    partitions = std::make_unique<PartitionPort>(client.env, client.hub, view);
    view.update(map(1, 1));
  }
  void start(Machine& machine) {
    machine.start([&machine](Env& env) { return std::make_unique<Node>(env, machine.address()); });
    world.run_for(milliseconds(1));
  }
  Node& node(const char* name) { return static_cast<Node&>(*world.machine(name).process()); }
  static ClusterMap map(uint64_t version, uint32_t leader) {
    ClusterMap map;
    map.version = version;
    map.nodes = {NodeInfo{.id = NodeId(1), .address = "sim:a"}, NodeInfo{.id = NodeId(2), .address = "sim:b"}};
    map.targets = {TargetInfo{.id = TargetId(10), .node = NodeId(1), .number = 0},
                   TargetInfo{.id = TargetId(20), .node = NodeId(2), .number = 1},
                   TargetInfo{.id = TargetId(30), .node = NodeId(2), .number = 2, .state = TargetState::kLost}};
    map.partitions = {
        PartitionInfo{
            .id = PartitionId(5), .last_slot = 0x7fff, .leader = NodeId(leader), .epoch = PartitionEpoch(version)},
        PartitionInfo{.id = PartitionId(6), .first_slot = 0x8000, .last_slot = 0xffff}};
    return map;
  }
  Result<EntryReply> lookup(Slot slot, std::string name = "x", Nanos timeout = seconds(10)) {
    return world.run(partitions->call(slot, Lookup{.name = std::move(name)}, {.timeout = timeout}));
  }
  World world;
  ClusterView view;
  std::unique_ptr<TargetPort> targets;
  std::unique_ptr<PartitionPort> partitions;
};

TEST(ClusterView, TakesOnlyNewerMaps) {
  World world(1);
  ClusterView view;
  view.update(Cluster::map(5, 1));
  view.update(Cluster::map(4, 2));
  EXPECT_EQ(view.map().version, 5u);
  EXPECT_TRUE(world.run(view.wait_newer(world.clock(), 4, world.now())));
  EXPECT_FALSE(world.run(view.wait_newer(world.clock(), 5, world.now() + seconds(1))));
  EXPECT_GE(world.now(), seconds(1));
}

TEST(TargetPort, FindsTheNodeOfATarget) {
  Cluster c;
  EXPECT_EQ(c.world.run(c.targets->call(TargetStatus{TargetId(10)}))->capacity, 10u);
  EXPECT_EQ(c.world.run(c.targets->call(TargetStatus{TargetId(20)}))->capacity, 20u);
}

TEST(TargetPort, SaysWhyATargetCannotBeCalled) {
  Cluster c;
  Result<TargetStatusReply> lost = c.world.run(c.targets->call(TargetStatus{TargetId(30)}));
  ASSERT_EQ(lost.code(), Code::kUnavailable);
  EXPECT_EQ(lost.error().message(), "target t2 is lost");
  EXPECT_FALSE(c.view.wanted().is_set());
  EXPECT_EQ(c.world.run(c.targets->call(TargetStatus{TargetId(99)})).code(), Code::kUnavailable);
  EXPECT_TRUE(c.view.wanted().is_set());
  c.world.machine("b").crash(CrashKind::kProcess);
  Result<TargetStatusReply> down = c.world.run(c.targets->call(TargetStatus{TargetId(20)}));
  ASSERT_EQ(down.code(), Code::kUnavailable);
  EXPECT_EQ(down.error().message().find("target t1: connect to sim:b"), 0u);
}

TEST(RpcFragmentPort, CarriesTheCapabilityAndKeepsTheCode) {
  Cluster c;
  RpcFragmentPort port(*c.targets);
  EXPECT_EQ(c.world.run(port.read(FragmentRead{.target = TargetId(10)}, {})).code(), Code::kDenied);
  EXPECT_EQ(c.world.run(port.read(FragmentRead{.target = TargetId(10)}, Capability{.rights = 1})).code(),
            Code::kNoFragment);
}

TEST(PartitionPort, CallsTheLeaderWithPartitionAndEpoch) {
  Cluster c;
  c.node("a").leads = true;
  ASSERT_TRUE(c.lookup(Slot(77)).ok());
  EXPECT_EQ(c.node("a").seen.partition, PartitionId(5));
  EXPECT_EQ(c.node("a").seen.partition_epoch, PartitionEpoch(1));
  EXPECT_TRUE(c.world.run(c.partitions->call(PartitionId(5), Lookup{})).ok());
}

TEST(PartitionPort, FollowsTheMapToANewLeader) {
  Cluster c;
  c.node("b").leads = true;
  c.world.spawn([](Cluster& cluster) -> Task<void> {
    co_await cluster.view.wanted().wait();
    co_await cluster.world.clock().sleep(milliseconds(300));
    cluster.view.update(Cluster::map(2, 2));
  }(c));
  ASSERT_TRUE(c.lookup(Slot(0)).ok());
  EXPECT_GE(c.node("a").asked, 2);
  EXPECT_LT(c.node("a").asked, 30);  // it backed off
  EXPECT_EQ(c.node("b").asked, 1);
  EXPECT_EQ(c.node("b").seen.partition_epoch, PartitionEpoch(2));
  EXPECT_LT(c.world.now(), seconds(1));
}

TEST(PartitionPort, WaitsForALeaderThatRestarts) {
  Cluster c;
  c.world.machine("a").crash(CrashKind::kProcess);
  c.world.spawn([](Cluster& cluster) -> Task<void> {
    co_await cluster.world.clock().sleep(seconds(3));
    cluster.world.post([&cluster] {
      cluster.world.machine("a").start([](Env& env) {
        auto node = std::make_unique<Node>(env, "sim:a");
        node->leads = true;
        return node;
      });
    });
  }(c));
  EXPECT_TRUE(c.lookup(Slot(0)).ok());
  EXPECT_GT(c.world.now(), seconds(3));
  EXPECT_LT(c.world.now(), seconds(4));
}

TEST(PartitionPort, ALeaderThatHangsDoesNotUseUpTheTimeOfItsSuccessor) {
  Cluster c;
  c.node("a").hang = true;
  c.node("b").leads = true;
  c.world.spawn([](Cluster& cluster) -> Task<void> {
    co_await cluster.view.wanted().wait();
    cluster.view.update(Cluster::map(2, 2));
  }(c));
  EXPECT_TRUE(c.lookup(Slot(0)).ok());
  EXPECT_LT(c.world.now(), seconds(4));
}

TEST(PartitionPort, GivesUpInTimeAndSaysWhetherTheOutcomeIsKnown) {
  Cluster c;
  Nanos before = c.world.now();
  Result<EntryReply> never = c.lookup(Slot(0), "x", seconds(2));
  EXPECT_EQ(never.code(), Code::kUnavailable);
  EXPECT_NE(never.error().message().find("not I"), std::string::npos);
  EXPECT_LT(c.world.now() - before, milliseconds(2100));
  EXPECT_GE(c.world.now() - before, milliseconds(2000));
  EXPECT_EQ(c.lookup(Slot(0xffff), "x", seconds(1)).code(), Code::kUnavailable);  // no leader at all
  c.node("a").hang = true;
  EXPECT_EQ(c.lookup(Slot(0), "x", seconds(2)).code(), Code::kTimeout);
}

TEST(PartitionPort, AnEndedNamespaceEpochIsFinal) {
  Cluster c;
  c.node("a").leads = true;
  EXPECT_EQ(c.lookup(Slot(0), "stale").code(), Code::kStale);
  EXPECT_EQ(c.node("a").asked, 1);
}

}  // namespace
}  // namespace headrace
