#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

struct Background {
  static Task<void> checkpoint(OnePartition& p, std::optional<Code>& code) {
    Result<void> done = co_await p.partition->checkpoint_now();
    code = done.code();
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

}  // namespace
}  // namespace headrace
