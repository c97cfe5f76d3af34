#include "apps/device_copies.h"

#include <gtest/gtest.h>

#include "hot/target.h"
#include "hot/target_place.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

constexpr ClusterId kCluster{0xc1};

// A target of a cluster on /dev/a, which the directory /state/targets/t0 names; the cluster's coordinator.
struct DeviceCopiesTest : ::testing::Test {
  DeviceCopiesTest() {
    Disk& disk = machine.env().disk;
    EXPECT_TRUE(world.run(disk.make_directories("/dev")).ok());
    EXPECT_TRUE(world.run(disk.make_directories("/state/targets/t0")).ok());
    EXPECT_TRUE(world.run(disk.sync_directory("/")).ok());
    EXPECT_TRUE(world.run(disk.sync_directory("/state")).ok());
    EXPECT_TRUE(world.run(disk.sync_directory("/state/targets")).ok());
    {
      Result<std::unique_ptr<File>> file = world.run(disk.open("/dev/a", {.create = true}));
      EXPECT_TRUE(file.ok() && world.run((*file)->resize(lay_out(kMinTargetCapacity).file_bytes())).ok());
      EXPECT_TRUE(world.run((*file)->flush()).ok());
    }
    EXPECT_TRUE(world.run(disk.sync_directory("/dev")).ok());
    EXPECT_TRUE(world.run(set_target_place(machine.env(), "/state/targets/t0", "/dev/a")).ok());
  }
  void format(ClusterId cluster) {
    TargetFormat format;
    format.id = TargetId(7);
    format.cluster = cluster;
    format.name_space = NamespaceId(1);
    format.capacity = kMinTargetCapacity;
    Result<std::unique_ptr<Target>> target = world.run(Target::format(machine.env(), "/state/targets/t0", format, {}));
    ASSERT_TRUE(target.ok()) << target.error().text();
    auto closed = [](Target& t) -> Task<Result<void>> {
      co_await t.close();
      co_return Result<void>();
    };
    ASSERT_TRUE(world.run(closed(**target)).ok());
  }
  std::unique_ptr<EmbeddedCoordinator> open() {
    auto out = std::make_unique<EmbeddedCoordinator>(machine.env(), "/state/coord", "/state/targets", &devices);
    Result<void> loaded = world.run(out->load());
    EXPECT_TRUE(loaded.ok()) << loaded.error().text();
    return out;
  }
  static std::string map() {
    ClusterMap map;
    map.cluster = kCluster;
    map.targets.push_back({.id = TargetId(7)});
    return encode_durable(map);
  }
  std::vector<DeviceCopies::Copy> copies() { return world.run(devices.read("/state/targets/t0")); }

  World world{1, {}};
  Machine& machine = world.add_machine("node");
  TargetDeviceCopies devices{machine.env()};
};

TEST_F(DeviceCopiesTest, KeepsTheRecordsOnTheClustersOwnTargetsOnly) {
  format(kCluster);
  auto coordinator = open();
  ASSERT_TRUE(world.run(coordinator->put("forming", "1", 0)).ok());
  for (const DeviceCopies::Copy& copy : copies()) EXPECT_FALSE(copy.table.ok()) << "of no cluster yet";
  ASSERT_TRUE(world.run(coordinator->put(kMapKey, map(), 0)).ok());
  ASSERT_EQ(copies().size(), 2u);
  for (const DeviceCopies::Copy& copy : copies()) {
    ASSERT_TRUE(copy.table.ok()) << copy.table.error().text();
    EXPECT_EQ(copy.table->revision, 2u);
    EXPECT_EQ(cluster_of(*copy.table)->cluster, kCluster);
  }
  // What is no target any more keeps none, and takes none.
  ASSERT_TRUE(world.run(erase_place(machine.env(), "/state/targets/t0", {"/dev/a", true}, {kCluster})).ok());
  for (const DeviceCopies::Copy& copy : copies()) EXPECT_FALSE(copy.table.ok());
  ASSERT_TRUE(world.run(coordinator->put("x", "1", 0)).ok());
  for (const DeviceCopies::Copy& copy : copies()) EXPECT_FALSE(copy.table.ok());
  format(ClusterId(0xbad));
  ASSERT_TRUE(world.run(coordinator->put("x", "2", 1)).ok());
  for (const DeviceCopies::Copy& copy : copies()) EXPECT_FALSE(copy.table.ok()) << "another cluster's";
}

TEST_F(DeviceCopiesTest, ManyRecordsFitNoDeviceAndStopNothing) {
  format(kCluster);
  auto coordinator = open();
  ASSERT_TRUE(world.run(coordinator->put(kMapKey, map(), 0)).ok());
  ASSERT_TRUE(world.run(coordinator->put("large", std::string(kCoordinatorCopyBytes, 'x'), 0)).ok());
  EXPECT_NE(coordinator->copy_error().find("a device keeps no copy"), std::string::npos) << coordinator->copy_error();
  EXPECT_EQ(world.run(coordinator->get("large"))->version, 1u);
}

TEST_F(DeviceCopiesTest, APowerLossLeavesOneOfThemWhole) {
  format(kCluster);
  {
    auto coordinator = open();
    ASSERT_TRUE(world.run(coordinator->put(kMapKey, map(), 0)).ok());
    for (uint64_t i = 0; i < 20; ++i) {
      const std::string records(4'000 + i * 900, 'x');
      bool done = false;
      world.spawn([](EmbeddedCoordinator& c, std::string value, uint64_t version, bool* d) -> Task<void> {
        (void)co_await c.put("x", std::move(value), version);
        *d = true;
      }(*coordinator, records, i, &done));
      // Power fails somewhere in it.
      const Nanos until = world.now() + microseconds(static_cast<int64_t>(world.random().below(3'000)));
      world.run_until([&] { return done || world.now() >= until; });
      if (!done) break;
    }
  }
  machine.crash(CrashKind::kPower);
  size_t whole = 0;
  for (const DeviceCopies::Copy& copy : copies()) whole += copy.table.ok() ? 1 : 0;
  EXPECT_GE(whole, 1u);
}

}  // namespace
}  // namespace headrace
