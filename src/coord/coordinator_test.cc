// The contract of Coordinator, over every back end that needs no other process.
#include "coord/coordinator.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coord/embedded/embedded_coordinator.h"
#include "coord/sim/shared_coordinator.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

enum class Kind { kEmbedded, kShared };

class CoordinatorContract : public testing::TestWithParam<Kind> {
 protected:
  CoordinatorContract() : world(3), machine(world.add_machine("m")), random(9), shared(world.clock(), random) {
    if (GetParam() == Kind::kEmbedded) {
      auto embedded = std::make_unique<EmbeddedCoordinator>(machine.env(), "/state/coord");
      EXPECT_TRUE(world.run(machine.env().disk.make_directories("/state")).ok());
      EXPECT_TRUE(world.run(embedded->load()).ok());
      coordinator = std::move(embedded);
    } else {
      coordinator = std::make_unique<SharedCoordinatorHandle>(shared, "m");
    }
  }
  Result<uint64_t> put(std::string key, std::string value, uint64_t expected) {
    return world.run(coordinator->put(std::move(key), std::move(value), expected));
  }
  CoordRecord get(std::string key) { return *world.run(coordinator->get(std::move(key))); }

  World world;
  Machine& machine;
  SeededRandom random;
  SharedCoordinator shared;
  std::unique_ptr<Coordinator> coordinator;
};

TEST_P(CoordinatorContract, AnAbsentKeyHasVersionZeroAndIsNoError) {
  EXPECT_EQ(get("x").version, 0u);
  EXPECT_EQ(get("x").value, "");
}

TEST_P(CoordinatorContract, PutsOnlyWhatTheAskerHasSeen) {
  ASSERT_EQ(*put("x", "one", 0), 1u);
  EXPECT_EQ(put("x", "two", 0).code(), Code::kConflict);
  EXPECT_EQ(put("x", "two", 2).code(), Code::kConflict);
  EXPECT_EQ(get("x").value, "one");
  ASSERT_EQ(*put("x", "two", 1), 2u);
  EXPECT_EQ(get("x").value, "two");
  EXPECT_EQ(get("x").version, 2u);
  EXPECT_EQ(put("y", "new", 1).code(), Code::kConflict);
}

TEST_P(CoordinatorContract, OfManyThatComeFromOneVersionExactlyOneWins) {
  struct Run {
    static Task<void> one(Coordinator& c, int i, int& won, int& lost) {
      Result<uint64_t> result = co_await c.put("x", std::to_string(i), 0);
      ++(result.ok() ? won : lost);
      EXPECT_TRUE(result.ok() || result.code() == Code::kConflict);
    }
    static Task<void> all(Coordinator& c, Scope& scope, int& won, int& lost) {
      for (int i = 0; i < 20; ++i) scope.spawn(one(c, i, won, lost));
      co_await scope.join();
    }
  };
  Scope scope;
  int won = 0;
  int lost = 0;
  EXPECT_TRUE(world.run_until(Run::all(*coordinator, scope, won, lost)));
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 19);
}

TEST_P(CoordinatorContract, ListsByPrefixInOrder) {
  for (const char* key : {"partition/2", "partition/10", "part", "partition/1", "q"})
    ASSERT_TRUE(put(key, key, 0).ok());
  auto records = *world.run(coordinator->list("partition/"));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].first, "partition/1");
  EXPECT_EQ(records[1].first, "partition/10");
  EXPECT_EQ(records[2].first, "partition/2");
  EXPECT_EQ(records[2].second.value, "partition/2");
}

TEST_P(CoordinatorContract, TellsOfChangesSoonAndOtherwiseAfterFiveSeconds) {
  ASSERT_TRUE(put("x", "1", 0).ok());
  uint64_t revision = *world.run(coordinator->changed_since(0));
  Nanos before = world.now();
  EXPECT_EQ(*world.run(coordinator->changed_since(revision)), revision);
  EXPECT_GE(world.now() - before, milliseconds(4900));
  before = world.now();
  std::optional<uint64_t> seen;
  struct Run {
    static Task<void> watch(Coordinator& c, uint64_t since, std::optional<uint64_t>& out) {
      Result<uint64_t> now = co_await c.changed_since(since);
      out = *now;
    }
  };
  world.spawn(Run::watch(*coordinator, revision, seen));
  world.run_for(seconds(1));
  ASSERT_FALSE(seen.has_value());
  ASSERT_TRUE(put("x", "2", 1).ok());
  world.run_for(milliseconds(100));
  ASSERT_TRUE(seen.has_value());
  EXPECT_GT(*seen, revision);
}

