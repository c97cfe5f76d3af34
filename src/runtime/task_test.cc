#include "runtime/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "runtime/scope.h"
#include "runtime/sync.h"
#include "runtime/test_scheduler.h"

namespace headrace {
namespace {

Task<int> number(int n, int* runs) {
  ++*runs;
  co_return n;
}
Task<void> add(int* sum, int* runs) {
  int a = co_await number(2, runs);
  int b = co_await number(3, runs);
  *sum = a + b;
}

TEST(Task, RunsNothingBeforeItIsAwaited) {
  TestScheduler scheduler;
  int sum = 0;
  int runs = 0;
  {
    Task<void> task = add(&sum, &runs);
    EXPECT_EQ(runs, 0);
  }
  EXPECT_EQ(runs, 0);
  Scope scope;
  scope.spawn(add(&sum, &runs));
  EXPECT_EQ(sum, 5);
  EXPECT_EQ(runs, 2);
}

Task<std::unique_ptr<std::string>> text() {
  co_return std::make_unique<std::string>("moved");
}
Task<void> take_text(std::string* into) {
  std::unique_ptr<std::string> got = co_await text();
  *into = *got;
}

TEST(Task, ReturnsValuesThatOnlyMove) {
  TestScheduler scheduler;
  std::string out;
  Scope scope;
  scope.spawn(take_text(&out));
  EXPECT_EQ(out, "moved");
}

Task<Result<int>> refuse() {
  co_return Error(Code::kBusy, "later");
}
Task<Result<int>> ask() {
  HR_CO_TRY(int n, co_await refuse());
  co_return n + 1;
}
Task<void> keep_code(Code* into) {
  Result<int> result = co_await ask();
  *into = result.code();
}

TEST(Task, PassesErrorsOnByCoTry) {
  TestScheduler scheduler;
  Code code = Code::kOk;
  Scope scope;
  scope.spawn(keep_code(&code));
  EXPECT_EQ(code, Code::kBusy);
}

Task<void> hold(Counted, Event* event, bool* passed) {
  co_await event->wait();
  *passed = true;
}
Task<void> hold_deeply(Counted counted, Event* event, bool* passed, int depth) {
  if (depth == 0) {
    co_await hold(std::move(counted), event, passed);
  } else {
    int* live = counted.live;
    co_await hold_deeply(Counted(*live), event, passed, depth - 1);
  }
}

TEST(Task, DestroyedWhileSuspendedDestroysAllThatItAwaits) {
  TestScheduler scheduler;
  int live = 0;
  bool passed = false;
  Event event;
  {
    Scope scope;
    scope.spawn(hold_deeply(Counted(live), &event, &passed, 10));
    EXPECT_GT(live, 10);
  }
  EXPECT_EQ(live, 0);
  event.set();
  scheduler.run_ready();
  EXPECT_FALSE(passed);
}

Task<uint64_t> count_down(uint64_t n) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < n; ++i) {
    int runs = 0;
    int one = co_await number(1, &runs);
    sum += static_cast<uint64_t>(one);
  }
  co_return sum;
}
Task<void> keep_count(uint64_t* into) {
  *into = co_await count_down(200'000);
}

TEST(Task, AwaitsInALoopWithoutGrowingTheStack) {
  TestScheduler scheduler;
  uint64_t sum = 0;
  Scope scope;
  scope.spawn(keep_count(&sum));
  EXPECT_EQ(sum, 200'000u);
}

}  // namespace
}  // namespace headrace
