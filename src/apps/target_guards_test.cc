#include "apps/target_guards.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/sim/world.h"

namespace headrace {
namespace {

namespace fs = std::filesystem;

struct TargetGuardsTest : ::testing::Test {
  TargetGuardsTest() {
    fs::create_directories(root / "t0");
    fs::create_directories(root / "elsewhere");
    fs::create_directory_symlink(root / "elsewhere", root / "t1");
  }
  ~TargetGuardsTest() override { fs::remove_all(root); }
  fs::path root = fs::path(::testing::TempDir()) / ("guards-" + std::to_string(::getpid()));
  World world{1, {}};
  Machine& machine = world.add_machine("node");
};

TEST_F(TargetGuardsTest, ADirectoryIsOfOneNodeAtATime) {
  TargetGuards second;
  {
    TargetGuards first;
    ASSERT_TRUE(first.hold(root / "t0").ok());
    ASSERT_TRUE(first.hold(root / "t0").ok()) << "held already";
    ASSERT_TRUE(first.hold(root / "t1").ok());
    Result<void> refused = second.hold(root / "t0");
    EXPECT_EQ(refused.code(), Code::kBusy);
    EXPECT_NE(refused.error().message().find("in use by another node"), std::string::npos) << refused.error().text();
    EXPECT_EQ(second.hold(root / "elsewhere").code(), Code::kBusy) << "by another name";
    EXPECT_EQ(world.run(second.hold_soon(machine.env(), root / "t0")).code(), Code::kBusy);
    first.release(root / "t0");
    EXPECT_TRUE(second.hold(root / "t0").ok());
  }
  EXPECT_TRUE(second.hold(root / "elsewhere").ok()) << "guards end with their owner";
}

TEST_F(TargetGuardsTest, WaitsForOneThatIsJustEnding) {
  auto first = std::make_unique<TargetGuards>();
  TargetGuards second;
  ASSERT_TRUE(first->hold(root / "t0").ok());
  std::optional<Result<void>> held;
  world.spawn([](TargetGuards* g, Env env, std::string place, std::optional<Result<void>>* out) -> Task<void> {
    Result<void> done = co_await g->hold_soon(env, place);
    out->emplace(std::move(done));
  }(&second, machine.env(), root / "t0", &held));
  world.run_for(seconds(1));
  EXPECT_FALSE(held);
  first.reset();
  world.run_for(seconds(1));
  ASSERT_TRUE(held);
  EXPECT_TRUE(held->ok());
}

TEST_F(TargetGuardsTest, WhatIsMissingHasNoGuardAndIsNoError) {
  TargetGuards guards;
  EXPECT_TRUE(guards.hold(root / "none").ok());
  EXPECT_TRUE(guards.hold("/dev/no-such-device").ok());
  std::ofstream(root / "t0" / "device") << "/dev/no-such-device\n";
  EXPECT_EQ(device_named_in(root / "t0"), "/dev/no-such-device");
  EXPECT_TRUE(guards.hold(root / "t0").ok());
  EXPECT_EQ(device_named_in(root / "t1"), "");
}

}  // namespace
}  // namespace headrace
