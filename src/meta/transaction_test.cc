#include "meta/transaction.h"

#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

// Two rows that are always changed together.
Key row(const char* name) {
  return xattr_key(kRootFile, name);
}

struct SetBoth {
  using Reply = Empty;
  std::string value;
  Task<Result<Empty>> run(Transaction& txn) {
    txn.put(row("a"), value);
    txn.put(row("b"), value);
    co_return Empty{};
  }
};

// Reads one, waits, reads the other.
struct Compare {
  using Reply = Empty;
  Ticket asked;
  Event* between;
  Event* go_on;
  int* runs;
  [[nodiscard]] Ticket ticket() const { return asked; }
  Task<Result<Empty>> run(Transaction& txn) {
    ++*runs;
    HR_CO_TRY(std::optional<RowValue> a, co_await txn.get(row("a")));
    between->set();
    co_await go_on->wait();
    HR_CO_TRY(std::optional<RowValue> b, co_await txn.get(row("b")));
    if (a != b) co_return Error(Code::kCorrupt, "they differ");
    co_return Empty{};
  }
};

Task<void> compare(Partition& partition, Compare op, std::optional<Code>& code) {
  Result<Empty> done = co_await partition.mutate(std::move(op));
  code = done.code();
}

void put_all(Transaction& txn, const std::map<Key, std::optional<RowValue>>& rows) {
  for (const auto& [key, value] : rows) {
    if (value)
      txn.put(key, *value);
    else
      txn.erase(key);
  }
}

// Rows of the store, of the overlay (written or erased there), and of the transaction itself.
struct ScanOp {
  using Reply = std::vector<std::pair<Key, RowValue>>;
  const std::map<Key, std::optional<RowValue>>* own;
  Key from;
  size_t limit;
  Task<Result<Reply>> run(Transaction& txn) {
    put_all(txn, *own);
    return txn.scan(from, prefix_end(row("")), limit);
  }
};

struct PutOp {
  using Reply = Empty;
  const std::map<Key, std::optional<RowValue>>* rows;
  Task<Result<Empty>> run(Transaction& txn) {
    put_all(txn, *rows);
    co_return Empty{};
  }
};

TEST(Transaction, AScanGivesTheFirstRowsOfStoreOverlayAndItsOwn) {
  OnePartition p(1);
  SeededRandom random(7);
  std::map<Key, RowValue> model;
  auto some = [&](int count) {
    std::map<Key, std::optional<RowValue>> rows;
    for (int i = 0; i < count; ++i) {
      std::optional<RowValue> value;
      if (random.chance(2, 3)) value = std::to_string(random.below(1000));
      rows[row(std::to_string(random.below(100)).c_str())] = value;
    }
    return rows;
  };
  auto apply = [](std::map<Key, RowValue>& to, const std::map<Key, std::optional<RowValue>>& rows) {
    for (const auto& [key, value] : rows) {
      if (value)
        to[key] = *value;
      else
        to.erase(key);
    }
  };
  for (int round = 0; round < 300; ++round) {
    const auto rows = some(20);
    OnePartition::must(p.world.run(p.partition->change(PutOp{&rows})));
    apply(model, rows);
    if (round % 3 == 0) p.settle();
    const auto own = some(static_cast<int>(random.below(5)));
    std::map<Key, RowValue> want = model;
    apply(want, own);
    const Key from = row(std::to_string(random.below(100)).c_str());
    const size_t limit = 1 + random.below(12);
    const auto got = OnePartition::must(p.world.run(p.partition->change(ScanOp{&own, from, limit})));
    auto at = want.lower_bound(from);
    for (const auto& [key, value] : got) {
      ASSERT_NE(at, want.end()) << round;
      EXPECT_EQ(key, at->first) << round;
      EXPECT_EQ(value, at->second) << round;
      ++at;
    }
    EXPECT_TRUE(got.size() == limit || at == want.end()) << round;
    model = std::move(want);
  }
}

