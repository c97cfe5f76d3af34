#include "runtime/sim/disk.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "runtime/sim/world.h"
#include "runtime/write_through.h"

namespace headrace {
namespace {

Buffer filled(size_t size, char with) {
  Buffer out = Buffer::allocate(size);
  std::memset(out.data(), with, size);
  return out;
}

Task<std::unique_ptr<File>> open_file(Disk* disk, std::string path, OpenOptions options = {.create = true}) {
  Result<std::unique_ptr<File>> file = co_await disk->open(path, options);
  HR_ASSERT(file.ok());
  co_return *std::move(file);
}
Task<Result<void>> write_at(File* file, uint64_t offset, Buffer bytes) {
  std::vector<Buffer> pieces;
  pieces.push_back(std::move(bytes));
  co_return co_await file->write(offset, std::move(pieces));
}
Task<Result<std::string>> read_at(File* file, uint64_t offset, size_t size) {
  Buffer into = Buffer::allocate(size);
  HR_CO_TRY(size_t n, co_await file->read(offset, into));
  co_return std::string(into.text().substr(0, n));
}
// A durable file of these bytes.
Task<void> make_file(Disk* disk, std::string path, std::string bytes) {
  std::unique_ptr<File> file = co_await open_file(disk, path);
  Result<void> written = co_await write_at(file.get(), 0, Buffer::copy_of(bytes_of(bytes)));
  Result<void> flushed = co_await file->flush();
  Result<void> synced = co_await disk->sync_directory("");
  HR_ASSERT(written.ok() && flushed.ok() && synced.ok());
}

class SimDiskTest : public testing::Test {
 protected:
  World world{1, {}};
  Machine& machine = world.add_machine("m");
  SimDisk& disk = machine.disk();

