#include "runtime/sync.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/scope.h"
#include "runtime/test_scheduler.h"

namespace headrace {
namespace {

using Log = std::vector<int>;

class Sync : public testing::Test {
 protected:
  TestScheduler scheduler;
  ManualClock clock;
  Log log;
};

Task<void> wait_event(Event* event, Log* log, int id) {
  co_await event->wait();
  log->push_back(id);
}
Task<void> wait_event_until(Event* event, Clock* clock, Nanos deadline, Log* log) {
  bool in_time = co_await event->wait_until(*clock, deadline);
  log->push_back(in_time ? 1 : 0);
}

TEST_F(Sync, EventWakesAllItsWaitersInOrderAndLaterOnesPass) {
  Event event;
  Scope scope;
  for (int i = 0; i < 3; ++i) scope.spawn(wait_event(&event, &log, i));
  event.set();
  EXPECT_TRUE(log.empty()) << "nothing resumes inline";
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1, 2}));
  scope.spawn(wait_event(&event, &log, 3));
  EXPECT_EQ(log.back(), 3);
}

TEST_F(Sync, EventResetMakesLaterWaitersWait) {
  Event event;
  event.set();
  event.reset();
  Scope scope;
  scope.spawn(wait_event(&event, &log, 0));
  scheduler.run_ready();
  EXPECT_TRUE(log.empty());
}

TEST_F(Sync, EventResetBeforeAWaiterRanKeepsItWaiting) {
  Event event;
  Scope scope;
  scope.spawn(wait_event(&event, &log, 0));
  event.set();
  event.reset();
  scheduler.run_ready();
  EXPECT_TRUE(log.empty());
  event.set();
  scheduler.run_ready();
  EXPECT_EQ(log, Log{0});
}

TEST_F(Sync, EventWaitWithADeadlineSaysWhetherItCameInTime) {
  Event event;
  Scope scope;
  scope.spawn(wait_event_until(&event, &clock, milliseconds(5), &log));
  clock.advance(milliseconds(5));
  scheduler.run_ready();
  EXPECT_EQ(log, Log{0});
  scope.spawn(wait_event_until(&event, &clock, milliseconds(10), &log));
  event.set();
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1}));
  EXPECT_TRUE(clock.nothing_armed());
}

TEST_F(Sync, EventSetAndTimedOutAtOnceCountsAsSet) {
  Event event;
  Scope scope;
  scope.spawn(wait_event_until(&event, &clock, milliseconds(5), &log));
  event.set();
  clock.advance(milliseconds(5));
  scheduler.run_ready();
  EXPECT_EQ(log, Log{1});
}

Task<void> sleep_cancellable(CancelToken* token, Clock* clock, Log* log) {
  bool slept = co_await token->sleep(*clock, milliseconds(5));
  log->push_back(slept ? 1 : 0);
}

TEST_F(Sync, CancelTokenEndsASleepEarly) {
  CancelToken token;
  Scope scope;
  scope.spawn(sleep_cancellable(&token, &clock, &log));
  clock.advance(milliseconds(5));
  scheduler.run_ready();
  scope.spawn(sleep_cancellable(&token, &clock, &log));
  token.cancel();
  token.cancel();
  scheduler.run_ready();
  scope.spawn(sleep_cancellable(&token, &clock, &log));
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{1, 0, 0}));
}

Task<void> lock_and_hold(Mutex* mutex, Event* release, Log* log, int id) {
  Mutex::Guard guard = co_await mutex->lock();
  log->push_back(id);
  co_await release->wait();
}

TEST(Mutex, HandsOverInFifoOrder) {
  TestScheduler scheduler;
  Log log;
  Mutex mutex;
  Event releases[4];
  Scope scope;
  for (int i = 0; i < 3; ++i) scope.spawn(lock_and_hold(&mutex, &releases[i], &log, i));
  EXPECT_EQ(log, Log{0});
  releases[0].set();
  scheduler.run_ready(1);  // 0 has let go, 1 is next but did not run yet
  scope.spawn(lock_and_hold(&mutex, &releases[3], &log, 3));
  for (Event& release : releases) release.set();
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1, 2, 3})) << "who comes late does not overtake";
  EXPECT_FALSE(mutex.locked());
}

