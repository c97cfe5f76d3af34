// TargetService, RebuildWorker, OrphanWorker and PieceCache over real targets on simulated disks.
#include <gtest/gtest.h>

#include "hot/orphans.h"
#include "hot/piece_cache.h"
#include "hot/rebuild.h"
#include "hot/rescue.h"
#include "hot/workers_test_support.h"
#include "rpc/hub.h"

namespace headrace {
namespace {

TEST_F(WorkersTest, RebuildBringsEveryFragmentOfALostTargetBack) {
  write_segments(40, {4, 2});
  lose(2);
  add_target(7);
  RebuildWorker worker(machine.env(), work, fragments, io, {.page = 7});
  auto done = world.run(worker.rebuild(TargetId(102)));
  ASSERT_TRUE(done.ok()) << done.error().text();
  EXPECT_EQ(worker.progress().segments_total, 40u);
  EXPECT_EQ(worker.progress().segments_done, 40u);
  EXPECT_GT(worker.progress().bytes, 40u * 4096);
  uint64_t degraded = io.counters().degraded_reads;
  for (const auto& [id, location] : work.rows) {
    std::set<TargetId> distinct(location.placement.targets.begin(), location.placement.targets.end());
    EXPECT_EQ(distinct.size(), 6u);
    EXPECT_FALSE(distinct.contains(TargetId(102)));
  }
  expect_all_readable();
  EXPECT_EQ(io.counters().degraded_reads, degraded);
  auto again = world.run(worker.rebuild(TargetId(102)));
  EXPECT_TRUE(again.ok());
  EXPECT_EQ(worker.progress().segments_total, 0u);
}

TEST_F(WorkersTest, RebuildKeepsToItsRate) {
  write_segments(20, {2, 1});
  lose(0);
  RebuildWorker slow(machine.env(), work, fragments, io, {.bytes_per_s = 200'000});
  Nanos before = world.now();
  ASSERT_TRUE(world.run(slow.rebuild(TargetId(100))).ok());
  double bytes = static_cast<double>(slow.progress().bytes) * 3;
  EXPECT_GT((world.now() - before).seconds(), bytes / 200'000 - 1.5);
}

TEST_F(WorkersTest, RebuildWithoutAFreeTargetSaysWhatToDo) {
  write_segments(3, {4, 2});
  lose(5);
  RebuildWorker worker(machine.env(), work, fragments, io);
  auto done = world.run(worker.rebuild(TargetId(105)));
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.code(), Code::kUnavailable);
  EXPECT_NE(done.error().message().find("headrace target replace"), std::string::npos) << done.error().text();
  expect_all_readable();
}

TEST_F(WorkersTest, BadInputDamagedFragmentsAreRepairedInPlace) {
  write_segments(5, {4, 2});
  const Location& location = work.rows.at(segment(3));
  TargetId bad = location.placement.targets[1];
  std::shared_ptr<Target> target = service.find(bad);
  FragmentEntry entry = *target->find({segment(3), 1});
  uint64_t size = fragment_size(entry.segment_length, 4);
  std::string file = "/t" + std::to_string(target->number()) + "/target.dat";
  uint64_t at = target->superblock().data_offset() + entry.block * kBlock + fragment_header_size(size);
  ASSERT_TRUE(machine.disk().flip(file, at + 5000));
  expect_all_readable();
  EXPECT_EQ(io.counters().degraded_reads, 1u);
  RebuildWorker worker(machine.env(), work, fragments, io);
  EXPECT_EQ(world.run(worker.repair_found()), 1u);
  expect_all_readable();
  EXPECT_EQ(io.counters().degraded_reads, 1u);
  EXPECT_EQ(work.rows.at(segment(3)).placement.targets[1], bad);
}

TEST_F(WorkersTest, OrphansAreFreedWhenOldAndUnclaimed) {
  write_segments(10, {4, 2});
  work.rows.erase(segment(4));  // written, never committed
  work.rows.erase(segment(5));
  auto choice = choose_targets(work.cluster, {4, 2}, machine.env().random);
  ASSERT_TRUE(world.run(io.write(segment(90, 0x99), random_bytes(5000, 1), choice->placement, {}, {})).ok());
  OrphanWorker worker(work, {.page = 4});
  auto early = world.run(worker.sweep(TargetId(101), [] { return true; }));
  ASSERT_TRUE(early.ok()) << early.error().text();
  EXPECT_EQ(early->seen, 11u);
  EXPECT_EQ(early->freed, 0u);
  world.run_for(seconds(11 * 60));
  int pages = 0;
  auto stopped = world.run(worker.sweep(TargetId(101), [&pages] { return pages++ == 0; }));
  EXPECT_EQ(stopped.code(), Code::kCancelled);
  EXPECT_EQ(pages, 2);
  auto late = world.run(worker.sweep(TargetId(101), [] { return true; }));
  ASSERT_TRUE(late.ok()) << late.error().text();
  EXPECT_EQ(late->freed, 2u);
  EXPECT_EQ(late->foreign, 1u);
  EXPECT_EQ(service.find(TargetId(101))->status().fragments, 9u);
  expect_all_readable();
  EXPECT_EQ(io.counters().degraded_reads, 0u);
}

// As the keeper does it: what is found is adopted.
Task<Result<RescueReport>> rescue(std::shared_ptr<Target> target, WorkPort& work, std::function<bool()> still_wanted) {
  HR_CO_TRY(Rescued rescued, co_await find_claimed(target, work, std::move(still_wanted)));
  HR_CO_TRY(co_await target->adopt(std::move(rescued.confirmed), std::move(rescued.promises)));
  co_return rescued.report;
}

TEST_F(WorkersTest, BadInputATargetWithALostLogGetsBackWhatItsHomesClaim) {
  write_segments(30, {4, 2});
  const uint64_t held = service.find(TargetId(101))->status().fragments;
  // Freed before: those must not come back. The homes have forgotten them.
  std::vector<SegmentId> freed;
  for (uint64_t i : {4, 9}) {
    const Location location = work.rows.at(segment(i));
    for (size_t k = 0; k < location.placement.targets.size(); ++k) {
      const TargetId on = location.placement.targets[k];
      ASSERT_TRUE(world
                      .run(service.find(on)->free({on, {{segment(i), static_cast<uint8_t>(k)}}}, PartitionId(0),
                                                  PartitionEpoch(1)))
                      .ok());
    }
    work.rows.erase(segment(i));
  }
  const Superblock superblock = service.find(TargetId(101))->superblock();
  ASSERT_TRUE(world.run_until(service.find(TargetId(101))->close()));
  service.remove(TargetId(101));
  ASSERT_TRUE(machine.disk().flip("/t1/target.dat", superblock.log_offset() + 100));
  auto opened = world.run(Target::open(machine.env(), "/t1", {TargetId(101), ClusterId(1), 1, 0},
                                       {.prewrite_ahead = kMiB, .prewrite_chunk = kMiB}));
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE((*opened)->scannable());
  ASSERT_TRUE(service.add(*std::move(opened)).ok());
  auto refused = world.run(rescue(service.find(TargetId(101)), work, [] { return false; }));
  EXPECT_EQ(refused.code(), Code::kCancelled);
  ASSERT_TRUE(service.find(TargetId(101))->scannable());
  auto rescued = world.run(rescue(service.find(TargetId(101)), work, [] { return true; }));
  ASSERT_TRUE(rescued.ok()) << rescued.error().text();
  EXPECT_EQ(rescued->kept, held - 2);
  EXPECT_EQ(rescued->candidates, held);
  EXPECT_EQ(service.find(TargetId(101))->status().fragments, held - 2);
  expect_all_readable();
  EXPECT_EQ(io.counters().degraded_reads, 0u);
}

// What it did not read is not taken for empty, and whoever waits for the scan does not wait for long.
TEST_F(WorkersTest, ADeviceThatHangsUnderAScanEndsIt) {
  write_segments(30, {4, 2});
  const uint64_t held = service.find(TargetId(101))->status().fragments;
  const Superblock superblock = service.find(TargetId(101))->superblock();
  ASSERT_TRUE(world.run_until(service.find(TargetId(101))->close()));
  service.remove(TargetId(101));
  ASSERT_TRUE(machine.disk().flip("/t1/target.dat", superblock.log_offset() + 100));
  auto reopen = [&] {
    auto opened = world.run(Target::open(machine.env(), "/t1", {TargetId(101), ClusterId(1), 1, 0},
                                         {.prewrite_ahead = kMiB, .prewrite_chunk = kMiB}));
    HR_ASSERT(opened.ok());
    return std::shared_ptr<Target>(*std::move(opened));
  };
  DiskOptions& disk = machine.disk().options;
  for (int answered : {0, 1, 2, 5, 20}) {
    std::shared_ptr<Target> target = reopen();
    ASSERT_TRUE(target->scannable());
    disk.slow_factor = 1e9;
    disk.longest = seconds(70);
    disk.slow = [left = answered](const std::string&) mutable { return left-- == 0; };
    const Nanos began = world.now();
    Result<Rescued> found = world.run(find_claimed(target, work, [] { return true; }));
    EXPECT_EQ(found.code(), Code::kUnavailable) << answered;
    EXPECT_LT(world.now() - began, seconds(35)) << answered;
    EXPECT_NE(target->status().reason.find("has not answered"), std::string::npos) << target->status().reason;
    EXPECT_FALSE(target->scannable());
    EXPECT_EQ(world.run(target->adopt({}, {})).code(), Code::kUnavailable);
    disk.slow_factor = 1;
    disk.slow = {};
    world.run_for(seconds(71));
    EXPECT_TRUE(target->fenced());
    EXPECT_TRUE(world.run_until(target->close()));
  }
  std::shared_ptr<Target> target = reopen();
  auto rescued = world.run(rescue(target, work, [] { return true; }));
  ASSERT_TRUE(rescued.ok()) << rescued.error().text();
  EXPECT_EQ(rescued->kept, held);
}

// A home claims what is reserved whatever its cut: of two cuts neither comes back.
TEST_F(WorkersTest, BadInputAFragmentThatIsThereInTwoCutsIsNotRescued) {
  std::shared_ptr<Target> target = service.find(TargetId(101));
  auto write = [&](uint64_t sequence, uint8_t data, uint64_t blocks) {
    FragmentWrite w;
    w.target = target->id();
    w.segment = segment(sequence);
    w.index = 0;
    w.protection = {data, 2};
    w.segment_length = blocks * data * kBlock;
    w.payload = random_bytes(blocks * kBlock, sequence + data);
    w.crcs = block_crcs(w.segment, 0, 0, w.payload.view());
    EXPECT_TRUE(world.run(target->write(std::move(w))).ok());
  };
  write(1, 4, 2);
  write(2, 4, 2);
  ASSERT_TRUE(world.run(target->free({target->id(), {{segment(1), 0}}}, PartitionId(0), PartitionEpoch(1))).ok());
  write(1, 2, 4);  // too long for where the first one was
  const Superblock superblock = target->superblock();
  ASSERT_TRUE(world.run_until(target->close()));
  target.reset();
  service.remove(TargetId(101));
  ASSERT_TRUE(machine.disk().flip("/t1/target.dat", superblock.log_offset() + 100));
  auto opened = world.run(Target::open(machine.env(), "/t1", {TargetId(101), ClusterId(1), 1, 0},
                                       {.prewrite_ahead = kMiB, .prewrite_chunk = kMiB}));
  ASSERT_TRUE(opened.ok() && (*opened)->scannable());
  ASSERT_TRUE(service.add(*std::move(opened)).ok());
  work.claims_all = true;
  auto rescued = world.run(rescue(service.find(TargetId(101)), work, [] { return true; }));
  ASSERT_TRUE(rescued.ok()) << rescued.error().text();
  EXPECT_EQ(rescued->candidates, 3u);
  EXPECT_EQ(rescued->kept, 1u);
  EXPECT_TRUE(service.find(TargetId(101))->find({segment(2), 0}));
}

TEST_F(WorkersTest, BadInputACopiedTargetIsRefusedByItsNode) {
  DiskSnapshot both = machine.disk().snapshot();
  auto again = world.run(Target::open(machine.env(), "/t1", {TargetId(101), ClusterId(1), 1, 0}));
  ASSERT_TRUE(again.ok());
  auto added = service.add(*std::move(again));
  ASSERT_FALSE(added.ok());
  EXPECT_NE(added.error().message().find("copy"), std::string::npos);
}

// ---- the service, through a hub ----

struct ServiceTest : public WorkersTest {
  ServiceTest() { service.register_handlers(handlers); }
  FragmentWrite fragment() {
    FragmentWrite out;
    out.target = TargetId(100);
    out.segment = segment(1);
    out.index = 1;
    out.protection = {4, 2};
    out.segment_length = 4 * kBlock;
    out.payload = random_bytes(kBlock, 5);
    out.crcs = block_crcs(out.segment, 1, 0, out.payload.view());
    return out;
  }
  template <class Req>
  auto call(Req request, CallOptions options = {}) {
    Hub hub(machine.env(), identity, handlers);
    auto reply = world.run(hub.call(kSelfAddress, std::move(request), options));
    HR_ASSERT(world.run_until(hub.close()));
    return reply;
  }
  Identity identity;
  Handlers handlers;
};

TEST_F(ServiceTest, ServesTheMessagesOfItsTargets) {
  ASSERT_TRUE(call(fragment()).ok());
  auto got = call(FragmentRead{TargetId(100), segment(1), 1, 0, kBlock});
  ASSERT_TRUE(got.ok()) << got.error().text();
  EXPECT_TRUE(got->payload.text() == fragment().payload.text());
  EXPECT_EQ(call(Inventory{TargetId(100), {}, 10})->items.size(), 1u);
  EXPECT_EQ(call(TargetStatus{TargetId(100)})->fragments, 1u);
  CallOptions partition{.partition = PartitionId(1), .partition_epoch = PartitionEpoch(3)};
  ASSERT_TRUE(call(JournalOpen{TargetId(100), RunId(1), Position(1), "x"}, partition).ok());
  ASSERT_TRUE(
      call(JournalAppend{TargetId(100), RunId(1), Position(1), Position(2), random_bytes(100, 1)}, partition).ok());
  EXPECT_EQ(call(JournalSeal{TargetId(100)}, partition)->runs.at(0).last, Position(2));
  EXPECT_EQ(call(JournalRead{TargetId(100), RunId(1), Position(1)})->batches.size(), 1u);
  partition.partition_epoch = PartitionEpoch(2);
  EXPECT_EQ(call(JournalSeal{TargetId(100)}, partition).code(), Code::kDeposed);
  EXPECT_EQ(call(FragmentFree{TargetId(100), {{segment(1), 1}}}, partition).code(), Code::kDeposed);
  partition.partition_epoch = PartitionEpoch(3);
  EXPECT_TRUE(call(FragmentFree{TargetId(100), {{segment(1), 1}}}, partition).ok());
  EXPECT_TRUE(call(JournalTrim{TargetId(100), {RunId(1)}}, partition).ok());
  EXPECT_EQ(call(FragmentRead{TargetId(99), segment(1), 1, 0, kBlock}).code(), Code::kUnavailable);
}

TEST_F(ServiceTest, FewCallsWaitForADeviceThatStandsStill) {
  ASSERT_TRUE(call(fragment()).ok());
  machine.disk().options.slow = [](const std::string& path) { return path == "/t0/target.dat"; };
  machine.disk().options.slow_factor = 1e9;
  machine.disk().options.longest = seconds(10'000);
  Hub hub(machine.env(), identity, handlers);
  struct Ask {
    static Task<void> go(Hub& hub, size_t* refused) {
      Result<FragmentReadReply> got =
          co_await hub.call(kSelfAddress, FragmentRead{TargetId(100), segment(1), 1, 0, kBlock}, {});
      if (got.code() == Code::kUnavailable) ++*refused;
    }
  };
  size_t refused = 0;
  for (int i = 0; i < 200; ++i) world.spawn(Ask::go(hub, &refused));
  world.run_for(seconds(3));
  EXPECT_EQ(refused, 0u) << "it may be slow";
  for (int i = 0; i < 50; ++i) world.spawn(Ask::go(hub, &refused));
  world.run_for(milliseconds(100));
  EXPECT_EQ(refused, 50u);
  FragmentWrite other = fragment();
  other.target = TargetId(101);
  EXPECT_TRUE(world.run(hub.call(kSelfAddress, other, {})).ok());
  ASSERT_TRUE(world.run_until(hub.close(), seconds(60)));
}

TEST_F(ServiceTest, ATargetThatDidNotOpenSaysWhy) {
  service.remove(TargetId(100));
  service.add_failed(TargetId(100), 0, "both superblocks are bad");
  auto got = call(fragment());
  EXPECT_EQ(got.code(), Code::kUnavailable);
  EXPECT_NE(got.error().message().find("both superblocks are bad"), std::string::npos);
  auto status = call(TargetStatus{TargetId(100)});
  ASSERT_TRUE(status.ok());
  EXPECT_TRUE(status->fenced);
}

TEST_F(ServiceTest, BadInputClientsNeedACapabilityForWhatTheyTouch) {
  NamespaceSecret secret{};
  secret[0] = 1;
  service.set_secret(secret);
  identity.client = ClientId(9);
  uint32_t now = static_cast<uint32_t>(machine.env().clock.wall().count / seconds(1).count);
  auto with = [&](uint64_t begin, uint64_t end, uint8_t rights, uint32_t expiry, uint64_t sequence = 1) {
    CallOptions options;
    options.capability = sign_capability(secret, segment(sequence), begin, end, rights, expiry);
    return options;
  };
  constexpr uint8_t kBoth = static_cast<uint8_t>(Right::kRead) | static_cast<uint8_t>(Right::kWrite);
  constexpr uint8_t kRead = static_cast<uint8_t>(Right::kRead);
  EXPECT_EQ(call(fragment()).code(), Code::kDenied);
  EXPECT_EQ(call(fragment(), with(0, 4 * kBlock, kRead, now + 60)).code(), Code::kDenied);
  EXPECT_EQ(call(fragment(), with(0, kBlock, kBoth, now + 60)).code(), Code::kDenied);
  EXPECT_EQ(call(fragment(), with(0, 4 * kBlock, kBoth, now - 60)).code(), Code::kDenied);
  EXPECT_EQ(call(fragment(), with(0, 4 * kBlock, kBoth, now + 60, 2)).code(), Code::kDenied);
  ASSERT_TRUE(call(fragment(), with(0, 4 * kBlock, kBoth, now + 60)).ok());
  FragmentRead read{TargetId(100), segment(1), 1, 0, kBlock};
  EXPECT_EQ(call(read).code(), Code::kDenied);
  EXPECT_EQ(call(read, with(0, kBlock, kRead, now + 60)).code(),
            Code::kDenied);  // another fragment's bytes
  EXPECT_TRUE(call(read, with(kBlock, 2 * kBlock, kRead, now + 60)).ok());
  EXPECT_EQ(call(FragmentFree{TargetId(100), {{segment(1), 1}}}).code(), Code::kDenied);
  EXPECT_EQ(call(Inventory{TargetId(100), {}, 10}).code(), Code::kDenied);
  EXPECT_EQ(call(JournalSeal{TargetId(100)}).code(), Code::kDenied);
  identity.client = ClientId();
  EXPECT_TRUE(call(read).ok());
}

TEST(PieceCache, KeepsTheMostRecentlyUsedWithinItsBudget) {
  World world(1);
  MemoryPieceCache cache(3 * kBlock);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(world.run_until(cache.put({segment(1), i}, random_bytes(kBlock, i))));
  EXPECT_EQ(cache.bytes(), 3 * kBlock);
  EXPECT_TRUE(world.run(cache.get({segment(1), 0})).has_value());
  ASSERT_TRUE(world.run_until(cache.put({segment(2), 0}, random_bytes(kBlock, 9))));
  EXPECT_EQ(cache.bytes(), 3 * kBlock);
  EXPECT_FALSE(world.run(cache.get({segment(1), 1})).has_value());
  auto kept = world.run(cache.get({segment(1), 0}));
  ASSERT_TRUE(kept.has_value());
  EXPECT_TRUE(kept->text() == random_bytes(kBlock, 0).text());
  ASSERT_TRUE(world.run_until(cache.put({segment(3), 0}, random_bytes(4 * kBlock, 9))));  // too large: not kept
  EXPECT_EQ(cache.bytes(), 3 * kBlock);
  cache.drop({segment(1), 0});
  EXPECT_EQ(cache.bytes(), 2 * kBlock);
  cache.set_budget(0);
  EXPECT_EQ(cache.bytes(), 0u);
  EXPECT_EQ(cache.counters().misses, 1u);
}

}  // namespace
}  // namespace headrace