  std::unique_ptr<File> open(std::string path, OpenOptions options = {.create = true}) {
    return world.run(open_file(&disk, std::move(path), options));
  }
  Result<void> write(File& file, uint64_t offset, Buffer bytes) {
    return world.run(write_at(&file, offset, std::move(bytes)));
  }
  Result<std::string> read(File& file, uint64_t offset, size_t size) { return world.run(read_at(&file, offset, size)); }
};

TEST_F(SimDiskTest, ReadsWhatWasWrittenAndLessAtTheEnd) {
  auto file = open("f");
  ASSERT_TRUE(write(*file, 100, filled(5000, 'x')).ok());
  EXPECT_EQ(*world.run(file->size()), 5100u);
  EXPECT_EQ(*read(*file, 99, 3), std::string("\0xx", 3)) << "a hole reads as zeros";
  EXPECT_EQ(*read(*file, 5098, 100), "xx");
  EXPECT_EQ(*read(*file, 6000, 10), "");
  ASSERT_TRUE(world.run(file->resize(200)).ok());
  ASSERT_TRUE(world.run(file->resize(300)).ok());
  EXPECT_EQ(*read(*file, 199, 2), std::string("x\0", 2)) << "what was cut off does not come back";
}

TEST_F(SimDiskTest, BehavesLikeAFileSystemForNames) {
  EXPECT_EQ(world.run(disk.open("d/f", {.create = true})).code(), Code::kNotFound);
  ASSERT_TRUE(world.run(disk.make_directories("/d//e/")).ok());
  ASSERT_TRUE(world.run(disk.make_directories("/d/e")).ok());
  EXPECT_EQ(world.run(disk.open("/d/f", {})).code(), Code::kNotFound);
  EXPECT_EQ(world.run(disk.open("/d", {})).code(), Code::kIsDirectory);
  auto file = open("/d/f", {.create = true, .exclusive = true});
  EXPECT_EQ(world.run(disk.open("/d/f", {.create = true, .exclusive = true})).code(), Code::kExists);
  EXPECT_EQ(*world.run(disk.list("/d")), (std::vector<std::string>{"e", "f"}));
  ASSERT_TRUE(world.run(disk.rename("/d/f", "/d/e/g")).ok());
  EXPECT_EQ(*world.run(disk.list("/d")), std::vector<std::string>{"e"});
  EXPECT_EQ(world.run(disk.remove("/d/f")).code(), Code::kNotFound);
  ASSERT_TRUE(world.run(disk.rename("/d", "/moved")).ok());
  EXPECT_TRUE(disk.exists("/moved/e/g"));
  EXPECT_FALSE(disk.exists("/d"));
  ASSERT_TRUE(world.run(disk.remove("/moved/e/g")).ok());
  ASSERT_TRUE(write(*file, 0, filled(10, 'u')).ok()) << "an unlinked file lives while it is open";
}

TEST_F(SimDiskTest, RefusesUnalignedDirectRequests) {
  auto file = open("f", {.create = true, .direct = true});
  EXPECT_EQ(write(*file, 0, filled(100, 'x')).code(), Code::kInvalid);
  EXPECT_EQ(write(*file, 512, filled(kBlock, 'x')).code(), Code::kInvalid);
  EXPECT_EQ(write(*file, 0, filled(2 * kBlock, 'x').slice(8, kBlock)).code(), Code::kInvalid);
  EXPECT_EQ(read(*file, 0, 100).code(), Code::kInvalid);
  EXPECT_TRUE(write(*file, 0, filled(kBlock, 'x')).ok());
}

TEST_F(SimDiskTest, BadInputAFullDiskSaysWhoseItIs) {
  disk.options.capacity = 10'000;
  auto file = open("f");
  ASSERT_TRUE(write(*file, 0, filled(10'000, 'x')).ok());
  EXPECT_EQ(*world.run(disk.free_bytes("")), 0u);
  ASSERT_TRUE(write(*file, 0, filled(10'000, 'y')).ok()) << "overwriting needs no space";
  Result<void> full = write(*file, 10'000, filled(1, 'x'));
  EXPECT_EQ(full.code(), Code::kNoSpace);
  EXPECT_EQ(full.error().message(), "f: the disk of m is full");
}

TEST(SimDiskPowerLoss, FlushedDataAlwaysSurvives) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", std::string(5000, 'a')));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 10'000, filled(5000, 'b'))).ok());
    machine.crash(CrashKind::kPower);
    Buffer left = machine.disk().contents("f");
    ASSERT_GE(left.size(), 5000u) << "seed " << seed;
    ASSERT_EQ(left.text().substr(0, 5000), std::string(5000, 'a')) << "seed " << seed;
  }
}

TEST(SimDiskPowerLoss, UnflushedDataMaySurviveVanishOrTear) {
  int all = 0, none = 0, torn = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", std::string(8 * kSector, 'o')));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(8 * kSector, 'n'))).ok());
    machine.crash(CrashKind::kPower);
    std::string left(machine.disk().contents("f").text());
    std::set<char> kinds;
    for (uint64_t sector = 0; sector < 8; ++sector) {
      char first = left.at(sector * kSector);
      ASSERT_EQ(left.substr(sector * kSector, kSector), std::string(kSector, first)) << "a sector never tears";
      kinds.insert(first);
    }
    if (kinds.size() == 2) {
      ++torn;
    } else {
      (kinds.contains('n') ? all : none)++;
    }
  }
  EXPECT_GT(all, 30);
  EXPECT_GT(none, 30);
  EXPECT_GT(torn, 30);
}

TEST(SimDiskPowerLoss, LaterWritesMaySurviveWithoutEarlierOnes) {
  int reordered = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", std::string(2 * kBlock, 'o')));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(kBlock, '1'))).ok());
    ASSERT_TRUE(world.run(write_at(file.get(), kBlock, filled(kBlock, '2'))).ok());
    machine.crash(CrashKind::kPower);
    Buffer left = machine.disk().contents("f");
    if (left.text()[0] == 'o' && left.text()[kBlock] == '2') ++reordered;
  }
  EXPECT_GT(reordered, 3);
}

TEST(SimDiskPowerLoss, AFlushCoversOnlyWhatWasWrittenBeforeIt) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", "old"));
    auto file = world.run(open_file(&machine.disk(), "f"));
    machine.disk().options.write_latency = microseconds(10);
    machine.disk().options.flush_latency = milliseconds(5);
    bool flushed = false;
    struct Run {
      static Task<void> flush(File* f, bool* done) {
        Result<void> result = co_await f->flush();
        *done = result.ok();
      }
    };
    world.spawn(Run::flush(file.get(), &flushed));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(3, 'n'))).ok());
    ASSERT_FALSE(flushed);
    world.run_until([&] { return flushed; });
    machine.crash(CrashKind::kPower);
    if (machine.disk().contents("f").text() == "old") ++lost;
  }
  EXPECT_GT(lost, 10);
}

