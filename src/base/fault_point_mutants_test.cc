#ifndef HEADRACE_MUTANTS
#define HEADRACE_MUTANTS
#endif
#include "base/fault_point.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

TEST(Mutant, IsTheOneThatWasSelectedWhereCompiledIn) {
  EXPECT_FALSE(mutant("skip_flush"));
  select_mutant("skip_flush");
  EXPECT_TRUE(mutant("skip_flush"));
  EXPECT_FALSE(mutant("trim_early"));
  select_mutant("");
  EXPECT_FALSE(mutant("skip_flush"));
}

}  // namespace
}  // namespace headrace
