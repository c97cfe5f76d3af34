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