TEST(SimDiskPowerLoss, AWriteThroughIsDurableAndNothingElseIs) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", std::string(3 * kBlock, 'o')));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(2 * kBlock, '1'))).ok());
    WriteThrough* through = WriteThrough::of(*file);
    ASSERT_NE(through, nullptr);
    std::vector<Buffer> pieces(1, filled(kBlock, '2'));
    ASSERT_TRUE(world.run(through->write_through(kBlock, std::move(pieces))).ok());
    ASSERT_TRUE(world.run(write_at(file.get(), 2 * kBlock, filled(kBlock, '3'))).ok());
    machine.crash(CrashKind::kPower);
    Buffer left = machine.disk().contents("f");
    ASSERT_EQ(left.text().substr(kBlock, kBlock), std::string(kBlock, '2')) << "seed " << seed;
    if (left.text()[0] == 'o' && left.text()[2 * kBlock] == 'o') ++lost;
  }
  EXPECT_GT(lost, 3);
}

TEST(SimDiskPowerLoss, NamesAreDurableOnlyAfterSyncDirectory) {
  int kept = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    ASSERT_TRUE(world.run(machine.disk().make_directories("/a/b")).ok());
    (void)world.run(open_file(&machine.disk(), "/a/b/synced"));
    ASSERT_TRUE(world.run(machine.disk().sync_directory("/a/b")).ok());
    (void)world.run(open_file(&machine.disk(), "/a/b/unsynced"));
    machine.crash(CrashKind::kPower);
    ASSERT_TRUE(machine.disk().exists("/a/b/synced")) << "seed " << seed;
    kept += machine.disk().exists("/a/b/unsynced") ? 1 : 0;
  }
  EXPECT_GT(kept, 20);
  EXPECT_LT(kept, 80);
}

TEST(SimDiskPowerLoss, ARenameHappensOrDoesNot) {
  int renamed = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "name", "old"));
    world.run_until(make_file(&machine.disk(), "name.new", "new"));
    ASSERT_TRUE(world.run(machine.disk().rename("name.new", "name")).ok());
    bool synced = seed % 2 == 0;
    if (synced) ASSERT_TRUE(world.run(machine.disk().sync_directory("")).ok());
    machine.crash(CrashKind::kPower);
    std::string content(machine.disk().contents("name").text());
    ASSERT_TRUE(content == "new" || (!synced && content == "old")) << "seed " << seed;
    ASSERT_EQ(machine.disk().exists("name.new"), content == "old");
    renamed += !synced && content == "new" ? 1 : 0;
  }
  EXPECT_GT(renamed, 5);
  EXPECT_LT(renamed, 45);
}

TEST(SimDiskPowerLoss, ARemovedFileMayComeBack) {
  int back = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", "bytes"));
    ASSERT_TRUE(world.run(machine.disk().remove("f")).ok());
    machine.crash(CrashKind::kPower);
    if (machine.disk().exists("f")) {
      ASSERT_EQ(machine.disk().contents("f").text(), "bytes");
      ++back;
    }
  }
  EXPECT_GT(back, 10);
  EXPECT_LT(back, 40);
}

TEST_F(SimDiskTest, CompletedWritesSurviveACrashOfTheProcess) {
  auto file = open("f");
  ASSERT_TRUE(write(*file, 0, filled(5000, 'x')).ok());
  machine.crash(CrashKind::kProcess);
  EXPECT_EQ(disk.contents("f").text(), std::string(5000, 'x'));
  EXPECT_GT(disk.unflushed("f"), 0u) << "the page cache is not the device";
}

TEST(SimDiskCrash, AWriteInFlightMayHaveHappenedOrNotOrInPart) {
  int all = 0, none = 0, torn = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", std::string(kBlock, 'o')));
    auto file = world.run(open_file(&machine.disk(), "f"));
    {
      Scope dies;
      struct Run {
        static Task<void> write(File* f) { (void)co_await write_at(f, 0, filled(kBlock, 'n')); }
      };
      dies.spawn(Run::write(file.get()));
    }
    std::string left(machine.disk().contents("f").text());
    auto changed = std::count(left.begin(), left.end(), 'n');
    (changed == 0 ? none : changed == kBlock ? all : torn)++;
  }
  EXPECT_GT(all, 10);
  EXPECT_GT(none, 10);
  EXPECT_GT(torn, 10);
}

TEST(SimDiskFaults, AFlushThatLiesMakesNothingDurable) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", "old"));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(3, 'n'))).ok());
    machine.disk().options.flush_lies = 1;
    ASSERT_TRUE(world.run(file->flush()).ok());
    EXPECT_EQ(world.faults().fired("disk.flush_lies"), 1u);
    if (seed % 2 == 1) {  // an honest one later makes up for it
      machine.disk().options.flush_lies = 0;
      ASSERT_TRUE(world.run(file->flush()).ok());
    }
    machine.crash(CrashKind::kPower);
    bool old = machine.disk().contents("f").text() == "old";
    if (seed % 2 == 1) ASSERT_FALSE(old);
    lost += old ? 1 : 0;
  }
  EXPECT_GT(lost, 3);
}

