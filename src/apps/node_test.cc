// A node and clients over the simulator: the whole path of names and data, through crashes.
#include "apps/node_status.h"
#include "apps/node_test_support.h"

namespace headrace {
namespace {

TEST_F(NodeTest, NamesAndDataComeBackFromAnotherClient) {
  start_node();
  auto client = start_client(client_machine);
  Attributes a = make_directory(*client, kRootFile, "a");
  Attributes b = make_directory(*client, a.id, "b");
  std::string small = pattern(700, 1);
  std::string large = pattern(20 * kMiB + 123, 2);
  write_file(*client, b.id, "small", small);
  write_file(*client, b.id, "large", large);
  EXPECT_TRUE(read_file(*client, b.id, "small") == small);
  auto other = start_client(other_machine);
  EXPECT_TRUE(read_file(*other, b.id, "small") == small);
  EXPECT_TRUE(read_file(*other, b.id, "large") == large);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
  EXPECT_TRUE(world.run(other->shut_down()).ok());
}

TEST_F(NodeTest, WhatFsyncAcknowledgedSurvivesPowerLossOfTheNode) {
  start_node();
  std::map<std::string, std::string> written;
  FileId directory;
  {
    auto client = start_client(client_machine);
    directory = make_directory(*client, kRootFile, "d").id;
    for (int i = 0; i < 40; ++i) {
      std::string name = "f" + std::to_string(i);
      written[name] = pattern(static_cast<size_t>(i) * 9'000, static_cast<uint64_t>(i));
      write_file(*client, directory, name, written[name]);
    }
  }
  node_machine.crash(CrashKind::kPower);
  start_node();
  auto client = start_client(client_machine);
  for (const auto& [name, bytes] : written) EXPECT_TRUE(read_file(*client, directory, name) == bytes) << name;
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, ANodeRestartIsAPauseForItsClients) {
  start_node();
  auto client = start_client(client_machine);
  FileId directory = make_directory(*client, kRootFile, "d").id;
  std::string bytes = pattern(100'000, 5);
  write_file(*client, directory, "before", bytes, false);  // still in the client's memory
  node_machine.crash(CrashKind::kProcess);
  start_node();
  write_file(*client, directory, "after", bytes);
  EXPECT_TRUE(world.run(client->sync_all()).ok());
  EXPECT_TRUE(read_file(*client, directory, "before") == bytes);
  EXPECT_TRUE(read_file(*client, directory, "after") == bytes);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, DevicesThatDoNotAnswerHoldUpNoStart) {
  start_node();
  const std::string bytes = pattern(100'000, 5);
  leave_file("kept", bytes);
  node_machine.crash(CrashKind::kProcess);
  DiskOptions& disk = node_machine.disk().options;
  disk.slow = [](const std::string& path) {
    return path.starts_with("/state/targets/t2/") || path.starts_with("/state/targets/t4/");
  };
  disk.slow_factor = 1e9;
  disk.longest = seconds(100'000);
  const Nanos began = world.now();
  NodeProcess& process = start_node();
  EXPECT_LT(world.now() - began, seconds(60));
  for (const TargetInfo& info : process.node->map().targets) {
    const bool hangs = info.number == 2 || info.number == 4;
    EXPECT_EQ(info.state, hangs ? TargetState::kLost : TargetState::kLive) << info.number;
    const std::optional<std::string> why = process.node->targets().why_out(info.id);
    EXPECT_EQ(why.value_or("").contains("has not answered for 30 s"), hangs) << info.number << ": " << why.value_or("");
  }
  auto client = start_client(client_machine);
  EXPECT_TRUE(read_file(*client, kRootFile, "kept") == bytes);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
  // It has lost nothing.
  node_machine.crash(CrashKind::kProcess);
  disk.slow_factor = 1;
  NodeProcess& again = start_node();
  for (const TargetInfo& info : again.node->map().targets) EXPECT_EQ(info.state, TargetState::kLive) << info.number;
}

TEST_F(NodeTest, DirectoriesMoveBetweenPartitionsAndNeverBelowThemselves) {
  start_node();
  auto client = start_client(client_machine);
  std::vector<Attributes> made;
  for (int i = 0; i < 12; ++i) made.push_back(make_directory(*client, kRootFile, "d" + std::to_string(i)));
  Attributes inner = make_directory(*client, made[0].id, "inner");
  FileSystem::RenameOptions move;
  move.from_parent = kRootFile;
  move.from_name = "d0";
  move.to_parent = inner.id;
  move.to_name = "loop";
  EXPECT_EQ(world.run(client->rename(move)).code(), Code::kInvalid);
  for (int i = 1; i < 12; ++i) {
    move.from_parent = kRootFile;
    move.from_name = "d" + std::to_string(i);
    move.to_parent = made[0].id;
    move.to_name = "moved" + std::to_string(i);
    auto moved = world.run(client->rename(move));
    EXPECT_TRUE(moved.ok()) << i << ": " << (moved.ok() ? "" : moved.error().text());
  }
  auto attributes = world.run(client->get_attributes(made[0].id));
  ASSERT_TRUE(attributes.ok());
  EXPECT_EQ(attributes->links, 2u + 1 + 11);
  EXPECT_EQ(world.run(client->remove_directory(kRootFile, "d0")).code(), Code::kNotEmpty);
  for (int i = 1; i < 12; ++i) {
    auto removed = world.run(client->remove_directory(made[0].id, "moved" + std::to_string(i)));
    EXPECT_TRUE(removed.ok()) << i << ": " << (removed.ok() ? "" : removed.error().text());
  }
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// It holds the lock of a directory that goes or moves until it has the answer: its names can only be dropped then.
TEST_F(NodeTest, AKernelIsNotWaitedForInADirectoryThatIsRemovedOrMoved) {
  start_node();
  auto client = start_client(client_machine);
  struct Hook {
    static Task<void> run(Event& released) { co_await released.wait(); }
  };
  Event released;
  client->on_invalidate([&](FileSystem::Invalidation) { return Hook::run(released); });
  FileId away = make_directory(*client, kRootFile, "away").id;
  for (int i = 0; i < 12; ++i) {
    const std::string name = "d" + std::to_string(i);
    FileId directory = make_directory(*client, kRootFile, name).id;
    write_file(*client, directory, "f", "x");
    EXPECT_TRUE(world.run(client->unlink(directory, "f")).ok());
    const Nanos before = world.now();
    if (i % 2 == 0) {
      EXPECT_TRUE(world.run(client->remove_directory(kRootFile, name)).ok());
    } else {
      FileId replaced = make_directory(*client, away, name).id;
      (void)world.run(client->lookup(replaced, "nothing"));
      EXPECT_TRUE(
          world.run(client->rename({.from_parent = kRootFile, .from_name = name, .to_parent = away, .to_name = name}))
              .ok());
    }
    EXPECT_LT((world.now() - before).seconds(), 0.5) << name;
  }
  released.set();
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, HardLinksAcrossPartitionsCountExactly) {
  start_node();
  auto client = start_client(client_machine);
  FileId file = write_file(*client, kRootFile, "f", "x");
  std::vector<FileId> directories;
  for (int i = 0; i < 8; ++i) {
    directories.push_back(make_directory(*client, kRootFile, "d" + std::to_string(i)).id);
    auto linked = world.run(client->link(file, directories.back(), "l"));
    EXPECT_TRUE(linked.ok()) << (linked.ok() ? "" : linked.error().text());
  }
  auto attributes = world.run(client->get_attributes(file));
  ASSERT_TRUE(attributes.ok());
  EXPECT_EQ(attributes->links, 9u);
  EXPECT_TRUE(world.run(client->unlink(kRootFile, "f")).ok());
  for (FileId directory : directories) {
    EXPECT_EQ(read_file(*client, directory, "l"), "x");
    EXPECT_TRUE(world.run(client->unlink(directory, "l")).ok());
  }
  EXPECT_EQ(world.run(client->lookup(kRootFile, "f")).code(), Code::kNotFound);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, TheBucketAloneBringsEverythingBack) {
  NodeProcess& first = start_node();
  std::map<std::string, std::string> written;
  FileId directory;
  {
    auto client = start_client(client_machine);
    directory = make_directory(*client, kRootFile, "d").id;
    for (int i = 0; i < 30; ++i) {
      std::string name = "f" + std::to_string(i);
      written[name] = pattern(static_cast<size_t>(i) * 50'000, static_cast<uint64_t>(i));
      write_file(*client, directory, name, written[name], i % 2 == 0);
    }
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  Result<void> down = world.run(first.node->tier().spin_down());
  ASSERT_TRUE(down.ok()) << down.error().text();
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().wipe();
  start_node(true);
  {
    auto client = start_client(client_machine);
    for (const auto& [name, bytes] : written) EXPECT_TRUE(read_file(*client, directory, name) == bytes) << name;
    written["new"] = pattern(300'000, 77);
    write_file(*client, directory, "new", written["new"]);
    EXPECT_TRUE(world.run(client->unlink(directory, "f3")).ok());
    written.erase("f3");
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  // And it is a cluster like any other: what it acknowledged survives power loss too.
  node_machine.crash(CrashKind::kPower);
  start_node();
  auto client = start_client(client_machine);
  for (const auto& [name, bytes] : written) EXPECT_TRUE(read_file(*client, directory, name) == bytes) << name;
  EXPECT_EQ(world.run(client->lookup(directory, "f3")).code(), Code::kNotFound);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// A crash at any step of a first start on a bucket's manifest: started again, nothing is missing.
TEST_F(NodeTest, ARehydrationThatIsInterruptedGoesOn) {
  NodeProcess& first = start_node();
  std::string bytes = pattern(200'000, 3);
  leave_file("f", bytes);
  ASSERT_TRUE(world.run(first.node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().wipe();
  // Ever later in the start; the last one gets through.
  for (uint64_t steps = 50;; steps += 150) {
    NodeProcess* process = nullptr;
    node_machine.start([&](Env& env) {
      auto made = std::make_unique<NodeProcess>(env, bucket, true);
      process = made.get();
      return made;
    });
    for (uint64_t i = 0; i < steps && !process->serving && !process->failed; ++i) world.step();
    ASSERT_FALSE(process->failed) << process->error << " after " << steps << " steps";
    if (process->serving) break;
    node_machine.crash(CrashKind::kPower);
  }
  auto client = start_client(client_machine);
  EXPECT_TRUE(read_file(*client, kRootFile, "f") == bytes);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// `up` on a state that was spun down: the same cluster, in the next epoch, wherever a start on the way was cut off.
TEST_F(NodeTest, ASpunDownClusterResumesAlsoWhenThatIsInterrupted) {
  NodeProcess* process = &start_node();
  std::string bytes = pattern(400'000, 3);
  FileId directory;
  {
    auto client = start_client(client_machine);
    directory = make_directory(*client, kRootFile, "d").id;
    write_file(*client, directory, "f", bytes);
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  for (uint64_t steps = 50;; steps += 150) {
    node_machine.start([&](Env& env) {
      auto made = std::make_unique<NodeProcess>(env, bucket);
      process = made.get();
      return made;
    });
    for (uint64_t i = 0; i < steps && !process->serving && !process->failed; ++i) world.step();
    ASSERT_FALSE(process->failed) << process->error << " after " << steps << " steps";
    if (process->serving) break;
    node_machine.crash(CrashKind::kPower);
  }
  EXPECT_EQ(process->node->map().namespace_epoch, NamespaceEpoch(2));
  std::string more = pattern(100'000, 4);
  {
    auto client = start_client(client_machine);
    EXPECT_TRUE(read_file(*client, directory, "f") == bytes);
    write_file(*client, directory, "g", more);
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  // Another start is a start like any other, and so is the next round.
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  EXPECT_EQ(process->node->map().namespace_epoch, NamespaceEpoch(2));
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  EXPECT_EQ(process->node->map().namespace_epoch, NamespaceEpoch(3));
  auto client = start_client(client_machine);
  EXPECT_TRUE(read_file(*client, directory, "f") == bytes);
  EXPECT_TRUE(read_file(*client, directory, "g") == more);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, BadInputNoTargetIsMadeAnewOverWhatIsSomebodyElses) {
  capacity = 32 * kMiB;
  use_devices();
  std::string bytes = pattern(300'000, 5);
  NodeProcess* process = &start_node();
  leave_file("f", bytes);
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  // The machine numbers its devices anew: t1's name is now that of a data volume.
  make_foreign("/dev/b");
  process = &try_node();
  EXPECT_TRUE(process->failed);
  EXPECT_NE(process->error.find("/dev/b holds an ext file system, not target t1"), std::string::npos) << process->error;
  EXPECT_NE(process->error.find("/state/targets/t1/device"), std::string::npos) << process->error;
  EXPECT_TRUE(is_foreign("/dev/b"));
  EXPECT_EQ(head_state(), HeadState::kReleased);
  node_machine.crash(CrashKind::kPower);
  // Or another target's.
  make_device("/dev/z");
  ASSERT_TRUE(world.run(set_target_place(node_machine.env(), "/state/targets/t1", "/dev/c")).ok());
  process = &try_node();
  EXPECT_TRUE(process->failed);
  EXPECT_NE(process->error.find("/dev/c holds target t2 of Headrace cluster"), std::string::npos) << process->error;
  EXPECT_EQ(head_state(), HeadState::kReleased);
  node_machine.crash(CrashKind::kPower);
  // Mended, it goes on; what is not needed is overwritten when the operator says so.
  ASSERT_TRUE(world.run(set_target_place(node_machine.env(), "/state/targets/t1", "/dev/z")).ok());
  make_foreign("/dev/d");
  force = true;
  start_node();
  EXPECT_TRUE(is_foreign("/dev/b"));
  EXPECT_FALSE(is_foreign("/dev/d"));
  auto client = start_client(client_machine);
  EXPECT_TRUE(read_file(*client, kRootFile, "f") == bytes);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// Numbers that are published (ids) tell those that follow.
TEST_F(NodeTest, TheNamespacesSecretIsNoneOfTheNumbersThatArePublished) {
  struct Told final : Random {
    uint64_t next() override { return ++last; }
    uint64_t secret() override { return 0x5ec2e7; }
    uint64_t last = 0;
  } told;
  Env env = node_machine.env();
  Env with{env.clock, env.disk, env.net, told, env.blocking};
  EmbeddedCoordinator coordinator(with, "/state/coord", "/state/targets");
  ASSERT_TRUE(world.run(with.disk.make_directories("/state")).ok());
  ASSERT_TRUE(world.run(coordinator.load()).ok());
  BootstrapOptions options;
  options.state = "/state";
  options.address = "sim:node";
  options.target_capacity = 32 * kMiB;
  ASSERT_TRUE(world.run(Node::bootstrap(with, coordinator, options)).ok());
  const uint64_t word = 0x5ec2e7;
  std::string four;
  for (int i = 0; i < 4; ++i) four.append(reinterpret_cast<const char*>(&word), sizeof word);
  EXPECT_EQ(world.run(coordinator.get(kSecretKey))->value, four);
}

// And those that are lost or broken are no reason to fail, while enough are left.
TEST_F(NodeTest, ASpunDownClusterResumesWithoutTheTargetsThatAreBroken) {
  capacity = 32 * kMiB;
  use_devices();
  std::string bytes = pattern(300'000, 5);
  NodeProcess* process = &start_node();
  leave_file("f", bytes);
  auto state_of = [&](uint32_t number) {
    for (const TargetInfo& info : process->node->map().targets)
      if (info.number == number && info.state != TargetState::kRetired) return info.state;
    return TargetState::kRetired;
  };
  // t3's device dies while the node runs, t5's later; t1's still answers reads.
  node_machine.disk().erase("/dev/d");
  ASSERT_TRUE(world.run_until([&] { return state_of(3) == TargetState::kLost; }));
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().erase("/dev/f");
  node_machine.disk().options.write_fails = 1;
  node_machine.disk().options.eligible = [](const std::string& path) { return path == "/dev/b"; };
  process = &start_node();
  for (uint32_t number : {1u, 3u, 5u}) EXPECT_EQ(state_of(number), TargetState::kLost) << number;
  for (uint32_t number : {0u, 2u, 4u}) EXPECT_EQ(state_of(number), TargetState::kLive) << number;
  EXPECT_NE(targets_json(*process->node).find("/dev/d does not exist"), std::string::npos);
  EXPECT_EQ(process->node->map().namespace_epoch, NamespaceEpoch(2));
  // It starts again as it is, and a disk that works takes a lost one's place.
  node_machine.crash(CrashKind::kPower);
  process = &start_node();
  make_device("/dev/d");
  Result<TargetId> fresh = world.run(process->node->keeper().replace(3));
  EXPECT_TRUE(fresh.ok()) << fresh.error().text();
  node_machine.disk().options.write_fails = 0;
  fresh = world.run(process->node->keeper().replace(1));
  EXPECT_TRUE(fresh.ok()) << fresh.error().text();
  auto client = start_client(client_machine);
  EXPECT_TRUE(read_file(*client, kRootFile, "f") == bytes);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, BadInputNothingIsResumedOnTooFewTargets) {
  capacity = 32 * kMiB;
  use_devices();
  NodeProcess* process = &start_node();
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  for (const char* gone : {"/dev/a", "/dev/b", "/dev/c", "/dev/d"}) node_machine.disk().erase(gone);
  process = &try_node();
  EXPECT_TRUE(process->failed);
  EXPECT_NE(process->error.find("4+2 needs at least 3 targets, and only 2 can be used"), std::string::npos)
      << process->error;
  EXPECT_EQ(head_state(), HeadState::kReleased);
  node_machine.crash(CrashKind::kPower);
  make_device("/dev/c");
  process = &start_node();
}

// At no step is a device left as something that is not known to be its target's.
TEST_F(NodeTest, AStartOnDevicesThatIsInterruptedGoesOn) {
  capacity = 32 * kMiB;  // its first table lies in what is looked at
  use_devices();
  NodeProcess* process = nullptr;
  auto start_by_and_by = [&] {
    for (uint64_t steps = 50;; steps += 40) {
      process = begin_node();
      for (uint64_t i = 0; i < steps && !process->serving && !process->failed; ++i) world.step();
      ASSERT_FALSE(process->failed) << process->error << " after " << steps << " steps";
      if (process->serving) return;
      node_machine.crash(CrashKind::kPower);
    }
  };
  start_by_and_by();
  ASSERT_TRUE(world.run(process->node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  start_by_and_by();
  EXPECT_EQ(process->node->map().namespace_epoch, NamespaceEpoch(2));
}

// A spin-down that is cut off at any of its steps: started again, the node serves, be it released or not.
TEST_F(NodeTest, ASpinDownThatIsInterruptedIsUndoneOrTakenUpByTheNextStart) {
  NodeProcess* process = &start_node();
  std::map<std::string, std::string> written;
  for (uint64_t steps = 100; steps < 4'000; steps += 300) {
    {
      auto client = start_client(client_machine);
      std::string name = "f" + std::to_string(steps);
      written[name] = pattern(50'000, steps);
      write_file(*client, kRootFile, name, written[name]);
      EXPECT_TRUE(world.run(client->shut_down()).ok());
    }
    std::optional<Result<void>> down;
    process->scope.spawn([](Node* node, std::optional<Result<void>>* into) -> Task<void> {
      Result<void> done = co_await node->tier().spin_down();
      into->emplace(std::move(done));
    }(process->node.get(), &down));
    for (uint64_t i = 0; i < steps && !down; ++i) world.step();
    node_machine.crash(steps % 200 == 0 ? CrashKind::kPower : CrashKind::kProcess);
    process = &start_node();
    auto client = start_client(client_machine);
    for (const auto& [name, bytes] : written)
      ASSERT_TRUE(read_file(*client, kRootFile, name) == bytes) << name << " at " << steps;
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
}

TEST_F(NodeTest, WhatAnotherClusterHasIsNotResumed) {
  NodeProcess& first = start_node();
  ASSERT_TRUE(world.run(first.node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  // Elsewhere.
  Machine& second = world.add_machine("second");
  NodeProcess* other = nullptr;
  second.start([&](Env& env) {
    auto made = std::make_unique<NodeProcess>(env, bucket, true);
    made->address = "sim:second";
    other = made.get();
    return made;
  });
  ASSERT_TRUE(world.run_until([&] { return other->serving || other->failed; }));
  ASSERT_TRUE(other->serving) << other->error;
  NodeProcess* again = nullptr;
  auto start_again = [&] {
    node_machine.start([&](Env& env) {
      auto made = std::make_unique<NodeProcess>(env, bucket);
      again = made.get();
      return made;
    });
    ASSERT_TRUE(world.run_until([&] { return again->serving || again->failed; }));
  };
  start_again();
  EXPECT_TRUE(again->failed);
  EXPECT_NE(again->error.find("another cluster has the namespace since"), std::string::npos) << again->error;
  node_machine.crash(CrashKind::kPower);
  // Until that one lets go of it.
  ASSERT_TRUE(world.run(other->node->tier().spin_down()).ok());
  second.crash(CrashKind::kPower);
  start_again();
  EXPECT_TRUE(again->serving) << again->error;
  EXPECT_EQ(again->node->map().namespace_epoch, NamespaceEpoch(3));
}

TEST_F(NodeTest, BadInputAnErrorThatIsNotUtf8IsShownAndEndsNothing) {
  NodeProcess& process = start_node();
  const TargetInfo first = process.node->map().targets.front();
  process.node->targets().remove(first.id);
  process.node->targets().add_failed(first.id, first.number, "/mnt/caf\xe9/target.dat: broken");
  EXPECT_NE(status_json(*process.node, process.coordinator).find("target.dat: broken"), std::string::npos);
  EXPECT_NE(targets_json(*process.node).find("target.dat: broken"), std::string::npos);
}

// Its mount was waiting for it. What it acknowledged would be on it alone.
TEST_F(NodeTest, ANodeThatStartsTakesNoChangeBeforeItHasAskedWhoOwnsTheNamespace) {
  NodeProcess& first = start_node();
  auto client = start_client(client_machine);
  FileId directory = make_directory(*client, kRootFile, "d").id;
  write_file(*client, directory, "before", pattern(50'000, 1));
  ASSERT_TRUE(world.run(first.node->push()).ok());
  write_file(*client, directory, "unsent", pattern(50'000, 2), false);
  node_machine.crash(CrashKind::kProcess);
  Machine& second = world.add_machine("second");
  NodeProcess* winner = nullptr;
  second.start([&](Env& env) {
    auto made = std::make_unique<NodeProcess>(env, bucket, true);
    made->address = "sim:second";
    made->take_over = true;
    winner = made.get();
    return made;
  });
  ASSERT_TRUE(world.run_until([&] { return winner->serving || winner->failed; }));
  ASSERT_TRUE(winner->serving) << winner->error;
  // Puts of the coordinator take their time: those between leading the partitions and asking the bucket do, too.
  DiskOptions& disk = node_machine.disk().options;
  disk.slow_factor = 2000;
  disk.slow = [](const std::string& path) { return path.starts_with("/state/coord"); };
  std::optional<Result<void>> synced;
  world.spawn([](Client* c, std::optional<Result<void>>* out) -> Task<void> {
    Result<void> done = co_await c->sync_all();
    out->emplace(std::move(done));
  }(client.get(), &synced));
  NodeProcess& again = start_node();
  world.run_for(seconds(30));
  EXPECT_FALSE(again.node->winner().empty());
  EXPECT_FALSE(synced && synced->ok()) << "acknowledged by a node that does not own the namespace";
  EXPECT_EQ(read_file(*client, directory, "before"), pattern(50'000, 1)) << "reads are answered";
}

// Three times what the hot tier holds: writers wait for the bucket, and everything is there afterwards.
TEST_F(NodeTest, WritingMoreThanTheHotTierHoldsGoesAtThePaceOfTheBucket) {
  capacity = 24 * kMiB;
  NodeProcess& node = start_node();
  std::map<std::string, std::string> written;
  auto client = start_client(client_machine);
  FileId directory = make_directory(*client, kRootFile, "d").id;
  for (uint64_t i = 0; i < 60; ++i) {
    std::string name = "f" + std::to_string(i);
    written[name] = pattern(5 * kMiB + i, i);
    write_file(*client, directory, name, written[name], i % 4 == 3);
  }
  Result<void> all = world.run(client->sync_all());
  EXPECT_TRUE(all.ok()) << (all.ok() ? "" : all.error().text());
  EXPECT_GT(node.node->tier().status().evict.bytes, 0u);
  for (const auto& [name, bytes] : written) ASSERT_TRUE(read_file(*client, directory, name) == bytes) << name;
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

TEST_F(NodeTest, FetchedAndPinnedFilesAreHotAgainAndPinsStay) {
  NodeProcess* node = &start_node();
  auto client = start_client(client_machine);
  FileId directory = make_directory(*client, kRootFile, "d").id;
  FileId inner = make_directory(*client, directory, "e").id;
  std::string a = pattern(6 * kMiB, 1), b = pattern(3 * kMiB, 2);
  write_file(*client, directory, "a", a);
  write_file(*client, inner, "b", b);
  ASSERT_TRUE(world.run(node->node->push()).ok());
  ASSERT_TRUE(world.run(node->node->tier().drop(~uint64_t{0})).ok());
  auto where = world.run(node->node->tier().where("/d"));
  ASSERT_TRUE(where.ok()) << where.error().text();
  EXPECT_EQ(where->files, 2u);
  EXPECT_EQ(where->hot, 0u);
  EXPECT_GE(where->bytes, a.size() + b.size());
  auto fetched = world.run(node->node->tier().fetch("/d/e"));
  ASSERT_TRUE(fetched.ok()) << fetched.error().text();
  EXPECT_EQ(fetched->bytes, fetched->bytes_cold);
  EXPECT_EQ(fetched->failed, 0u) << fetched->last_error;
  where = world.run(node->node->tier().where("/d/e"));
  EXPECT_EQ(where->hot, where->bytes);
  EXPECT_TRUE(read_file(*client, inner, "b") == b);
  EXPECT_EQ(world.run(node->node->tier().fetch("/nowhere")).code(), Code::kNotFound);

  ASSERT_TRUE(world.run(node->node->tier().pins().pin("/d")).ok());
  world.run_for(seconds(60));
  auto pins = node->node->tier().pins().states();
  ASSERT_EQ(pins.size(), 1u);
  EXPECT_TRUE(pins[0].complete) << pins[0].progress.last_error;
  EXPECT_EQ(pins[0].files, 2u);
  // Nothing of it is dropped, not by a new leader either; released, it is.
  ASSERT_TRUE(world.run(node->node->tier().drop(~uint64_t{0})).ok());
  where = world.run(node->node->tier().where("/d"));
  EXPECT_EQ(where->hot, where->bytes);
  EXPECT_TRUE(where->pinned);
  node_machine.crash(CrashKind::kPower);
  node = &start_node();
  world.run_for(seconds(5));
  EXPECT_TRUE(node->node->tier().pins().known());
  ASSERT_TRUE(world.run(node->node->tier().drop(~uint64_t{0})).ok());
  where = world.run(node->node->tier().where("/d"));
  ASSERT_TRUE(where.ok()) << where.error().text();
  EXPECT_EQ(where->hot, where->bytes);
  ASSERT_TRUE(world.run(node->node->tier().pins().release("/d")).ok());
  EXPECT_EQ(world.run(node->node->tier().pins().release("/d")).code(), Code::kNotFound);
  world.run_for(seconds(60));
  ASSERT_TRUE(world.run(node->node->tier().drop(~uint64_t{0})).ok());
  where = world.run(node->node->tier().where("/d"));
  EXPECT_EQ(where->hot, 0u);
  EXPECT_TRUE(read_file(*client, directory, "a") == a);
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// Objects that are mostly dead are rewritten, collected after the horizon, and what lives comes back from the bucket
// alone.
TEST_F(NodeTest, ObjectsThatAreMostlyDeadAreRewrittenAndCollected) {
  tier.publish.horizon = seconds(100);
  NodeProcess& node = start_node();
  std::map<std::string, std::string> written;
  FileId directory;
  {
    auto client = start_client(client_machine);
    directory = make_directory(*client, kRootFile, "d").id;
    for (uint64_t i = 0; i < 10; ++i) {
      std::string name = "f" + std::to_string(i);
      written[name] = pattern(2 * kMiB, i);
      write_file(*client, directory, name, written[name]);  // synced: a segment of its own
    }
    ASSERT_TRUE(world.run(node.node->push()).ok());
    for (uint64_t i = 0; i < 8; ++i) {
      EXPECT_TRUE(world.run(client->unlink(directory, "f" + std::to_string(i))).ok());
      written.erase("f" + std::to_string(i));
    }
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  auto bytes_in_objects = [&] {
    uint64_t bytes = 0;
    for (const auto& [key, object] : bucket->contents())
      if (key.starts_with("d/")) bytes += object.body.size();
    return bytes;
  };
  const uint64_t before = bytes_in_objects();
  EXPECT_GT(before, 19 * kMiB);
  world.run_for(seconds(1200));  // manifests are published meanwhile, and the horizon passes
  EXPECT_GT(node.node->tier().status().upload.rewritten, 0u) << node.node->tier().status().rewrite_error;
  EXPECT_LT(bytes_in_objects(), 5 * kMiB);
  ASSERT_TRUE(world.run(node.node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().wipe();
  start_node(true);
  auto client = start_client(client_machine);
  for (const auto& [name, bytes] : written) EXPECT_TRUE(read_file(*client, directory, name) == bytes) << name;
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

}  // namespace
}  // namespace headrace
