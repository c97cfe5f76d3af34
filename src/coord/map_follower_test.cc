#include "coord/map_follower.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coord/sim/shared_coordinator.h"
#include "proto/meta.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

ClusterMap map_of(uint64_t version) {
  ClusterMap map;
  map.version = version;
  map.nodes = {NodeInfo{.id = NodeId(1), .address = "sim:a"}, NodeInfo{.id = NodeId(2), .address = "sim:b"}};
  return map;
}

TEST(CoordinatorMapFollower, TakesANewMapSoonAfterItWasPut) {
  World world(2);
  Machine& machine = world.add_machine("m");
  SeededRandom random(1);
  SharedCoordinator shared(world.clock(), random);
  SharedCoordinatorHandle coordinator(shared, "m");
  ClusterView view;
  CoordinatorMapFollower follower(machine.env(), coordinator, view);
  follower.start();
  world.run_for(seconds(1));
  for (uint64_t version = 1; version < 5; ++version) {
    ASSERT_TRUE(world.run(coordinator.put(kMapKey, encode_durable(map_of(version)), version - 1)).ok());
    world.run_for(milliseconds(60));
    EXPECT_EQ(view.map().version, version);
  }
  shared.make_unavailable("m", seconds(3));
  world.run_for(seconds(4));
  ASSERT_TRUE(world.run(coordinator.put(kMapKey, encode_durable(map_of(5)), 4)).ok());
  world.run_for(milliseconds(300));
  EXPECT_EQ(view.map().version, 5u);
  follower.stop();
}

TEST(CoordinatorMapFollowerBadInput, ADamagedMapIsAnErrorAndKeepsTheOldOne) {
  World world(2);
  Machine& machine = world.add_machine("m");
  SeededRandom random(1);
  SharedCoordinator shared(world.clock(), random);
  SharedCoordinatorHandle coordinator(shared, "m");
  ClusterView view;
  CoordinatorMapFollower follower(machine.env(), coordinator, view);
  EXPECT_TRUE(world.run(follower.refresh()).ok());
  ASSERT_TRUE(world.run(coordinator.put(kMapKey, encode_durable(map_of(1)), 0)).ok());
  ASSERT_TRUE(world.run(follower.refresh()).ok());
  ASSERT_TRUE(world.run(coordinator.put(kMapKey, "rubbish", 1)).ok());
  EXPECT_FALSE(world.run(follower.refresh()).ok());
  EXPECT_EQ(view.map().version, 1u);
}

struct Node : Process {
  Node(Env& e, Address where, uint64_t& v, bool& ro)
      : env(e), address(std::move(where)), version(v), read_only(ro), hub(e, identity, handlers) {
    handlers.on<GetMap>([this](GetMap r, CallInfo) { return get(r); });
  }
  Task<void> run() override {
    Result<Address> served = co_await hub.serve(address);
    HR_ASSERT(served.ok());
    co_await stop.wait();
  }
  Task<Result<GetMapReply>> get(GetMap request) {
    ++asked;
    GetMapReply reply{.read_only = read_only, .why = read_only ? "taken over" : ""};
    if (version > request.newer_than) reply.map = encode_durable(map_of(version));
    co_return reply;
  }
  Env env;
  Address address;
  uint64_t& version;
  bool& read_only;
  Identity identity;
  Handlers handlers;
  int asked = 0;
  Event stop;
  Hub hub;
};

TEST(NodeMapFollower, AsksWhicheverNodeAnswers) {
  World world(2);
  uint64_t version = 1;
  bool read_only = false;
  for (const char* name : {"a", "b"}) {
    Machine& machine = world.add_machine(name);
    machine.start([&](Env& env) { return std::make_unique<Node>(env, machine.address(), version, read_only); });
  }
  Machine& machine = world.add_machine("client");
  Identity identity;
  Handlers handlers;
  ClusterView view;
  {
    Hub hub(machine.env(), identity, handlers);
    NodeMapFollower follower(machine.env(), hub, view, {"sim:nobody", "sim:a"});
    ASSERT_TRUE(world.run(follower.refresh()).ok());
    EXPECT_EQ(view.map().version, 1u);
    follower.start();
    version = 2;
    world.run_for(milliseconds(1500));
    EXPECT_EQ(view.map().version, 2u);
    world.machine("a").crash(CrashKind::kProcess);
    version = 3;
    view.want_refresh();
    world.run_for(milliseconds(500));
    EXPECT_EQ(view.map().version, 3u);  // from b, which only the map names
    EXPECT_FALSE(follower.read_only());
    read_only = true;
    world.run_for(milliseconds(1500));
    EXPECT_TRUE(follower.read_only());
    EXPECT_EQ(follower.why_read_only(), "taken over");
    EXPECT_LT(static_cast<Node&>(*world.machine("b").process()).asked, 20);
    world.machine("b").crash(CrashKind::kProcess);
    world.run_for(milliseconds(100));
    Result<void> nobody = world.run(follower.refresh());
    ASSERT_EQ(nobody.code(), Code::kUnavailable);
    for (const char* name : {"sim:a", "sim:b", "sim:nobody"})
      EXPECT_NE(nobody.error().message().find(name), std::string::npos);
    follower.stop();
  }
}

}  // namespace
}  // namespace headrace