TEST(SimDiskFaults, NoLaterFlushMakesUpForAFailedOne) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    World world(seed);
    Machine& machine = world.add_machine("m");
    world.run_until(make_file(&machine.disk(), "f", "old"));
    auto file = world.run(open_file(&machine.disk(), "f"));
    ASSERT_TRUE(world.run(write_at(file.get(), 0, filled(3, 'n'))).ok());
    machine.disk().options.flush_fails = 1;
    ASSERT_EQ(world.run(file->flush()).code(), Code::kIo);
    machine.disk().options.flush_fails = 0;
    ASSERT_TRUE(world.run(file->flush()).ok());
    ASSERT_EQ(*world.run(read_at(file.get(), 0, 3)), "nnn") << "the cache still shows it";
    machine.crash(CrashKind::kPower);
    lost += machine.disk().contents("f").text() == "old" ? 1 : 0;
  }
  EXPECT_GT(lost, 10);
}

TEST_F(SimDiskTest, FailingOperationsFailWithIo) {
  auto file = open("f");
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'x')).ok());
  disk.options.read_fails = disk.options.write_fails = 1;
  EXPECT_EQ(read(*file, 0, 10).code(), Code::kIo);
  EXPECT_EQ(write(*file, 0, filled(kBlock, 'y')).code(), Code::kIo);
  EXPECT_EQ(world.faults().fired("disk.read_fails"), 1u);
  EXPECT_EQ(world.faults().fired("disk.write_fails"), 1u);
  world.faults().pause(true);
  EXPECT_TRUE(read(*file, 0, 10).ok()) << "a paused plan fires nothing";
}

TEST_F(SimDiskTest, LostWritesAreAcknowledgedAndChangeNothing) {
  world.run_until(make_file(&disk, "f", std::string(kBlock, 'o')));
  auto file = open("f");
  disk.options.lost_write = 1;
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'n')).ok());
  EXPECT_EQ(*read(*file, 0, kBlock), std::string(kBlock, 'o'));
  ASSERT_TRUE(write(*file, kBlock, filled(kBlock, 'n')).ok());
  EXPECT_EQ(*read(*file, kBlock, kBlock), std::string(kBlock, '\0')) << "the file grew none the less";
}

TEST_F(SimDiskTest, MisdirectedWritesGoToAnotherBlock) {
  world.run_until(make_file(&disk, "f", std::string(64 * kBlock, 'o')));
  auto file = open("f");
  disk.options.misdirected = 1;
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'n')).ok());
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'n')).ok());
  std::string left(disk.contents("f").text());
  EXPECT_EQ(left.size(), 64 * kBlock);
  EXPECT_NE(left.find('n', kBlock), std::string::npos);
}

TEST_F(SimDiskTest, BitFlipsChangeWhatIsReadAndNotWhatIsStored) {
  world.run_until(make_file(&disk, "f", std::string(kBlock, 'o')));
  auto file = open("f");
  disk.options.bit_flip = 1;
  std::string got = *read(*file, 0, kBlock);
  EXPECT_EQ(std::count(got.begin(), got.end(), 'o'), static_cast<ptrdiff_t>(kBlock) - 1);
  EXPECT_EQ(disk.contents("f").text(), std::string(kBlock, 'o'));
}

TEST_F(SimDiskTest, LatentSectorsFailUntilTheyAreWrittenAgain) {
  auto file = open("f");
  disk.options.latent_sector = 1;
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'x')).ok());
  disk.options.latent_sector = 0;
  EXPECT_EQ(read(*file, 0, kBlock).code(), Code::kIo);
  ASSERT_TRUE(write(*file, 0, filled(kBlock, 'y')).ok());
  EXPECT_EQ(*read(*file, 0, kBlock), std::string(kBlock, 'y'));
  ASSERT_TRUE(disk.damage("f", 600));
  EXPECT_TRUE(read(*file, 0, kSector).ok());
  EXPECT_EQ(read(*file, 1000, 10).code(), Code::kIo);
}

TEST_F(SimDiskTest, FaultsTouchEligibleFilesOnly) {
  disk.options.eligible = [](const std::string& path) { return path.starts_with("/bad"); };
  ASSERT_TRUE(world.run(disk.make_directories("/bad")).ok());
  world.faults().set("disk.write_fails", 1);
  auto good = open("/good");
  auto bad = open("/bad/f");
  EXPECT_TRUE(write(*good, 0, filled(10, 'x')).ok());
  EXPECT_EQ(write(*bad, 0, filled(10, 'x')).code(), Code::kIo);
}

