#include <gtest/gtest.h>

#include "meta/ops/names.h"
#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

struct Background {
  static Task<void> checkpoint(OnePartition& p, std::optional<Code>& code) {
    Result<void> done = co_await p.partition->checkpoint_now();
    code = done.code();
  }
  static Task<void> create(OnePartition& p, User& u, std::string name, std::optional<Code>& code) {
    Make make;
    make.ticket = u.next();
    make.parent = kRootFile;
    make.name = std::move(name);
    Result<EntryReply> made = co_await handle(*p.partition, std::move(make), CallInfo());
    code = made.code();
  }
};

// A copy of the journal fails while a checkpoint is being named: the record of the new run and that of the checkpoint
// are one.
TEST(Journal, ARunIsReplacedWhileACheckpointIsNamed) {
  OnePartition p(1);
  User u = p.user();
  p.create(u, "before");
  p.coordinator.clock = &p.env.clock;
  p.coordinator.pause = milliseconds(100);
  std::optional<Code> named;
  p.partition->scope().spawn(Background::checkpoint(p, named));
  ASSERT_TRUE(p.world.run_until([&] { return p.coordinator.puts_under_way == 1; }, seconds(10)));
  p.targets.failing_appends = 1;
  FileId during = p.create(u, "during");
  ASSERT_TRUE(p.world.run_until([&] { return named.has_value(); }, seconds(10)));
  EXPECT_EQ(*named, Code::kOk);
  EXPECT_EQ(p.targets.failing_appends, 0u);
  EXPECT_TRUE(p.partition->serving()) << p.partition->state();
  p.create(u, "after");
  p.fail_over();
  p.claim(u);
  EXPECT_EQ(p.stat(u, during).links, 1u);
  p.check_rows();
}

// The record of the next run was written although the coordinator says that it failed: what is acknowledged must be in
// that run.
TEST(Journal, ARecordThatMayBeWrittenIsNotTakenForUnwritten) {
  for (uint64_t lost_gets : {0, 3, 1'000'000}) {
    OnePartition p(2);
    User u = p.user();
    p.create(u, "before");
    p.targets.failing_appends = 1;
    p.coordinator.lost_puts = 1;
    p.coordinator.failing_gets = lost_gets;
    std::optional<Code> during;
    p.partition->scope().spawn(Background::create(p, u, "during", during));
    (void)p.world.run_until([&] { return during.has_value(); }, seconds(30));
    if (lost_gets < 100) {
      EXPECT_EQ(during, Code::kOk);
      p.create(u, "after");
    } else {
      EXPECT_NE(during, Code::kOk) << "nobody knows where it is";
      EXPECT_FALSE(p.partition->serving());
    }
    p.coordinator.failing_gets = 0;
    p.fail_over();
    p.claim(u);
    for (const char* name : {"before", "during", "after"}) {
      if (lost_gets > 100 && name != std::string("before")) continue;
      EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, name}).code(), Code::kOk) << name;
    }
    p.check_rows();
  }
}

// A run that nothing was written to yet goes on, since the next one could not be recorded.
TEST(Journal, ARunThatGoesOnIsNotForgotten) {
  OnePartition p(3);
  User u = p.user();
  p.create(u, "first");
  ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
  p.fail_over();
  p.claim(u);
  p.targets.failing_appends = 1;
  p.coordinator.refused_puts = 1;
  p.create(u, "a");
  ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
  p.create(u, "b");
  p.fail_over();
  p.claim(u);
  EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, "a"}).code(), Code::kOk);
  EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, "b"}).code(), Code::kOk);
  p.check_rows();
}

// Of P + 1 copies one may be missing for each target that fails, up to P: when more fail at once, one that goes on
// would hold alone what was acknowledged, and go for good when they are back.
TEST(Journal, NothingIsAcknowledgedWhileMoreFailThanMayBeLost) {
  OnePartition p(5);
  const auto target = [](uint64_t i) { return TargetId(OnePartition::kTarget.value() + i); };
  p.coordinator.records[partition_key(5)] = {encode_durable(PartitionRecord{}), 1};
  Journal journal(p.env, p.target_port, p.coordinator,
                  Journal::Options{.self = NodeId(1), .partition = PartitionId(5), .copies = 2});
  ASSERT_TRUE(p.world.run(journal.take_over()).ok());
  uint64_t at = 0;
  std::optional<Code> appended;
  const auto append = [&] {
    appended.reset();
    ++at;
    p.world.spawn([](Journal& j, uint64_t position, std::optional<Code>* out) -> Task<void> {
      Result<void> done = co_await j.append("bytes", Position(position), Position(position));
      *out = done.code();
    }(journal, at, &appended));
    (void)p.world.run_until([&] { return appended.has_value(); }, seconds(20));
  };
  append();
  EXPECT_EQ(appended, Code::kOk);
  p.targets.full = {target(0)};
  append();
  EXPECT_EQ(appended, Code::kOk);
  EXPECT_EQ(journal.record().runs.back().copies.size(), 2u);
  p.targets.full = {target(0), target(1)};
  append();
  EXPECT_FALSE(appended.has_value()) << "one copy is left, and two targets may come back without it";
  p.targets.full.clear();
  ASSERT_TRUE(p.world.run_until([&] { return appended.has_value(); }, seconds(20)));
  EXPECT_EQ(appended, Code::kOk);
  EXPECT_EQ(journal.record().runs.back().copies.size(), 2u);
}

