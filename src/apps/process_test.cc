#include "apps/process.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

TEST(Restarts, TroubleThatComesBackIsWaitedForLongerAndLonger) {
  uint32_t restarts = 0;
  Nanos waited;
  for (int i = 0; i < 10; ++i) {  // each time it serves for a moment
    restarts = restarts_that_count(restarts, seconds(2));
    waited = waited + pause_before_restart(restarts);
    ++restarts;
  }
  EXPECT_EQ(waited, seconds(1 + 2 + 4 + 8 + 16 + 32 + 4 * 60));
  EXPECT_EQ(pause_before_restart(4'000'000'000), seconds(60));
  EXPECT_EQ(restarts_that_count(restarts, seconds(299)), restarts);
  EXPECT_EQ(pause_before_restart(restarts_that_count(restarts, seconds(300))), seconds(1));
}

}  // namespace
}  // namespace headrace
