#include "hot/target.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "runtime/sim/world.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr const char* kDir = "/state/targets/t3";
constexpr const char* kFile = "/state/targets/t3/target.dat";
const TargetFormat kFormat{TargetId(0xabc), ClusterId(0xc1), NamespaceId(0x77), 8 * kMiB, 3};
const TargetExpected kExpected{TargetId(0xabc), ClusterId(0xc1), 3, 0};
const TargetOptions kOptions{.crc_cache_bytes = 4 * kKiB,
                             .prewrite_ahead = 512 * kKiB,
                             .prewrite_chunk = 256 * kKiB,
                             .large_fragment = 100 * kKiB,  // tests of small ones stay below
                             .reserve_ahead = 512 * kKiB};
const PartitionId kPartition(2);

Buffer random_bytes(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  Buffer out = Buffer::allocate(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

SegmentId segment(uint64_t sequence) {
  return SegmentId(NamespaceId(0x77), Slot(5), NamespaceEpoch(1), sequence);
}

// The bytes of a fragment are a function of its sequence and `version`.
FragmentWrite fragment(uint64_t sequence, uint64_t blocks, uint64_t version = 0) {
  FragmentWrite out;
  out.target = kFormat.id;
  out.segment = segment(sequence);
  out.index = static_cast<uint8_t>(sequence % 6);
  out.protection = {4, 2};
  out.segment_length = blocks * kBlock * 4 - 5;
  out.payload = random_bytes(blocks * kBlock, sequence * 1000 + version);
  out.crcs = block_crcs(out.segment, out.index, 0, out.payload.view());
  return out;
}
FragmentRead read_of(const FragmentWrite& write, uint64_t offset, uint64_t length) {
  return {write.target, write.segment, write.index, offset, length};
}
JournalAppend batch(RunId run, uint64_t first, uint64_t last, size_t size) {
  return {kFormat.id, run, Position(first), Position(last), random_bytes(size, run.value() * 100'000 + first)};
}
FragmentFree free_of(const FragmentWrite& write) {
  return {kFormat.id, {{write.segment, write.index}}};
}

struct TargetTest : public testing::Test {
  void make() {
    auto made = world.run(Target::format(machine.env(), kDir, kFormat, kOptions));
    ASSERT_TRUE(made.ok()) << made.error().text();
    target = *std::move(made);
  }
  Result<void> reopen(TargetExpected expected = kExpected) {
    target.reset();
    auto opened = world.run(Target::open(machine.env(), kDir, expected, kOptions));
    if (!opened.ok()) return std::move(opened).error();
    target = *std::move(opened);
    return {};
  }
  // While what `hangs` says of each request to the device takes a minute.
  Result<void> reopen_while(std::function<bool(const std::string&)> hangs) {
    DiskOptions& disk = machine.disk().options;
    disk.slow_factor = 1e9;
    disk.longest = seconds(60);
    disk.slow = std::move(hangs);
    Result<void> opened = reopen();
    disk.slow_factor = 1;
    disk.slow = {};
    world.run_for(seconds(61));  // as a process ends: nothing of it is on its way any more
    return opened;
  }
  void power_loss() {
    target.reset();
    machine.crash(CrashKind::kPower);
  }
  Result<void> write(const FragmentWrite& w) { return world.run(target->write(w)); }
  Result<FragmentReadReply> read(const FragmentWrite& w, uint64_t offset, uint64_t length) {
    return world.run(target->read(read_of(w, offset, length)));
  }
  void expect_held(const FragmentWrite& w) {
    auto got = read(w, 0, w.payload.size());
    ASSERT_TRUE(got.ok()) << got.error().text();
    EXPECT_TRUE(got->payload.text() == w.payload.text());
    EXPECT_EQ(got->crcs, w.crcs);
    EXPECT_EQ(got->segment_length, w.segment_length);
  }
  Result<void> open_run(RunId run, uint64_t first, uint64_t epoch) {
    return world.run(
        target->journal_open({kFormat.id, run, Position(first), "about it"}, kPartition, PartitionEpoch(epoch)));
  }
  Result<void> append(const JournalAppend& a, uint64_t epoch) {
    return world.run(target->journal_append(a, kPartition, PartitionEpoch(epoch)));
  }
  Result<JournalSealReply> seal(uint64_t epoch) {
    return world.run(target->journal_seal({kFormat.id}, kPartition, PartitionEpoch(epoch)));
  }
  uint64_t data_offset() { return target->superblock().data_offset(); }

  World world{1};
  Machine& machine = world.add_machine("m");
  std::unique_ptr<Target> target;
};

TEST_F(TargetTest, FragmentsComeBackAtEveryRange) {
  make();
  for (uint64_t blocks : {1, 2, 7, 64}) {
    FragmentWrite w = fragment(blocks, blocks);
    ASSERT_TRUE(write(w).ok());
    expect_held(w);
    for (uint64_t i = 0; i < blocks; i += 3) {
      auto got = read(w, i * kBlock, kBlock);
      ASSERT_TRUE(got.ok()) << got.error().text();
      EXPECT_TRUE(got->payload.text() == w.payload.slice(i * kBlock, kBlock).text());
      EXPECT_EQ(got->crcs.front(), w.crcs[i]);
    }
    EXPECT_EQ(read(w, 0, (blocks + 1) * kBlock).code(), Code::kInvalid);
    EXPECT_EQ(read(w, 1, kBlock).code(), Code::kInvalid);
    EXPECT_EQ(read(w, 0, 0).code(), Code::kInvalid);
  }
  EXPECT_EQ(read(fragment(99, 1), 0, kBlock).code(), Code::kNoFragment);
  EXPECT_EQ(target->status().fragments, 4u);
}

TEST_F(TargetTest, AFragmentIsAcceptedOnce) {
  make();
  FragmentWrite w = fragment(1, 3);
  ASSERT_TRUE(write(w).ok());
  EXPECT_TRUE(write(w).ok());
  EXPECT_EQ(write(fragment(1, 3, 1)).code(), Code::kExists);
  EXPECT_EQ(write(fragment(1, 4)).code(), Code::kExists);
  expect_held(w);
  EXPECT_EQ(target->status().fragments, 1u);
}

TEST_F(TargetTest, TheSameFragmentTwiceAtOnceIsOneFragment) {
  make();
  FragmentWrite w = fragment(1, 30);
  FragmentWrite other = fragment(1, 30, 1);
  std::vector<Result<void>> results(3);
  int done = 0;
  struct Ask {
    static Task<void> go(Target& target, FragmentWrite w, Result<void>* into, int* done) {
      *into = co_await target.write(std::move(w));
      ++*done;
    }
  };
  world.spawn(Ask::go(*target, w, &results[0], &done));
  world.spawn(Ask::go(*target, w, &results[1], &done));
  world.spawn(Ask::go(*target, other, &results[2], &done));
  ASSERT_TRUE(world.run_until([&] { return done == 3; }));
  EXPECT_TRUE(results[0].ok());
  EXPECT_TRUE(results[1].ok());
  EXPECT_EQ(results[2].code(), Code::kExists);
  EXPECT_EQ(target->counters().fragment_writes, 1u);
}

TEST_F(TargetTest, BadInputWritesAreRefused) {
  make();
  FragmentWrite w = fragment(1, 2);
  w.payload = w.payload.slice(0, kBlock);
  EXPECT_EQ(write(w).code(), Code::kInvalid);
  w = fragment(1, 2);
  w.crcs[1] ^= 1;
  EXPECT_EQ(write(w).code(), Code::kCorrupt);
  w = fragment(1, 2);
  w.crcs.pop_back();
  EXPECT_FALSE(write(w).ok());
  w = fragment(1, 2);
  w.index = 6;
  EXPECT_EQ(write(w).code(), Code::kInvalid);
  w = fragment(1, 2);
  w.protection.data = 0;
  EXPECT_EQ(write(w).code(), Code::kInvalid);
  EXPECT_EQ(target->status().fragments, 0u);
}

TEST_F(TargetTest, AcknowledgedFragmentsSurvivePowerLoss) {
  make();
  std::vector<FragmentWrite> all;
  for (uint64_t i = 1; i <= 40; ++i) {
    all.push_back(fragment(i, 1 + i % 9));
    ASSERT_TRUE(write(all.back()).ok());
  }
  ASSERT_TRUE(world.run(target->free(free_of(all[7]), kPartition, PartitionEpoch(1))).ok());
  uint64_t used = target->status().used;
  uint64_t generation = target->generation();
  power_loss();
  ASSERT_TRUE(reopen().ok());
  EXPECT_GT(target->generation(), generation);
  EXPECT_EQ(target->status().used, used);
  for (size_t i = 0; i < all.size(); ++i) {
    if (i == 7) {
      EXPECT_EQ(read(all[i], 0, kBlock).code(), Code::kNoFragment);
    } else {
      expect_held(all[i]);
    }
  }
}

TEST_F(TargetTest, LargeFragmentsAreNotPrewrittenAndMeetNothingElse) {
  make();
  world.run_for(seconds(1));  // prewriting is done
  const uint64_t prewritten = target->counters().prewritten_bytes;
  ASSERT_TRUE(open_run(RunId(7), 1, 1).ok());
  std::vector<FragmentWrite> all;
  struct Write {
    static Task<void> go(Target& target, FragmentWrite w, int* failed) {
      if (!(co_await target.write(std::move(w))).ok()) ++*failed;
    }
  };
  int failed = 0;
  Scope scope;
  for (uint64_t i = 1; i <= 24; ++i) {
    all.push_back(fragment(i, i % 3 == 0 ? 2 : 40));  // small ones between large ones
    scope.spawn(Write::go(*target, all.back(), &failed));
  }
  for (uint64_t at = 1; at <= 8; ++at) ASSERT_TRUE(append(batch(RunId(7), at, at, 3000), 1).ok());
  ASSERT_TRUE(world.run_until(scope.join()));
  EXPECT_EQ(failed, 0);
  EXPECT_GE(target->counters().large_fragments, 8u);  // of 16; what is more than small ones want is used first
  EXPECT_LE(target->counters().prewritten_bytes, prewritten + 512 * kKiB + target->kept_for_journals());
  for (int round = 0; round < 2; ++round) {
    for (const FragmentWrite& w : all) expect_held(w);
    auto journal = world.run(target->journal_read({kFormat.id, RunId(7), Position(1), 1 << 20}));
    ASSERT_TRUE(journal.ok()) << journal.error().text();
    EXPECT_EQ(journal->batches.size(), 8u);
    power_loss();
    ASSERT_TRUE(reopen().ok());
  }
}

TEST_F(TargetTest, FreedSpaceIsUsedAgainAndAFullTargetSaysSo) {
  make();
  std::vector<FragmentWrite> held;
  uint64_t sequence = 1;
  for (int round = 0; round < 5; ++round) {
    while (true) {
      FragmentWrite w = fragment(sequence++, 32);
      Result<void> written = write(w);
      if (!written) {
        EXPECT_EQ(written.code(), Code::kNoSpace);
        break;
      }
      held.push_back(w);
    }
    EXPECT_GE(held.size(), 55u);
    EXPECT_LE(held.size(), 62u);  // 3 % are the journals'
    ASSERT_TRUE(open_run(RunId(100 + round), 1, 1).ok());
    EXPECT_TRUE(append(batch(RunId(100 + round), 1, 1, 1000), 1).ok());
    ASSERT_TRUE(
        world.run(target->journal_trim({kFormat.id, {RunId(100 + round)}}, kPartition, PartitionEpoch(1))).ok());
    for (size_t i = 0; i < held.size(); i += 2) {
      ASSERT_TRUE(world.run(target->free(free_of(held[i]), kPartition, PartitionEpoch(1))).ok());
      held[i] = held.back();
      held.pop_back();
    }
    ASSERT_TRUE(reopen().ok());
    for (const FragmentWrite& w : held) expect_held(w);
  }
  EXPECT_FALSE(target->fenced());
}

TEST_F(TargetTest, LogFlipsManyTimesAndKeepsEverything) {
  make();
  std::vector<FragmentWrite> held;
  for (uint64_t i = 1; i <= 300; ++i) {
    FragmentWrite w = fragment(i, 1);
    ASSERT_TRUE(write(w).ok());
    if (i % 3 == 0) {
      held.push_back(w);
    } else {
      ASSERT_TRUE(world.run(target->free(free_of(w), kPartition, PartitionEpoch(1))).ok());
    }
  }
  EXPECT_GT(target->counters().flips, 3u);
  power_loss();
  ASSERT_TRUE(reopen().ok());
  for (const FragmentWrite& w : held) expect_held(w);
  EXPECT_EQ(target->status().fragments, held.size());
}

TEST_F(TargetTest, ManyWaitersShareOneFlush) {
  make();
  int done = 0;
  struct Ask {
    static Task<void> go(Target& target, uint64_t i, int* done) {
      Result<void> written = co_await target.write(fragment(i, 1));
      EXPECT_TRUE(written.ok());
      ++*done;
    }
  };
  uint64_t commits = target->counters().commits;
  for (uint64_t i = 1; i <= 64; ++i) world.spawn(Ask::go(*target, i, &done));
  ASSERT_TRUE(world.run_until([&] { return done == 64; }));
  EXPECT_LT(target->counters().commits - commits, 16u);
}

TEST_F(TargetTest, InventoryListsEverythingOnce) {
  make();
  std::set<FragmentName> names;
  for (uint64_t i = 1; i <= 50; ++i) {
    FragmentWrite w = fragment(i, 1);
    ASSERT_TRUE(write(w).ok());
    names.insert({w.segment, w.index});
  }
  world.run_for(seconds(700));
  std::vector<FragmentName> seen;
  FragmentName after;
  while (true) {
    auto page = target->inventory({kFormat.id, after, 7});
    ASSERT_TRUE(page.ok());
    for (const InventoryItem& item : page->items) {
      seen.push_back(item.fragment);
      EXPECT_GE(item.age_ms, 690'000u);
      EXPECT_EQ(item.bytes, kBlock);
    }
    if (!page->more) break;
    after = seen.back();
  }
  EXPECT_EQ(seen.size(), names.size());
  EXPECT_EQ(std::set<FragmentName>(seen.begin(), seen.end()), names);
}

// ---- journals and promises ----

TEST_F(TargetTest, JournalBatchesComeBackInOrderAfterPowerLoss) {
  make();
  RunId run(7);
  ASSERT_TRUE(open_run(run, 10, 3).ok());
  std::vector<JournalAppend> all;
  uint64_t position = 10;
  for (int i = 0; i < 60; ++i) {
    uint64_t last = position + static_cast<uint64_t>(i % 3);
    all.push_back(batch(run, position, last, 1 + static_cast<size_t>(i) * 937 % 40'000));
    ASSERT_TRUE(append(all.back(), 3).ok());
    position = last + 1;
  }
  for (int round = 0; round < 2; ++round) {
    std::vector<JournalBatch> got;
    uint64_t from = 10;
    while (true) {
      auto page = world.run(target->journal_read({kFormat.id, run, Position(from), 100'000}));
      ASSERT_TRUE(page.ok()) << page.error().text();
      if (page->batches.empty()) break;
      for (JournalBatch& b : page->batches) got.push_back(b);
      from = got.back().last.value() + 1;
    }
    ASSERT_EQ(got.size(), all.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].first, all[i].first);
      EXPECT_EQ(got[i].last, all[i].last);
      EXPECT_TRUE(got[i].bytes.text() == all[i].payload.text());
    }
    power_loss();
    ASSERT_TRUE(reopen().ok());
  }
  auto sealed = seal(4);
  ASSERT_TRUE(sealed.ok());
  ASSERT_EQ(sealed->runs.size(), 1u);
  EXPECT_EQ(sealed->runs[0].first, Position(10));
  EXPECT_EQ(sealed->runs[0].last, Position(position - 1));
  EXPECT_FALSE(sealed->runs[0].damaged);
  EXPECT_EQ(sealed->runs[0].about, "about it");
}

TEST_F(TargetTest, AppendsAreTakenInOrderAndOnce) {
  make();
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  JournalAppend first = batch(run, 1, 3, 5000);
  ASSERT_TRUE(append(first, 1).ok());
  EXPECT_TRUE(append(first, 1).ok());
  EXPECT_EQ(append(batch(run, 5, 5, 10), 1).code(), Code::kInvalid);
  JournalAppend other = batch(run, 1, 3, 5000);
  other.payload = random_bytes(5000, 99);
  EXPECT_EQ(append(other, 1).code(), Code::kInvalid);
  EXPECT_EQ(append(batch(run, 1, 2, 5000), 1).code(), Code::kInvalid);
  EXPECT_TRUE(append(batch(run, 4, 4, 10), 1).ok());
  EXPECT_EQ(append(batch(RunId(8), 1, 1, 10), 1).code(), Code::kNotFound);
  EXPECT_EQ(seal(1)->runs[0].last, Position(4));
}

TEST_F(TargetTest, PromisesRefuseLowerEpochsForEver) {
  make();
  RunId run(7);
  FragmentWrite w = fragment(1, 1);
  ASSERT_TRUE(write(w).ok());
  ASSERT_TRUE(open_run(run, 1, 5).ok());
  ASSERT_TRUE(append(batch(run, 1, 1, 10), 5).ok());
  ASSERT_TRUE(seal(6).ok());
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(append(batch(run, 2, 2, 10), 5).code(), Code::kDeposed);
    EXPECT_EQ(open_run(RunId(8), 1, 5).code(), Code::kDeposed);
    EXPECT_EQ(seal(5).code(), Code::kDeposed);
    EXPECT_EQ(world.run(target->journal_trim({kFormat.id, {run}}, kPartition, PartitionEpoch(5))).code(),
              Code::kDeposed);
    EXPECT_EQ(world.run(target->free(free_of(w), kPartition, PartitionEpoch(5))).code(), Code::kDeposed);
    EXPECT_EQ(target->promised(kPartition), PartitionEpoch(6));
    if (round == 1) {  // also when the promise lives in a table only
      for (uint64_t i = 100; i < 200; ++i) ASSERT_TRUE(write(fragment(i, 1)).ok());
    }
    power_loss();
    ASSERT_TRUE(reopen().ok());
  }
  expect_held(w);
  EXPECT_TRUE(open_run(RunId(9), 1, 6).ok());
}

TEST_F(TargetTest, ARefusedOpenOrAppendLeavesNoPromiseInMemoryAlone) {
  make();
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 5).ok());
  ASSERT_TRUE(append(batch(run, 1, 1, 10), 5).ok());
  EXPECT_EQ(open_run(run, 2, 6).code(), Code::kExists);
  ASSERT_TRUE(append(batch(run, 2, 2, 10), 6).ok());
  power_loss();
  ASSERT_TRUE(reopen().ok());
  EXPECT_EQ(target->promised(kPartition), PartitionEpoch(6));
  EXPECT_EQ(append(batch(run, 9, 9, 10), 7).code(), Code::kInvalid);
  ASSERT_TRUE(append(batch(run, 3, 3, 10), 7).ok());
  power_loss();
  ASSERT_TRUE(reopen().ok());
  EXPECT_EQ(target->promised(kPartition), PartitionEpoch(7));
}

// The file system under the target is full before the target is: fragments are refused, the journal goes on with what
// is kept for it, and with space there all goes on.
TEST_F(TargetTest, AFullDiskUnderItRefusesFragmentsAndLeavesRoomForJournals) {
  make();
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  world.run_for(seconds(1));
  machine.disk().options.capacity = machine.disk().used_bytes() + 100 * kKiB;
  std::vector<FragmentWrite> held;
  Result<void> refused;
  for (uint64_t i = 1; i < 1000 && refused.ok(); ++i) {
    refused = write(fragment(i, 2));
    if (refused.ok()) held.push_back(fragment(i, 2));
  }
  EXPECT_EQ(refused.code(), Code::kNoSpace);
  EXPECT_NE(refused.error().message().find("the disk under it is full; free space there"), std::string::npos)
      << refused.error().text();
  EXPECT_GT(held.size(), 5u);
  for (uint64_t at = 1; at <= 8; ++at) ASSERT_TRUE(append(batch(run, at, at, 20'000), 1).ok()) << at;
  EXPECT_EQ(write(fragment(2000, 2)).code(), Code::kNoSpace);
  EXPECT_FALSE(target->fenced());
  for (const FragmentWrite& w : held) expect_held(w);
  power_loss();
  ASSERT_TRUE(reopen().ok());
  for (const FragmentWrite& w : held) expect_held(w);
  machine.disk().options.capacity = kGiB;
  EXPECT_TRUE(write(fragment(2000, 2)).ok());
}

TEST_F(TargetTest, TrimmedAndForgottenJournalSpaceComesBack) {
  make();
  uint64_t before = target->status().used;
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  for (uint64_t i = 1; i <= 60; ++i) ASSERT_TRUE(append(batch(run, i, i, 30'000), 1).ok());
  uint64_t full = target->status().used;
  ASSERT_TRUE(world.run(target->journal_trim({kFormat.id, {}, run, Position(40)}, kPartition, PartitionEpoch(1))).ok());
  EXPECT_LT(target->status().used, full);
  for (int round = 0; round < 2; ++round) {
    auto kept = world.run(target->journal_read({kFormat.id, run, Position(40)}));
    ASSERT_TRUE(kept.ok()) << kept.error().text();
    EXPECT_EQ(kept->batches.front().first, Position(40));
    EXPECT_EQ(world.run(target->journal_read({kFormat.id, run, Position(1)})).code(), Code::kNotFound);
    auto sealed = seal(1);
    EXPECT_LE(sealed->runs[0].first, Position(40));
    EXPECT_EQ(sealed->runs[0].last, Position(60));
    power_loss();
    ASSERT_TRUE(reopen().ok());
  }
  EXPECT_TRUE(append(batch(run, 61, 61, 100), 1).ok());  // goes on after a restart
  power_loss();
  ASSERT_TRUE(reopen().ok());
  EXPECT_EQ(seal(1)->runs[0].last, Position(61));
  ASSERT_TRUE(world.run(target->journal_trim({kFormat.id, {run, RunId(99)}}, kPartition, PartitionEpoch(1))).ok());
  EXPECT_EQ(target->status().used, before);
  EXPECT_TRUE(seal(1)->runs.empty());
}

// ---- faults ----

// Power loss at each of many steps of a random workload, again and again on one disk: what was
// acknowledged is there, what was not is there whole or not at all.
struct Oracle {
  struct Fragment {
    uint64_t blocks = 0;
    bool acknowledged = false;
    bool freeing = false;
    bool freed = false;
  };
  struct RunState {
    uint64_t acknowledged = 0;  // last position
    uint64_t asked = 0;
    bool forgetting = false;
    std::vector<size_t> sizes;  // by position - 1
  };
  std::map<uint64_t, Fragment> fragments;
  std::map<RunId, RunState> runs;
  uint64_t promised = 0;  // acknowledged epoch
  uint64_t asked_epoch = 1;
  uint64_t next_segment = 1;
  uint64_t next_run = 1;
  uint64_t operations = 0;
};

struct Worker final : public Process {
  Worker(Env& env, Oracle& oracle) : env_(env), oracle_(oracle) {}
  Task<void> run() override {
    auto opened = co_await Target::open(env_, kDir, kExpected, kOptions);
    EXPECT_TRUE(opened.ok()) << opened.error().text();
    if (!opened) co_return;
    target_ = *std::move(opened);
    EXPECT_FALSE(target_->fenced()) << target_->status().reason;
    co_await check();
    RunId run(oracle_.next_run++);
    uint64_t epoch = oracle_.asked_epoch;
    oracle_.runs[run];
    auto ok = co_await target_->journal_open({kFormat.id, run, Position(1), "x"}, kPartition, PartitionEpoch(epoch));
    EXPECT_TRUE(ok.ok()) << ok.error().text();
    for (int i = 0; i < 4; ++i) scope_.spawn(writer());
    scope_.spawn(appender(run, epoch));
    co_await scope_.join();
  }
  Task<void> check() {
    for (auto& [sequence, f] : oracle_.fragments) {
      if (f.freed) continue;
      FragmentWrite w = fragment(sequence, f.blocks);
      auto got = co_await target_->read(read_of(w, 0, w.payload.size()));
      if (got) {
        EXPECT_TRUE(got->payload.text() == w.payload.text());
      } else {
        EXPECT_EQ(got.code(), Code::kNoFragment) << sequence << " " << got.error().text();
        EXPECT_TRUE(!f.acknowledged || f.freeing) << "fragment " << sequence << " is lost";
        f.freed = true;
      }
      f.acknowledged = got.ok();
      f.freeing = false;
    }
    uint64_t held = 0;
    for (auto& [sequence, f] : oracle_.fragments) held += f.freed ? 0 : 1;
    EXPECT_EQ(target_->status().fragments, held);
    EXPECT_GE(target_->promised(kPartition), PartitionEpoch(oracle_.promised));
    auto sealed = co_await target_->journal_seal({kFormat.id}, kPartition, PartitionEpoch(oracle_.asked_epoch));
    EXPECT_TRUE(sealed.ok()) << sealed.error().text();
    std::map<RunId, RunSummary> found;
    for (const RunSummary& summary : sealed->runs) found[summary.run] = summary;
    for (auto& [run, state] : oracle_.runs) {
      if (!found.contains(run)) {
        EXPECT_TRUE(state.acknowledged == 0 || state.forgetting) << "run " << run.value() << " is lost";
        continue;
      }
      uint64_t last = found[run].last.value();
      EXPECT_GE(last, state.acknowledged);
      EXPECT_LE(last, state.asked);
      for (uint64_t at = 1; at <= last; ++at) {
        auto got = co_await target_->journal_read({kFormat.id, run, Position(at), 1});
        EXPECT_TRUE(got.ok()) << got.error().text();
        if (!got) continue;
        EXPECT_TRUE(got->batches.at(0).bytes.text() == batch(run, at, at, state.sizes.at(at - 1)).payload.text());
      }
      state.acknowledged = last;
    }
    std::vector<RunId> old;
    for (auto& [run, state] : oracle_.runs) old.push_back(run);
    if (old.size() > 3) {
      old.resize(2);
      for (RunId run : old) oracle_.runs[run].forgetting = true;
      auto trimmed = co_await target_->journal_trim({kFormat.id, old}, kPartition, PartitionEpoch(oracle_.asked_epoch));
      EXPECT_TRUE(trimmed.ok()) << trimmed.error().text();
      for (RunId run : old) oracle_.runs.erase(run);
    }
  }
  Task<void> writer() {
    while (true) {
      ++oracle_.operations;
      if (oracle_.fragments.size() > 20 && env_.random.chance(1, 2)) {
        auto at =
            std::next(oracle_.fragments.begin(), static_cast<ptrdiff_t>(env_.random.below(oracle_.fragments.size())));
        uint64_t sequence = at->first;
        if (!at->second.acknowledged || at->second.freeing || at->second.freed) continue;
        at->second.freeing = true;
        FragmentWrite w = fragment(sequence, at->second.blocks);
        auto ok = co_await target_->free(free_of(w), kPartition, PartitionEpoch(oracle_.asked_epoch));
        EXPECT_TRUE(ok.ok()) << ok.error().text();
        oracle_.fragments[sequence].freed = true;
      } else {
        uint64_t sequence = oracle_.next_segment++;
        uint64_t blocks = env_.random.between(1, 24);
        oracle_.fragments[sequence].blocks = blocks;
        auto ok = co_await target_->write(fragment(sequence, blocks));
        if (ok) {
          oracle_.fragments[sequence].acknowledged = true;
        } else {
          EXPECT_EQ(ok.code(), Code::kNoSpace) << ok.error().text();
          oracle_.fragments[sequence].freed = true;
          co_await env_.clock.sleep(milliseconds(5));
        }
      }
    }
  }
  Task<void> appender(RunId run, uint64_t epoch) {
    for (uint64_t at = 1;; ++at) {
      auto& state = oracle_.runs[run];
      state.asked = at;
      state.sizes.push_back(env_.random.between(1, 20'000));
      auto ok =
          co_await target_->journal_append(batch(run, at, at, state.sizes.back()), kPartition, PartitionEpoch(epoch));
      if (!ok) {  // full: neither is it there, nor does the run move
        EXPECT_EQ(ok.code(), Code::kNoSpace) << ok.error().text();
        oracle_.runs[run].sizes.pop_back();
        --at;
        co_await env_.clock.sleep(milliseconds(20));
        continue;
      }
      oracle_.runs[run].acknowledged = at;
      if (at % 10 == 0) {
        uint64_t next = ++oracle_.asked_epoch;
        auto sealed = co_await target_->journal_seal({kFormat.id}, kPartition, PartitionEpoch(next));
        EXPECT_TRUE(sealed.ok());
        oracle_.promised = next;
        epoch = next;
      }
    }
  }

  Env& env_;
  Oracle& oracle_;
  std::unique_ptr<Target> target_;
  Scope scope_;
};

void crash_again_and_again(uint64_t first, uint64_t seeds) {
  uint64_t operations = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    Machine& machine = world.add_machine("m");
    Oracle oracle;
    {
      auto made = world.run(Target::format(machine.env(), kDir, kFormat, kOptions));
      ASSERT_TRUE(made.ok()) << made.error().text();
    }
    for (int round = 0; round < 8; ++round) {
      machine.start([&](Env& env) { return std::make_unique<Worker>(env, oracle); });
      uint64_t steps = world.random().between(1, 4000);
      for (uint64_t i = 0; i < steps && machine.running(); ++i) world.step();
      ASSERT_TRUE(machine.running());
      machine.crash(world.random().chance(3, 4) ? CrashKind::kPower : CrashKind::kProcess);
      if (testing::Test::HasFailure()) FAIL() << "round " << round;
    }
    operations += oracle.operations;
  }
  EXPECT_GT(operations, seeds * 50);
}

TEST(TargetCrash, AcknowledgedSurvivesAndTheRestIsAllOrNothing) {
  crash_again_and_again(1, 12);
}
TEST(TargetCrash, LongRunAcknowledgedSurvivesAndTheRestIsAllOrNothing) {
  crash_again_and_again(1000, 400);
}

TEST_F(TargetTest, AFailedFlushFencesTheTarget) {
  make();
  FragmentWrite before = fragment(1, 1);
  ASSERT_TRUE(write(before).ok());
  machine.disk().options.flush_fails = 1;
  Result<void> failed = write(fragment(2, 1));
  EXPECT_EQ(failed.code(), Code::kIo);
  machine.disk().options.flush_fails = 0;
  EXPECT_TRUE(target->status().fenced);
  EXPECT_NE(target->status().reason.find("commit failed"), std::string::npos);
  EXPECT_EQ(write(fragment(3, 1)).code(), Code::kUnavailable);
  EXPECT_EQ(read(before, 0, kBlock).code(), Code::kUnavailable);
  EXPECT_EQ(open_run(RunId(1), 1, 1).code(), Code::kUnavailable);
  bool closed = world.run_until(target->close());
  EXPECT_TRUE(closed);
}

TEST_F(TargetTest, ADeviceThatDoesNotAnswerFencesTheTargetForGood) {
  make();
  FragmentWrite before = fragment(1, 1);
  ASSERT_TRUE(write(before).ok());
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  ASSERT_TRUE(append(batch(run, 1, 1, 100), 1).ok());
  machine.disk().options.slow_factor = 1e9;
  machine.disk().options.longest = seconds(100);
  const Nanos began = world.now();
  struct Ask {
    static Task<void> read(Target& target, FragmentRead request, Code* code) {
      Result<FragmentReadReply> reply = co_await target.read(request);
      *code = reply.code();
    }
    static Task<void> append(Target& target, JournalAppend request, Code* code) {
      Result<void> done = co_await target.journal_append(std::move(request), kPartition, PartitionEpoch(1));
      *code = done.code();
    }
  };
  Code reading = Code::kOk;
  Code appending = Code::kOk;
  world.spawn(Ask::read(*target, read_of(before, 0, kBlock), &reading));
  world.spawn(Ask::append(*target, batch(run, 2, 2, 100), &appending));
  world.run_for(seconds(20));
  EXPECT_FALSE(target->fenced());
  EXPECT_GE(target->silent(), seconds(19));
  world.run_for(seconds(15));
  EXPECT_EQ(reading, Code::kUnavailable);
  EXPECT_EQ(appending, Code::kIo);
  EXPECT_TRUE(target->fenced());
  EXPECT_NE(target->status().reason.find("has not answered for 30 s"), std::string::npos) << target->status().reason;
  EXPECT_EQ(target->status().corrupt_blocks, 0u);
  EXPECT_EQ(write(fragment(3, 1)).code(), Code::kUnavailable);
  EXPECT_LT(world.now() - began, seconds(36));
  // What it answers late changes nothing.
  machine.disk().options.slow_factor = 1;
  world.run_for(seconds(100));
  EXPECT_TRUE(target->fenced());
  EXPECT_EQ(read(before, 0, kBlock).code(), Code::kUnavailable);
  EXPECT_TRUE(world.run_until(target->close()));
  ASSERT_TRUE(reopen().ok());
  EXPECT_FALSE(target->fenced());
  expect_held(before);
}

// Nothing of it is taken for damage, of which journals would be the price.
TEST_F(TargetTest, ADeviceThatDoesNotAnswerAtAnOpenHasLostNothing) {
  make();
  FragmentWrite before = fragment(1, 1);
  ASSERT_TRUE(write(before).ok());
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  ASSERT_TRUE(append(batch(run, 1, 1, 100), 1).ok());
  int hung = 0;
  for (int answered = 0; answered < 16; ++answered) {
    ASSERT_TRUE(world.run_until(target->close()));
    Result<void> opened = reopen_while([left = answered](const std::string&) mutable { return left-- <= 0; });
    if (!opened.ok()) ++hung;
    EXPECT_TRUE(opened.ok() ? !target->scannable() : opened.code() != Code::kCorrupt) << answered;
    ASSERT_TRUE(reopen().ok()) << answered;
    ASSERT_FALSE(target->fenced()) << target->status().reason;
    expect_held(before);
    Result<JournalSealReply> sealed = seal(1);
    ASSERT_TRUE(sealed.ok()) << answered;
    ASSERT_EQ(sealed->runs.size(), 1u) << answered;
    EXPECT_EQ(sealed->runs[0].last, Position(1)) << answered;
  }
  EXPECT_GT(hung, 4);
}

// Both tries at a fragment of the last batch run out of patience, and the device answers again: it was never torn.
TEST_F(TargetTest, ADeviceThatHangsUnderTheLastFragmentAtAnOpenHasLostNothing) {
  make();
  FragmentWrite last = fragment(1, 3);
  ASSERT_TRUE(write(last).ok());
  const int reads = 2;  // of the fragment
  int hung = 0;
  for (int answered = 0; answered < 16; ++answered) {
    ASSERT_TRUE(world.run_until(target->close()));
    Result<void> opened = reopen_while([asked = 0, answered](const std::string&) mutable {
      const int now = asked++;
      return now >= answered && now < answered + reads;
    });
    if (!opened.ok()) ++hung;
    ASSERT_TRUE(reopen().ok()) << answered;
    ASSERT_FALSE(target->fenced()) << target->status().reason;
    expect_held(last);
    // The last batch of the log again, for the next round.
    ASSERT_TRUE(world.run(target->free(free_of(last), kPartition, PartitionEpoch(1))).ok());
    ASSERT_TRUE(write(last).ok());
  }
  EXPECT_GT(hung, 4);
}

TEST_F(TargetTest, ATargetWhoseDeviceDoesNotAnswerCanBeClosed) {
  make();
  world.run_for(seconds(1));
  machine.disk().options.slow_factor = 1e9;
  machine.disk().options.longest = seconds(100'000);
  struct Ask {
    static Task<void> go(Target& target) {
      Result<void> done = co_await target.write(fragment(1, 4));
      EXPECT_EQ(done.code(), Code::kIo);
    }
  };
  world.spawn(Ask::go(*target));
  const Nanos began = world.now();
  ASSERT_TRUE(world.run_until(target->close(), seconds(90)));
  EXPECT_LT(world.now() - began, seconds(70));
  target.reset();
}

TEST_F(TargetTest, AFailedWriteFencesTheTarget) {
  make();
  machine.disk().options.write_fails = 1;
  EXPECT_FALSE(write(fragment(2, 1)).ok());
  machine.disk().options.write_fails = 0;
  EXPECT_TRUE(target->fenced());
}

TEST_F(TargetTest, BadInputAFullDiskUnderTheTargetIsNoSpaceAndFencesNothing) {
  make();
  world.run_for(seconds(1));
  machine.disk().options.capacity = machine.disk().used_bytes() + 256 * kKiB;
  std::vector<FragmentWrite> held;
  Result<void> last;
  for (uint64_t i = 1; i < 100; ++i) {
    FragmentWrite w = fragment(i, 32);
    last = write(w);
    if (!last) break;
    held.push_back(w);
  }
  EXPECT_EQ(last.code(), Code::kNoSpace) << last.error().text();
  EXPECT_FALSE(target->fenced());
  ASSERT_FALSE(held.empty());
  for (const FragmentWrite& w : held) expect_held(w);
  ASSERT_TRUE(world.run(target->free(free_of(held[0]), kPartition, PartitionEpoch(1))).ok());
  EXPECT_TRUE(write(fragment(500, 32)).ok());
  machine.disk().options.capacity = 64 * kGiB;
  EXPECT_TRUE(write(fragment(501, 32)).ok());
}

TEST_F(TargetTest, BadInputFlippedFragmentBytesAreFound) {
  make();
  FragmentWrite w = fragment(1, 3);
  ASSERT_TRUE(write(w).ok());
  uint64_t at = data_offset() + target->find({w.segment, w.index})->block * kBlock;
  uint64_t header = fragment_header_size(w.payload.size());
  uint64_t found = 0;
  for (uint64_t byte = 0; byte < header + w.payload.size(); byte += byte < 256 ? 1 : 97) {
    ASSERT_TRUE(reopen().ok());  // empty caches
    ASSERT_TRUE(machine.disk().flip(kFile, at + byte));
    for (uint64_t block = 0; block < 3; ++block) {
      auto got = read(w, block * kBlock, kBlock);
      bool touched = byte < header || (byte - header) / kBlock == block;
      EXPECT_EQ(got.code(), touched ? Code::kCorrupt : Code::kOk) << byte;
      found += touched ? 1 : 0;
      if (got) {
        EXPECT_TRUE(got->payload.text() == w.payload.slice(block * kBlock, kBlock).text());
      }
    }
    EXPECT_GT(target->status().corrupt_blocks, 0u);
    ASSERT_TRUE(machine.disk().flip(kFile, at + byte));
  }
  EXPECT_GT(found, 100u);
  EXPECT_FALSE(target->fenced());
}

TEST_F(TargetTest, BadInputAFlippedSuperblockIsServedByTheOther) {
  make();
  FragmentWrite w = fragment(1, 2);
  ASSERT_TRUE(write(w).ok());
  for (uint64_t byte = 0; byte < kSuperblockBytes; byte += byte < 100 ? 1 : 61) {
    for (uint64_t offset : kSuperblockOffsets) {
      target.reset();
      ASSERT_TRUE(machine.disk().flip(kFile, offset + byte));
      Result<void> opened = reopen();
      ASSERT_TRUE(opened.ok()) << opened.error().text();
      expect_held(w);
    }
  }
}

TEST_F(TargetTest, BadInputBothSuperblocksFlippedIsALostTargetWithTheMend) {
  make();
  target.reset();
  for (uint64_t offset : kSuperblockOffsets) ASSERT_TRUE(machine.disk().flip(kFile, offset + 20));
  Result<void> opened = reopen();
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.code(), Code::kCorrupt);
  EXPECT_NE(opened.error().message().find("target t3 is lost"), std::string::npos) << opened.error().text();
  EXPECT_NE(opened.error().message().find("headrace target replace t3"), std::string::npos);
}

TEST_F(TargetTest, BadInputAMissingFileIsALostTarget) {
  make();
  target.reset();
  machine.disk().erase(kFile);
  Result<void> opened = reopen();
  EXPECT_EQ(opened.code(), Code::kNotFound);
  EXPECT_NE(opened.error().message().find("headrace target replace t3"), std::string::npos);
}

// Each byte of the log and of the table: the target is lost or fenced with a reason, or the damage
// is in what was the last thing written and so counts as torn; never a crash, never wrong bytes.
TEST_F(TargetTest, BadInputFlippedLogBytesAreFound) {
  make();
  std::vector<FragmentWrite> all;
  for (uint64_t i = 1; i <= 6; ++i) {
    all.push_back(fragment(i, 1));
    ASSERT_TRUE(write(all.back()).ok());
  }
  target.reset();
  DiskSnapshot whole = machine.disk().snapshot();
  uint64_t fenced = 0;
  for (uint64_t byte = 0; byte < 7 * kBlock; byte += byte % kBlock < 90 ? 1 : 509) {
    machine.disk().restore(whole);
    ASSERT_TRUE(machine.disk().flip(kFile, kLogOffset + byte));
    Result<void> opened = reopen();
    ASSERT_TRUE(opened.ok()) << opened.error().text();
    uint64_t batch = byte / kBlock;
    if (batch < 5) {
      EXPECT_TRUE(target->fenced()) << byte;
      EXPECT_NE(target->status().reason.find("log is damaged"), std::string::npos) << target->status().reason;
      EXPECT_EQ(read(all[0], 0, kBlock).code(), Code::kUnavailable);
      ++fenced;
    } else {
      EXPECT_FALSE(target->fenced()) << byte;
      for (size_t i = 0; i < 5; ++i) expect_held(all[i]);
    }
  }
  EXPECT_GT(fenced, 200u);
}

TEST_F(TargetTest, BadInputFlippedTableBytesAreFound) {
  make();
  for (uint64_t i = 1; i <= 30; ++i) ASSERT_TRUE(write(fragment(i, 1)).ok());
  ASSERT_TRUE(reopen().ok());
  uint64_t table = target->superblock().table_offset(target->superblock().table);
  target.reset();
  DiskSnapshot whole = machine.disk().snapshot();
  for (uint64_t byte = 0; byte < kBlock; byte += byte < 100 ? 1 : 37) {
    machine.disk().restore(whole);
    ASSERT_TRUE(machine.disk().flip(kFile, table + byte));
    ASSERT_TRUE(reopen().ok()) << byte;
    EXPECT_TRUE(target->fenced());
    EXPECT_TRUE(target->scannable());
    EXPECT_NE(target->status().reason.find("headrace target replace t3"), std::string::npos);
  }
}

// With log or table lost: what the device holds is found, what was freed only as a candidate, and what is adopted
// serves.
TEST_F(TargetTest, BadInputALostLogOrTableIsScannedForFragments) {
  for (bool lose_table : {false, true}) {
    SCOPED_TRACE(lose_table);
    machine.disk().erase(kFile);
    make();
    std::vector<FragmentWrite> all;
    for (uint64_t i = 1; i <= 12; ++i) {
      all.push_back(fragment(i, 1 + i % 3));
      ASSERT_TRUE(write(all.back()).ok());
    }
    ASSERT_TRUE(world.run(target->free(free_of(all[3]), kPartition, PartitionEpoch(1))).ok());
    ASSERT_TRUE(world.run(target->free(free_of(all[7]), kPartition, PartitionEpoch(1))).ok());
    if (lose_table) ASSERT_TRUE(reopen().ok());
    const uint64_t generation = target->generation();
    // One block of one fragment is bad as well: that one is none.
    FragmentEntry entry = *target->find({all[5].segment, all[5].index});
    const Superblock superblock = target->superblock();
    target.reset();
    ASSERT_TRUE(machine.disk().flip(kFile, superblock.data_offset() + entry.block * kBlock + kBlock + 9));
    if (lose_table) {
      ASSERT_TRUE(machine.disk().flip(kFile, superblock.table_offset(superblock.table) + 60));
    } else {
      ASSERT_TRUE(machine.disk().flip(kFile, superblock.log_offset() + 60));
    }
    ASSERT_TRUE(reopen().ok());
    ASSERT_TRUE(target->scannable());
    EXPECT_EQ(write(all[0]).code(), Code::kUnavailable);
    auto found = world.run(target->scan([] { return true; }));
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->size(), 11u);  // the freed ones too: only their home knows
    std::vector<FragmentEntry> kept;
    for (const FragmentEntry& one : *found)
      if (one.name.segment != all[3].segment && one.name.segment != all[7].segment) kept.push_back(one);
    machine.disk().options.write_fails = 1;  // and then again
    EXPECT_FALSE(world.run(target->adopt(kept, {{kPartition, PartitionEpoch(5)}})).ok());
    EXPECT_TRUE(target->scannable());
    machine.disk().options.write_fails = 0;
    ASSERT_TRUE(world.run(target->adopt(kept, {{kPartition, PartitionEpoch(5)}})).ok());
    EXPECT_FALSE(target->fenced());
    EXPECT_GT(target->generation(), generation);
    auto check = [&] {
      for (size_t i = 0; i < all.size(); ++i) {
        SCOPED_TRACE(i);
        if (i == 3 || i == 5 || i == 7)
          EXPECT_EQ(read(all[i], 0, kBlock).code(), Code::kNoFragment);
        else
          expect_held(all[i]);
      }
      EXPECT_EQ(target->promised(kPartition), PartitionEpoch(5));
    };
    check();
    ASSERT_TRUE(write(fragment(90, 2)).ok());
    ASSERT_TRUE(reopen().ok());
    EXPECT_FALSE(target->fenced());
    check();
    expect_held(fragment(90, 2));
  }
}

TEST_F(TargetTest, BadInputFlippedJournalBytesAreReportedAsDamage) {
  make();
  RunId run(7);
  ASSERT_TRUE(open_run(run, 1, 1).ok());
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(append(batch(run, i, i, 3000), 1).ok());
  target.reset();
  DiskSnapshot whole = machine.disk().snapshot();
  ASSERT_TRUE(reopen().ok());
  uint64_t chunk = data_offset();  // the first thing allocated
  target.reset();
  for (uint64_t bad = 0; bad < 5; ++bad) {
    for (uint64_t byte : {0, 5, 20, 50, 64, 3000}) {
      machine.disk().restore(whole);
      ASSERT_TRUE(machine.disk().flip(kFile, chunk + bad * kBlock + byte));
      ASSERT_TRUE(reopen().ok());
      auto sealed = seal(2);
      ASSERT_TRUE(sealed.ok());
      EXPECT_EQ(sealed->runs[0].last, Position(bad));
      EXPECT_EQ(sealed->runs[0].damaged, bad < 4) << bad << " " << byte;
    }
  }
}

TEST_F(TargetTest, BadInputAFileCutOrZeroedWhileRunningGivesCorruptAndNoCrash) {
  make();
  FragmentWrite w = fragment(1, 8);
  FragmentWrite v = fragment(2, 8);
  ASSERT_TRUE(write(w).ok());
  ASSERT_TRUE(write(v).ok());
  struct Cut {
    static Task<Result<void>> go(Env env, uint64_t size, uint64_t zeros) {
      HR_CO_TRY(std::unique_ptr<File> file, co_await env.disk.open(kFile, {}));
      if (zeros > 0) {
        std::vector<Buffer> pieces(1, Buffer::zeroed(zeros));
        HR_CO_TRY(co_await file->write(size, std::move(pieces)));
        co_return Result<void>();
      }
      co_return co_await file->resize(size);
    }
  };
  ASSERT_TRUE(world.run(Cut::go(machine.env(), data_offset(), 16 * kBlock)).ok());
  EXPECT_EQ(read(w, 0, kBlock).code(), Code::kCorrupt);
  ASSERT_TRUE(world.run(Cut::go(machine.env(), data_offset() + kBlock, 0)).ok());
  EXPECT_EQ(read(w, 4 * kBlock, kBlock).code(), Code::kCorrupt);
  EXPECT_EQ(read(v, 0, 8 * kBlock).code(), Code::kCorrupt);
  ASSERT_TRUE(world.run(Cut::go(machine.env(), 0, 0)).ok());
  EXPECT_EQ(read(v, 0, 8 * kBlock).code(), Code::kCorrupt);
  EXPECT_FALSE(target->fenced());
  EXPECT_GE(target->status().corrupt_blocks, 4u);
}

TEST_F(TargetTest, BadInputLatentSectorsAreCorruptAndFenceNothing) {
  make();
  FragmentWrite w = fragment(1, 4);
  ASSERT_TRUE(write(w).ok());
  uint64_t at =
      data_offset() + target->find({w.segment, w.index})->block * kBlock + fragment_header_size(w.payload.size());
  ASSERT_TRUE(machine.disk().damage(kFile, at + 2 * kBlock + 512));
  EXPECT_EQ(read(w, 2 * kBlock, kBlock).code(), Code::kCorrupt);
  EXPECT_TRUE(read(w, kBlock, kBlock).ok());
  EXPECT_FALSE(target->fenced());
}

TEST_F(TargetTest, BadInputAForeignSwappedClonedOrOldTargetIsRefused) {
  make();
  TargetExpected other = kExpected;
  other.cluster = ClusterId(0xdead);
  Result<void> opened = reopen(other);
  EXPECT_EQ(opened.code(), Code::kInvalid);
  EXPECT_NE(opened.error().message().find("belongs to cluster 00000000000000c1, not 000000000000dead"),
            std::string::npos)
      << opened.error().text();
  other = kExpected;
  other.number = 4;
  opened = reopen(other);
  EXPECT_EQ(opened.code(), Code::kInvalid);
  EXPECT_NE(opened.error().message().find("swapped"), std::string::npos);
  other = kExpected;
  other.id = TargetId(0xabd);
  EXPECT_EQ(reopen(other).code(), Code::kInvalid);
  ASSERT_TRUE(reopen().ok());
  target.reset();
  DiskSnapshot old = machine.disk().snapshot();
  ASSERT_TRUE(reopen().ok());
  other = kExpected;
  other.generation = target->generation();
  target.reset();
  machine.disk().restore(old);
  opened = reopen(other);
  EXPECT_EQ(opened.code(), Code::kStale);
  EXPECT_NE(opened.error().message().find("older copy"), std::string::npos);
}

TEST_F(TargetTest, BadInputFormatRefusesAnExistingOrTooSmallTarget) {
  make();
  FragmentWrite w = fragment(1, 1);
  ASSERT_TRUE(write(w).ok());
  target.reset();
  auto again = world.run(Target::format(machine.env(), kDir, kFormat, kOptions));
  EXPECT_EQ(again.code(), Code::kExists);
  TargetFormat tiny = kFormat;
  tiny.capacity = kMiB;
  EXPECT_EQ(world.run(Target::format(machine.env(), "/elsewhere", tiny, kOptions)).code(), Code::kInvalid);
  ASSERT_TRUE(reopen().ok());
  expect_held(w);
}

TEST_F(TargetTest, CloseWaitsForWhatIsOnItsWay) {
  make();
  world.run_for(seconds(1));  // prewriting is done
  int done = 0;
  struct Ask {
    static Task<void> go(Target& target, uint64_t i, int* done) {
      Result<void> written = co_await target.write(fragment(i, 4));
      if (written) ++*done;
    }
  };
  for (uint64_t i = 1; i <= 8; ++i) world.spawn(Ask::go(*target, i, &done));
  ASSERT_TRUE(world.run_until(target->close()));
  EXPECT_EQ(write(fragment(99, 1)).code(), Code::kUnavailable);
  world.run_for(milliseconds(1));
  int acknowledged = done;
  ASSERT_TRUE(reopen().ok());
  EXPECT_GE(target->status().fragments, static_cast<uint64_t>(acknowledged));
  EXPECT_GE(acknowledged, 1);
}

}  // namespace
}  // namespace headrace
