// What tests of a whole node share: a node as a simulated process over a memory bucket, and clients of it.
#pragma once

#include "apps/node.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "client/client.h"
#include "coord/embedded/embedded_coordinator.h"
#include "hot/target_place.h"
#include "meta/store/memory/memory_store.h"
#include "object/memory_store.h"
#include "runtime/sim/world.h"
#include "tier/head.h"

namespace headrace {

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
    HR_CO_TRY(CoordRecord resuming, co_await coordinator.get(kResumeKey));
    if (map.value.empty() && resuming.value.empty()) {
      BootstrapOptions bootstrap;
      bootstrap.state = "/state";
      bootstrap.address = address;
      bootstrap.target_capacity = target_capacity;
      bootstrap.targets = targets_count;
      bootstrap.target_options = targets;
      bootstrap.force = force;
      for (const std::string& device : devices) bootstrap.devices.push_back({device, 0});
      if (rehydrate) {
        AttachOptions attach_options;
        attach_options.cluster = ClusterId(env.random.nonzero());
        attach_options.description = "another cluster";
        attach_options.probe = false;
        attach_options.take_over = take_over;
        HR_CO_TRY(bootstrap.attached, co_await attach(env, coordinator, store, attach_options));
        held = bootstrap.attached->head;
      }
      HR_CO_TRY(co_await Node::bootstrap(env, coordinator, bootstrap));
    } else {
      ResumeFromBucket resume;
      resume.state = "/state";
      resume.address = address;
      resume.description = "the same cluster";
      resume.target_options = targets;
      resume.force = force;
      HR_CO_TRY(held, co_await Node::resume(env, coordinator, store, resume));
    }
    NodeOptions options;
    options.state = "/state";
    options.listen = address;
    options.targets = targets;
    options.tier = tier;
    node = std::make_unique<Node>(env, coordinator, stores, store, options);
    HR_CO_TRY(co_await node->start(std::move(held)));
    serving = true;
    co_return {};
  }
  bool rehydrate;
  bool take_over = false;
  Address address = "sim:node";
  uint64_t target_capacity = 256 * kMiB;  // of each new target
  uint32_t targets_count = 6;
  std::vector<std::string> devices;  // one for each target; none: files
  bool force = false;
  TierOptions tier;
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
  uint64_t capacity = 256 * kMiB;
  uint32_t targets = 6;
  TierOptions tier;

  std::vector<std::string> devices;
  bool force = false;

  NodeProcess* begin_node(bool rehydrate = false) {
    NodeProcess* process = nullptr;
    node_machine.start([&](Env& env) {
      auto made = std::make_unique<NodeProcess>(env, bucket, rehydrate);
      made->target_capacity = capacity;
      made->targets_count = targets;
      made->devices = devices;
      made->force = force;
      made->tier = tier;
      process = made.get();
      return made;
    });
    return process;
  }
  // As far as it gets: it serves, or has failed.
  NodeProcess& try_node(bool rehydrate = false) {
    NodeProcess* process = begin_node(rehydrate);
    EXPECT_TRUE(world.run_until([&] { return process->serving || process->failed; }));
    return *process;
  }
  NodeProcess& start_node(bool rehydrate = false) {
    NodeProcess& process = try_node(rehydrate);
    EXPECT_TRUE(process.serving) << process.error;
    return process;
  }
  // An empty device of a target of `capacity`, durably there.
  void make_device(const std::string& path) {
    Disk& disk = node_machine.env().disk;
    EXPECT_TRUE(world.run(disk.make_directories("/dev")).ok());
    EXPECT_TRUE(world.run(disk.sync_directory("/")).ok());
    node_machine.disk().erase(path);
    Result<std::unique_ptr<File>> file = world.run(disk.open(path, {.create = true}));
    EXPECT_TRUE(file.ok() && world.run((*file)->resize(lay_out(capacity).file_bytes())).ok());
    EXPECT_TRUE(world.run((*file)->flush()).ok());
    EXPECT_TRUE(world.run(disk.sync_directory("/dev")).ok());
  }
  void use_devices() {
    for (uint32_t i = 0; i < targets; ++i) {
      devices.push_back("/dev/" + std::string(1, static_cast<char>('a' + i)));
      make_device(devices.back());
    }
  }
  // Somebody made a file system on it.
  void make_foreign(const std::string& path) {
    make_device(path);
    Result<std::unique_ptr<File>> file = world.run(node_machine.env().disk.open(path, {}));
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(world.run((*file)->write(1080, std::vector<Buffer>(1, Buffer::copy_of(bytes_of("\x53\xef"))))).ok());
    ASSERT_TRUE(world.run((*file)->write(50'000, std::vector<Buffer>(1, Buffer::copy_of(bytes_of("needed"))))).ok());
    ASSERT_TRUE(world.run((*file)->flush()).ok());
  }
  [[nodiscard]] bool is_foreign(const std::string& path) {
    return node_machine.disk().contents(path).text().substr(50'000, 6) == "needed";
  }
  HeadState head_state() {
    MemoryStore store(bucket);
    BucketHead head(node_machine.env(), store);
    Result<HeadVersion> read = world.run(head.read());
    EXPECT_TRUE(read.ok()) << (read.ok() ? "" : read.error().text());
    return read.ok() ? read->record.state : HeadState::kOwned;
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
  FileId write_file(Client& client, FileId parent, const std::string& name, const std::string& bytes,
                    bool sync = true) {
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
  // In the root, by a client that comes for it and leaves.
  void leave_file(const std::string& name, const std::string& bytes) {
    auto client = start_client(client_machine);
    write_file(*client, kRootFile, name, bytes);
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  std::string read_file(Client& client, FileId parent, const std::string& name) {
    auto found = world.run(client.lookup(parent, name));
    if (!found.ok()) return "lookup: " + found.error().text();
    auto opened = world.run(client.open(found->id, OpenMode{}));
    if (!opened.ok()) return "open: " + opened.error().text();
    auto read = world.run(client.read(*opened, 0, found->size + 1));
    std::string out;
    if (!read.ok())
      out = "read: " + read.error().text();
    else
      for (const Buffer& piece : *read) out.append(piece.text());
    auto closed = world.run(client.close(*opened));
    EXPECT_TRUE(closed.ok());
    return out;
  }
};

inline std::string pattern(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random.next());
  return out;
}

}  // namespace headrace
