// A node that loses targets: noticed, rebuilt, repaired, replaced, forgotten.
#include "apps/target_keeper.h"

#include "apps/node_test_support.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

struct TargetKeeperTest : NodeTest {
  NodeProcess* process = nullptr;
  std::unique_ptr<Client> client;
  std::map<std::string, std::string> written;

  void begin(int files = 24) {
    process = &start_node();
    client = start_client(client_machine);
    for (int i = 0; i < files; ++i) {
      std::string name = "f" + std::to_string(i);
      written[name] = pattern(static_cast<size_t>(i % 6) * 180'000 + 10, static_cast<uint64_t>(i));
      write_file(*client, kRootFile, name, written[name]);
    }
  }
  TargetKeeper& keeper() { return process->node->keeper(); }
  static std::string file(uint32_t number) { return "/state/targets/t" + std::to_string(number) + "/target.dat"; }
  TargetInfo info(uint32_t number) {
    for (const TargetInfo& target : process->node->map().targets)
      if (target.number == number && target.state != TargetState::kRetired) return target;
    return {};
  }
  bool lost(uint32_t number) {
    return world.run_until([&] { return info(number).state == TargetState::kLost; });
  }
  // Nothing cached: by another client.
  void expect_all(const char* when) {
    auto other = start_client(other_machine);
    for (const auto& [name, bytes] : written)
      EXPECT_TRUE(read_file(*other, kRootFile, name) == bytes) << when << ": " << name;
    keeper().report(other->take_damage());
    degraded = other->counters().segments.degraded_reads;
    EXPECT_TRUE(world.run(other->shut_down()).ok());
  }
  // Addresses of the first block of bytes of every fragment of a target.
  std::vector<uint64_t> payloads(uint32_t number) {
    std::vector<uint64_t> out;
    Buffer bytes = node_machine.disk().contents(file(number));
    for (uint64_t at = 0; at + kBlock <= bytes.size(); at += kBlock) {
      if (bytes.text().substr(at, 4) != "HRF1") continue;
      Result<FragmentHeader> header = decode_fragment_header(bytes.view().subspan(at), info(number).id, at);
      if (header.ok() && header->protection.data > 1)
        out.push_back(at + fragment_header_size(header->crcs.size() * kBlock));
    }
    return out;
  }
  uint64_t degraded = 0;
};

TEST_F(TargetKeeperTest, ALostTargetIsNoticedReplacedAndRebuiltAndTwoMoreMayFollow) {
  begin();
  ASSERT_TRUE(node_machine.disk().erase(file(1)));
  ASSERT_TRUE(lost(1));
  EXPECT_TRUE(world.run_until([&] { return keeper().counters().targets_lost == 1; }));
  expect_all("with one lost");
  EXPECT_GT(degraded, 0u);
  // Six targets, 4+2: there is none to rebuild on.
  ASSERT_TRUE(world.run_until([&] { return !keeper().rebuild_of(info(1).id).last_error.empty(); }));
  TargetId old = info(1).id;
  Result<TargetId> fresh = world.run(keeper().replace(1));
  ASSERT_TRUE(fresh.ok()) << fresh.error().text();
  EXPECT_NE(*fresh, old);
  EXPECT_EQ(info(1).state, TargetState::kLive);
  ASSERT_TRUE(world.run_until([&] { return keeper().rebuild_of(old).step == TargetRebuild::Step::kDone; }));
  EXPECT_GT(keeper().counters().segments_rebuilt, 0u);
  EXPECT_GT(keeper().counters().bytes_rebuilt, 0u);
  expect_all("rebuilt");
  EXPECT_EQ(degraded, 0u);
  for (uint32_t number : {3u, 5u}) ASSERT_TRUE(node_machine.disk().erase(file(number)));
  for (uint32_t number : {3u, 5u}) ASSERT_TRUE(lost(number)) << number;
  expect_all("with two more lost");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, AReplacedTargetIsForgottenWhenNothingNamesIt) {
  begin(8);
  TargetId old = info(2).id;
  ASSERT_TRUE(node_machine.disk().erase(file(2)));
  ASSERT_TRUE(lost(2));
  ASSERT_TRUE(world.run(keeper().replace(2)).ok());
  EXPECT_NE(process->node->map().target(old), nullptr);  // retired: clients may still commit what they wrote there
  world.run_for(seconds(400));
  EXPECT_EQ(process->node->map().target(old), nullptr);
  expect_all("with the old one forgotten");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, BadInputDamagedFragmentsThatReadsMetAreRepairedInPlace) {
  begin();
  size_t flipped = 0;
  for (uint64_t at : payloads(0)) {
    ASSERT_TRUE(node_machine.disk().flip(file(0), at + 100));
    ++flipped;
  }
  ASSERT_GT(flipped, 0u);
  expect_all("with a bit of every fragment of t0 flipped");
  EXPECT_GT(degraded, 0u);
  ASSERT_TRUE(
      world.run_until([&] { return keeper().counters().repaired > 0 && keeper().counters().damage_waiting == 0; }));
  EXPECT_EQ(info(0).state, TargetState::kLive);
  EXPECT_EQ(keeper().counters().repair_failed, 0u);
  expect_all("repaired");
  EXPECT_EQ(degraded, 0u);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, BadInputReportsOfWhatIsNotDamagedChangeNothing) {
  begin(8);
  std::vector<Damage> made_up;
  NamespaceId mine = process->node->map().name_space;
  for (uint64_t i = 0; i < 200; ++i) {
    Damage damage;
    damage.segment = SegmentId(mine, Slot(static_cast<uint16_t>(i * 300)), NamespaceEpoch(1), i + 1);
    damage.index = static_cast<uint8_t>(i % 7);
    damage.target = i % 3 == 0 ? TargetId(i + 1) : info(static_cast<uint32_t>(i % 6)).id;
    made_up.push_back(damage);
  }
  keeper().report(made_up);
  ASSERT_TRUE(world.run_until([&] { return keeper().counters().damage_waiting == 0; }));
  EXPECT_EQ(keeper().counters().repaired, 0u);
  EXPECT_EQ(keeper().counters().targets_lost, 0u);
  expect_all("after reports that were made up");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, BadInputOnlyALostTargetOfThisNodeIsReplaced) {
  begin(3);
  Result<TargetId> live = world.run(keeper().replace(4));
  EXPECT_EQ(live.code(), Code::kInvalid);
  EXPECT_NE(live.error().message().find("headrace target list"), std::string::npos) << live.error().text();
  Result<TargetId> none = world.run(keeper().replace(17));
  EXPECT_EQ(none.code(), Code::kInvalid);
  EXPECT_NE(none.error().message().find("t0, t1, t2, t3, t4, t5"), std::string::npos) << none.error().text();
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, BadInputNoTargetIsReplacedOverWhatIsSomebodyElses) {
  capacity = 32 * kMiB;
  use_devices();
  begin(6);
  make_foreign("/dev/c");
  ASSERT_TRUE(lost(2));
  Result<TargetId> refused = world.run(keeper().replace(2));
  EXPECT_EQ(refused.code(), Code::kExists);
  EXPECT_NE(refused.error().message().find("/dev/c holds an ext file system"), std::string::npos);
  EXPECT_NE(refused.error().message().find("--force"), std::string::npos) << refused.error().text();
  EXPECT_TRUE(is_foreign("/dev/c"));
  EXPECT_EQ(info(2).state, TargetState::kLost);
  // A disk of another of its targets is none for it either.
  ASSERT_TRUE(world.run(set_target_place(node_machine.env(), "/state/targets/t2", "/dev/e")).ok());
  refused = world.run(keeper().replace(2));
  EXPECT_EQ(refused.code(), Code::kExists);
  EXPECT_NE(refused.error().message().find("/dev/e holds target t4"), std::string::npos) << refused.error().text();
  expect_all("refused");
  // An empty one is, and so is any when the operator says so.
  make_device("/dev/x");
  ASSERT_TRUE(world.run(set_target_place(node_machine.env(), "/state/targets/t2", "/dev/x")).ok());
  ASSERT_TRUE(world.run(keeper().replace(2)).ok());
  make_foreign("/dev/a");
  ASSERT_TRUE(lost(0));
  ASSERT_TRUE(world.run(keeper().replace(0, true)).ok());
  EXPECT_FALSE(is_foreign("/dev/a"));
  expect_all("replaced");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, ATargetWhoseSuperblocksAreGoneIsReplacedOnItsDevice) {
  capacity = 32 * kMiB;
  use_devices();
  begin(6);
  {
    auto file = world.run(node_machine.env().disk.open("/dev/d", {}));
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(world.run((*file)->write(0, std::vector<Buffer>(1, Buffer::zeroed(kLogOffset)))).ok());
  }
  ASSERT_TRUE(lost(3));
  Result<TargetId> fresh = world.run(keeper().replace(3));
  EXPECT_TRUE(fresh.ok()) << fresh.error().text();
  expect_all("replaced");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// Emptied, superblocks and all, while the node has the file open: what is in memory would not survive a restart.
TEST_F(TargetKeeperTest, BadInputAnEmptiedFileUnderARunningNodeIsALostTarget) {
  begin();
  auto opened = world.run(node_machine.env().disk.open(file(2), {}));
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(world.run((*opened)->resize(0)).ok());
  ASSERT_TRUE(lost(2));
  expect_all("with t2 emptied");
  ASSERT_TRUE(world.run(keeper().replace(2)).ok());
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  expect_all("after power loss");
}

// Its own checksums hold: only the stripe tells that it is wrong.
TEST_F(TargetKeeperTest, BadInputAParityThatDoesNotFitItsStripeIsMended) {
  begin();
  std::shared_ptr<Target> target;
  std::optional<FragmentEntry> entry;
  for (const auto& one : process->node->targets().targets()) {
    Result<InventoryReply> there = one->inventory({one->id(), {}, 10'000});
    ASSERT_TRUE(there.ok());
    for (const InventoryItem& item : there->items) {
      std::optional<FragmentEntry> found = one->find(item.fragment);
      if (entry || !found || found->protection.data < 2 || found->name.index < found->protection.data) continue;
      target = one;
      entry = found;
    }
  }
  ASSERT_TRUE(entry);
  const FragmentName name = entry->name;
  const uint64_t size = fragment_size(entry->segment_length, entry->protection.data);
  FragmentRead all{target->id(), name.segment, name.index, 0, size};
  Result<FragmentReadReply> right = world.run(target->read(all));
  ASSERT_TRUE(right.ok());
  const PartitionInfo home = *process->node->map().partition_of(name.segment.home());
  ASSERT_TRUE(world.run(target->free({target->id(), {name}}, home.id, home.epoch)).ok());
  FragmentWrite wrong;
  wrong.target = target->id();
  wrong.segment = name.segment;
  wrong.index = name.index;
  wrong.protection = entry->protection;
  wrong.segment_length = entry->segment_length;
  wrong.payload = Buffer::copy_of(bytes_of(pattern(size, 99)));
  wrong.crcs = block_crcs(wrong.segment, wrong.index, 0, wrong.payload.view());
  ASSERT_TRUE(world.run(target->write(std::move(wrong))).ok());
  // One stripe in sixteen at a time.
  for (int i = 0; i < 16; ++i) {
    Result<uint64_t> run = keeper().scrubber().ask(std::nullopt);
    ASSERT_TRUE(run.ok());
    ASSERT_TRUE(world.run_until([&] { return keeper().scrubber().status().run_ended >= *run; }));
  }
  EXPECT_EQ(keeper().scrubber().status().ever.parity_wrong, 1u);
  ASSERT_TRUE(world.run_until([&] { return keeper().counters().repaired == 1; }));
  Result<FragmentReadReply> mended = world.run(target->read(all));
  ASSERT_TRUE(mended.ok());
  EXPECT_TRUE(mended->payload.text() == right->payload.text());
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// The coordinator's disk is full just then.
TEST_F(TargetKeeperTest, ALossThatCouldNotBeStoredIsStoredLater) {
  begin(6);
  DiskOptions& disk = node_machine.disk().options;
  disk.eligible = [](const std::string& path) { return path.starts_with("/state/coord"); };
  disk.write_fails = 1;
  ASSERT_TRUE(node_machine.disk().exists(file(2)));
  auto opened = world.run(node_machine.env().disk.open(file(2), {}));
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(world.run((*opened)->resize(0)).ok());
  ASSERT_TRUE(world.run_until([&] { return process->node->targets().find(info(2).id) == nullptr; }));
  world.run_for(seconds(3));
  EXPECT_EQ(info(2).state, TargetState::kLive);
  disk.write_fails = 0;
  EXPECT_TRUE(world.run_until([&] { return info(2).state == TargetState::kLost; }, seconds(60)));
  EXPECT_TRUE(world.run_until([&] { return keeper().counters().targets_lost == 1; }));
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, NewFragmentsGoWhereThereIsRoom) {
  targets = 8;
  capacity = 64 * kMiB;
  begin(0);
  for (uint32_t number : {1u, 6u}) {
    std::shared_ptr<Target> target = process->node->targets().find(info(number).id);
    for (uint64_t i = 0; i < 58; ++i) {
      FragmentWrite filler;
      filler.target = target->id();
      filler.segment = SegmentId(process->node->map().name_space, Slot(1), NamespaceEpoch(1), 1'000'000 + i);
      filler.protection = {4, 2};
      filler.segment_length = 4 * kMiB;
      filler.payload = Buffer::zeroed(kMiB);
      filler.crcs = block_crcs(filler.segment, 0, 0, filler.payload.view());
      ASSERT_TRUE(world.run(target->write(std::move(filler))).ok()) << i;
    }
  }
  world.run_for(seconds(2));
  auto held = [&](uint32_t number) { return process->node->targets().find(info(number).id)->status().fragments; };
  const uint64_t before = held(1) + held(6);
  for (int i = 0; i < 40; ++i) {
    std::string name = "f" + std::to_string(i);
    written[name] = pattern(200'000, static_cast<uint64_t>(i));
    write_file(*client, kRootFile, name, written[name]);
  }
  uint64_t fresh = 0;
  for (uint32_t number : {0u, 2u, 3u, 4u, 5u, 7u}) fresh += held(number);
  const uint64_t on_full = held(1) + held(6) - before;
  EXPECT_GT(fresh, 200u);
  EXPECT_LT(on_full, fresh / 12) << "of " << fresh;  // a third of that of the others by their number
  expect_all("on eight");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// One disk hangs for good, another one's flush fails: both are lost, and what they hold can be read.
TEST_F(TargetKeeperTest, ADiskThatHangsIsLostAndHoldsUpNoOther) {
  targets = 8;
  begin();
  DiskOptions& disk = node_machine.disk().options;
  disk.slow = [](const std::string& path) { return path == file(2); };
  disk.slow_factor = 1e9;
  disk.longest = seconds(100'000);
  world.run_for(seconds(11));  // the keeper looks at its devices
  disk.eligible = [](const std::string& path) { return path == file(5); };
  disk.flush_fails = 1;
  int more = 0;
  auto write_some = [&] {
    auto other = start_client(other_machine);
    for (int i = 0; i < 4; ++i, ++more) {
      std::string name = "more" + std::to_string(more);
      written[name] = pattern(300'000, static_cast<uint64_t>(1000 + more));
      write_file(*other, kRootFile, name, written[name]);
    }
    EXPECT_TRUE(world.run(other->shut_down()).ok());
  };
  const Nanos began = world.now();
  while (info(5).state != TargetState::kLost && world.now() - began < seconds(40)) write_some();
  EXPECT_EQ(info(5).state, TargetState::kLost);
  while (info(2).state != TargetState::kLost && world.now() - began < seconds(120)) write_some();
  ASSERT_EQ(info(2).state, TargetState::kLost);
  EXPECT_NE(process->node->targets().find(info(2).id)->status().reason.find("has not answered"), std::string::npos);
  expect_all("with one hung and one fenced");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
  EXPECT_TRUE(world.run_until(process->node->stop(), seconds(120)));
}

// 4+2 on eight: two may go. Restarted in the middle, it goes on.
TEST_F(TargetKeeperTest, ARemovedTargetIsEmptiedWhileItServesAndLeavesTheMap) {
  targets = 8;
  begin();
  const TargetId going = info(3).id;
  EXPECT_EQ(world.run(keeper().remove(19)).code(), Code::kInvalid);
  ASSERT_TRUE(world.run(keeper().remove(3)).ok());
  EXPECT_EQ(info(3).state, TargetState::kDraining);
  EXPECT_EQ(world.run(keeper().replace(3)).code(), Code::kInvalid) << "what it holds is needed yet";
  for (int i = 0; i < 12; ++i) {  // what is written now goes elsewhere
    std::string name = "later" + std::to_string(i);
    written[name] = pattern(300'000 + static_cast<size_t>(i), static_cast<uint64_t>(100 + i));
    write_file(*client, kRootFile, name, written[name]);
  }
  expect_all("while it drains");
  EXPECT_EQ(degraded, 0u);  // it serves what it holds
  const uint64_t moved = keeper().counters().segments_rebuilt;
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  EXPECT_EQ(info(3).state, TargetState::kDraining);
  ASSERT_TRUE(world.run(keeper().remove(3)).ok());  // asked again: it goes on
  ASSERT_TRUE(world.run_until([&] { return process->node->map().target(going) == nullptr; }, seconds(900)));
  EXPECT_GT(moved + keeper().counters().segments_rebuilt, 0u);
  EXPECT_TRUE(world.run_until([&] { return process->node->targets().find(going) == nullptr; }, seconds(10)));
  expect_all("removed");
  EXPECT_EQ(degraded, 0u);
  // Its files may be deleted, another may follow, and two of those that are left may be lost.
  ASSERT_TRUE(node_machine.disk().erase(file(3)));
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  expect_all("started without it");
  const TargetId second = info(0).id;
  ASSERT_TRUE(world.run(keeper().remove(0)).ok());
  ASSERT_TRUE(world.run_until([&] { return process->node->map().target(second) == nullptr; }, seconds(900)));
  for (uint32_t number : {1u, 6u}) ASSERT_TRUE(node_machine.disk().erase(file(number)));
  for (uint32_t number : {1u, 6u}) ASSERT_TRUE(lost(number)) << number;
  expect_all("with two of six lost");
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(TargetKeeperTest, BadInputNoTargetIsRemovedThatTheProtectionNeeds) {
  begin(3);
  Result<void> refused = world.run(keeper().remove(2));
  EXPECT_EQ(refused.code(), Code::kInvalid);
  EXPECT_NE(refused.error().message().find("4+2 needs 6 targets, and 5 live ones would be left"), std::string::npos)
      << refused.error().text();
  EXPECT_EQ(info(2).state, TargetState::kLive);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// One that is draining and dies is rebuilt from the others, and goes all the same.
TEST_F(TargetKeeperTest, ADrainingTargetThatIsLostGoesToo) {
  targets = 7;
  begin();
  const TargetId going = info(5).id;
  ASSERT_TRUE(node_machine.disk().erase(file(5)));
  ASSERT_TRUE(world.run(keeper().remove(5)).ok());
  ASSERT_TRUE(world.run_until([&] { return process->node->map().target(going) == nullptr; }, seconds(900)));
  expect_all("removed though it was lost");
  EXPECT_EQ(degraded, 0u);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

}  // namespace
}  // namespace headrace
