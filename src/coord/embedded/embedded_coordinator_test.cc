#include "coord/embedded/embedded_coordinator.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "coord/embedded/coord_file.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

constexpr const char* kPath = "/state/coord";

// Puts records for ever, and notes what it was told.
struct Writer : Process {
  struct Told {
    std::map<std::string, uint64_t> acknowledged;  // key → version
    std::map<std::string, uint64_t> attempted;
  };
  Writer(Env& e, Told& t) : env(e), told(t), coordinator(e, kPath) {}
  Task<void> run() override {
    Result<void> made = co_await env.disk.make_directories("/state");
    HR_ASSERT(made.ok());
    Result<void> loaded = co_await coordinator.load();
    if (!loaded.ok()) {
      failure = loaded.error().text();
      co_return;
    }
    for (int i = 0; i < 3; ++i) scope.spawn(put_for_ever("key" + std::to_string(i)));
    co_await scope.join();
  }
  Task<void> put_for_ever(std::string key) {
    while (true) {
      Result<CoordRecord> record = co_await coordinator.get(key);
      HR_ASSERT(record.ok());
      uint64_t version = record->version;
      EXPECT_GE(version, told.acknowledged[key]) << key;
      EXPECT_LE(version, told.attempted[key]) << key;
      if (version > 0) EXPECT_EQ(record->value, key + "=" + std::to_string(version));
      told.attempted[key] = version + 1;
      std::string value = key + "=" + std::to_string(version + 1);
      Result<uint64_t> result = co_await coordinator.put(key, value, version);
      if (result.ok()) told.acknowledged[key] = *result;
      if (!result.ok()) co_await env.clock.sleep(milliseconds(1));
    }
  }
  Env env;
  Told& told;
  EmbeddedCoordinator coordinator;
  std::string failure;
  Scope scope;
};

