// Both variants of mutant() in one program: this file has it compiled out,
// fault_point_mutants_test.cc in.
#include "base/fault_point.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

#ifndef HEADRACE_MUTANTS
static_assert(!mutant("skip_flush"), "constant false in ordinary builds");
#endif

TEST(Mutant, IsNeverSelectedUnlessCompiledIn) {
  if (kMutantsCompiledIn) GTEST_SKIP() << "this build compiles mutants in";
  select_mutant("skip_flush");
  EXPECT_FALSE(mutant("skip_flush"));
}

}  // namespace
}  // namespace headrace
