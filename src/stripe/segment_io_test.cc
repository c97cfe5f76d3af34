#include "stripe/segment_io.h"

#include <gtest/gtest.h>

#include <map>

#include "runtime/sim/world.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

const SegmentId kSegment(NamespaceId(7), Slot(9), NamespaceEpoch(1), 5);

// Targets in memory, each with the fault that a test gives it.
struct FakePort final : public FragmentPort {
  enum class Fault { kNone, kDown, kBadBlock, kHangs, kShort, kDenied };
  explicit FakePort(Clock& c) : clock(c) {}

  Task<Result<void>> write(FragmentWrite request, Capability) override {
    co_await clock.sleep(microseconds(100));
    if (faults[request.target] == Fault::kDown) co_return Error(Code::kUnavailable, "down");
    if (faults[request.target] == Fault::kDenied) co_return Error(Code::kDenied, "no capability");
    std::pair key(request.target, request.index);
    held[key] = std::move(request);
    co_return Result<void>();
  }
  Task<Result<FragmentReadReply>> read(FragmentRead request, Capability) override {
    ++reads;
    bytes += request.length;
    Fault fault = faults[request.target];
    co_await clock.sleep(fault == Fault::kHangs ? seconds(30) : microseconds(100));
    if (fault == Fault::kDown) co_return Error(Code::kUnavailable, "down");
    auto at = held.find({request.target, request.index});
    if (at == held.end()) co_return Error(Code::kNoFragment, "not here");
    FragmentReadReply reply;
    reply.segment_length = at->second.segment_length;
    reply.protection = at->second.protection;
    Buffer part = at->second.payload.slice(request.offset, request.length);
    reply.payload = fault == Fault::kBadBlock ? Buffer::copy_of(part.view()) : part;
    if (fault == Fault::kBadBlock) reply.payload.data()[100] ^= std::byte{1};
    if (fault == Fault::kShort) reply.payload = reply.payload.slice(0, reply.payload.size() - kBlock);
    for (uint64_t i = 0; i < reply.payload.size() / kBlock; ++i)
      reply.crcs.push_back(at->second.crcs[request.offset / kBlock + i]);
    co_return reply;
  }

  Clock& clock;
  std::map<TargetId, Fault> faults;
  std::map<std::pair<TargetId, uint8_t>, FragmentWrite> held;
  uint64_t reads = 0;
  uint64_t bytes = 0;
};