TEST(EmbeddedCoordinator, KeepsWhatItAcknowledgedThroughPowerLosses) {
  uint64_t acknowledged = 0;
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    Writer::Told told;
    for (int life = 0; life < 6; ++life) {
      machine.start([&told](Env& env) { return std::make_unique<Writer>(env, told); });
      uint64_t steps = 20 + world.random().below(300);
      for (uint64_t i = 0; i < steps; ++i) ASSERT_TRUE(world.step());
      ASSERT_TRUE(machine.running()) << "seed " << seed;
      machine.crash(world.random().chance(3, 4) ? CrashKind::kPower : CrashKind::kProcess);
      world.run_for(milliseconds(1));
    }
    for (auto& [key, version] : told.acknowledged) acknowledged += version;
    if (HasFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_GT(acknowledged, 2000u);
}

// Puts 1, 2, 3 … under one key and notes the last that was acknowledged.
struct Counter : Process {
  Counter(Env& e, uint64_t& acked) : env(e), coordinator(e, kPath, "/state/targets"), acknowledged(acked) {}
  Task<void> run() override {
    auto made = co_await env.disk.make_directories("/state/targets/t0");
    if (!made.ok()) co_return;
    auto synced = co_await env.disk.sync_directory("/state");
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

struct Fixture {
  Fixture() : world(1), machine(world.add_machine("m")) {
    EXPECT_TRUE(world.run(machine.env().disk.make_directories("/state")).ok());
  }
  std::unique_ptr<EmbeddedCoordinator> open() {
    auto out = std::make_unique<EmbeddedCoordinator>(machine.env(), kPath);
    loaded = world.run(out->load());
    return out;
  }
  World world;
  Machine& machine;
  Result<void> loaded;
};

TEST(EmbeddedCoordinator, FindsItsRecordsAgain) {
  Fixture f;
  auto first = f.open();
  EXPECT_FALSE(first->found());
  ASSERT_TRUE(f.world.run(first->put("map", std::string(100'000, 'm'), 0)).ok());
  ASSERT_TRUE(f.world.run(first->put("secret", std::string("\0s", 2), 0)).ok());
  ASSERT_TRUE(f.world.run(first->put("map", "short now", 1)).ok());
  uint64_t revision = *f.world.run(first->changed_since(0));
  auto second = f.open();
  ASSERT_TRUE(f.loaded.ok());
  EXPECT_TRUE(second->found());
  EXPECT_EQ(f.world.run(second->get("map"))->value, "short now");
  EXPECT_EQ(f.world.run(second->get("map"))->version, 2u);
  EXPECT_EQ(f.world.run(second->get("secret"))->value, std::string("\0s", 2));
  EXPECT_EQ(*f.world.run(second->changed_since(0)), revision);
}

TEST(EmbeddedCoordinator, ConcurrentPutsShareAWrite) {
  Fixture f;
  auto coordinator = f.open();
  struct Run {
    static Task<void> one(Coordinator& c, std::string key, int& good) {
      Result<uint64_t> result = co_await c.put(std::move(key), "v", 0);
      if (result.ok()) ++good;
    }
  };
  int good = 0;
  Scope scope;
  for (int i = 0; i < 100; ++i) scope.spawn(Run::one(*coordinator, std::to_string(i), good));
  EXPECT_TRUE(f.world.run_until(scope.join()));
  EXPECT_EQ(good, 100);
  EXPECT_LE(coordinator->writes(), 3u);
  EXPECT_EQ(f.world.run(coordinator->list(""))->size(), 100u);
}

TEST(EmbeddedCoordinatorBadInput, ADamagedFileIsRefusedWithTheMendWhateverByteChanged) {
  Fixture f;
  auto first = f.open();
  ASSERT_TRUE(f.world.run(first->put("map", "m", 0)).ok());
  uint64_t size = f.machine.disk().file_size(kPath);
  for (uint64_t at = 0; at < size; ++at) {
    ASSERT_TRUE(f.machine.disk().flip(kPath, at));
    auto coordinator = f.open();
    ASSERT_EQ(f.loaded.code(), Code::kCorrupt) << "byte " << at;
    EXPECT_NE(f.loaded.error().message().find("/state/coord is damaged"), std::string::npos);
    EXPECT_NE(f.loaded.error().message().find("headrace recover"), std::string::npos);
    ASSERT_TRUE(f.machine.disk().flip(kPath, at));
  }
  auto again = f.open();
  EXPECT_TRUE(f.loaded.ok());
}

TEST(EmbeddedCoordinatorBadInput, ATruncatedFileIsRefused) {
  CoordTable table;
  ASSERT_TRUE(table.put("a", "1", 0).ok());
  std::string bytes = encode_coord_file(table);
  ASSERT_TRUE(decode_coord_file(bytes_of(bytes)).ok());
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(decode_coord_file(bytes_of(std::string_view(bytes).substr(0, n))).code(), Code::kCorrupt) << n;
  EXPECT_EQ(decode_coord_file(bytes_of(bytes + "x")).code(), Code::kCorrupt);
}

TEST(EmbeddedCoordinatorBadInput, AFullDiskFailsThePutAndChangesNothing) {
  Fixture f;
  auto coordinator = f.open();
  ASSERT_TRUE(f.world.run(coordinator->put("x", "old", 0)).ok());
  f.machine.disk().options.write_fails = 1;
  EXPECT_EQ(f.world.run(coordinator->put("x", "new", 1)).code(), Code::kIo);
  f.machine.disk().options.write_fails = 0;
  f.machine.disk().options.capacity = 4096;
  Result<uint64_t> full = f.world.run(coordinator->put("x", std::string(10'000, 'n'), 1));
  EXPECT_EQ(full.code(), Code::kNoSpace);
  f.machine.disk().options.capacity = kGiB;
  EXPECT_EQ(f.world.run(coordinator->get("x"))->value, "old");
  EXPECT_EQ(*f.world.run(coordinator->put("x", "new", 1)), 2u);
  auto again = f.open();
  EXPECT_EQ(f.world.run(again->get("x"))->value, "new");
}

struct WithCopies : Fixture {
  WithCopies() {
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(world.run(machine.env().disk.make_directories("/state/targets/t" + std::to_string(i))).ok());
  }
  std::unique_ptr<EmbeddedCoordinator> open() {
    auto out = std::make_unique<EmbeddedCoordinator>(machine.env(), kPath, "/state/targets");
    loaded = world.run(out->load());
    return out;
  }
  static std::string copy(int i) { return "/state/targets/t" + std::to_string(i) + "/coord"; }
  void remove(const std::string& path) { EXPECT_TRUE(world.run(machine.env().disk.remove(path)).ok()) << path; }
  void move(const std::string& from, const std::string& to) {
    EXPECT_TRUE(world.run(machine.env().disk.rename(from, to)).ok()) << from;
  }
};

TEST(EmbeddedCoordinatorBadInput, AFlippedTruncatedOrMissingFileIsMendedFromACopy) {
  for (int how = 0; how < 4; ++how) {
    WithCopies f;
    auto first = f.open();
    ASSERT_TRUE(f.world.run(first->put("x", "1", 0)).ok());
    ASSERT_TRUE(f.world.run(first->put("x", "2", 1)).ok());
    EXPECT_EQ(first->copies(), 3u);
    first.reset();
    if (how == 0) ASSERT_TRUE(f.machine.disk().flip(kPath, 20));
    if (how == 1) f.remove(kPath);
    if (how == 2) {
      auto file = f.world.run(f.machine.env().disk.open(kPath, {}));
      ASSERT_TRUE(file.ok() && f.world.run((*file)->resize(17)).ok());
    }
    if (how == 3)
      ASSERT_TRUE(f.machine.disk().flip(kPath, 0) && f.machine.disk().flip(f.copy(0), 9));  // and one of the copies
    auto again = f.open();
    ASSERT_TRUE(f.loaded.ok()) << how << ": " << f.loaded.error().text();
    EXPECT_TRUE(again->found());
    EXPECT_NE(again->mended().find("put back from /state/targets/t" + std::to_string(how == 3 ? 1 : 0)),
              std::string::npos)
        << again->mended();
    EXPECT_EQ(f.world.run(again->get("x"))->value, "2");
    again.reset();
    auto third = f.open();  // the file itself is right again
    EXPECT_TRUE(f.loaded.ok() && third->mended().empty()) << how;
  }
}

TEST(EmbeddedCoordinatorBadInput, AnOlderFilePutBackIsOvertakenByACopy) {
  WithCopies f;
  auto first = f.open();
  ASSERT_TRUE(f.world.run(first->put("x", "1", 0)).ok());
  f.move(f.copy(2), "/state/backup");
  ASSERT_TRUE(f.world.run(first->put("x", "2", 1)).ok());
  first.reset();
  f.move("/state/backup", kPath);
  auto again = f.open();
  ASSERT_TRUE(f.loaded.ok());
  EXPECT_NE(again->mended().find("older"), std::string::npos) << again->mended();
  EXPECT_EQ(f.world.run(again->get("x"))->value, "2");
}

TEST(EmbeddedCoordinatorBadInput, CopiesOfAnotherClusterAreNotTaken) {
  WithCopies f;
  auto mine = f.open();
  ASSERT_TRUE(f.world.run(mine->put("x", "mine", 0)).ok());
  mine.reset();
  // Another cluster's target at t2, with a copy that has seen more.
  ASSERT_TRUE(f.world.run(f.machine.env().disk.make_directories("/other/targets/t2")).ok());
  EmbeddedCoordinator other(f.machine.env(), "/other/coord", "/other/targets");
  ASSERT_TRUE(f.world.run(other.load()).ok());
  for (uint64_t i = 0; i < 5; ++i) ASSERT_TRUE(f.world.run(other.put("x", "other", i)).ok());
  f.move("/other/targets/t2/coord", f.copy(2));
  auto again = f.open();
  ASSERT_TRUE(f.loaded.ok());
  EXPECT_EQ(f.world.run(again->get("x"))->value, "mine");
  again.reset();
  // Without the file, most copies say whose they are; where they do not, nothing is guessed.
  f.remove(kPath);
  again = f.open();
  ASSERT_TRUE(f.loaded.ok());
  EXPECT_EQ(f.world.run(again->get("x"))->value, "mine");
  again.reset();
  f.remove(kPath);
  f.remove(f.copy(1));
  again = f.open();
  EXPECT_EQ(f.loaded.code(), Code::kCorrupt);
  EXPECT_NE(f.loaded.error().message().find("different clusters"), std::string::npos) << f.loaded.error().message();
  EXPECT_NE(f.loaded.error().message().find("t2/coord"), std::string::npos) << f.loaded.error().message();
}

TEST(EmbeddedCoordinatorBadInput, ADiskThatTakesNoCopyStopsNothing) {
  WithCopies f;
  auto coordinator = f.open();
  ASSERT_TRUE(f.world.run(coordinator->put("x", "1", 0)).ok());
  ASSERT_TRUE(
      f.world.run(f.machine.env().disk.make_directories(f.copy(1) + ".new")).ok());  // no file can be made there
  ASSERT_TRUE(f.world.run(coordinator->put("x", "2", 1)).ok());
  EXPECT_EQ(coordinator->copies(), 2u);
  EXPECT_NE(coordinator->copy_error().find("/state/targets/t1/coord.new"), std::string::npos)
      << coordinator->copy_error();
  coordinator.reset();
  f.remove(kPath);
  auto again = f.open();
  ASSERT_TRUE(f.loaded.ok()) << f.loaded.error().text();
  EXPECT_EQ(f.world.run(again->get("x"))->value, "2");  // never the old copy
}

TEST(EmbeddedCoordinator, ADiskThatDoesNotAnswerHoldsUpNoStart) {
  WithCopies f;
  auto coordinator = f.open();
  ASSERT_TRUE(f.world.run(coordinator->put("x", "1", 0)).ok());
  coordinator.reset();
  DiskOptions& disk = f.machine.disk().options;
  disk.slow = [](const std::string& path) { return path == WithCopies::copy(1) || path == WithCopies::copy(2); };
  disk.slow_factor = 1e9;
  disk.longest = seconds(100'000);
  const Nanos began = f.world.now();
  coordinator = f.open();
  ASSERT_TRUE(f.loaded.ok()) << f.loaded.error().text();
  EXPECT_EQ(f.world.run(coordinator->get("x"))->value, "1");
  coordinator.reset();
  // Without the file, the copy that can be read will do; where there is none, nothing is begun anew.
  f.remove(kPath);
  coordinator = f.open();
  ASSERT_TRUE(f.loaded.ok()) << f.loaded.error().text();
  EXPECT_EQ(f.world.run(coordinator->get("x"))->value, "1");
  coordinator.reset();
  f.remove(kPath);
  f.remove(f.copy(0));
  coordinator = f.open();
  EXPECT_EQ(f.loaded.code(), Code::kUnavailable);
  EXPECT_LT(f.world.now() - began, seconds(60));
}

TEST(EmbeddedCoordinator, ADiskThatTakesNoCopyHoldsUpNoEnd) {
  WithCopies f;
  auto coordinator = f.open();
  ASSERT_TRUE(f.world.run(coordinator->put("x", "1", 0)).ok());
  DiskOptions& disk = f.machine.disk().options;
  disk.slow = [](const std::string& path) { return path == WithCopies::copy(1) + ".new"; };
  disk.slow_factor = 1e9;
  disk.longest = seconds(100'000);
  ASSERT_TRUE(f.world.run(coordinator->put("x", "2", 1)).ok());
  EXPECT_EQ(coordinator->copies(), 2u);
  EXPECT_TRUE(f.world.run_until(coordinator->close(), seconds(10)));
  EXPECT_EQ(f.world.run(coordinator->put("x", "3", 2)).code(), Code::kCancelled);
  coordinator.reset();
  coordinator = f.open();
  ASSERT_TRUE(f.loaded.ok());
  EXPECT_EQ(f.world.run(coordinator->get("x"))->value, "2");
}

// Of t0 and t2: t1 has none.
struct InMemoryCopies final : public DeviceCopies {
  Task<std::vector<Copy>> read(std::string directory) override {
    std::vector<Copy> out;
    if (bytes_in.contains(directory))
      out.push_back({"device of " + directory, decode_coord_file(bytes_of(bytes_in[directory]))});
    co_return out;
  }
  Task<Result<void>> write(std::string directory, std::string bytes) override {
    if (directory.ends_with("t1")) co_return Error(Code::kNotFound, "no device");
    if (fails) co_return Error(Code::kIo, "the device is gone");
    Result<CoordTable> table = decode_coord_file(bytes_of(bytes));
    EXPECT_TRUE(table.ok() && encode_coord_file(*table) == bytes);
    bytes_in[directory] = std::move(bytes);
    co_return Result<void>();
  }
  std::map<std::string, std::string> bytes_in;
  bool fails = false;
};

TEST(EmbeddedCoordinatorBadInput, ALostStateDirectoryIsMendedFromTheDevices) {
  WithCopies f;
  InMemoryCopies devices;
  auto open = [&] {
    auto out = std::make_unique<EmbeddedCoordinator>(f.machine.env(), kPath, "/state/targets", &devices);
    f.loaded = f.world.run(out->load());
    return out;
  };
  auto first = open();
  ASSERT_TRUE(f.world.run(first->put("x", "1", 0)).ok());
  ASSERT_TRUE(f.world.run(first->put("x", "2", 1)).ok());
  EXPECT_EQ(first->copies(), 3u) << first->copy_error();
  EXPECT_EQ(devices.bytes_in.size(), 2u);
  first.reset();
  f.remove(kPath);
  for (int i = 0; i < 3; ++i) f.remove(f.copy(i));
  auto again = open();
  ASSERT_TRUE(f.loaded.ok()) << f.loaded.error().text();
  EXPECT_NE(again->mended().find("put back from device of /state/targets/t0"), std::string::npos) << again->mended();
  EXPECT_EQ(f.world.run(again->get("x"))->value, "2");
  // One that takes no copy stops nothing, and is told of.
  devices.fails = true;
  ASSERT_TRUE(f.world.run(again->put("x", "3", 2)).ok());
  EXPECT_EQ(again->copies(), 1u);
  EXPECT_NE(again->copy_error().find("the device is gone"), std::string::npos);
}

TEST(EmbeddedCoordinator, CloseEndsWhoeverWaits) {
  Fixture f;
  auto coordinator = f.open();
  std::optional<Code> code;
  struct Run {
    static Task<void> watch(Coordinator& c, std::optional<Code>& out) {
      Result<uint64_t> now = co_await c.changed_since(0);
      out = now.code();
    }
  };
  f.world.spawn(Run::watch(*coordinator, code));
  f.world.run_for(milliseconds(1));
  EXPECT_TRUE(f.world.run_until(coordinator->close()));
  f.world.run_for(milliseconds(1));
  EXPECT_EQ(code, Code::kCancelled);
  EXPECT_EQ(f.world.run(coordinator->get("x")).code(), Code::kCancelled);
}

}  // namespace
}  // namespace headrace