TEST_P(CoordinatorContract, ALeaseEndsFiveSecondsAfterItsLastRenewal) {
  EXPECT_FALSE(*world.run(coordinator->lease_alive("n1")));
  ASSERT_TRUE(world.run(coordinator->renew_lease("n1", 11)).ok());
  world.run_for(milliseconds(4900));
  EXPECT_TRUE(*world.run(coordinator->lease_alive("n1")));
  ASSERT_TRUE(world.run(coordinator->renew_lease("n1", 11)).ok());
  world.run_for(milliseconds(4900));
  EXPECT_TRUE(*world.run(coordinator->lease_alive("n1")));
  EXPECT_EQ(world.run(coordinator->renew_lease("n1", 12)).code(), Code::kStale);
  world.run_for(milliseconds(200));
  EXPECT_FALSE(*world.run(coordinator->lease_alive("n1")));
  ASSERT_TRUE(world.run(coordinator->renew_lease("n1", 12)).ok());
  EXPECT_TRUE(*world.run(coordinator->lease_alive("n1")));
  world.run_for(seconds(6));
  EXPECT_EQ(world.run(coordinator->renew_lease("n1", 11)).code(), Code::kStale);  // replaced: for ever
  EXPECT_TRUE(world.run(coordinator->renew_lease("n1", 12)).ok());
}

INSTANTIATE_TEST_SUITE_P(BackEnds, CoordinatorContract, testing::Values(Kind::kEmbedded, Kind::kShared),
                         [](const auto& info) { return info.param == Kind::kEmbedded ? "Embedded" : "Shared"; });

TEST(SharedCoordinator, OneMachineCanBeCutOffWhileOthersGoOn) {
  World world(4);
  SeededRandom random(1);
  SharedCoordinator shared(world.clock(), random);
  SharedCoordinatorHandle a(shared, "a");
  SharedCoordinatorHandle b(shared, "b");
  shared.make_unavailable("a", seconds(3));
  EXPECT_EQ(world.run(a.put("x", "1", 0)).code(), Code::kUnavailable);
  EXPECT_EQ(*world.run(b.put("x", "1", 0)), 1u);
  EXPECT_EQ(world.run(a.changed_since(0)).code(), Code::kUnavailable);
  world.run_for(seconds(3));
  EXPECT_EQ(world.run(a.get("x"))->value, "1");
  shared.make_unavailable("", seconds(1));
  EXPECT_EQ(world.run(b.get("x")).code(), Code::kUnavailable);
  shared.heal();
  EXPECT_TRUE(world.run(b.get("x")).ok());
  EXPECT_EQ(shared.refused(), 3u);
}

TEST(SharedCoordinator, ALostReplyLeavesTheOutcomeOpenAndGetTells) {
  World world(4);
  SeededRandom random(1);
  SharedCoordinator shared(world.clock(), random, {.lost_request_per_mille = 300, .lost_reply_per_mille = 300});
  SharedCoordinatorHandle a(shared, "a");
  uint64_t version = 0;
  int with = 0;
  int without = 0;
  for (int i = 0; i < 100; ++i) {
    Result<uint64_t> result = world.run(a.put("x", std::to_string(i), version));
    uint64_t now = world.run(a.get("x"))->version;
    if (result.ok()) {
      EXPECT_EQ(now, version + 1);
    } else {
      ASSERT_EQ(result.code(), Code::kTimeout);
      ++(now == version ? without : with);
    }
    version = now;
  }
  EXPECT_GT(with, 5);
  EXPECT_GT(without, 5);
}

}  // namespace
}  // namespace headrace
