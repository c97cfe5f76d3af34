// A node whose target lost its log: the scan brings back what the homes claim, and everything is whole again.
#include "apps/node_test_support.h"
#include "hot/target_format.h"

namespace headrace {
namespace {

struct RescueTest : NodeTest {
  Superblock superblock_of(const std::string& file) {
    const Buffer all = node_machine.disk().contents(file);
    Superblock best;
    for (uint64_t offset : kSuperblockOffsets) {
      Result<Superblock> one = decode_superblock(all.view().subspan(offset, kSuperblockBytes));
      if (one.ok() && one->generation > best.generation) best = *one;
    }
    return best;
  }
};

TEST_F(RescueTest, BadInputATargetThatLostItsLogOrTableServesAgainAfterAScan) {
  NodeProcess* process = &start_node();
  std::map<std::string, std::string> files;
  auto fill = [&](const std::string& prefix) {
    auto client = start_client(client_machine);
    for (int i = 0; i < 12; ++i) {
      const std::string name = prefix + std::to_string(i);
      files[name] = pattern(50'000 + 37'000 * static_cast<size_t>(i), static_cast<uint64_t>(i) + prefix.size());
      write_file(*client, kRootFile, name, files[name]);
    }
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  };
  fill("a");
  for (const bool lose_table : {false, true}) {
    SCOPED_TRACE(lose_table);
    node_machine.crash(CrashKind::kPower);
    const std::string file = "/state/targets/t2/target.dat";
    const Superblock superblock = superblock_of(file);
    ASSERT_GT(superblock.generation, 0u);
    if (lose_table) {
      ASSERT_TRUE(node_machine.disk().flip(file, superblock.table_offset(superblock.table) + 50));
    } else {
      // A batch in the middle of the log.
      ASSERT_TRUE(node_machine.disk().flip(file, superblock.log_offset() + 60));
    }
    process = &start_node();
    const TargetId id = superblock.target;
    ASSERT_TRUE(world.run_until([&] { return process->node->keeper().counters().rescued == 1; })) << "not rescued";
    EXPECT_EQ(process->node->map().target(id)->state, TargetState::kLive);
    EXPECT_GT(process->node->targets().find(id)->status().fragments, 0u);
    // What was there and could not be found is made again; then all is whole.
    ASSERT_TRUE(world.run_until([&] {
      const ScrubStatus scrub = process->node->keeper().scrubber().status();
      return scrub.run_ended == scrub.run && scrub.run > 0 && process->node->keeper().counters().damage_waiting == 0;
    }));
    fill(lose_table ? "c" : "b");
    auto client = start_client(other_machine);
    for (const auto& [name, bytes] : files) EXPECT_TRUE(read_file(*client, kRootFile, name) == bytes) << name;
    EXPECT_TRUE(world.run(client->shut_down()).ok());
    Result<uint64_t> run = process->node->keeper().scrubber().ask(std::nullopt);
    ASSERT_TRUE(run.ok());
    ASSERT_TRUE(world.run_until([&] { return process->node->keeper().scrubber().status().run_ended >= *run; }));
    const uint64_t missing = process->node->keeper().scrubber().status().ever.missing;
    run = process->node->keeper().scrubber().ask(std::nullopt);
    ASSERT_TRUE(world.run_until([&] { return process->node->keeper().scrubber().status().run_ended >= *run; }));
    EXPECT_EQ(process->node->keeper().scrubber().status().ever.missing, missing);
    EXPECT_EQ(process->node->keeper().scrubber().status().ever.parity_wrong, 0u);
  }
}

TEST_F(RescueTest, ATargetIsReplacedWhileItIsBeingScanned) {
  NodeProcess* process = &start_node();
  leave_file("f", pattern(400'000, 1));
  node_machine.crash(CrashKind::kPower);
  const std::string file = "/state/targets/t2/target.dat";
  const Superblock superblock = superblock_of(file);
  ASSERT_TRUE(node_machine.disk().flip(file, superblock.log_offset() + 60));
  process = &start_node();
  DiskOptions& disk = node_machine.disk().options;
  disk.slow = [&](const std::string& path) { return path == file; };
  disk.slow_factor = 1e6;
  world.run_for(seconds(5));  // the scan reads
  disk.slow_factor = 1;
  ASSERT_EQ(process->node->keeper().counters().rescued, 0u);
  Result<TargetId> fresh = world.run(process->node->keeper().replace(2));
  ASSERT_TRUE(fresh.ok()) << fresh.error().text();
  ASSERT_TRUE(world.run_until(
      [&] { return process->node->keeper().rebuild_of(superblock.target).step == TargetRebuild::Step::kDone; }));
  EXPECT_EQ(process->node->keeper().counters().rescued, 0u);
  auto client = start_client(other_machine);
  EXPECT_TRUE(read_file(*client, kRootFile, "f") == pattern(400'000, 1));
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(RescueTest, BadInputScrubMendsBitsThatFlippedAtRest) {
  NodeProcess* process = &start_node();
  std::map<std::string, std::string> files;
  {
    auto client = start_client(client_machine);
    for (int i = 0; i < 20; ++i) {
      const std::string name = "f" + std::to_string(i);
      files[name] = pattern(200'000, static_cast<uint64_t>(i) + 1);
      write_file(*client, kRootFile, name, files[name]);
    }
  }
  // Two targets of a 4+2 stripe may be bad at once: a bit in each of their fragments.
  uint64_t flipped = 0;
  for (uint32_t number : {1u, 4u}) {
    for (const auto& target : process->node->targets().targets()) {
      if (target->number() != number) continue;
      Inventory all{target->id(), {}, 10'000};
      Result<InventoryReply> there = target->inventory(all);
      ASSERT_TRUE(there.ok());
      for (const InventoryItem& item : there->items) {
        FragmentEntry entry = *target->find(item.fragment);
        const std::string file = "/state/targets/t" + std::to_string(number) + "/target.dat";
        ASSERT_TRUE(node_machine.disk().flip(
            file, target->superblock().data_offset() + entry.block * kBlock + 4096 + flipped * 13 % 4000));
        ++flipped;
      }
    }
  }
  ASSERT_GT(flipped, 4u);
  Result<uint64_t> run = process->node->keeper().scrubber().ask(std::nullopt);
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(world.run_until([&] {
    return process->node->keeper().scrubber().status().run_ended == *run &&
           process->node->keeper().counters().damage_waiting == 0;
  }));
  EXPECT_EQ(process->node->keeper().scrubber().status().ever.damaged, flipped);
  world.run_for(seconds(5));
  run = process->node->keeper().scrubber().ask(std::nullopt);
  ASSERT_TRUE(world.run_until([&] { return process->node->keeper().scrubber().status().run_ended == *run; }));
  EXPECT_EQ(process->node->keeper().scrubber().status().ever.damaged, flipped) << "the second run finds nothing";
  EXPECT_EQ(process->node->keeper().counters().repair_failed, 0u);
  auto client = start_client(other_machine);
  for (const auto& [name, bytes] : files) EXPECT_TRUE(read_file(*client, kRootFile, name) == bytes) << name;
}

}  // namespace
}  // namespace headrace
