// A node and clients over the simulator: the whole path of names and data, through crashes.
#include "apps/node.h"

#include <gtest/gtest.h>

#include <map>

#include "client/client.h"
#include "coord/embedded/embedded_coordinator.h"
#include "meta/store/memory/memory_store.h"
#include "object/memory_store.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

struct NodeProcess : Process {
  NodeProcess(Env& e, std::shared_ptr<MemoryBucket> bucket, bool take = false)
      : rehydrate(take), env(e), coordinator(e, "/state/coord", "/state/targets"), stores(), store(std::move(bucket)) {}
  Task<void> run() override {
    Result<void> done = co_await serve();
    error = done.ok() ? "" : done.error().text();
    failed = !done.ok();
    if (failed) std::fprintf(stderr, "node: %s\n", error.c_str());
    co_await never.wait();
  }
  Task<Result<void>> serve() {
    HR_CO_TRY(co_await env.disk.make_directories("/state"));
    HR_CO_TRY(co_await env.disk.sync_directory("/"));
    HR_CO_TRY(co_await coordinator.load());
    HR_CO_TRY(CoordRecord map, co_await coordinator.get(kMapKey));
    TargetOptions targets;
    targets.prewrite_ahead = kMiB;
    targets.prewrite_chunk = kMiB;
    if (map.version == 0) {
      BootstrapOptions bootstrap;
      bootstrap.state = "/state";
      bootstrap.address = "sim:node";
      bootstrap.target_capacity = 256 * kMiB;
      bootstrap.target_options = targets;
      if (rehydrate) {
        AttachOptions attach_options;
        attach_options.cluster = ClusterId(env.random.nonzero());
        attach_options.description = "another cluster";
        attach_options.probe = false;
        HR_CO_TRY(bootstrap.attached, co_await attach(env, coordinator, store, attach_options));
        held = bootstrap.attached->head;
      }
      HR_CO_TRY(co_await Node::bootstrap(env, coordinator, bootstrap));
    }
    NodeOptions options;
    options.state = "/state";
    options.listen = "sim:node";
    options.targets = targets;
    node = std::make_unique<Node>(env, coordinator, stores, store, options);
    HR_CO_TRY(co_await node->start(std::move(held)));
    serving = true;
    co_return {};
  }
  bool rehydrate;
  Env env;
  EmbeddedCoordinator coordinator;
  MemoryStoreFactory stores;
  MemoryStore store;
  std::unique_ptr<Node> node;
  std::optional<HeadVersion> held;
  std::string error;
  bool serving = false;
  bool failed = false;
  Event never;
  Scope scope;
};

struct NodeTest : ::testing::Test {
  World world{42, {}};
  Machine& node_machine = world.add_machine("node");
  Machine& client_machine = world.add_machine("client");
  Machine& other_machine = world.add_machine("other");

  std::shared_ptr<MemoryBucket> bucket = std::make_shared<MemoryBucket>();

  NodeProcess& start_node(bool rehydrate = false) {
    NodeProcess* process = nullptr;
    node_machine.start([&](Env& env) {
      auto made = std::make_unique<NodeProcess>(env, bucket, rehydrate);
      process = made.get();
      return made;
    });
    EXPECT_TRUE(world.run_until([&] { return process->serving || process->failed; }));
    EXPECT_TRUE(process->serving) << process->error;
    return *process;
  }
  std::unique_ptr<Client> start_client(Machine& machine) {
    ClientOptions options;
    options.nodes = {"sim:node"};
    Result<std::unique_ptr<Client>> client = world.run(Client::start(machine.env(), options));
    EXPECT_TRUE(client.ok()) << (client.ok() ? "" : client.error().text());
    return *std::move(client);
  }
  Attributes make_directory(Client& client, FileId parent, const std::string& name) {
    MakeOptions options;
    options.type = FileType::kDirectory;
    options.mode = 0755;
    Result<Attributes> made = world.run(client.make(parent, name, options, {}));
    EXPECT_TRUE(made.ok()) << name << ": " << (made.ok() ? "" : made.error().text());
    return made.ok() ? *made : Attributes{};
  }
  FileId write_file(Client& client, FileId parent, const std::string& name, const std::string& bytes, bool sync = true) {
    auto created = world.run(client.create(parent, name, 0644, OpenMode{.read = true, .write = true}, {}));
    EXPECT_TRUE(created.ok()) << name << ": " << (created.ok() ? "" : created.error().text());
    if (!created.ok()) return {};
    auto written = world.run(client.write(created->file, 0, Buffer::copy_of(bytes_of(bytes))));
    EXPECT_TRUE(written.ok());
    if (sync) {
      auto synced = world.run(client.sync(created->attributes.id));
      EXPECT_TRUE(synced.ok()) << (synced.ok() ? "" : synced.error().text());
    }
    auto closed = world.run(client.close(created->file));
    EXPECT_TRUE(closed.ok());
    return created->attributes.id;
  }
  std::string read_file(Client& client, FileId parent, const std::string& name) {
    auto found = world.run(client.lookup(parent, name));
    if (!found.ok()) return "lookup: " + found.error().text();
    auto opened = world.run(client.open(found->id, OpenMode{}));
    if (!opened.ok()) return "open: " + opened.error().text();
    auto read = world.run(client.read(*opened, 0, found->size + 1));
    std::string out;
    if (!read.ok()) out = "read: " + read.error().text();
    else
      for (const Buffer& piece : *read) out.append(piece.text());
    auto closed = world.run(client.close(*opened));
    EXPECT_TRUE(closed.ok());
    return out;
  }
};

std::string pattern(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random.next());
  return out;
}

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
  {
    auto client = start_client(client_machine);
    write_file(*client, kRootFile, "f", bytes);
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run(first.node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().wipe();
  // Ever later in the start; the last one gets through.
  for (uint64_t steps = 50; ; steps += 150) {
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

}  // namespace
}  // namespace headrace