TEST_F(SimDiskTest, FlippedBytesStayFlippedOverPowerLoss) {
  world.run_until(make_file(&disk, "f", "aaaa"));
  ASSERT_TRUE(disk.flip("f", 2, std::byte{3}));
  EXPECT_FALSE(disk.flip("f", 4));
  EXPECT_FALSE(disk.flip("absent", 0));
  EXPECT_EQ(disk.contents("f").text(), "aaba");
  machine.crash(CrashKind::kPower);
  EXPECT_EQ(disk.contents("f").text(), "aaba");
}

TEST_F(SimDiskTest, ErasedAndWipedFilesAreGoneForTheirUsersToo) {
  ASSERT_TRUE(world.run(disk.make_directories("/t/x")).ok());
  auto file = open("/t/x/f");
  auto other = open("/o");
  ASSERT_TRUE(write(*file, 0, filled(10, 'x')).ok());
  EXPECT_TRUE(disk.erase("/t"));
  EXPECT_FALSE(disk.erase("/t"));
  EXPECT_EQ(read(*file, 0, 10).code(), Code::kIo);
  EXPECT_EQ(write(*file, 0, filled(10, 'x')).code(), Code::kIo);
  EXPECT_TRUE(write(*other, 0, filled(10, 'x')).ok());
  machine.crash(CrashKind::kPower);
  EXPECT_FALSE(disk.exists("/t/x/f"));
  disk.wipe();
  EXPECT_EQ(world.run(other->flush()).code(), Code::kIo);
  EXPECT_TRUE(disk.paths().empty());
}

TEST_F(SimDiskTest, ASnapshotIsUntouchedByLaterWritesAndComesBackDurably) {
  world.run_until(make_file(&disk, "f", "first"));
  DiskSnapshot snapshot = disk.snapshot();
  auto file = open("f");
  ASSERT_TRUE(write(*file, 0, filled(5, 'z')).ok());
  ASSERT_TRUE(world.run(file->flush()).ok());
  disk.restore(snapshot);
  EXPECT_EQ(read(*file, 0, 5).code(), Code::kIo) << "what was open belongs to the disk that was replaced";
  machine.crash(CrashKind::kPower);
  EXPECT_EQ(disk.contents("f").text(), "first");
  Machine& clone = world.add_machine("clone");
  clone.disk().restore(snapshot);
  EXPECT_EQ(clone.disk().contents("f").text(), "first");
}

TEST_F(SimDiskTest, ASlowDiskTakesLonger) {
  auto file = open("f");
  auto took = [&] {
    Nanos before = world.now();
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(write(*file, 0, filled(kBlock, 'x')).ok());
    return world.now() - before;
  };
  Nanos normal = took();
  disk.options.slow_factor = 100;
  EXPECT_GT(took(), normal * 10);
}

// The image against a plain string: random writes, resizes and reads agree.
TEST(SimInode, AgreesWithAStringOverRandomOperations) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SeededRandom random(seed);
    SimInode inode(1);
    std::string model, durable;
    for (int i = 0; i < 200; ++i) {
      uint64_t offset = random.below(20'000);
      uint64_t size = random.below(9000) + 1;
      switch (random.below(5)) {
        case 0:
        case 1: {
          char with = random.chance(1, 4) ? '\0' : static_cast<char>('a' + random.below(26));
          inode.write(offset, filled(size, with).view());
          if (model.size() < offset + size) model.resize(offset + size);
          model.replace(offset, size, std::string(size, with));
          break;
        }
        case 2:
          inode.resize(offset);
          model.resize(offset);
          break;
        case 3:
          inode.make_durable(inode.mark());
          durable = model;
          break;
        default: {
          std::string got(size, '?');
          size_t n = inode.read(offset, std::as_writable_bytes(std::span(got)));
          ASSERT_EQ(got.substr(0, n), offset < model.size() ? model.substr(offset, size) : "") << "seed " << seed;
        }
      }
    }
    ASSERT_EQ(inode.size(), model.size());
    inode.make_durable(inode.mark());
    inode.lose_power(random);
    std::string left(inode.size(), '?');
    (void)inode.read(0, std::as_writable_bytes(std::span(left)));
    ASSERT_EQ(left, model) << "seed " << seed;
  }
}

}  // namespace
}  // namespace headrace