Result<void> start_anew(OnePartition& p) {
  p.make_partition();
  return p.world.run(p.partition->start());
}

// What the copies sealed may be acknowledged: a leader that cannot read it now does not begin without it.
TEST(Journal, WhatCannotBeReadIsNotTakenForTheEnd) {
  for (Code code : {Code::kTimeout, Code::kUnavailable, Code::kNotFound, Code::kCorrupt}) {
    OnePartition p(6);
    ClusterMap map = p.view.map();
    ++map.version;
    map.protection = {1, 1};
    p.view.update(map);
    p.fail_over();
    User u = p.user();
    p.create(u, "a");
    ASSERT_TRUE(p.world.run_until(p.partition->stop()));
    p.targets.read_fails = code;
    p.targets.failing_reads = 1000;
    Result<void> started = start_anew(p);
    EXPECT_EQ(started.code(), code == Code::kCorrupt ? Code::kCorrupt : Code::kUnavailable);
    p.targets.failing_reads = 1;  // another copy has it
    started = start_anew(p);
    ASSERT_TRUE(started.ok()) << started.error().text();
    p.partition->clients_may_come();
    p.claim(u);
    EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, "a"}).code(), Code::kOk);
    p.check_rows();
  }
}

TEST(Journal, AGapStopsALeader) {
  OnePartition p(7);
  User u = p.user();
  p.create(u, "a");
  p.create(u, "b");
  ASSERT_TRUE(p.world.run_until(p.partition->stop()));
  for (auto& [id, run] : p.targets.runs) {
    run.batches.erase(run.batches.begin());
    run.first = run.batches.front().first;
  }
  EXPECT_EQ(start_anew(p).code(), Code::kCorrupt);
}

// One target may refuse the tail; its writing begins anew on others.
TEST(Journal, ATargetThatRefusesTheTailDoesNotEndAStart) {
  for (uint64_t failing : {1, 3}) {
    OnePartition p(8);
    User u = p.user();
    p.create(u, "a");
    p.targets.failing_appends = failing;
    p.fail_over();
    EXPECT_EQ(p.targets.failing_appends, 0u);
    p.claim(u);
    p.create(u, "b");
    ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
    EXPECT_EQ(p.targets.runs.size(), 1u) << "what was given up is forgotten";
    p.fail_over();
    p.claim(u);
    for (const char* name : {"a", "b"}) EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, name}).code(), Code::kOk) << name;
    p.check_rows();
  }
}

// A checkpoint that is not what the store held must not replace what the journal has.
TEST(Journal, BadInputADamagedCheckpointIsNotNamed) {
  for (bool when_read : {true, false}) {
    OnePartition p(9);
    User u = p.user();
    p.create(u, "a");
    ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
    p.create(u, "b");
    p.world.run_for(seconds(1));
    p.faulty.flipped_reads = when_read ? 1 : 0;
    p.faulty.damaged = !when_read;
    EXPECT_EQ(p.world.run(p.partition->checkpoint_now()).code(), Code::kCorrupt);
    EXPECT_FALSE(p.partition->serving()) << "what is in the store is not to be trusted";
    p.faulty.damaged = false;
    p.fail_over();
    p.claim(u);
    for (const char* name : {"a", "b"}) EXPECT_EQ(p.ask(Lookup{u.session, kRootFile, name}).code(), Code::kOk) << name;
    ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
    p.check_rows();
  }
}

// Runs that no record names are nobody's: of a leader that ended before it could record, or forget, one.
TEST(Journal, RunsThatNobodyNamesAreForgotten) {
  OnePartition p(4);
  User u = p.user();
  for (int i = 0; i < 5; ++i) {
    p.targets.failing_appends = 1;
    p.coordinator.refused_puts = 1;
    p.create(u, "a" + std::to_string(i));
    p.fail_over();
    p.claim(u);
    EXPECT_EQ(p.targets.runs.size(), 1u);
  }
  p.check_rows();
}

}  // namespace
}  // namespace headrace