Buffer random_bytes(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  Buffer out = Buffer::allocate(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

struct SegmentIoTest : public testing::Test {
  static Placement placement(Protection protection) {
    Placement out{protection, {}};
    for (uint64_t i = 0; i < protection.width(); ++i) out.targets.push_back(TargetId(i + 1));
    return out;
  }
  Placement write(Buffer data, Protection protection) {
    auto written = world.run(io.write(kSegment, data, placement(protection), {TargetId(101), TargetId(102)}, {}));
    EXPECT_TRUE(written.ok()) << written.error().text();
    return *written;
  }
  Result<Buffer> read(const Buffer& data, Placement where, uint64_t offset, uint64_t length) {
    return world.run(io.read(kSegment, data.size(), where, offset, length, {}));
  }
  World world{1};
  Machine& machine = world.add_machine("m");
  FakePort port{machine.env().clock};
  SegmentIo io{machine.env(), port};
};

TEST_F(SegmentIoTest, WhatWasWrittenIsReadBackAtEverySize) {
  for (Protection protection :
       {Protection{1, 0}, Protection{1, 2}, Protection{2, 1}, Protection{4, 2}, Protection{16, 4}}) {
    for (uint64_t size :
         {uint64_t{1}, uint64_t{4095}, uint64_t{4096}, uint64_t{4097}, uint64_t{65'537}, 3 * kMiB + 5, 16 * kMiB}) {
      Buffer data = random_bytes(size, size);
      Placement where = write(data, protection);
      auto whole = read(data, where, 0, size);
      ASSERT_TRUE(whole.ok()) << whole.error().text();
      EXPECT_TRUE(whole->text() == data.text());
      SeededRandom random(size);
      for (int i = 0; i < 20; ++i) {
        uint64_t offset = random.below(size);
        uint64_t length = 1 + random.below(size - offset);
        auto part = read(data, where, offset, length);
        ASSERT_TRUE(part.ok()) << part.error().text();
        ASSERT_TRUE(part->text() == data.slice(offset, length).text()) << offset << " " << length;
      }
    }
  }
  EXPECT_EQ(io.counters().degraded_reads, 0u);
}

// Dropped, and fetched again when fewer targets were there: a reader that was told of the first cut must not take one
// fragment for another.
TEST_F(SegmentIoTest, AFragmentOfAnotherCutIsNoFragment) {
  Buffer data = random_bytes(3 * kMiB, 5);
  Placement told = write(data, {4, 2});
  write(data, {3, 2});
  auto got = read(data, told, 2 * kMiB, 10'000);
  EXPECT_EQ(got.code(), Code::kNoFragment) << (got.ok() ? "other bytes" : got.error().text());
  EXPECT_TRUE(io.take_damage().empty());
  port.held.erase({TargetId(2), 1});
  got = read(data, told, 0, data.size());
  EXPECT_EQ(got.code(), Code::kNoFragment);
}

TEST_F(SegmentIoTest, PlacementsThatCannotBeAreRefusedBadInput) {
  Buffer data = random_bytes(4096, 6);
  Placement wraps{{250, 10}, {TargetId(1), TargetId(2), TargetId(3), TargetId(4)}};
  EXPECT_FALSE(read(data, wraps, 0, 100).ok());
  EXPECT_FALSE(world.run(io.write(kSegment, data, wraps, {}, {})).ok());
  EXPECT_FALSE(world.run(io.rebuild(kSegment, 4096, wraps, 0, {})).ok());
}

TEST_F(SegmentIoTest, SmallReadTouchesOneTarget) {
  Buffer data = random_bytes(16 * kMiB, 1);
  Placement where = write(data, {4, 2});
  port.reads = port.bytes = 0;
  ASSERT_TRUE(read(data, where, 5 * kMiB, 4096).ok());
  EXPECT_EQ(port.reads, 1u);
  EXPECT_EQ(port.bytes, 4096u);
}

TEST_F(SegmentIoTest, ReadsAreRightWithAnyTwoFragmentsGone) {
  Protection protection{4, 2};
  Buffer data = random_bytes(3 * kMiB + 777, 2);
  Placement where = write(data, protection);
  using Fault = FakePort::Fault;
  for (int a = 0; a < 6; ++a) {
    for (int b = a + 1; b < 6; ++b) {
      for (Fault fault : {Fault::kDown, Fault::kBadBlock, Fault::kShort}) {
        port.faults = {{where.targets[a], fault}, {where.targets[b], Fault::kBadBlock}};
        auto whole = read(data, where, 0, data.size());
        ASSERT_TRUE(whole.ok()) << whole.error().text();
        ASSERT_TRUE(whole->text() == data.text());
        auto part = read(data, where, kMiB - 10, 4100);
        ASSERT_TRUE(part.ok()) << part.error().text();
        ASSERT_TRUE(part->text() == data.slice(kMiB - 10, 4100).text());
      }
    }
  }
  EXPECT_GT(io.counters().degraded_reads, 0u);
  EXPECT_FALSE(io.take_damage().empty());
  EXPECT_TRUE(io.take_damage().empty());
}

TEST_F(SegmentIoTest, DegradedReadFetchesOnlyTheRangeThatItNeeds) {
  Buffer data = random_bytes(16 * kMiB, 3);
  Placement where = write(data, {4, 2});
  port.faults[where.targets[1]] = FakePort::Fault::kDown;
  port.reads = port.bytes = 0;
  auto part = read(data, where, 5 * kMiB, 4096);
  ASSERT_TRUE(part.ok());
  EXPECT_TRUE(part->text() == data.slice(5 * kMiB, 4096).text());
  EXPECT_EQ(port.reads, 5u);
  EXPECT_EQ(port.bytes, 5 * 4096u);
  EXPECT_EQ(io.counters().degraded_reads, 1u);
}

TEST_F(SegmentIoTest, SlowTargetIsHedged) {
  Buffer data = random_bytes(kMiB, 4);
  for (Protection protection : {Protection{4, 2}, Protection{1, 2}}) {
    Placement where = write(data, protection);
    port.faults = {{where.targets[0], FakePort::Fault::kHangs}};
    for (int i = 0; i < 8; ++i) {
      Nanos before = world.now();
      auto part = read(data, where, 0, 4096);
      ASSERT_TRUE(part.ok()) << part.error().text();
      EXPECT_TRUE(part->text() == data.slice(0, 4096).text());
      EXPECT_LT((world.now() - before).seconds(), 1.0);
    }
    port.faults.clear();
  }
}

TEST_F(SegmentIoTest, SlowEverywhereWaitsForTheSlowOnes) {
  Buffer data = random_bytes(kMiB, 4);
  Placement where = write(data, {2, 1});
  for (TargetId target : where.targets) port.faults[target] = FakePort::Fault::kHangs;
  auto part = read(data, where, 0, 4096);
  ASSERT_TRUE(part.ok()) << part.error().text();
  EXPECT_TRUE(part->text() == data.slice(0, 4096).text());
}

TEST_F(SegmentIoTest, TooManyLostIsSaidAsWhatItIs) {
  Buffer data = random_bytes(kMiB, 5);
  Placement where = write(data, {4, 2});
  for (int i = 0; i < 3; ++i) port.faults[where.targets[i]] = FakePort::Fault::kBadBlock;
  EXPECT_EQ(read(data, where, 0, 4096).code(), Code::kIo);
  for (int i = 0; i < 3; ++i) port.faults[where.targets[i]] = FakePort::Fault::kDown;
  EXPECT_EQ(read(data, where, 0, 4096).code(), Code::kUnavailable);
  port.faults.clear();
  for (int i = 0; i < 3; ++i) port.held.erase({where.targets[i], static_cast<uint8_t>(i)});
  EXPECT_EQ(read(data, where, 0, 4096).code(), Code::kNoFragment);
}

TEST_F(SegmentIoTest, FailedWriteGoesToASpare) {
  Buffer data = random_bytes(kMiB, 6);
  port.faults[TargetId(2)] = port.faults[TargetId(5)] = FakePort::Fault::kDown;
  Placement where = write(data, {4, 2});
  EXPECT_EQ(io.counters().spare_writes, 2u);
  EXPECT_TRUE(where.targets[1].value() > 100 && where.targets[4].value() > 100);
  EXPECT_TRUE(read(data, where, 0, data.size())->text() == data.text());
}

TEST_F(SegmentIoTest, WriteFailsWhenSparesRunOut) {
  for (uint64_t id : {1, 2, 3}) port.faults[TargetId(id)] = FakePort::Fault::kDown;
  Buffer data = random_bytes(kMiB, 7);
  auto written = world.run(io.write(kSegment, data, placement({4, 2}), {TargetId(101), TargetId(102)}, {}));
  EXPECT_EQ(written.code(), Code::kUnavailable);
}

TEST_F(SegmentIoTest, RefusedWriteIsNotTriedElsewhere) {
  port.faults[TargetId(1)] = FakePort::Fault::kDenied;
  auto written = world.run(io.write(kSegment, random_bytes(kMiB, 7), placement({4, 2}), {TargetId(101)}, {}));
  EXPECT_EQ(written.code(), Code::kDenied);
  EXPECT_EQ(io.counters().spare_writes, 0u);
}

TEST_F(SegmentIoTest, RebuildMakesEachFragmentAsItWas) {
  Buffer data = random_bytes(kMiB + 5, 8);
  for (Protection protection : {Protection{4, 2}, Protection{1, 2}}) {
    Placement where = write(data, protection);
    for (uint8_t i = 0; i < protection.width(); ++i) {
      auto made = world.run(io.rebuild(kSegment, data.size(), where, i, {}));
      ASSERT_TRUE(made.ok()) << made.error().text();
      const FragmentWrite& was = port.held.at({where.targets[i], i});
      EXPECT_TRUE(made->payload.text() == was.payload.text());
      EXPECT_EQ(made->crcs, was.crcs);
      EXPECT_EQ(made->protection, was.protection);
      EXPECT_EQ(made->segment_length, was.segment_length);
    }
  }
}

TEST_F(SegmentIoTest, ReadBeyondTheEndIsRefused) {
  Buffer data = random_bytes(10'000, 9);
  Placement where = write(data, {2, 1});
  EXPECT_EQ(read(data, where, 9'999, 2).code(), Code::kInvalid);
  EXPECT_EQ(read(data, where, ~uint64_t{0}, 2).code(), Code::kInvalid);
  EXPECT_TRUE(read(data, where, 10'000, 0).ok());
  EXPECT_EQ(read(data, Placement(), 0, 1).code(), Code::kNoFragment);
}

}  // namespace
}  // namespace headrace
