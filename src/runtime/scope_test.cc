#include "runtime/scope.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "runtime/test_scheduler.h"

namespace headrace {
namespace {

Task<void> wait_for(Event* event, int* done) {
  co_await event->wait();
  ++*done;
}
Task<void> wait_holding(Counted, Event* event) {
  co_await event->wait();
}
Task<void> wait_cancelled(CancelToken* token, int* done) {
  co_await token->wait();
  ++*done;
}
Task<void> join(Scope* scope, bool* joined) {
  co_await scope->join();
  *joined = true;
}
Task<void> nothing() {
  co_return;
}

TEST(Scope, RunsAChildUpToItsFirstSuspensionAtOnce) {
  TestScheduler scheduler;
  Event event;
  event.set();
  int done = 0;
  Scope scope;
  EXPECT_TRUE(scope.spawn(wait_for(&event, &done)));
  EXPECT_EQ(done, 1);
  EXPECT_EQ(scope.running(), 0u);
}

TEST(Scope, JoinReturnsAfterTheLastChild) {
  TestScheduler scheduler;
  Event first, second;
  int done = 0;
  bool joined = false;
  Scope scope;
  scope.spawn(wait_for(&first, &done));
  scope.spawn(wait_for(&second, &done));
  Scope waiting;
  waiting.spawn(join(&scope, &joined));
  first.set();
  scheduler.run_ready();
  EXPECT_EQ(done, 1);
  EXPECT_FALSE(joined);
  second.set();
  scheduler.run_ready();
  EXPECT_TRUE(joined);
}

TEST(Scope, JoinOfNothingReturnsAtOnce) {
  TestScheduler scheduler;
  Scope scope, waiting;
  bool joined = false;
  waiting.spawn(join(&scope, &joined));
  EXPECT_TRUE(joined);
}

TEST(Scope, RefusesChildrenOnceClosedAndDropsThemUnrun) {
  TestScheduler scheduler;
  int live = 0;
  Event event;
  Scope scope;
  scope.close();
  EXPECT_FALSE(scope.spawn(wait_holding(Counted(live), &event)));
  EXPECT_EQ(live, 0);
  EXPECT_EQ(scope.running(), 0u);
}

TEST(Scope, CancelClosesAndFiresTheToken) {
  TestScheduler scheduler;
  int done = 0;
  Scope scope;
  scope.spawn(wait_cancelled(&scope.token(), &done));
  scope.cancel();
  scope.cancel();
  EXPECT_TRUE(scope.token().cancelled());
  EXPECT_FALSE(scope.spawn(nothing()));
  scheduler.run_ready();
  EXPECT_EQ(done, 1);
}

TEST(Scope, DestroyedWithSuspendedChildrenDestroysTheirFrames) {
  TestScheduler scheduler;
  int live = 0;
  Event event;
  {
    Scope scope;
    for (int i = 0; i < 5; ++i) scope.spawn(wait_holding(Counted(live), &event));
    EXPECT_EQ(live, 5);
  }
  EXPECT_EQ(live, 0);
  event.set();
  EXPECT_EQ(scheduler.run_ready(), 0u);
}

TEST(Scope, DestroyedWithWokenChildrenRunsNoneOfThem) {
  TestScheduler scheduler;
  int done = 0;
  Event event;
  {
    Scope scope;
    for (int i = 0; i < 3; ++i) scope.spawn(wait_for(&event, &done));
    event.set();
    EXPECT_FALSE(scheduler.idle());
  }
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(done, 0);
}

Task<void> spawn_more(Scope* scope, int depth, int* ran) {
  ++*ran;
  if (depth > 0) {
    scope->spawn(spawn_more(scope, depth - 1, ran));
    scope->spawn(spawn_more(scope, depth - 1, ran));
  }
  co_await yield();
}

TEST(Scope, ChildrenMaySpawnSiblings) {
  TestScheduler scheduler;
  int ran = 0;
  Scope scope;
  scope.spawn(spawn_more(&scope, 4, &ran));
  scheduler.run_ready();
  EXPECT_EQ(ran, 31);
  EXPECT_EQ(scope.running(), 0u);
}

}  // namespace
}  // namespace headrace