// The first row of two, which waits before it commits.
struct FirstOf {
  using Reply = RowValue;
  Event* between;
  Event* go_on;
  int* runs;
  Task<Result<RowValue>> run(Transaction& txn) {
    ++*runs;
    HR_CO_TRY(auto rows, co_await txn.scan(row("a"), prefix_end(row("")), 1));
    between->set();
    co_await go_on->wait();
    txn.put(row("answer"), rows.at(0).second);
    co_return rows.at(0).second;
  }
};

Task<void> first_of(Partition& partition, FirstOf op, std::optional<RowValue>& first) {
  Result<RowValue> done = co_await partition.change(std::move(op));
  if (done.ok()) first = *done;
}

TEST(Transaction, WhatChangesBehindTheRowsThatAScanGaveIsNoConflict) {
  OnePartition p(1);
  std::map<Key, std::optional<RowValue>> rows{{row("b"), "1"}, {row("z"), "1"}};
  OnePartition::must(p.world.run(p.partition->change(PutOp{&rows})));
  auto runs_when = [&](const char* name, const char* value, const char* want) {
    Event between, go_on;
    int runs = 0;
    std::optional<RowValue> first;
    p.partition->scope().spawn(first_of(*p.partition, {&between, &go_on, &runs}, first));
    EXPECT_TRUE(p.world.run_until([&] { return between.is_set(); }, seconds(10)));
    rows = {{row(name), value}};
    OnePartition::must(p.world.run(p.partition->change(PutOp{&rows})));
    go_on.set();
    EXPECT_TRUE(p.world.run_until([&] { return first.has_value(); }, seconds(10)));
    EXPECT_EQ(first, want);
    rows = {{row("answer"), std::nullopt}};
    OnePartition::must(p.world.run(p.partition->change(PutOp{&rows})));
    return runs;
  };
  EXPECT_EQ(runs_when("z", "2", "1"), 1);
  EXPECT_EQ(runs_when("b", "2", "2"), 2);
  EXPECT_EQ(runs_when("aa", "3", "3"), 2) << "it comes before the one that was there";
}

// Seed 4778 of the simulator: a commit met a segment that another had just let die, by extents from before that.
TEST(Transaction, AnErrorFromRowsOfTwoPointsInTimeIsNoAnswer) {
  OnePartition p(1);
  OnePartition::User user = p.user();
  OnePartition::must(p.world.run(p.partition->change(SetBoth{"before"})));
  Event between, go_on;
  int runs = 0;
  std::optional<Code> code;
  p.partition->scope().spawn(compare(*p.partition, {user.next(), &between, &go_on, &runs}, code));
  ASSERT_TRUE(p.world.run_until([&] { return between.is_set(); }, seconds(10)));
  OnePartition::must(p.world.run(p.partition->change(SetBoth{"after"})));
  go_on.set();
  ASSERT_TRUE(p.world.run_until([&] { return code.has_value(); }, seconds(10)));
  EXPECT_EQ(code, Code::kOk);
  EXPECT_EQ(runs, 2);
}

TEST(Lease, AProcessThatStoodStillEvictsNobodyForIt) {
  OnePartition p(1);
  p.options.lease = seconds(10);
  p.fail_over();
  OnePartition::User user = p.user();
  p.world.run_for(seconds(5));
  p.machine.jump_boot(seconds(60));
  p.world.run_for(seconds(3));
  EXPECT_NE(p.partition->sessions().find(user.session), nullptr);
  p.world.run_for(seconds(5));
  EXPECT_EQ(p.partition->sessions().find(user.session), nullptr) << "it was silent for 13 s";
}

// As while other partitions of its node are still recovering.
TEST(Lease, WhoCannotComeYetIsNotLateForIt) {
  OnePartition p(2);
  p.options.lease = seconds(10);
  OnePartition::User user = p.user();
  p.create(user, "a");
  ASSERT_TRUE(p.world.run_until(p.partition->stop()));
  p.start(false);
  p.world.run_for(seconds(30));
  ASSERT_NE(p.partition->sessions().find(user.session), nullptr);
  p.partition->clients_may_come();
  p.world.run_for(seconds(5));
  EXPECT_NE(p.partition->sessions().find(user.session), nullptr);
  p.world.run_for(seconds(8));
  EXPECT_EQ(p.partition->sessions().find(user.session), nullptr);
}

}  // namespace
}  // namespace headrace
