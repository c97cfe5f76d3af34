#include "client/client.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/fake_cluster_test_support.h"

namespace headrace {
namespace {

constexpr OpenMode kReadWrite{.read = true, .write = true};

std::string pattern(uint64_t size, uint64_t seed) {
  SeededRandom random(seed);
  std::string out(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = random.next();
    for (size_t j = i; j < std::min<size_t>(size, i + 8); ++j) out[j] = static_cast<char>(word >> (8 * (j - i)));
  }
  return out;
}

std::string joined(const std::vector<Buffer>& pieces) {
  std::string out;
  for (const Buffer& piece : pieces) out += piece.text();
  return out;
}

// Synchronous steps on a FakeCluster.
struct Steps : FakeCluster {
  using FakeCluster::FakeCluster;
  OpenFileRef create(const std::string& name, size_t c = 0, OpenMode mode = kReadWrite, FileId parent = kRootFile) {
    auto made = world.run(client(c).create(parent, name, 0644, mode, {}));
    HR_ASSERT(made.ok());
    return made->file;
  }
  OpenFileRef open(FileId id, size_t c = 0, OpenMode mode = kReadWrite) {
    auto file = world.run(client(c).open(id, mode));
    HR_ASSERT(file.ok());
    return *file;
  }
  Result<uint64_t> write(const OpenFileRef& f, uint64_t offset, const std::string& bytes, size_t c = 0) {
    return world.run(client(c).write(f, offset, Buffer::copy_of(bytes_of(bytes))));
  }
  std::string read(const OpenFileRef& f, uint64_t offset, uint64_t length, size_t c = 0) {
    auto bytes = world.run(client(c).read(f, offset, length));
    if (!bytes.ok()) return "error: " + bytes.error().text();
    return joined(*bytes);
  }
  Result<void> sync(FileId id, size_t c = 0) { return world.run(client(c).sync(id)); }
  Attributes stat(FileId id, size_t c = 0) {
    auto a = world.run(client(c).get_attributes(id));
    HR_ASSERT(a.ok());
    return *a;
  }
  Result<Attributes> resize(FileId id, uint64_t size, size_t c = 0) {
    return world.run(client(c).set_attributes(id, {.mask = kSetSize, .size = size}));
  }
};

TEST(Client, SaysWhichNodeDoesNotAnswer) {
  World world(1);
  Machine& machine = world.add_machine("client");
  std::string message;
  struct Starter final : Process {
    Starter(Env& e, std::string* m) : env(e), message(m) {}
    Task<void> run() override {
      auto client = co_await Client::start(env, {.nodes = {"sim:nobody"}, .start_timeout = seconds(2)});
      *message = client.ok() ? "started" : client.error().text();
    }
    Env env;
    std::string* message;
  };
  machine.start([&](Env& env) { return std::make_unique<Starter>(env, &message); });
  ASSERT_TRUE(world.run_until([&] { return !message.empty(); }, seconds(60)));
  EXPECT_NE(message.find("sim:nobody"), std::string::npos) << message;
}

TEST(Client, ReadsItsOwnWritesBeforeAndAfterSync) {
  Steps s(1);
  auto f = s.create("a");
  const std::string data = pattern(100'000, 1);
  ASSERT_TRUE(s.write(f, 5000, data).ok());
  EXPECT_EQ(s.read(f, 5000, data.size()), data);
  EXPECT_EQ(s.read(f, 0, 5000), std::string(5000, '\0'));
  EXPECT_EQ(s.stat(f->id()).size, 105'000u);
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 5000, data.size()), data);
  EXPECT_EQ(s.read(f, 0, 200'000).size(), 105'000u);
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
}

TEST(Client, SyncOfFewBytesIsOneMessage) {
  Steps s(2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "hello").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.node().counts.stages, 1u);
  EXPECT_EQ(s.node().counts.commits, 0u);
  EXPECT_EQ(s.read(f, 0, 100), "hello");
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.node().counts.stages, 1u);  // nothing was dirty
}

TEST(Client, WhatWasSyncedSurvivesTheClient) {
  Steps s(3);
  auto f = s.create("a");
  const FileId id = f->id();
  const std::string data = pattern(20 * kMiB, 3);
  ASSERT_TRUE(s.write(f, 0, data.substr(0, 9 * kMiB)).ok());
  ASSERT_TRUE(s.write(f, 9 * kMiB, data.substr(9 * kMiB)).ok());
  ASSERT_TRUE(s.sync(id).ok());
  ASSERT_TRUE(s.write(f, 0, "never synced").ok());
  f.reset();
  s.machines[0]->crash(CrashKind::kPower);
  s.start_client(0, {});
  auto again = s.open(id);
  EXPECT_EQ(s.read(again, 0, data.size()), data);
}

TEST(Client, SendsDirtyDataWithinFiveSeconds) {
  Steps s(4);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, pattern(100'000, 1)).ok());
  s.world.run_for(milliseconds(5500));
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.size, 100'000u);
}

TEST(Client, PacksManySmallFilesIntoFewSegments) {
  Steps s(5);
  std::vector<FileId> ids;
  for (int i = 0; i < 2500; ++i) {
    auto f = s.create("f" + std::to_string(i));
    ids.push_back(f->id());
    ASSERT_TRUE(s.write(f, 0, pattern(100 + i % 3000, i)).ok());
    ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  }
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_LE(s.node().counts.commits, 12u);
  EXPECT_EQ(s.node().counts.commit_files, 2500u);
  s.start_client_again(0);
  for (int i = 0; i < 2500; i += 97) {
    auto f = s.open(ids[i]);
    EXPECT_EQ(s.read(f, 0, 10'000), pattern(100 + i % 3000, i)) << i;
  }
}

TEST(Client, WritesFullSegmentsWhileAStreamGoesOn) {
  Steps s(6, 1, {.dirty_limit = 64 * kMiB});
  auto f = s.create("big");
  const std::string chunk = pattern(kMiB, 1);
  for (uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(s.write(f, i * kMiB, chunk).ok());
  EXPECT_LE(s.client().counters().dirty_bytes, 65 * kMiB);
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_LE(s.client().counters().write_back.segments, 9u);  // 100 / 16, and tails
  for (uint64_t i : {0u, 15u, 16u, 57u, 99u}) EXPECT_EQ(s.read(f, i * kMiB, kMiB), chunk) << i;
}

// Each of these bytes holds a block.
TEST(Client, SmallWritesFarApartAreNotKeptWithoutBound) {
  Steps s(10, 1, {.file_dirty_limit = 4 * kMiB, .flush_after = seconds(1000)});
  auto f = s.create("scattered");
  for (uint64_t i = 0; i < 3000; ++i) ASSERT_TRUE(s.write(f, i * 2 * kBlock, "x").ok());
  EXPECT_LE(s.client().counters().dirty_bytes, 1100u);
  ASSERT_TRUE(s.sync(f->id()).ok());
  for (uint64_t i = 0; i < 3000; i += 101) EXPECT_EQ(s.read(f, i * 2 * kBlock, 1), "x") << i;
}

// A file's memory is what its bytes hold, which a job changes as it takes them.
TEST(Client, WhatWasWrittenHoldsNoMemory) {
  Steps s(11);
  auto f = s.create("stream");
  const std::string piece = pattern(100'000, 1);  // jobs end within one
  for (uint64_t i = 0; i < 400; ++i) ASSERT_TRUE(s.write(f, i * piece.size(), piece).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  ASSERT_TRUE(s.write(f, 400 * piece.size(), "more").ok());
}

TEST(Client, ManyFilesOfFewWritesDoNotUseUpWhatMayBeDirty) {
  Steps s(12, 1, {.dirty_limit = 2 * kMiB});
  const std::string piece = pattern(10'240, 1);  // they grow into each other, with room for more
  for (int i = 0; i < 100; ++i) {
    auto f = s.create("f" + std::to_string(i));
    for (uint64_t j = 0; j < 10; ++j) ASSERT_TRUE(s.write(f, j * piece.size(), piece).ok()) << i;
    ASSERT_TRUE(s.sync(f->id()).ok());
    ASSERT_EQ(s.client().counters().dirty_memory, 0u) << i;
  }
}

// However much may be dirty in all: the stream waits for what it has sent, and its segments stay whole.
TEST(Client, KeepsFewBytesOfOneStream) {
  Steps s(9, 1, {.file_dirty_limit = 40 * kMiB});
  auto f = s.create("big");
  const std::string chunk = pattern(kMiB, 1);
  for (uint64_t i = 0; i < 160; ++i) {
    ASSERT_TRUE(s.write(f, i * kMiB, chunk).ok());
    EXPECT_LE(s.client().counters().dirty_bytes, 41 * kMiB);
  }
  // Small pieces that never fill a segment are sent all the same.
  for (uint64_t i = 0; i < 600; ++i) ASSERT_TRUE(s.write(f, i * 200 * kKiB, chunk.substr(0, 100 * kKiB)).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_LE(s.client().counters().write_back.segments, 20u);
  EXPECT_EQ(s.read(f, 159 * kMiB, kMiB), chunk);
}

TEST(Client, AnotherClientReadsWhatWasNotSynced) {
  Steps s(7, 2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "first").ok());
  auto g = s.open(f->id(), 1);
  EXPECT_EQ(s.read(g, 0, 100, 1), "first");
  ASSERT_TRUE(s.write(f, 0, "secon").ok());
  ASSERT_TRUE(s.write(f, 5, "d!").ok());
  EXPECT_EQ(s.stat(f->id(), 1).size, 7u);
  EXPECT_EQ(s.read(g, 0, 100, 1), "second!");
  ASSERT_TRUE(s.write(g, 7, " third", 1).ok());
  EXPECT_EQ(s.read(f, 0, 100, 0), "second! third");
}

TEST(Client, AlternatingWritesAndStatsAreNeverStale) {
  Steps s(8, 2);
  s.node().slow = milliseconds(1);
  auto f = s.create("a");
  auto g = s.open(f->id(), 1);
  uint64_t size = 0;
  int64_t mtime = 0;
  for (int i = 0; i < 300; ++i) {
    const size_t writer = i % 2;
    ASSERT_TRUE(s.write(writer == 0 ? f : g, size, "xyz", writer).ok());
    size += 3;
    const Attributes seen = s.stat(f->id(), 1 - writer);
    ASSERT_EQ(seen.size, size);
    ASSERT_GT(seen.mtime, mtime);
    mtime = seen.mtime;
  }
}

TEST(Client, CachesAttributesAndNamesUnderGrants) {
  Steps s(9);
  auto f = s.create("a");
  const auto before = s.node().counts;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(s.world.run(s.client().lookup(kRootFile, "a")).ok());
    (void)s.stat(f->id());
  }
  EXPECT_EQ(s.node().counts.lookups, before.lookups);
  EXPECT_EQ(s.node().counts.get_attributes, before.get_attributes);
  EXPECT_GT(s.client().attributes_valid(f->id()).count, 0);
  // Absent names too, once the directory's grant is there.
  ASSERT_EQ(s.world.run(s.client().lookup(kRootFile, "none")).code(), Code::kNotFound);
  const uint64_t lookups = s.node().counts.lookups;
  ASSERT_EQ(s.world.run(s.client().lookup(kRootFile, "none")).code(), Code::kNotFound);
  EXPECT_EQ(s.node().counts.lookups, lookups);
}

TEST(Client, RemembersNotManyAbsentNames) {
  Steps s(59);
  (void)s.create("seed");
  (void)s.create("0", 0);
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  s.start_client_again(0);
  ASSERT_TRUE(s.world.run(s.client().lookup(kRootFile, "seed")).ok());  // the grant: not all names are known
  for (size_t i = 1; i < 3 * DirectoryState::kMaxAbsent; ++i) {
    const std::string name = std::to_string(i);
    ASSERT_EQ(s.world.run(s.client().lookup(kRootFile, name)).code(), Code::kNotFound);
    const uint64_t lookups = s.node().counts.lookups;
    ASSERT_EQ(s.world.run(s.client().lookup(kRootFile, name)).code(), Code::kNotFound);
    ASSERT_EQ(s.node().counts.lookups, lookups);
    ASSERT_LE(s.client().known_names(), DirectoryState::kMaxAbsent + 1);
  }
  EXPECT_TRUE(s.world.run(s.client().lookup(kRootFile, "0")).ok());
}

TEST(Client, ANameMadeElsewhereIsSeenAtOnce) {
  Steps s(10, 2);
  s.node().slow = milliseconds(2);
  (void)s.create("seed");
  ASSERT_EQ(s.world.run(s.client(0).lookup(kRootFile, "x")).code(), Code::kNotFound);
  ASSERT_EQ(s.world.run(s.client(0).lookup(kRootFile, "x")).code(), Code::kNotFound);
  (void)s.create("x", 1);
  EXPECT_TRUE(s.world.run(s.client(0).lookup(kRootFile, "x")).ok());
  ASSERT_TRUE(s.world.run(s.client(1).unlink(kRootFile, "x")).ok());
  EXPECT_EQ(s.world.run(s.client(0).lookup(kRootFile, "x")).code(), Code::kNotFound);
}

TEST(Client, TruncationCutsDirtyAndCommittedBytes) {
  Steps s(11);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, pattern(200'000, 1)).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 150'000, pattern(100'000, 2)).ok());
  ASSERT_TRUE(s.resize(f->id(), 160'000).ok());
  EXPECT_EQ(s.read(f, 0, 1'000'000), pattern(200'000, 1).substr(0, 150'000) + pattern(100'000, 2).substr(0, 10'000));
  ASSERT_TRUE(s.resize(f->id(), 170'000).ok());
  EXPECT_EQ(s.read(f, 160'000, 1'000'000), std::string(10'000, '\0'));
  ASSERT_TRUE(s.write(f, 165'000, "x").ok());
  EXPECT_EQ(s.read(f, 164'999, 3), std::string("\0x\0", 3));
  EXPECT_EQ(s.stat(f->id()).size, 170'000u);
}

TEST(Client, WhatIsLearntDuringAnOwnTruncationIsForgotten) {
  Steps s(40, 2);
  auto f = s.create("a", 1);
  const FileId id = f->id();
  for (uint64_t round = 0; round < 40; ++round) {
    ASSERT_TRUE(s.write(f, 0, pattern(100'000, round), 1).ok());  // dirty: to be recalled
    bool done = false;
    s.world.spawn([](Client* c, FileId file, uint64_t size, bool* out) -> Task<void> {
      Result<Attributes> resized = co_await c->set_attributes(file, {.mask = kSetSize, .size = size});
      *out = resized.ok();
    }(&s.client(0), id, round, &done));
    for (uint64_t i = 0; i < round; ++i) s.world.step();
    (void)s.stat(id, 0);  // takes a grant of its own, before or after the change
    ASSERT_TRUE(s.world.run_until([&] { return done; }));
    EXPECT_EQ(s.stat(id, 0).size, round);
  }
}

TEST(Client, PunchedRangesAreZeros) {
  Steps s(12);
  auto f = s.create("a");
  const std::string data = pattern(100'000, 1);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.world.run(s.client().punch(f, 10'000, 20'000)).ok());
  EXPECT_EQ(s.read(f, 0, 200'000), data.substr(0, 10'000) + std::string(20'000, '\0') + data.substr(30'000));
}

TEST(Client, CopiesByReferenceWhatWasWrittenHereAndElsewhere) {
  Steps s(52, 2);
  auto f = s.create("a");
  const std::string data = pattern(300'000, 1);
  ASSERT_TRUE(s.write(f, 0, data).ok());  // dirty here
  auto there = s.open(f->id(), 1, {.write = true});
  auto g = s.create("b", 1);
  ASSERT_TRUE(s.write(g, 0, pattern(50'000, 2), 1).ok());
  const size_t segments = [&] {
    EXPECT_TRUE(s.world.run(s.client(0).sync_all()).ok());
    EXPECT_TRUE(s.world.run(s.client(1).sync_all()).ok());
    return s.disk.segments.size();
  }();
  ASSERT_TRUE(s.write(f, 100, "new").ok());
  Result<uint64_t> copied = s.world.run(s.client(1).copy(there, 50, g, 20'000, 1'000'000));
  ASSERT_TRUE(copied.ok()) << copied.error().text();
  EXPECT_EQ(*copied, 299'950u);
  std::string want = pattern(50'000, 2).substr(0, 20'000) + data.substr(50);
  want.replace(20'050, 3, "new");
  EXPECT_EQ(s.read(g, 0, 1'000'000, 1), want);
  EXPECT_EQ(s.stat(g->id(), 1).size, want.size());
  auto here = s.open(g->id(), 0, {});
  EXPECT_EQ(s.read(here, 0, 1'000'000, 0), want);
  EXPECT_LE(s.disk.segments.size(), segments + 1) << "only the last write made one";
  ASSERT_TRUE(s.write(g, 30'000, "after", 1).ok());
  want.replace(30'000, 5, "after");
  EXPECT_EQ(s.read(here, 0, 1'000'000, 0), want);
  EXPECT_EQ(s.read(f, 10'050, 5), data.substr(10'050, 5)) << "the source keeps its own";
}

// As while one leader follows another: commits fail for many reasons, a refusal among them.
TEST(Client, ARefusalAfterOtherFailuresLosesNothing) {
  Steps s(53, 2);
  auto f = s.create("a");
  const std::string data = pattern(300'000, 1);
  s.faults.fail_commits = 5;
  s.faults.refuse_commits = 2;
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.world.run_until([&] { return s.faults.refuse_commits == 0; }, seconds(60)));
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  auto there = s.open(f->id(), 1, {});
  EXPECT_TRUE(s.read(there, 0, 1'000'000, 1) == data);
  // One leader that refuses over and over is believed.
  s.faults.refuse_commits = 100;
  ASSERT_TRUE(s.write(f, 0, pattern(300'000, 2)).ok());
  EXPECT_EQ(s.world.run(s.client().sync(f->id())).code(), Code::kStale);
  s.faults.refuse_commits = 0;
  EXPECT_TRUE(s.read(f, 0, 1'000'000) == data);
}

// A leader's reservations go with it: whole segments that were waiting for their turn to be committed are written anew.
TEST(Client, ANodeRestartUnderAStreamLosesNothing) {
  Steps s(56);
  auto f = s.create("a");
  const std::string data = pattern(6 * kMaxSegment, 1);
  s.faults.hold_commits = true;
  for (uint64_t at = 0; at < data.size(); at += kMiB) ASSERT_TRUE(s.write(f, at, data.substr(at, kMiB)).ok());
  ASSERT_TRUE(s.world.run_until([&] { return s.client().counters().write_back.segments >= 6; }, seconds(4)));
  s.restart_node();
  s.faults.hold_commits = false;
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.client().counters().write_back.dropped_bytes, 0u);
  s.start_client_again(0);
  EXPECT_TRUE(s.read(s.open(f->id()), 0, data.size()) == data);
}

TEST(Client, AnExplicitTimeIsNotUndoneByTheLaterFlush) {
  Steps s(13);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "data").ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMtime, .mtime = 123'456})).ok());
  EXPECT_EQ(s.stat(f->id()).mtime, 123'456);
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.mtime, 123'456);
  EXPECT_EQ(s.stat(f->id()).mtime, 123'456);
  ASSERT_TRUE(s.write(f, 0, "more").ok());
  EXPECT_GT(s.stat(f->id()).mtime, 1'000'000'000);
}

TEST(Client, ATimeAheadGivesWayToTheNextChange) {
  Steps s(18);
  auto f = s.create("a");
  auto now = [&s] { return s.world.clock().wall().count + 1'000'000'000; };  // a machine's own may be ahead
  const int64_t ahead = now() + 86'400'000'000'000;
  ASSERT_TRUE(s.write(f, 0, "data").ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMtime, .mtime = ahead})).ok());
  EXPECT_EQ(s.stat(f->id()).mtime, ahead);
  EXPECT_LE(s.stat(f->id()).ctime, now());
  ASSERT_TRUE(s.write(f, 0, "more").ok());
  const int64_t written = s.stat(f->id()).mtime;
  EXPECT_LE(written, now());
  EXPECT_LE(s.stat(f->id()).ctime, now());
  ASSERT_TRUE(s.write(f, 0, "again").ok());
  EXPECT_GT(s.stat(f->id()).mtime, written) << "each change shows";
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMtime, .mtime = ahead})).ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMtime, .mtime = INT64_MIN})).ok());
  EXPECT_LE(s.stat(f->id()).mtime, now());
}

TEST(Client, AppendsOfTwoClientsLoseNothing) {
  Steps s(14, 2);
  auto f = s.create("log");
  auto a = s.open(f->id(), 0, {.write = true, .append = true});
  auto b = s.open(f->id(), 1, {.write = true, .append = true});
  for (int i = 0; i < 50; ++i)
    ASSERT_TRUE(s.write(i % 2 == 0 ? a : b, 0, std::string(7, static_cast<char>('a' + i % 26)), i % 2).ok());
  std::string expected;
  for (int i = 0; i < 50; ++i) expected += std::string(7, static_cast<char>('a' + i % 26));
  EXPECT_EQ(s.read(f, 0, 1000), expected);
}

TEST(Client, OSyncIsDurableOnReturn) {
  Steps s(15);
  auto f = s.create("a", 0, {.write = true, .sync = true});
  ASSERT_TRUE(s.write(f, 0, "durable").ok());
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.size, 7u);
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
}

TEST(Client, AFailedFragmentWriteGoesToASpareOrAFreshReservation) {
  Steps s(16);
  auto f = s.create("a");
  s.faults.fail_fragment_writes = 7;  // more than one segment's spares bear
  const std::string data = pattern(300'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 0, data.size()), data);
}

TEST(Client, AFailedCommitKeepsTheDataAndTheNextOneBringsIt) {
  Steps s(17);
  auto f = s.create("a");
  s.faults.fail_commits = 1;
  const std::string data = pattern(300'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  EXPECT_FALSE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  EXPECT_TRUE(s.sync(f->id()).ok());
  s.start_client_again(0);
  EXPECT_EQ(s.read(s.open(f->id()), 0, data.size()), data);
}

TEST(Client, AFullDiskIsToldAndNothingIsLostBadInput) {
  Steps s(18);
  auto f = s.create("a");
  s.faults.no_space = true;
  const std::string data = pattern(300'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  EXPECT_EQ(s.sync(f->id()).code(), Code::kNoSpace);
  EXPECT_EQ(s.write(f, 300'000, "more").code(), Code::kNoSpace);
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  ASSERT_TRUE(s.world.run(s.client().unlink(kRootFile, "a")).ok());  // frees
  s.faults.no_space = false;
  s.world.run_for(seconds(10));
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  EXPECT_TRUE(s.write(f, 300'000, "more").ok());
}

TEST(Client, WhatATruncationGaveUpAndDidNotCutOffIsToldAsLostBadInput) {
  Steps s(17);
  auto f = s.create("a");
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 0, pattern(200'000, 1)).ok());
  s.faults.no_space = true;
  s.faults.fail_set_attributes = 1;
  ASSERT_FALSE(s.resize(f->id(), 0).ok());
  s.faults.no_space = false;
  EXPECT_FALSE(s.world.run(s.client().sync(f)).ok());
  EXPECT_TRUE(s.world.run(s.client().sync(f)).ok());
  EXPECT_FALSE(s.world.run(s.client().sync_all()).ok());

  ASSERT_TRUE(s.write(f, 0, pattern(200'000, 2)).ok());
  s.faults.no_space = true;
  ASSERT_TRUE(s.resize(f->id(), 0).ok());
  EXPECT_TRUE(s.world.run(s.client().sync(f)).ok()) << "cut off, and not lost";
}

TEST(Client, ANodeRestartLooksLikeAPause) {
  Steps s(19);
  auto f = s.create("a");
  const std::string data = pattern(300'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  s.node_machine.crash(CrashKind::kProcess);
  s.world.post([&] {});
  bool done = false;
  Result<void> synced = Error(Code::kIo, "");
  s.world.spawn([](Client* c, FileId id, Result<void>* out, bool* done) -> Task<void> {
    *out = co_await c->sync(id);
    *done = true;
  }(&s.client(), f->id(), &synced, &done));
  s.world.run_for(seconds(4));
  ++s.disk.epoch;
  ++s.disk.version;
  s.start_node();
  ASSERT_TRUE(s.world.run_until([&] { return done; }, seconds(120)));
  EXPECT_TRUE(synced.ok()) << synced.error().text();
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  EXPECT_EQ(s.node().counts.evictions, 0u);
}

TEST(Client, AReadAfterALongOutageStillSeesWhatWasWrittenHere) {
  Steps s(58);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "old").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 0, "new, and longer").ok());
  s.node_machine.crash(CrashKind::kProcess);
  s.world.run_for(seconds(15));  // the lease is over
  std::string seen;
  s.world.spawn([](Client* c, OpenFileRef f, std::string* out) -> Task<void> {
    auto bytes = co_await c->read(f, 0, 100);
    *out = bytes.ok() ? joined(*bytes) : "error";
  }(&s.client(), f, &seen));
  s.world.run_for(ClientSessions::kPatience + seconds(5));
  ++s.disk.epoch;
  ++s.disk.version;
  s.start_node();
  ASSERT_TRUE(s.world.run_until([&] { return !seen.empty(); }, seconds(120)));
  EXPECT_TRUE(seen == "error" || seen == "new, and longer") << seen;
  s.world.run_for(seconds(5));
  EXPECT_EQ(s.read(f, 0, 100), "new, and longer");
}

TEST(Client, AFileThatWasJustMadeIsWrittenAndReadAfterALongOutage) {
  Steps s(60);
  (void)s.create("first");  // brings the directory's write grant
  auto f = s.create("a");
  auto g = s.create("b");
  EXPECT_FALSE(s.disk.inodes.contains(f->id()));
  s.node_machine.crash(CrashKind::kProcess);
  s.world.run_for(FakeNode::kLease + seconds(5));
  int done = 0;
  Result<uint64_t> written = Error(Code::kIo, "");
  Result<std::vector<Buffer>> bytes = Error(Code::kIo, "");
  s.world.spawn([](Client* c, OpenFileRef f, Result<uint64_t>* out, int* done) -> Task<void> {
    *out = co_await c->write(f, 0, Buffer::copy_of(bytes_of("text")));
    ++*done;
  }(&s.client(), f, &written, &done));
  s.world.spawn([](Client* c, OpenFileRef f, Result<std::vector<Buffer>>* out, int* done) -> Task<void> {
    *out = co_await c->read(f, 0, 10);
    ++*done;
  }(&s.client(), g, &bytes, &done));
  s.world.run_for(seconds(8));
  s.faults.hold_changes = true;
  ++s.disk.epoch;
  ++s.disk.version;
  s.start_node();
  s.world.run_for(seconds(2));
  s.faults.hold_changes = false;
  ASSERT_TRUE(s.world.run_until([&] { return done == 2; }, seconds(60)));
  EXPECT_TRUE(written.ok()) << written.error().text();
  EXPECT_TRUE(bytes.ok()) << bytes.error().text();
  EXPECT_EQ(s.read(f, 0, 10), "text");
  EXPECT_TRUE(s.sync(f->id()).ok());
}

// Claims that one leader did not answer go to its successor as they are.
TEST(Client, NoGrantComesWhileClaimsAreUnderWay) {
  Steps s(54, 2);
  auto f = s.create("a");
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.write(g, 0, "of the other", 1).ok());  // nothing of it is held here now
  auto refused = s.create("b");
  s.faults.hold_claims = true;
  s.faults.refuse_commits = 1;
  ASSERT_TRUE(s.write(refused, 0, pattern(300'000, 1)).ok());
  ASSERT_TRUE(s.world.run_until([&] { return s.faults.refuse_commits == 0; }, seconds(60)));
  bool done = false;
  Result<uint64_t> written = Error(Code::kIo, "");
  s.world.spawn([](Client* c, OpenFileRef f, Result<uint64_t>* out, bool* done) -> Task<void> {
    *out = co_await c->write(f, 0, Buffer::copy_of(bytes_of("first")));
    *done = true;
  }(&s.client(), f, &written, &done));
  s.world.run_for(milliseconds(500));
  s.faults.hold_claims = false;
  s.restart_node();
  ASSERT_TRUE(s.world.run_until([&] { return done; }, seconds(60)));
  ASSERT_TRUE(written.ok()) << written.error().text();
  s.world.run_for(seconds(1));
  EXPECT_EQ(s.read(g, 0, 100, 1), "firste other");
  ASSERT_TRUE(s.write(g, 0, "later", 1).ok());
  EXPECT_EQ(s.read(f, 0, 100), "latere other");
}

TEST(Client, AnEvictedClientSaysStaleNeverFalseSuccess) {
  Steps s(20, 2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "synced").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 0, "lost!!").ok());
  for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
  auto g = s.open(f->id(), 1);
  EXPECT_EQ(s.read(g, 0, 100, 1), "synced");
  Result<void> synced = s.sync(f->id());
  EXPECT_EQ(synced.code(), Code::kStale) << (synced.ok() ? "ok" : synced.error().text());
  EXPECT_TRUE(s.sync(f->id()).ok());  // told once
  const std::vector<Client::Loss> losses = s.client().take_losses();
  ASSERT_EQ(losses.size(), 1u);
  EXPECT_EQ(losses[0].bytes, 6u);
  EXPECT_TRUE(s.client().take_losses().empty());
  Result<void> all = s.world.run(s.client().sync_all());  // and once to who syncs everything
  EXPECT_EQ(all.code(), Code::kStale) << (all.ok() ? "ok" : all.error().text());
  EXPECT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_EQ(s.read(f, 0, 100), "synced");
  ASSERT_TRUE(s.write(f, 0, "again!").ok());
  EXPECT_EQ(s.read(g, 0, 100, 1), "again!");
}

// Seeds 1479 and 7238 of the simulator.
TEST(Client, AnErrorThatADirectWriteMetIsTheNextSyncsToo) {
  Steps s(20, 2);
  auto f = s.create("a");
  auto direct = s.open(f->id(), 0, OpenMode{.write = true, .direct = true});
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 0, "lost!!").ok());
  for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
  ASSERT_TRUE(s.world.run_until([&] { return s.client().counters().write_back.dropped_bytes > 0; }, seconds(60)));
  EXPECT_EQ(s.write(direct, 100, "direct").code(), Code::kStale);
  EXPECT_TRUE(s.write(direct, 100, "direct").ok());  // told once
  EXPECT_EQ(s.sync(f->id()).code(), Code::kStale);   // to whoever wrote through the other handle
  EXPECT_TRUE(s.sync(f->id()).ok());
}

TEST(Client, EachOpenerIsToldOnceOfWhatWasLost) {
  Steps s(57);
  auto writer = s.create("a");
  auto other = s.open(writer->id());
  auto sync = s.open(writer->id(), 0, OpenMode{.write = true, .sync = true});
  auto told = [&](const OpenFileRef& f) { return s.world.run(s.client().sync(f)).code(); };
  auto lose = [&] {
    ASSERT_TRUE(s.write(writer, 0, "lost").ok());
    for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
    s.world.run_for(seconds(20));
  };
  ASSERT_EQ(told(writer), Code::kOk);
  lose();
  EXPECT_EQ(told(other), Code::kStale);
  EXPECT_EQ(told(other), Code::kOk);
  EXPECT_EQ(told(writer), Code::kStale) << "though another was told";
  EXPECT_EQ(told(writer), Code::kOk);
  EXPECT_EQ(s.write(sync, 0, "durable").code(), Code::kStale);
  EXPECT_TRUE(s.write(sync, 0, "durable").ok());
  EXPECT_EQ(told(sync), Code::kOk);
  auto late = s.open(writer->id());
  EXPECT_EQ(told(late), Code::kOk) << "lost before it was opened, and others were told";
  // Who lost it closed it, and nobody was told: it is kept for who opens it next.
  ASSERT_EQ(told(writer), Code::kOk);
  lose();
  const FileId id = writer->id();
  for (const OpenFileRef& f : {writer, other, sync, late}) ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  s.world.run_for(seconds(60));
  auto next = s.open(id);
  EXPECT_EQ(told(next), Code::kStale);
  EXPECT_EQ(told(next), Code::kOk);
  EXPECT_EQ(told(s.open(id)), Code::kOk);
}

TEST(Client, AMissedLeaseStopsServingFromCache) {
  Steps s(21, 2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "old").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 0, 10), "old");
  // The client's machine sleeps; meanwhile it is evicted and another writes.
  s.machines[0]->jump_boot(seconds(60));
  for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.write(g, 0, "new", 1).ok());
  EXPECT_EQ(s.read(f, 0, 10), "new");
}

TEST(Client, DegradedReadsServe) {
  Steps s(22);
  auto f = s.create("a");
  const std::string data = pattern(500'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  s.faults.lose_fragment_index = 0;
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  EXPECT_GT(s.client().counters().segments.degraded_reads, 0u);
}

TEST(Client, ColdSegmentsAreReadThroughANode) {
  Steps s(23);
  auto f = s.create("a");
  const std::string data = pattern(700'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_EQ(s.disk.segments.size(), 1u);
  auto& [id, location] = *s.disk.segments.begin();
  s.disk.bucket[id] = data;
  location.object.object = ObjectId(5);
  location.placement.targets.clear();
  s.disk.fragments.clear();
  EXPECT_EQ(s.read(f, 1000, 5000), data.substr(1000, 5000));  // its placement was known: now it is nowhere hot
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  EXPECT_GT(s.node().counts.cold_reads, 0u);
}

TEST(Client, PackedAwaySegmentsAreFoundAgain) {
  Steps s(24);
  auto f = s.create("a");
  const std::string data = pattern(100'000, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 0, 10), data.substr(0, 10));
  // As the packer does: another segment, no recall, the old one dead.
  auto node = s.disk.segments.extract(s.disk.segments.begin());
  const SegmentId old = node.key();
  const SegmentId fresh(NamespaceId(7), old.home(), NamespaceEpoch(1), 999'999);
  node.key() = fresh;
  node.mapped().segment = fresh;
  node.mapped().placement.targets.clear();
  node.mapped().object.object = ObjectId(9);
  s.disk.bucket[fresh] = data;
  s.disk.segments.insert(std::move(node));
  s.disk.fragments.clear();
  s.disk.inodes[f->id()].extents.replace(
      {.offset = 0, .length = data.size(), .kind = ExtentKind::kSegment, .segment = fresh});
  EXPECT_EQ(s.read(f, 0, data.size()), data);
}

TEST(Client, SequentialReadsAreFetchedAhead) {
  Steps s(25);
  auto f = s.create("a");
  const std::string data = pattern(24 * kMiB, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  s.start_client_again(0);
  auto g = s.open(f->id());
  std::string all;
  for (uint64_t at = 0; at < data.size(); at += 128 * kKiB) all += s.read(g, at, 128 * kKiB);
  EXPECT_TRUE(all == data);
  EXPECT_LT(s.client().counters().reader.hot_reads, 40u);  // of 192 reads
  EXPECT_LE(s.client().counters().reader.cache_bytes, 256 * kMiB);
}

TEST(Client, RandomReadsFetchJustWhatTheyNeed) {
  Steps s(26);
  auto f = s.create("a");
  const std::string data = pattern(8 * kMiB, 5);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  const uint64_t before = s.client().counters().segments.bytes_read;
  for (uint64_t i = 0; i < 50; ++i) {
    const uint64_t at = (i * 797 % 2000) * 4096;
    EXPECT_EQ(s.read(f, at, 4096), data.substr(at, 4096));
  }
  EXPECT_LE(s.client().counters().segments.bytes_read - before, 50 * 8192u);
  EXPECT_EQ(s.client().counters().reader.cache_bytes, 0u);
}

TEST(Client, UnlinkedFilesLiveWhileOpenAnywhere) {
  Steps s(27, 2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "still here").ok());
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.world.run(s.client(0).close(f)).ok());
  ASSERT_TRUE(s.world.run(s.client(0).unlink(kRootFile, "a")).ok());
  s.world.run_for(seconds(10));
  EXPECT_EQ(s.read(g, 0, 100, 1), "still here");
  ASSERT_TRUE(s.world.run(s.client(1).close(g)).ok());
  s.world.run_for(seconds(10));
  EXPECT_FALSE(s.disk.inodes.contains(g->id()));
}

TEST(Client, AModeIsChangedOnlyWhileItIsWhatItWas) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Steps s(940 + seed, 2);
    s.node().slow = milliseconds(3);
    auto f = s.create("f");
    const FileId id = f->id();
    ASSERT_TRUE(s.world.run(s.client(1).set_attributes(id, {.mask = kSetMode, .mode = 04755})).ok());
    EXPECT_EQ(s.stat(id).mode, 04755u);
    Scope scope;
    Code outcome = Code::kOk;
    auto dropper = [](Client* client, FileId file, Code* code) -> Task<void> {
      auto set = co_await client->set_attributes(file, {.mask = kSetMode, .mode = 0755, .while_mode = 04755});
      *code = set.code();
    };
    auto changer = [](Steps* steps, FileId file) -> Task<void> {
      co_await steps->world.clock().sleep(microseconds(static_cast<int64_t>(steps->world.random().below(15'000))));
      auto set = co_await steps->client(1).set_attributes(file, {.mask = kSetMode, .mode = 0711});
      EXPECT_TRUE(set.ok());
    };
    scope.spawn(dropper(&s.client(0), id, &outcome));
    scope.spawn(changer(&s, id));
    ASSERT_TRUE(s.world.run_until([&] { return scope.running() == 0; }, seconds(600))) << seed;
    EXPECT_TRUE(outcome == Code::kOk || outcome == Code::kBusy) << seed;
    EXPECT_EQ(s.stat(id, 1).mode, 0711u) << seed;
    EXPECT_EQ(s.stat(id).mode, 0711u) << seed;
  }
}

TEST(Client, AFileThatWasReplacedCannotBeOpenedAnyMore) {
  Steps s(30);
  const FileId replaced = s.create("f")->id();
  const FileId unlinked = s.create("g")->id();
  (void)s.create("tmp");
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  s.world.run_for(seconds(10));
  (void)s.stat(replaced);
  (void)s.stat(unlinked);
  ASSERT_TRUE(s.world.run(s.client().rename({kRootFile, "tmp", kRootFile, "f", false})).ok());
  EXPECT_EQ(s.world.run(s.client().open(replaced, kReadWrite)).code(), Code::kNotFound);
  ASSERT_TRUE(s.world.run(s.client().unlink(kRootFile, "g")).ok());
  EXPECT_EQ(s.world.run(s.client().open(unlinked, kReadWrite)).code(), Code::kNotFound);
}

TEST(Client, ANameThatAnotherReplacesAllTheTimeIsAlwaysFound) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Steps s(900 + seed, 2);
    s.node().slow = milliseconds(3);
    (void)s.create("f");
    Scope scope;
    bool done = false;
    auto replacer = [](Steps* steps, bool* all) -> Task<void> {
      for (int i = 0; i < 40; ++i) {
        auto made = co_await steps->client(0).make(kRootFile, "tmp", {}, {});
        EXPECT_TRUE(made.ok());
        auto renamed = co_await steps->client(0).rename({kRootFile, "tmp", kRootFile, "f", false});
        EXPECT_TRUE(renamed.ok());
      }
      *all = true;
    };
    auto looker = [](Steps* steps, const bool* all) -> Task<void> {
      while (!*all) {
        auto found = co_await steps->client(1).lookup(kRootFile, "f");
        EXPECT_TRUE(found.ok()) << found.error().text();
        co_await steps->world.clock().sleep(milliseconds(static_cast<int64_t>(steps->world.random().below(10))));
      }
    };
    scope.spawn(replacer(&s, &done));
    scope.spawn(looker(&s, &done));
    ASSERT_TRUE(s.world.run_until([&] { return scope.running() == 0; }, seconds(600))) << seed;
  }
}

TEST(Client, AFileThatIsClosedWhileThePartitionIsToldThatItIsOpenIsForgotten) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Steps s(500 + seed);
    auto f = s.create("a");
    const FileId id = f->id();
    ASSERT_TRUE(s.sync(id).ok());
    s.node().slow = seconds(2);
    for (SessionId session : s.node().session_ids()) (void)s.world.run_until(s.node().evict(session));
    // With the session goes what protected it: who has it open tells the next one.
    s.world.run_for(milliseconds(static_cast<int64_t>(s.world.random().between(3'000, 9'000))));
    ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
    s.world.run_for(seconds(60));
    EXPECT_TRUE(s.disk.inodes[id].kept.empty()) << seed;
  }
}

TEST(Client, AWriteThatWasGivenUpDoesNotLandAfterItsFileWasClosed) {
  Steps s(510, 2);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "first").ok());
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.write(g, 0, "other", 1).ok());  // the grant is the second client's: the first has to wait for it
  s.node().slow = milliseconds(100);
  Scope scope;
  Result<uint64_t> written = uint64_t{0};
  auto writer = [](Client* client, OpenFileRef file, Result<uint64_t>* result) -> Task<void> {
    *result = co_await client->write(file, 0, Buffer::copy_of(bytes_of("stale")));
  };
  scope.spawn(writer(&s.client(), f, &written));
  s.world.run_for(milliseconds(1));
  ASSERT_EQ(scope.running(), 1u);
  ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  ASSERT_TRUE(s.world.run_until([&] { return scope.running() == 0; }, seconds(60)));
  EXPECT_FALSE(written.ok());
  EXPECT_EQ(s.read(g, 0, 10, 1), "other");
}

TEST(Client, ATemporaryFileIsNeverWritten) {
  Steps s(28);
  auto f = s.create("tmp");
  ASSERT_TRUE(s.write(f, 0, pattern(100'000, 1)).ok());
  ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  s.world.run_for(seconds(2));
  ASSERT_TRUE(s.world.run(s.client().unlink(kRootFile, "tmp")).ok());
  s.world.run_for(seconds(20));
  EXPECT_EQ(s.node().counts.commits, 0u);
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
}

TEST(Client, DirectoriesSymlinksLinksAndRenames) {
  Steps s(29);
  auto& c = s.client();
  auto dir = s.world.run(c.make(kRootFile, "d", {.type = FileType::kDirectory, .mode = 0755}, {1, 2}));
  ASSERT_TRUE(dir.ok());
  EXPECT_EQ(dir->uid, 1u);
  auto link = s.world.run(c.make(dir->id, "l", {.type = FileType::kSymlink, .mode = 0777, .target = "../x"}, {}));
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(*s.world.run(c.read_link(link->id)), "../x");
  auto f = s.create("f", 0, kReadWrite, dir->id);
  auto linked = s.world.run(c.link(f->id(), kRootFile, "hard"));
  ASSERT_TRUE(linked.ok());
  EXPECT_EQ(linked->links, 2u);
  EXPECT_EQ(s.stat(f->id()).links, 2u);
  ASSERT_TRUE(s.world.run(c.rename({dir->id, "f", kRootFile, "g", false})).ok());
  EXPECT_EQ(s.world.run(c.lookup(dir->id, "f")).code(), Code::kNotFound);
  EXPECT_EQ(s.world.run(c.lookup(kRootFile, "g"))->id, f->id());
  EXPECT_EQ(s.world.run(c.rename({kRootFile, "hard", kRootFile, "g", true})).code(), Code::kExists);
  EXPECT_EQ(s.world.run(c.remove_directory(kRootFile, "d")).code(), Code::kNotEmpty);
  ASSERT_TRUE(s.world.run(c.unlink(dir->id, "l")).ok());
  ASSERT_TRUE(s.world.run(c.remove_directory(kRootFile, "d")).ok());
  EXPECT_EQ(s.world.run(c.lookup(kRootFile, "d")).code(), Code::kNotFound);
  auto list = s.world.run(c.read_directory(kRootFile, 0, 100, true));
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->entries.size(), 2u);
  EXPECT_EQ(s.world.run(c.lookup(kRootFile, std::string(256, 'x'))).code(), Code::kNameTooLong);
}

TEST(Client, ListingShowsOwnUnflushedSizes) {
  Steps s(30);
  auto f = s.create("f");
  ASSERT_TRUE(s.write(f, 0, "12345").ok());
  auto list = s.world.run(s.client().read_directory(kRootFile, 0, 100, true));
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->entries.size(), 1u);
  EXPECT_EQ(list->entries[0].attributes->size, 5u);
}

TEST(Client, ExtendedAttributesAreSeenByOthersAtOnce) {
  Steps s(31, 2);
  auto f = s.create("f");
  EXPECT_EQ(s.world.run(s.client(0).get_xattr(f->id(), "user.a")).code(), Code::kNoAttribute);
  ASSERT_TRUE(s.world.run(s.client(1).set_xattr(f->id(), "user.a", "1", {})).ok());
  EXPECT_EQ(*s.world.run(s.client(0).get_xattr(f->id(), "user.a")), "1");
  ASSERT_TRUE(s.world.run(s.client(0).set_xattr(f->id(), "user.a", "2", {})).ok());
  EXPECT_EQ(*s.world.run(s.client(0).get_xattr(f->id(), "user.a")), "2");
  ASSERT_TRUE(s.world.run(s.client(1).remove_xattr(f->id(), "user.a")).ok());
  EXPECT_EQ(s.world.run(s.client(0).get_xattr(f->id(), "user.a")).code(), Code::kNoAttribute);
  EXPECT_TRUE(s.world.run(s.client(0).list_xattr(f->id()))->empty());
}

TEST(Client, KernelCachesAreDroppedBeforeARecallIsAnswered) {
  Steps s(32, 2);
  auto f = s.create("a");
  std::vector<FileId> dropped;
  uint64_t size_elsewhere = 0;
  struct Hook {
    static Task<void> run(Steps& s, std::vector<FileId>& dropped, uint64_t& seen, FileSystem::Invalidation what) {
      seen = s.disk.inodes[what.file].attributes.size;  // the other's change must not have happened yet
      dropped.push_back(what.file);
      co_return;
    }
  };
  s.client(0).on_invalidate([&](FileSystem::Invalidation what) { return Hook::run(s, dropped, size_elsewhere, what); });
  ASSERT_TRUE(s.write(f, 0, "abc").ok());
  EXPECT_EQ(s.stat(f->id(), 1).size, 3u);
  EXPECT_TRUE(dropped.empty());  // the writer keeps a read grant: what the kernel has stays true
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.write(g, 3, "defg", 1).ok());
  EXPECT_EQ(dropped, std::vector<FileId>{f->id()});
  EXPECT_EQ(size_elsewhere, 3u);
}

TEST(Client, AStuckKernelDoesNotHoldUpARecallForEver) {
  Steps s(33, 2);
  auto f = s.create("a");
  struct Hook {
    static Task<void> run() {
      Event never;
      co_await never.wait();
    }
  };
  s.client(0).on_invalidate([](FileSystem::Invalidation) { return Hook::run(); });
  (void)s.stat(f->id());
  auto g = s.open(f->id(), 1);
  ASSERT_TRUE(s.write(g, 0, "x", 1).ok());
  EXPECT_LT(s.world.now().seconds(), 30.0);
}

TEST(Client, LeavesWhenTheNodeCloses) {
  Steps s(34);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "flushed at the end").ok());
  (void)s.stat(f->id());
  EXPECT_FALSE(s.client().closing().is_set());
  ASSERT_TRUE(s.world.run_until(s.node().close_all(), seconds(30)));
  ASSERT_TRUE(s.world.run_until([&] { return s.client().closing().is_set(); }, seconds(30)));
  EXPECT_EQ(s.node().grants(), 0u);
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.size, 18u);
}

TEST(Client, ShutDownFlushesAndGivesEverythingBack) {
  Steps s(35);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, pattern(200'000, 1)).ok());
  ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  ASSERT_TRUE(s.world.run(s.client().shut_down()).ok());
  EXPECT_EQ(s.node().grants(), 0u);
  EXPECT_EQ(s.node().sessions(), 0u);
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.size, 200'000u);
}

TEST(Client, ATakenOverNamespaceIsReadOnlyAtOnceBadInput) {
  Steps s(36);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "x").ok());
  s.faults.read_only = true;
  s.world.run_for(seconds(3));
  EXPECT_EQ(s.write(f, 0, "y").code(), Code::kReadOnly);
  EXPECT_EQ(s.world.run(s.client().create(kRootFile, "b", 0644, kReadWrite, {})).code(), Code::kReadOnly);
  EXPECT_EQ(s.sync(f->id()).code(), Code::kReadOnly);
}

TEST(Client, StatisticsAddUp) {
  Steps s(37);
  (void)s.create("a");
  auto statistics = s.world.run(s.client().statistics());
  ASSERT_TRUE(statistics.ok());
  EXPECT_EQ(statistics->total_bytes, 4 * kGiB / 3 * 2);
  EXPECT_GT(statistics->files, 0u);
}

TEST(Client, GivesBackIdleGrants) {
  Steps s(38, 1, {.idle_grant = seconds(20)});
  for (int i = 0; i < 20; ++i) (void)s.create("f" + std::to_string(i));
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_GE(s.node().grants(), 20u);
  s.world.run_for(seconds(60));
  EXPECT_LE(s.node().grants(), 1u);
  EXPECT_TRUE(s.world.run(s.client().lookup(kRootFile, "f7")).ok());
}

// ---- advisory locks ----

struct LockSteps : Steps {
  explicit LockSteps(uint64_t seed) : Steps(seed, 2), file(create("a")->id()) { HR_ASSERT(sync(file).ok()); }
  bool lock(uint64_t owner, size_t c = 0) {
    auto locked = world.run(
        client(c).lock(file, {.owner = owner, .kind = LockKind::kExclusive, .begin = 0, .end = kLockEnd}, {}));
    HR_ASSERT(locked.ok());
    return *locked;
  }
  Result<void> unlock_all(uint64_t owner) { return world.run(client().unlock_all(file, owner, false)); }
  FileId file;
};

TEST(Client, DataBehindAHoleOfExabytesIsFound) {
  constexpr uint64_t kFar = uint64_t{1} << 60;
  Steps s(134);
  auto file = s.create("a");
  const auto seek = [&](uint64_t from, bool hole) { return s.world.run(s.client().seek(file, from, hole)); };
  ASSERT_TRUE(s.world.run(s.client().set_attributes(file->id(), {.mask = kSetSize, .size = 2 * kFar})).ok());
  const uint64_t asked = s.node().counts.extents;
  EXPECT_EQ(seek(0, false).code(), Code::kNotFound);
  EXPECT_EQ(*seek(5, true), 5u);
  ASSERT_TRUE(s.write(file, kFar, "far away").ok());  // not committed yet, then so
  for (bool synced : {false, true}) {
    if (synced) ASSERT_TRUE(s.sync(file->id()).ok());
    EXPECT_EQ(*seek(0, false), kFar);
    EXPECT_EQ(*seek(kFar, true), kFar + 8);
    EXPECT_EQ(seek(kFar + 8, false).code(), Code::kNotFound);
  }
  EXPECT_LT(s.node().counts.extents, asked + 10);
}

TEST(Client, AFileWhoseClosingFailedToBeToldIsForgottenLater) {
  Steps s(133, 2);
  auto file = s.create("a");
  const FileId id = file->id();
  auto reader = s.open(id, 1);  // without a grant that protects it: its partition keeps it
  ASSERT_EQ(s.disk.inodes[id].kept.size(), 1u);
  s.faults.fail_forgets = 2;
  ASSERT_TRUE(s.world.run(s.client(1).close(reader)).ok());
  s.world.run_for(seconds(30));
  EXPECT_EQ(s.faults.fail_forgets, 0u);
  EXPECT_TRUE(s.disk.inodes[id].kept.empty());
}

TEST(ClientLocks, AnUnlockingThatFailedIsAskedForAgain) {
  LockSteps s(130);
  ASSERT_TRUE(s.lock(7));
  s.faults.fail_unlocks = 2;
  EXPECT_FALSE(s.unlock_all(7).ok());
  EXPECT_FALSE(s.lock(7, 1));
  s.world.run_for(seconds(15));
  EXPECT_TRUE(s.lock(7, 1)) << "its owner is gone, and so is its lock";
}

TEST(ClientLocks, WhoLocksAnewKeepsThatLock) {
  LockSteps s(131);
  ASSERT_TRUE(s.lock(7));
  s.faults.fail_unlocks = 1;
  EXPECT_FALSE(s.unlock_all(7).ok());
  ASSERT_TRUE(s.lock(7));
  s.world.run_for(seconds(15));
  EXPECT_FALSE(s.lock(7, 1));
  ASSERT_TRUE(s.unlock_all(7).ok());
  EXPECT_TRUE(s.lock(7, 1));
}

TEST(ClientLocks, OneThatIsGrantedAfterItsOwnerGaveUpAllCanStillBeEnded) {
  LockSteps s(132);
  s.faults.hold_locks = true;
  bool granted = false;
  s.world.spawn([](Client* c, FileId file, bool* out) -> Task<void> {
    auto locked = co_await c->lock(file, {.owner = 7, .kind = LockKind::kExclusive, .begin = 0, .end = kLockEnd}, {});
    *out = locked.ok() && *locked;
  }(&s.client(), s.file, &granted));
  s.world.run_for(milliseconds(100));
  ASSERT_TRUE(s.unlock_all(7).ok());
  s.faults.hold_locks = false;
  ASSERT_TRUE(s.world.run_until([&] { return granted; }, seconds(10)));
  ASSERT_TRUE(s.unlock_all(7).ok());
  EXPECT_TRUE(s.lock(7, 1));
}

// ---- directory write grants ----

// A directory that client 0 writes alone: the grant came with the first file in it.
struct Directory : Steps {
  explicit Directory(uint64_t seed, size_t clients = 1, ClientOptions options = {}) : Steps(seed, clients, options) {
    auto made = world.run(client().make(kRootFile, "d", {.type = FileType::kDirectory, .mode = 0755}, {}));
    HR_ASSERT(made.ok());
    id = made->id;
    (void)write_file("first", "1");
    HR_ASSERT(world.run(client().sync_all()).ok());
    before = node().counts;
  }
  FileId make(const std::string& name, size_t c = 0) {
    auto made = world.run(client(c).make(id, name, {.mode = 0644}, {}));
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().text());
    return made.ok() ? made->id : FileId();
  }
  FileId write_file(const std::string& name, const std::string& bytes, size_t c = 0) {
    auto f = create(name, c, kReadWrite, id);
    HR_ASSERT(write(f, 0, bytes, c).ok());
    HR_ASSERT(world.run(client(c).close(f)).ok());
    return f->id();
  }
  Result<void> unlink(const std::string& name, size_t c = 0) {
    (void)world.run(client(c).lookup(id, name));  // as a kernel does
    return world.run(client(c).unlink(id, name));
  }
  bool there(const std::string& name) { return disk.inodes[id].names.contains(name); }
  bool sees(const std::string& name, size_t c) { return world.run(client(c).lookup(id, name)).ok(); }
  FileId id;
  FakeNode::Counts before;
};

TEST(DirectoryWriteGrant, FilesAreMadeWithoutAMessageAndSentTogether) {
  Directory s(100);
  for (int i = 0; i < 300; ++i) (void)s.write_file("f" + std::to_string(i), pattern(100, i));
  EXPECT_EQ(s.node().counts.makes, s.before.makes);
  EXPECT_EQ(s.node().counts.lookups, s.before.lookups);
  EXPECT_FALSE(s.there("f0"));
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_TRUE(s.there("f299"));
  EXPECT_LE(s.node().counts.change_messages, s.before.change_messages + 2);
  EXPECT_LE(s.node().counts.commits, s.before.commits + 1);
  s.start_client_again(0);
  auto found = s.world.run(s.client().lookup(s.id, "f77"));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(s.read(s.open(found->id), 0, 1000), pattern(100, 77));
}

TEST(DirectoryWriteGrant, AFileInANewDirectoryCostsOneMessage) {
  Directory s(121);
  auto made = s.world.run(s.client().make(kRootFile, "e", {.type = FileType::kDirectory, .mode = 0755}, {}));
  ASSERT_TRUE(made.ok());
  const FakeNode::Counts before = s.node().counts;
  EXPECT_EQ(s.world.run(s.client().lookup(made->id, "a")).code(), Code::kNotFound);
  ASSERT_TRUE(s.world.run(s.client().make(made->id, "a", {}, {})).ok());
  ASSERT_TRUE(s.world.run(s.client().make(made->id, "b", {}, {})).ok());
  EXPECT_EQ(s.node().counts.acquires, before.acquires + 1);
  EXPECT_EQ(s.node().counts.lookups, before.lookups);
  EXPECT_EQ(s.node().counts.makes, before.makes);
  EXPECT_EQ(s.node().counts.changes, before.changes);
}

TEST(DirectoryWriteGrant, AnswersAreThoseOfAFileSystem) {
  Directory s(101);
  const FileId a = s.make("a");
  EXPECT_EQ(s.world.run(s.client().make(s.id, "a", {}, {})).code(), Code::kExists);
  EXPECT_EQ(s.world.run(s.client().make(s.id, "first", {}, {})).code(), Code::kExists);
  EXPECT_EQ(s.world.run(s.client().lookup(s.id, "a"))->id, a);
  EXPECT_EQ(s.world.run(s.client().lookup(s.id, "b")).code(), Code::kNotFound);
  EXPECT_EQ(s.unlink("b").code(), Code::kNotFound);
  auto set = s.world.run(
      s.client().set_attributes(a, {.mask = kSetMode | kSetUid | kSetMtime, .mode = 0600, .uid = 5, .mtime = 77}));
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(set->mode, 0600u);
  EXPECT_EQ(s.stat(a).mtime, 77);
  EXPECT_EQ(s.world.run(s.client().get_xattr(a, "user.x")).code(), Code::kNoAttribute);
  auto link = s.world.run(s.client().make(s.id, "l", {.type = FileType::kSymlink, .target = "to"}, {}));
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(*s.world.run(s.client().read_link(link->id)), "to");
  const int64_t mtime = s.stat(s.id).mtime;
  ASSERT_TRUE(s.unlink("a").ok());
  EXPECT_GT(s.stat(s.id).mtime, mtime);
  EXPECT_EQ(s.world.run(s.client().lookup(s.id, "a")).code(), Code::kNotFound);
  EXPECT_EQ(s.node().counts.changes, s.before.changes);
  // The list is the partition's, with all that was done before.
  auto list = s.world.run(s.client().read_directory(s.id, 0, 100, true));
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->entries.size(), 2u);
  EXPECT_EQ(list->entries[1].name, "l");
}

TEST(DirectoryWriteGrant, SyncOfTheFileMakesItsNameDurable) {
  Directory s(102);
  auto f = s.create("a", 0, kReadWrite, s.id);
  ASSERT_TRUE(s.write(f, 0, "hello").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_TRUE(s.there("a"));
  (void)s.make("never synced");
  s.start_client_again(0);
  EXPECT_TRUE(s.sees("a", 0));
  EXPECT_FALSE(s.sees("never synced", 0));
  EXPECT_EQ(s.read(s.open(f->id()), 0, 100), "hello");
}

TEST(DirectoryWriteGrant, SyncOfTheDirectoryMakesAllItsNamesDurable) {
  Directory s(103);
  const FileId a = s.make("a");
  (void)s.make("b");
  ASSERT_TRUE(s.unlink("first").ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(a, {.mask = kSetMode, .mode = 0700})).ok());
  EXPECT_FALSE(s.there("a"));
  ASSERT_TRUE(s.sync(s.id).ok());
  EXPECT_TRUE(s.there("a") && s.there("b") && !s.there("first"));
  EXPECT_EQ(s.disk.inodes[a].attributes.mode, 0700u);
  s.start_client_again(0);
  EXPECT_TRUE(s.sees("b", 0));
}

TEST(DirectoryWriteGrant, OSyncIsDurableWhenAnswered) {
  Directory s(104);
  auto f = s.create("a", 0, {.write = true, .sync = true}, s.id);
  EXPECT_TRUE(s.there("a"));
}

TEST(DirectoryWriteGrant, IsSentWithinFiveSeconds) {
  Directory s(105);
  const FileId a = s.make("a");
  s.world.run_for(milliseconds(5500));
  EXPECT_TRUE(s.there("a"));
  ASSERT_TRUE(s.world.run(s.client().set_attributes(a, {.mask = kSetMode, .mode = 0700})).ok());
  EXPECT_EQ(s.node().counts.changes, s.before.changes + 1);
  s.world.run_for(milliseconds(5500));
  EXPECT_EQ(s.disk.inodes[a].attributes.mode, 0700u);
}

TEST(DirectoryWriteGrant, WhatIsMadeAndRemovedCostsNothingButTheDirectorysTimes) {
  Directory s(106);
  for (int i = 0; i < 50; ++i) {
    (void)s.write_file("t" + std::to_string(i), pattern(10'000, i));
    ASSERT_TRUE(s.unlink("t" + std::to_string(i)).ok());
  }
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  const int64_t mtime = s.stat(s.id).mtime;
  s.world.run_for(seconds(20));
  EXPECT_EQ(s.node().counts.changes, s.before.changes + 1);
  EXPECT_EQ(s.node().counts.touches, s.before.touches + 1);
  EXPECT_EQ(s.node().counts.commits, s.before.commits);
  EXPECT_EQ(s.disk.inodes[s.id].attributes.mtime, mtime);
  EXPECT_EQ(s.disk.inodes.size(), 3u);
}

// As a program that writes under a name of the moment and moves that.
TEST(DirectoryWriteGrant, NamesThatAreGoneAreNotRememberedWhereAllAreKnown) {
  Directory s(128);
  for (int i = 0; i < 200; ++i) {
    const std::string name = "t" + std::to_string(i);
    (void)s.write_file(name, "x");
    if (i % 3 == 0) ASSERT_TRUE(s.world.run(s.client().rename({s.id, name, s.id, "final"})).ok());
    if (i % 3 == 1) ASSERT_TRUE(s.world.run(s.client().sync(s.id)).ok());
    if (i % 3 != 0) ASSERT_TRUE(s.unlink(name).ok());
    ASSERT_FALSE(s.sees(name, 0));
  }
  EXPECT_LE(s.client().known_names(), 4u);  // d, first, final
}

TEST(DirectoryWriteGrant, AnUnlinkedUnsentFileThatIsOpenStays) {
  Directory s(107);
  auto f = s.create("a", 0, kReadWrite, s.id);
  ASSERT_TRUE(s.write(f, 0, "hello").ok());
  ASSERT_TRUE(s.unlink("a").ok());
  EXPECT_FALSE(s.sees("a", 0));
  s.world.run_for(seconds(10));
  EXPECT_EQ(s.read(f, 0, 100), "hello");
  ASSERT_TRUE(s.write(f, 5, " again").ok());
  ASSERT_TRUE(s.sync(f->id()).ok());
  EXPECT_EQ(s.read(f, 0, 100), "hello again");
  ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  s.world.run_for(seconds(10));
  EXPECT_FALSE(s.disk.inodes.contains(f->id()));
}

TEST(DirectoryWriteGrant, AnotherClientSeesAllThatWasAnswered) {
  Directory s(108, 2);
  const FileId a = s.write_file("a", "hello");
  ASSERT_TRUE(s.unlink("first").ok());
  EXPECT_FALSE(s.there("a"));
  EXPECT_TRUE(s.sees("a", 1));
  EXPECT_FALSE(s.sees("first", 1));
  EXPECT_EQ(s.read(s.open(a, 1), 0, 100, 1), "hello");
  // Refusals too: a name that is gone is free, one that is there is not.
  ASSERT_TRUE(s.world.run(s.client(1).make(s.id, "first", {}, {})).ok());
  EXPECT_EQ(s.world.run(s.client(0).make(s.id, "first", {}, {})).code(), Code::kExists);
  auto list = s.world.run(s.client(1).read_directory(s.id, 0, 100, false));
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->entries.size(), 2u);
}

TEST(DirectoryWriteGrant, AnotherClientSeesRemovalsWhenItRemovesTheDirectory) {
  Directory s(109, 2);
  ASSERT_TRUE(s.sees("first", 0));
  EXPECT_TRUE(s.world.run(s.client(1).lookup(kRootFile, "d")).ok());
  (void)s.make("x");
  EXPECT_EQ(s.world.run(s.client(1).remove_directory(kRootFile, "d")).code(), Code::kNotEmpty);
  ASSERT_TRUE(s.unlink("x").ok());
  ASSERT_TRUE(s.unlink("first").ok());
  EXPECT_TRUE(s.world.run(s.client(1).remove_directory(kRootFile, "d")).ok());
}

TEST(DirectoryWriteGrant, ItsOwnerRemovesADirectoryOnlyWhenItIsEmpty) {
  Directory s(110);
  (void)s.make("x");
  EXPECT_EQ(s.world.run(s.client().remove_directory(kRootFile, "d")).code(), Code::kNotEmpty);
  ASSERT_TRUE(s.unlink("x").ok());
  ASSERT_TRUE(s.unlink("first").ok());
  EXPECT_TRUE(s.world.run(s.client().remove_directory(kRootFile, "d")).ok());
}

TEST(DirectoryWriteGrant, TwoClientsRacingMakeEachNameOnce) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Directory s(200 + seed, 2);
    s.node().slow = milliseconds(3);
    int made = 0;
    Scope scope;
    auto racer = [](Directory* d, size_t c, int* count) -> Task<void> {
      for (int i = 0; i < 30; ++i) {
        auto one = co_await d->client(c).make(d->id, "n" + std::to_string(i), {}, {});
        if (one.ok()) ++*count;
        EXPECT_TRUE(one.ok() || one.code() == Code::kExists);
        co_await d->world.clock().sleep(milliseconds(static_cast<int64_t>(d->world.random().below(400))));
      }
    };
    for (size_t c = 0; c < 2; ++c) scope.spawn(racer(&s, c, &made));
    ASSERT_TRUE(s.world.run_until([&] { return scope.running() == 0; }, seconds(600)));
    EXPECT_EQ(made, 30) << seed;
    for (size_t c = 0; c < 2; ++c) ASSERT_TRUE(s.world.run(s.client(c).sync_all()).ok());
    EXPECT_EQ(s.disk.inodes[s.id].names.size(), 31u);
  }
}

TEST(DirectoryWriteGrant, ANodesRestartLosesNothingAndAppliesNothingTwice) {
  Directory s(111);
  s.node().slow = milliseconds(2);
  std::map<std::string, std::string> files;
  for (int i = 0; i < 40; ++i) {
    const std::string name = "f" + std::to_string(i);
    files[name] = pattern(500, i);
    (void)s.write_file(name, files[name]);
    if (i % 10 == 5) {
      s.faults.hold_changes = i % 20 == 5;  // one is on its way when the node goes
      s.world.spawn([](Client* c, FileId d) -> Task<void> { (void)co_await c->sync(d); }(&s.client(), s.id));
      s.world.run_for(milliseconds(20));
      s.restart_node();
      s.faults.hold_changes = false;
    }
  }
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  for (const auto& [key, times] : s.disk.effects) EXPECT_EQ(times, 1);
  s.start_client_again(0);
  for (const auto& [name, bytes] : files) {
    auto found = s.world.run(s.client().lookup(s.id, name));
    ASSERT_TRUE(found.ok()) << name;
    EXPECT_EQ(s.read(s.open(found->id), 0, 1000), bytes);
  }
}

TEST(DirectoryWriteGrant, AnEvictedClientSaysStaleNotSuccess) {
  Directory s(112);
  auto f = s.create("a", 0, kReadWrite, s.id);
  auto g = s.create("b", 0, kReadWrite, s.id);
  ASSERT_TRUE(s.write(g, 0, "data").ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMode, .mode = 0700})).ok());
  s.faults.forget_sessions = true;
  s.restart_node();
  EXPECT_EQ(s.sync(f->id()).code(), Code::kStale);
  EXPECT_EQ(s.sync(g->id()).code(), Code::kStale);
  EXPECT_EQ(s.sync(s.id).code(), Code::kStale);
  EXPECT_TRUE(s.sync(s.id).ok());  // said once
  EXPECT_EQ(s.world.run(s.client().sync_all()).code(), Code::kStale);
  EXPECT_FALSE(s.sees("a", 0));
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  // And on it goes.
  (void)s.make("a");
  ASSERT_TRUE(s.sync(s.id).ok());
  EXPECT_TRUE(s.there("a"));
}

TEST(DirectoryWriteGrant, WhatThePartitionDidNotTakeIsToldToWhoSyncsEverything) {
  Directory s(121);
  (void)s.make("a");
  s.faults.read_only = true;
  s.world.run_for(seconds(10));  // sent, and refused
  s.faults.read_only = false;
  EXPECT_EQ(s.world.run(s.client().sync_all()).code(), Code::kReadOnly);
  EXPECT_TRUE(s.world.run(s.client().sync_all()).ok());  // told once
  EXPECT_EQ(s.sync(s.id).code(), Code::kReadOnly);       // and once to who syncs the directory
  EXPECT_TRUE(s.sync(s.id).ok());
  EXPECT_FALSE(s.sees("a", 0));
}

// The grant of another directory of the session was recalled: this one's would still let them pass.
TEST(DirectoryWriteGrant, WhatWasGivenUpIsNotThereLater) {
  Directory s(116, 2);
  FileId other;
  for (int i = 0; !other || other.slot() != s.id.slot(); ++i) {
    auto made = s.world.run(
        s.client().make(kRootFile, "e" + std::to_string(i), {.type = FileType::kDirectory, .mode = 0755}, {}));
    ASSERT_TRUE(made.ok() && i < 10);
    other = made->id;
  }
  ASSERT_TRUE(s.world.run(s.client().make(other, "first", {.mode = 0644}, {})).ok());
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  s.faults.hold_changes = true;
  (void)s.make("a");
  s.world.run_for(seconds(6));  // it is under way
  ASSERT_TRUE(s.world.run(s.client().make(other, "b", {.mode = 0644}, {})).ok());
  ASSERT_TRUE(s.world.run(s.client(1).make(other, "c", {.mode = 0644}, {})).ok());
  ASSERT_EQ(s.client().counters().changes.lost, 2u);
  ASSERT_TRUE(s.world.run(s.client().set_xattr(other, "user.x", "new", {})).ok());
  s.faults.hold_changes = false;
  s.world.run_for(seconds(10));
  EXPECT_FALSE(s.there("a"));
}

TEST(DirectoryWriteGrant, OrderWithinADirectoryIsKept) {
  // Whenever the client dies, what is there is all that it did up to some moment.
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Directory s(300 + seed, 1, {.flush_after = milliseconds(600)});
    s.node().slow = milliseconds(200);
    const int64_t steps = static_cast<int64_t>(20 + s.world.random().below(60));
    for (int64_t i = 0; i < steps; ++i) {
      (void)s.make("n" + std::to_string(i));
      if (i >= 3) ASSERT_TRUE(s.unlink("n" + std::to_string(i - 3)).ok());
      s.world.run_for(milliseconds(static_cast<int64_t>(s.world.random().below(120))));
    }
    s.machines[0]->crash(CrashKind::kPower);
    s.world.run_for(seconds(20));
    std::set<int> left;
    for (const auto& [name, entry] : s.disk.inodes[s.id].names)
      if (name != "first") left.insert(std::stoi(name.substr(1)));
    if (left.empty()) continue;
    EXPECT_LE(left.size(), 4u) << seed;
    EXPECT_EQ(*left.rbegin() - *left.begin() + 1, static_cast<int>(left.size())) << seed;
  }
}

TEST(DirectoryWriteGrant, RenameOverAnUnsentFileAndOfOne) {
  Directory s(113);
  (void)s.write_file("tmp", "new");
  (void)s.write_file("final", "old");
  ASSERT_TRUE(s.world.run(s.client().rename({s.id, "tmp", s.id, "final", false})).ok());
  EXPECT_FALSE(s.sees("tmp", 0));
  auto found = s.world.run(s.client().lookup(s.id, "final"));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(s.read(s.open(found->id), 0, 100), "new");
  // Out of the directory: everything before it is there first.
  (void)s.make("x");
  (void)s.make("y");
  ASSERT_TRUE(s.world.run(s.client().rename({s.id, "y", kRootFile, "y", false})).ok());
  EXPECT_TRUE(s.there("x") && !s.there("y"));
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  s.start_client_again(0);
  found = s.world.run(s.client().lookup(s.id, "final"));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(s.read(s.open(found->id), 0, 100), "new");
}

TEST(DirectoryWriteGrant, LinksAndXattrsOfUnsentFiles) {
  Directory s(114);
  const FileId a = s.make("a");
  auto linked = s.world.run(s.client().link(a, s.id, "a2"));
  ASSERT_TRUE(linked.ok());
  EXPECT_EQ(linked->links, 2u);
  const FileId b = s.make("b");
  ASSERT_TRUE(s.world.run(s.client().set_xattr(b, "user.x", "1", {})).ok());
  EXPECT_EQ(*s.world.run(s.client().get_xattr(b, "user.x")), "1");
  ASSERT_TRUE(s.unlink("a").ok());
  EXPECT_EQ(s.stat(a).links, 1u);
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_EQ(s.disk.inodes[a].attributes.links, 1u);
}

// user::rwx, user:7:rwx, group::r-x, mask::rwx, other::r-x
const std::string kAcl(
    "\2\0\0\0\1\0\7\0\xff\xff\xff\xff\2\0\7\0\7\0\0\0\4\0\5\0\xff\xff\xff\xff\x10\0\7\0\xff\xff\xff\xff\x20\0\5\0"
    "\xff\xff\xff\xff",
    44);

TEST(DirectoryWriteGrant, WhatInheritsAnAclIsMadeAtThePartition) {
  Directory s(125);
  const Credentials who{.umask = 077};
  auto made = s.world.run(s.client().create(s.id, "a", 0666, kReadWrite, who));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->attributes.mode, 0600u);
  EXPECT_FALSE(s.there("a"));
  ASSERT_TRUE(s.world.run(s.client().set_xattr(s.id, std::string(kDefaultAcl), kAcl, {})).ok());
  made = s.world.run(s.client().create(s.id, "b", 0666, kReadWrite, who));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->attributes.mode, 0664u);
  EXPECT_EQ(s.stat(made->attributes.id).mode, 0664u);
  EXPECT_TRUE(s.there("a") && s.there("b"));
  auto acl = s.world.run(s.client().get_xattr(made->attributes.id, std::string(kAccessAcl)));
  ASSERT_TRUE(acl.ok());
  EXPECT_EQ((*PosixAcl::decode(*acl))->in_mode(0), 0664u);
  auto below = s.world.run(s.client().make(s.id, "d", {.type = FileType::kDirectory, .mode = 0777}, who));
  ASSERT_TRUE(below.ok());
  EXPECT_EQ(below->mode, 0775u);
  EXPECT_EQ(s.world.run(s.client().make(below->id, "e", {.mode = 0644}, who))->mode, 0644u);
  EXPECT_EQ(s.disk.inodes[below->id].names.size(), 1u);
  auto link = s.world.run(s.client().make(s.id, "l", {.type = FileType::kSymlink, .mode = 0777, .target = "t"}, who));
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(link->mode, 0777u);
  ASSERT_TRUE(s.world.run(s.client().remove_xattr(s.id, std::string(kDefaultAcl))).ok());
  EXPECT_EQ(s.world.run(s.client().make(s.id, "z", {.mode = 0666}, who))->mode, 0600u);
  EXPECT_EQ(s.stat(s.id).mode, s.disk.inodes[s.id].attributes.mode);
}

TEST(DirectoryWriteGrant, ChmodOfAFileWithAnAclIsThePartitions) {
  Directory s(126);
  const FileId a = s.make("a");
  ASSERT_TRUE(s.world.run(s.client().set_attributes(a, {.mask = kSetMode, .mode = 0640})).ok());
  EXPECT_FALSE(s.there("a"));
  ASSERT_TRUE(s.world.run(s.client().set_xattr(a, std::string(kAccessAcl), kAcl, {})).ok());
  EXPECT_EQ(s.stat(a).mode, 0775u);
  EXPECT_EQ(*s.world.run(s.client().get_xattr(a, std::string(kAccessAcl))), kAcl);
  ASSERT_TRUE(s.world.run(s.client().set_attributes(a, {.mask = kSetMode, .mode = 0700})).ok());
  EXPECT_EQ(s.disk.inodes[a].attributes.mode, 0700u);
  PosixAcl acl = **PosixAcl::decode(*s.world.run(s.client().get_xattr(a, std::string(kAccessAcl))));
  EXPECT_EQ(acl.in_mode(0), 0700u);
  ASSERT_TRUE(s.world.run(s.client().set_attributes(a, {.mask = kSetMtime, .mtime = 5})).ok());
  EXPECT_EQ(s.stat(a).mtime, 5);
}

TEST(DirectoryWriteGrant, AnAclThatAnotherSetsOnADirectoryIsInheritedAtOnce) {
  Directory s(127, 2);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(s.world.run(s.client(0).make(s.id, "a" + std::to_string(i), {.mode = 0666}, {.umask = 077}))->mode,
              0600u);
    ASSERT_TRUE(s.world.run(s.client(1).set_xattr(s.id, std::string(kDefaultAcl), kAcl, {})).ok());
    ASSERT_EQ(s.world.run(s.client(0).make(s.id, "b" + std::to_string(i), {.mode = 0666}, {.umask = 077}))->mode,
              0664u);
    ASSERT_TRUE(s.world.run(s.client(1).remove_xattr(s.id, std::string(kDefaultAcl))).ok());
  }
}

TEST(DirectoryWriteGrant, TruncatedAndPunchedBeforeItWasSent) {
  Directory s(115);
  auto f = s.create("a", 0, kReadWrite, s.id);
  ASSERT_TRUE(s.write(f, 0, pattern(10'000, 1)).ok());
  ASSERT_TRUE(s.resize(f->id(), 5000).ok());
  ASSERT_TRUE(s.world.run(s.client().punch(f, 0, 1000)).ok());
  EXPECT_EQ(s.read(f, 0, 20'000), std::string(1000, '\0') + pattern(10'000, 1).substr(1000, 4000));
}

TEST(DirectoryWriteGrant, TimesThatWereSetStayOverTheDataThatFollows) {
  Directory s(116);
  auto f = s.create("a", 0, kReadWrite, s.id);
  ASSERT_TRUE(s.write(f, 0, pattern(100'000, 1)).ok());
  ASSERT_TRUE(s.world.run(s.client().set_attributes(f->id(), {.mask = kSetMtime, .mtime = 1234})).ok());
  ASSERT_TRUE(s.world.run(s.client().close(f)).ok());
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_EQ(s.stat(f->id()).mtime, 1234);
  EXPECT_EQ(s.disk.inodes[f->id()].attributes.mtime, 1234);
}

TEST(DirectoryWriteGrant, WhenTooMuchIsUnsentMakersWait) {
  Directory s(117, 1, {.max_unsent = 10});
  for (int i = 0; i < 100; ++i) {
    (void)s.make("f" + std::to_string(i));
    EXPECT_LE(s.disk.inodes[s.id].names.size() + 10, static_cast<size_t>(i) + 2 + 10);
  }
  EXPECT_GE(s.disk.inodes[s.id].names.size() + 10, 100u);
}

TEST(DirectoryWriteGrant, FileIdsRunOutAndAreReservedAgain) {
  Directory s(118);
  for (int i = 0; i < 3000; ++i) (void)s.make("f" + std::to_string(i));
  ASSERT_TRUE(s.world.run(s.client().sync_all()).ok());
  EXPECT_EQ(s.disk.inodes[s.id].names.size(), 3001u);
  EXPECT_EQ(s.node().counts.makes, s.before.makes);
}

TEST(DirectoryWriteGrant, SpinDownTakesWhatWasUnsent) {
  Directory s(119);
  const FileId a = s.write_file("a", "hello");
  ASSERT_TRUE(s.unlink("first").ok());
  ASSERT_TRUE(s.world.run_until(s.node().close_all(), seconds(30)));
  ASSERT_TRUE(s.world.run_until([&] { return s.client().closing().is_set(); }, seconds(60)));
  EXPECT_TRUE(s.there("a") && !s.there("first"));
  EXPECT_EQ(s.disk.inodes[a].attributes.size, 5u);
  EXPECT_EQ(s.node().grants(), 0u);
}

TEST(DirectoryWriteGrant, ALeaseThatRanOutAnswersNothingHere) {
  Directory s(120);
  (void)s.make("x");
  s.node_machine.crash(CrashKind::kProcess);
  (void)s.make("a");  // the lease still stands
  s.world.run_for(seconds(12));
  bool made = false;
  s.world.spawn([](Directory* d, bool* done) -> Task<void> {
    *done = (co_await d->client().make(d->id, "b", {}, {})).ok();
  }(&s, &made));
  s.world.run_for(seconds(3));
  EXPECT_FALSE(made);
  ++s.disk.epoch;
  ++s.disk.version;
  s.start_node();
  ASSERT_TRUE(s.world.run_until([&] { return made; }, seconds(60)));
  ASSERT_TRUE(s.sync(s.id).ok());
  EXPECT_TRUE(s.there("a") && s.there("b"));
}

// ---- one client after another ----

struct HandOver : Steps {
  explicit HandOver(uint64_t seed) : Steps(seed, 2) { machines.push_back(&world.add_machine("successor")); }
  Result<ClientHandover> hand_over(size_t c = 0) {
    Result<void> prepared = world.run(client(c).prepare_hand_over());
    if (!prepared.ok()) return prepared.error();
    return world.run(client(c).hand_over(seconds(10)));
  }
  void go_on(size_t c, ClientHandover handover) {
    ClientOptions options;
    options.handover = decode<ClientHandover>(encode(handover)).operator*();
    start_client(c, options);
  }
  bool lock(FileId file, uint64_t owner, size_t c, LockKind kind = LockKind::kExclusive) {
    auto locked = world.run(client(c).lock(file, {.owner = owner, .kind = kind, .begin = 0, .end = kLockEnd}, {}));
    HR_ASSERT(locked.ok());
    return *locked;
  }
};

TEST(ClientHandover, TheNextClientGoesOnWithLocksAndUnlinkedFilesAndUnsyncedData) {
  HandOver s(60);
  auto f = s.create("a");
  const std::string data = pattern(20 * kMiB, 1);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  auto gone = s.create("gone");
  ASSERT_TRUE(s.write(gone, 0, "unlinked").ok());
  ASSERT_TRUE(s.world.run(s.client().unlink(kRootFile, "gone")).ok());
  ASSERT_TRUE(s.lock(f->id(), 7, 0));
  EXPECT_FALSE(s.lock(f->id(), 7, 1)) << "the same owner of another client";
  const size_t sessions = s.node().sessions();

  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  EXPECT_EQ(s.node().grants(), 0u);
  EXPECT_EQ(s.client().counters().dirty_bytes, 0u);
  EXPECT_EQ(s.client().counters().dirty_memory, 0u);
  s.go_on(2, *handover);
  s.machines[0]->crash(CrashKind::kProcess);
  EXPECT_EQ(s.node().sessions(), sessions);

  auto again = s.open(f->id(), 2);
  EXPECT_EQ(s.read(again, 0, data.size(), 2), data);
  ASSERT_TRUE(s.write(again, 3, "more", 2).ok());
  ASSERT_TRUE(s.sync(f->id(), 2).ok());
  auto unlinked = s.open(gone->id(), 2);
  s.world.run_for(seconds(30));  // sessions are kept alive
  EXPECT_EQ(s.read(unlinked, 0, 100, 2), "unlinked");
  EXPECT_FALSE(s.lock(f->id(), 7, 1));
  ASSERT_TRUE(s.world.run(s.client(2).unlock_all(f->id(), 7, false)).ok());
  EXPECT_TRUE(s.lock(f->id(), 7, 1));
  ASSERT_TRUE(s.world.run(s.client(2).close(unlinked)).ok());
  s.world.run_for(seconds(5));
  EXPECT_FALSE(s.disk.inodes.contains(gone->id()));
  EXPECT_EQ(s.node().counts.evictions, 0u);
  EXPECT_EQ(s.node().sessions(), sessions);
}

TEST(ClientHandover, ManyClientsInTurnUseEachTicketOnceAndGiveReservationsBack) {
  HandOver s(61);
  auto f = s.create("a");
  size_t now = 0;
  for (int turn = 0; turn < 6; ++turn) {
    auto mine = s.open(f->id(), now);
    const std::string data = pattern(300'000, static_cast<uint64_t>(turn));
    ASSERT_TRUE(s.write(mine, 0, data, now).ok());
    (void)s.create("f" + std::to_string(turn), now);
    ASSERT_TRUE(s.world.run(s.client(now).set_xattr(f->id(), "user.turn", std::to_string(turn), {})).ok());
    auto handover = s.hand_over(now);
    ASSERT_TRUE(handover.ok()) << handover.error().text();
    const size_t next = now == 0 ? 2 : 0;
    if (turn > 0) s.machines[next]->crash(CrashKind::kProcess);
    s.go_on(next, *handover);
    EXPECT_EQ(s.read(s.open(f->id(), next), 0, data.size(), next), data);
    now = next;
  }
  for (const auto& [ticket, times] : s.disk.effects) EXPECT_EQ(times, 1);
  EXPECT_LE(s.node().reserved(), 2 * s.disk.partitions) << "what a predecessor had reserved is given back";
  EXPECT_EQ(s.node().counts.evictions, 0u);
}

TEST(ClientHandover, WhoseSuccessorDoesNotComeGoesOnAsIfNothingHadBeen) {
  HandOver s(62);
  auto f = s.create("a");
  ASSERT_TRUE(s.write(f, 0, "before").ok());
  ASSERT_TRUE(s.lock(f->id(), 7, 0));
  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  s.world.run_for(seconds(25));
  s.client().resume();
  EXPECT_EQ(s.read(f, 0, 100), "before");
  ASSERT_TRUE(s.write(f, 0, "beyond").ok());
  EXPECT_EQ(s.read(s.open(f->id(), 1), 0, 100, 1), "beyond") << "recalls are answered again";
  EXPECT_FALSE(s.lock(f->id(), 7, 1));
  EXPECT_EQ(s.node().counts.evictions, 0u);
}

TEST(ClientHandover, ARecallThatReachesThePredecessorDoesNotTakeTheSuccessorsGrant) {
  HandOver s(63);
  auto f = s.create("a");
  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  s.world.run_for(milliseconds(1500));  // so that both do not renew at once
  s.go_on(2, *handover);
  auto mine = s.open(f->id(), 2);
  auto other = s.open(f->id(), 1);
  for (int i = 0; i < 40; ++i) {
    const std::string text = "round " + std::to_string(i);
    ASSERT_TRUE(s.write(mine, 0, text, 2).ok());
    // Whose channel the node has, is chance.
    s.world.run_for(milliseconds(static_cast<int64_t>(s.world.random().below(2000))));
    EXPECT_EQ(s.read(other, 0, 100, 1), text);
  }
}

TEST(ClientHandover, WhatCannotBeFlushedIsNotHandedOverAndNotLost) {
  HandOver s(64);
  auto f = s.create("a");
  const std::string data = pattern(200'000, 3);
  ASSERT_TRUE(s.write(f, 0, data).ok());
  s.faults.no_space = true;
  auto handover = s.hand_over();
  ASSERT_FALSE(handover.ok());
  EXPECT_EQ(handover.code(), Code::kNoSpace) << handover.error().text();
  EXPECT_EQ(s.read(f, 0, data.size()), data);
  s.faults.no_space = false;
  handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  s.go_on(2, *handover);
  EXPECT_EQ(s.read(s.open(f->id(), 2), 0, data.size(), 2), data);
}

TEST(ClientHandover, WhatWasLostBeforeIsToldByTheSuccessor) {
  HandOver s(65);
  auto f = s.create("a");
  ASSERT_TRUE(s.sync(f->id()).ok());
  ASSERT_TRUE(s.write(f, 0, "lost").ok());
  for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
  s.world.run_for(seconds(20));
  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  s.go_on(2, *handover);
  EXPECT_EQ(s.sync(f->id(), 2).code(), Code::kStale);
  EXPECT_TRUE(s.sync(f->id(), 2).ok()) << "once";
  EXPECT_EQ(s.world.run(s.client(2).sync_all()).code(), Code::kStale);
  EXPECT_TRUE(s.world.run(s.client(2).sync_all()).ok());
}

TEST(ClientHandover, WhoWasToldOfALossIsNotToldAgainByTheSuccessor) {
  HandOver s(67);
  auto f = s.create("a");
  auto g = s.open(f->id());
  ASSERT_TRUE(s.write(f, 0, "lost").ok());
  for (SessionId id : s.node().session_ids()) (void)s.world.run_until(s.node().evict(id));
  s.world.run_for(seconds(20));
  EXPECT_FALSE(f->told_of_loss() || g->told_of_loss());
  EXPECT_EQ(s.world.run(s.client().sync(f)).code(), Code::kStale);
  EXPECT_TRUE(f->told_of_loss() && !g->told_of_loss());
  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  s.go_on(2, *handover);
  auto f2 = s.open(f->id(), 2);
  auto g2 = s.open(f->id(), 2);
  f2->forgive();
  EXPECT_TRUE(s.world.run(s.client(2).sync(f2)).ok());
  EXPECT_EQ(s.world.run(s.client(2).sync(g2)).code(), Code::kStale);
  EXPECT_TRUE(s.world.run(s.client(2).sync(s.open(f->id(), 2))).ok());
}

TEST(ClientHandover, ASessionThatEndedOrAnotherNamespaceIsRefusedBadInput) {
  HandOver s(66);
  (void)s.create("a");
  auto handover = s.hand_over();
  ASSERT_TRUE(handover.ok()) << handover.error().text();
  auto refused = [&](ClientHandover wrong) {
    ClientOptions options;
    options.nodes = {s.node_machine.address()};
    options.handover = std::move(wrong);
    struct Starter final : Process {
      Starter(Env& e, ClientOptions o, std::string* m) : env(e), options(std::move(o)), message(m) {}
      Task<void> run() override {
        auto client = co_await Client::start(env, options);
        *message = client.ok() ? "started" : client.error().text();
      }
      Env env;
      ClientOptions options;
      std::string* message;
    };
    std::string said;
    s.machines[2]->start([&](Env& env) { return std::make_unique<Starter>(env, options, &said); });
    EXPECT_TRUE(s.world.run_until([&] { return !said.empty(); }, seconds(60)));
    s.world.run_for(seconds(1));
    return said;
  };
  ClientHandover wrong = *handover;
  wrong.name_space = NamespaceId(8);
  EXPECT_NE(refused(wrong).find("mount it again"), std::string::npos);
  wrong = *handover;
  wrong.sessions[0].id = SessionId(999'999);
  EXPECT_NE(refused(wrong).find("the session with partition"), std::string::npos);
  s.client().resume();
  EXPECT_TRUE(s.world.run(s.client().lookup(kRootFile, "a")).ok());
}

}  // namespace
}  // namespace headrace