TEST(Mutex, IsFreedWhenItsHolderIsDestroyed) {
  TestScheduler scheduler;
  Log log;
  Mutex mutex;
  Event never;
  Scope survivors;
  {
    Scope doomed;
    doomed.spawn(lock_and_hold(&mutex, &never, &log, 0));
    survivors.spawn(lock_and_hold(&mutex, &never, &log, 1));
  }
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1}));
}

TEST(Mutex, PassesOverAWaiterDestroyedAfterItWasItsTurn) {
  TestScheduler scheduler;
  Log log;
  Mutex mutex;
  Event go, never;
  Scope holder, survivors;
  holder.spawn(lock_and_hold(&mutex, &go, &log, 0));
  {
    Scope doomed;
    doomed.spawn(lock_and_hold(&mutex, &never, &log, 1));
    survivors.spawn(lock_and_hold(&mutex, &never, &log, 2));
    go.set();
    scheduler.run_ready(1);
  }
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 2}));
}

Task<void> acquire(Semaphore* semaphore, uint64_t units, Log* log, int id) {
  co_await semaphore->acquire(units);
  log->push_back(id);
}

TEST(Semaphore, LetsNoSmallRequestOvertakeALargeOne) {
  TestScheduler scheduler;
  Log log;
  Semaphore semaphore(4);
  Scope scope;
  scope.spawn(acquire(&semaphore, 3, &log, 0));
  scope.spawn(acquire(&semaphore, 4, &log, 1));
  scope.spawn(acquire(&semaphore, 1, &log, 2));
  EXPECT_EQ(log, Log{0});
  semaphore.release(3);
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1}));
  EXPECT_EQ(semaphore.free(), 0u);
  semaphore.release(4);
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 1, 2}));
  EXPECT_EQ(semaphore.free(), 3u);
}

TEST(Semaphore, ForgetsAWaiterThatIsDestroyed) {
  TestScheduler scheduler;
  Log log;
  Semaphore semaphore(2);
  Scope survivors;
  {
    Scope doomed;
    survivors.spawn(acquire(&semaphore, 1, &log, 0));
    doomed.spawn(acquire(&semaphore, 2, &log, 1));
    survivors.spawn(acquire(&semaphore, 1, &log, 2));
    EXPECT_EQ(log, Log{0});
  }
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{0, 2})) << "the large request that blocked the small one is gone";
}

TEST(Semaphore, TakesBackUnitsOfAWaiterDestroyedAfterItsTurn) {
  TestScheduler scheduler;
  Log log;
  Semaphore semaphore(1);
  Scope scope;
  scope.spawn(acquire(&semaphore, 1, &log, 0));
  {
    Scope doomed;
    doomed.spawn(acquire(&semaphore, 1, &log, 1));
    semaphore.release();
    EXPECT_EQ(semaphore.free(), 0u);
  }
  EXPECT_EQ(semaphore.free(), 1u);
  EXPECT_EQ(log, Log{0});
}

Task<void> push(Queue<std::string>* queue, std::string item, Log* log, int id) {
  bool pushed = co_await queue->push(std::move(item));
  log->push_back(pushed ? id : -id);
}
Task<void> pop(Queue<std::string>* queue, std::vector<std::string>* out) {
  std::optional<std::string> item = co_await queue->pop();
  out->push_back(item ? *item : "end");
}

TEST(Queue, MakesPushersWaitWhileItIsFull) {
  TestScheduler scheduler;
  Log log;
  std::vector<std::string> out;
  Queue<std::string> queue(2);
  Scope scope;
  for (int i = 1; i <= 3; ++i) scope.spawn(push(&queue, std::to_string(i), &log, i));
  EXPECT_EQ(log, (Log{1, 2}));
  EXPECT_FALSE(queue.try_push("4"));
  scope.spawn(pop(&queue, &out));
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{1, 2, 3}));
  EXPECT_EQ(out, std::vector<std::string>{"1"});
  EXPECT_EQ(queue.size(), 2u);
}

