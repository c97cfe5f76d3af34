#include "coord/embedded/embedded_coordinator.h"

#include <gtest/gtest.h>

#include "coord/embedded/coord_file.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

constexpr const char* kPath = "state/coord";

// Puts 1, 2, 3 … under one key and notes the last that was acknowledged.
struct Counter : Process {
  Counter(Env& e, uint64_t& acked) : env(e), coordinator(e, kPath), acknowledged(acked) {}
  Task<void> run() override {
    auto made = co_await env.disk.make_directories("state");
    if (!made.ok()) co_return;
    auto synced = co_await env.disk.sync_directory("state");
    if (!synced.ok()) co_return;
    loaded = co_await coordinator.load();
    if (!loaded.ok()) co_return;
    auto there = co_await coordinator.get("n");
    if (!there.ok()) co_return;
    found = there->version;
    uint64_t version = there->version;
    for (int i = 0; i < 5; ++i) {
      auto put = co_await coordinator.put("n", std::to_string(version + 1), version);
      if (!put.ok()) co_return;
      version = acknowledged = *put;
    }
    done = true;
  }
  Env env;
  EmbeddedCoordinator coordinator;
  uint64_t& acknowledged;
  Result<void> loaded;
  uint64_t found = 0;
  bool done = false;
};

void lose_power_at(uint64_t step, bool& finished) {
  World world(17 + step, {});
  Machine& machine = world.add_machine("node");
  uint64_t acknowledged = 0;
  machine.start([&](Env& env) { return std::make_unique<Counter>(env, acknowledged); });
  for (uint64_t i = 0; i < step && machine.running(); ++i) world.step();
  finished = !machine.running();
  if (!finished) machine.crash(CrashKind::kPower);
  uint64_t before = acknowledged;
  Counter* again = nullptr;
  uint64_t found = 0;
  machine.start([&](Env& env) {
    auto process = std::make_unique<Counter>(env, acknowledged);
    again = process.get();
    return process;
  });
  ASSERT_TRUE(world.run_until([&] {
    if (again != nullptr && again->found > 0) found = again->found;
    return !machine.running();
  }));
  EXPECT_GE(acknowledged, before + 5) << "after step " << step;
}

TEST(EmbeddedCoordinator, KeepsEveryAcknowledgedPutThroughPowerLossAtAnyStep) {
  bool finished = false;
  for (uint64_t step = 0; !finished && step < 2000; ++step) lose_power_at(step, finished);
  EXPECT_TRUE(finished) << "the sweep did not reach the end of the run";
}

TEST(EmbeddedCoordinator, RefusesAPutThatComparedWithAnOldVersion) {
  CoordTable table;
  auto first = table.put("k", "a", 0);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(table.put("k", "b", 0).code(), Code::kConflict);
  auto second = table.put("k", "b", *first);
  ASSERT_TRUE(second.ok());
  EXPECT_GT(*second, *first);
  EXPECT_EQ(table.get("k").value, "b");
  EXPECT_EQ(table.get("absent").version, 0u);
}

TEST(EmbeddedCoordinatorBadInput, EveryFlippedOrMissingByteIsFound) {
  CoordTable table;
  ASSERT_TRUE(table.put("map", std::string(300, 'm'), 0).ok());
  ASSERT_TRUE(table.put("partition/0", "p", 0).ok());
  const std::string good = encode_coord_file(table);
  ASSERT_TRUE(decode_coord_file(bytes_of(good)).ok());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    EXPECT_FALSE(decode_coord_file(bytes_of(bad)).ok()) << "byte " << i;
    EXPECT_FALSE(decode_coord_file(bytes_of(good.substr(0, i))).ok()) << "cut at " << i;
  }
}

}  // namespace
}  // namespace headrace
