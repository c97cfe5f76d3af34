#include "runtime/timers.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "runtime/random.h"
#include "runtime/scope.h"
#include "runtime/test_scheduler.h"

namespace headrace {
namespace {

struct Ring final : TimerNode {
  Ring(std::vector<int>& rung, int number) : out(rung), id(number) {}
  void fire() override { out.push_back(id); }
  std::vector<int>& out;
  int id;
};

TEST(Timers, FireInDeadlineOrderAndTiesInTheOrderOfArming) {
  Timers timers;
  std::vector<int> rung;
  Ring late(rung, 3), first(rung, 1), second(rung, 2);
  timers.arm(late, seconds(3));
  timers.arm(first, seconds(1));
  timers.arm(second, seconds(1));
  EXPECT_EQ(timers.next_deadline(), seconds(1));
  EXPECT_EQ(timers.fire_due(seconds(1)), 2u);
  EXPECT_EQ(rung, (std::vector{1, 2}));
  EXPECT_EQ(timers.fire_due(seconds(2)), 0u);
  EXPECT_EQ(timers.fire_due(seconds(3)), 1u);
  EXPECT_TRUE(timers.empty());
}

TEST(Timers, ForgetANodeThatIsDestroyedOrDisarmed) {
  Timers timers;
  std::vector<int> rung;
  {
    Ring gone(rung, 1);
    timers.arm(gone, seconds(1));
  }
  Ring disarmed(rung, 2);
  timers.arm(disarmed, seconds(1));
  disarmed.disarm();
  EXPECT_FALSE(disarmed.armed());
  EXPECT_TRUE(timers.empty());
}

TEST(Timers, ArmedAgainMeansMoved) {
  Timers timers;
  std::vector<int> rung;
  Ring ring(rung, 1);
  timers.arm(ring, seconds(1));
  timers.arm(ring, seconds(5));
  EXPECT_EQ(timers.fire_due(seconds(2)), 0u);
  EXPECT_EQ(timers.fire_due(seconds(5)), 1u);
}

TEST(Timers, DestroyedLeaveTheirNodesUsable) {
  std::vector<int> rung;
  Ring ring(rung, 1);
  {
    Timers timers;
    timers.arm(ring, seconds(1));
  }
  EXPECT_FALSE(ring.armed());
}

struct Killer final : TimerNode {
  void fire() override { victim.reset(); }
  std::unique_ptr<Ring> victim;
};

TEST(Timers, OneThatFiresMayDestroyAnotherThatIsDue) {
  Timers timers;
  std::vector<int> rung;
  Killer killer;
  killer.victim = std::make_unique<Ring>(rung, 1);
  timers.arm(killer, seconds(1));
  timers.arm(*killer.victim, seconds(1));
  EXPECT_EQ(timers.fire_due(seconds(1)), 1u);
  EXPECT_TRUE(rung.empty());
}

Task<void> sleep_then(Clock* clock, Nanos duration, int* woke) {
  co_await clock->sleep(duration);
  ++*woke;
}

TEST(Clock, SleepersWakeAtTheirTimeAndNotBefore) {
  TestScheduler scheduler;
  ManualClock clock;
  int woke = 0;
  Scope scope;
  scope.spawn(sleep_then(&clock, milliseconds(10), &woke));
  clock.advance(milliseconds(9));
  scheduler.run_ready();
  EXPECT_EQ(woke, 0);
  clock.advance(milliseconds(1));
  scheduler.run_ready();
  EXPECT_EQ(woke, 1);
}

TEST(Clock, ASleeperDestroyedLeavesNoTimer) {
  TestScheduler scheduler;
  ManualClock clock;
  int woke = 0;
  {
    Scope scope;
    scope.spawn(sleep_then(&clock, milliseconds(10), &woke));
    EXPECT_FALSE(clock.nothing_armed());
  }
  EXPECT_TRUE(clock.nothing_armed());
}

TEST(SeededRandom, IsAFunctionOfItsSeed) {
  SeededRandom a(1), b(1), c(2);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    uint64_t value = a.next();
    EXPECT_EQ(value, b.next());
    different += value != c.next() ? 1 : 0;
  }
  EXPECT_GT(different, 90);
}

TEST(SeededRandom, StaysBelowItsBoundAndReachesAllOfIt) {
  SeededRandom random(7);
  std::vector<int> seen(5);
  for (int i = 0; i < 1000; ++i) ++seen.at(random.below(5));
  for (int count : seen) EXPECT_GT(count, 100);
  for (int i = 0; i < 100; ++i) {
    uint64_t value = random.between(3, 4);
    EXPECT_TRUE(value == 3 || value == 4);
  }
  EXPECT_FALSE(random.chance(0, 10));
  EXPECT_TRUE(random.chance(10, 10));
}

}  // namespace
}  // namespace headrace