TEST(Queue, ClosedRefusesPushesAndDrains) {
  TestScheduler scheduler;
  Log log;
  std::vector<std::string> out;
  Queue<std::string> queue(1);
  Scope scope;
  scope.spawn(push(&queue, "a", &log, 1));
  scope.spawn(push(&queue, "b", &log, 2));
  queue.close();
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{1, -2}));
  scope.spawn(pop(&queue, &out));
  scope.spawn(pop(&queue, &out));
  EXPECT_EQ(out, (std::vector<std::string>{"a", "end"}));
}

TEST(Queue, ServesWaitingPoppersInOrder) {
  TestScheduler scheduler;
  std::vector<std::string> first, second;
  Queue<std::string> queue(4);
  Scope scope;
  scope.spawn(pop(&queue, &first));
  scope.spawn(pop(&queue, &second));
  EXPECT_TRUE(queue.try_push("a"));
  EXPECT_TRUE(queue.try_push("b"));
  scheduler.run_ready();
  EXPECT_EQ(first, std::vector<std::string>{"a"});
  EXPECT_EQ(second, std::vector<std::string>{"b"});
}

Task<void> wait_once(Once<std::string>* once, std::vector<std::string>* out) {
  out->push_back(co_await once->wait());
}
Task<void> wait_once_until(Once<std::string>* once, Clock* clock, std::vector<std::string>* out) {
  std::optional<std::string> value = co_await once->wait_until(*clock, milliseconds(1));
  out->push_back(value.value_or("late"));
}

TEST(Once, GivesEveryWaiterACopy) {
  TestScheduler scheduler;
  ManualClock clock;
  std::vector<std::string> out;
  Once<std::string> once;
  Scope scope;
  scope.spawn(wait_once_until(&once, &clock, &out));
  clock.advance(milliseconds(1));
  scope.spawn(wait_once(&once, &out));
  scope.spawn(wait_once(&once, &out));
  scheduler.run_ready();
  EXPECT_EQ(out, std::vector<std::string>{"late"});
  once.set("value");
  scheduler.run_ready();
  EXPECT_EQ(out, (std::vector<std::string>{"late", "value", "value"}));
}

Task<void> count_yields(int n, Log* log, int id) {
  for (int i = 0; i < n; ++i) {
    log->push_back(id);
    co_await yield();
  }
}

TEST(Scheduler, YieldLetsTheOthersRunFirst) {
  TestScheduler scheduler;
  Log log;
  Scope scope;
  scope.spawn(count_yields(3, &log, 1));
  scope.spawn(count_yields(3, &log, 2));
  EXPECT_EQ(scheduler.run_ready(2), 2u);
  EXPECT_EQ(log, (Log{1, 2, 1, 2}));
  scheduler.run_ready();
  EXPECT_EQ(log, (Log{1, 2, 1, 2, 1, 2}));
  EXPECT_TRUE(scheduler.idle());
}

TEST(WaitList, KeepsOrderWhenAWaiterLeavesFromTheMiddle) {
  WaitList list;
  Waiter a, c;
  {
    Waiter b;
    list.push(a);
    list.push(b);
    list.push(c);
    EXPECT_EQ(list.size(), 3u);
    EXPECT_EQ(list.at(1), &b);
  }
  EXPECT_EQ(list.size(), 2u);
  EXPECT_EQ(list.pop(), &a);
  EXPECT_EQ(list.pop(), &c);
  EXPECT_EQ(list.pop(), nullptr);
}

TEST(WaitList, DestroyedBeforeItsWaitersLeavesThemUnlinked) {
  Waiter waiter;
  {
    WaitList list;
    list.push(waiter);
    EXPECT_TRUE(waiter.linked_in(list));
  }
  EXPECT_FALSE(waiter.linked());
}

}  // namespace
}  // namespace headrace
