// ScrubWorker over real targets on simulated disks with bits flipped at rest.
#include "hot/scrub.h"

#include "hot/rebuild.h"
#include "hot/workers_test_support.h"

namespace headrace {
namespace {

struct ScrubTest : public WorkersTest {
  // Of one fragment: a byte offset from the header's begin.
  void flip(SegmentId id, uint8_t index, uint64_t offset) {
    std::shared_ptr<Target> target = holder(id, index);
    FragmentEntry entry = *target->find({id, index});
    std::string file = "/t" + std::to_string(target->number()) + "/target.dat";
    ASSERT_TRUE(machine.disk().flip(file, target->superblock().data_offset() + entry.block * kBlock + offset));
  }
  std::shared_ptr<Target> holder(SegmentId id, uint8_t index) {
    return service.find(work.rows.at(id).placement.targets[index]);
  }
  uint64_t header_of(SegmentId id) {
    const Location& location = work.rows.at(id);
    return fragment_header_size(fragment_size(location.length, location.placement.protection.data));
  }
  Task<void> note(Damage damage, bool misfit) {
    found.insert(damage);
    if (misfit) misfits.insert(damage);
    co_return;
  }
  ScrubWorker worker(ScrubOptions options = {.page = 5, .stripes = 1}) {
    return ScrubWorker(
        machine.env(), work, fragments, [this](Damage d, bool misfit) { return note(d, misfit); }, options);
  }
  // One pass over every target.
  ScrubProgress scrub_all(ScrubWorker& w) {
    ScrubProgress sum;
    for (const auto& target : service.targets()) {
      Result<void> done = world.run(w.scrub(target, {}));
      EXPECT_TRUE(done.ok()) << (done.ok() ? "" : done.error().text());
      sum.fragments += w.progress().fragments;
      sum.bytes += w.progress().bytes;
      sum.damaged += w.progress().damaged;
      sum.missing += w.progress().missing;
      sum.stripes += w.progress().stripes;
      sum.parity_wrong += w.progress().parity_wrong;
    }
    return sum;
  }
  std::set<Damage> found;
  std::set<Damage> misfits;
};

TEST_F(ScrubTest, LooksAtEveryFragmentAndFindsNothingWhereNothingIs) {
  write_segments(12, {4, 2});
  ScrubWorker w = worker();
  ScrubProgress all = scrub_all(w);
  EXPECT_EQ(all.fragments, 12u * 6);
  EXPECT_EQ(all.stripes, 12u);
  EXPECT_EQ(all.damaged + all.missing + all.parity_wrong, 0u);
  EXPECT_TRUE(found.empty());
}

TEST_F(ScrubTest, FindsFlippedBitsInHeaderFirstAndLastBlock) {
  write_segments(8, {4, 2});
  expect_all_readable();  // the vectors are in memory now: that must not hide a header
  flip(segment(1), 0, 200);
  flip(segment(2), 3, header_of(segment(2)) + 1);
  const uint64_t size = fragment_size(work.rows.at(segment(3)).length, 4);
  flip(segment(3), 5, header_of(segment(3)) + size - 1);
  ScrubWorker w = worker();
  ScrubProgress all = scrub_all(w);
  EXPECT_EQ(all.damaged, 3u);
  EXPECT_EQ(all.fragments, 8u * 6);
  const std::set<Damage> want = {{segment(1), 0, holder(segment(1), 0)->id()},
                                 {segment(2), 3, holder(segment(2), 3)->id()},
                                 {segment(3), 5, holder(segment(3), 5)->id()}};
  EXPECT_TRUE(found == want);
  // What it found is what repair mends.
  RebuildWorker rebuild(machine.env(), work, fragments, io);
  for (const Damage& damage : found) ASSERT_TRUE(world.run(rebuild.repair(damage)).ok());
  found.clear();
  EXPECT_EQ(scrub_all(w).damaged, 0u);
  expect_all_readable();
}

TEST_F(ScrubTest, FindsFragmentsThatTheirHomeNamesAndTheTargetLacks) {
  write_segments(6, {2, 1});
  std::shared_ptr<Target> target = holder(segment(4), 1);
  ASSERT_TRUE(world.run(target->free({target->id(), {{segment(4), 1}}}, PartitionId(0), PartitionEpoch(1))).ok());
  ScrubWorker w = worker();
  EXPECT_EQ(scrub_all(w).missing, 1u);
  ASSERT_EQ(found.size(), 1u);
  RebuildWorker rebuild(machine.env(), work, fragments, io);
  ASSERT_TRUE(world.run(rebuild.repair(*found.begin())).ok());
  EXPECT_EQ(scrub_all(w).missing, 0u);
}

// The checkpoint's are no rows, and as much needed.
TEST_F(ScrubTest, FindsFragmentsOfACheckpointThatTheTargetLacks) {
  write_segments(6, {2, 1});
  std::shared_ptr<Target> target = holder(segment(4), 1);
  work.checkpoint.insert(work.rows.extract(segment(4)));
  ASSERT_TRUE(world.run(target->free({target->id(), {{segment(4), 1}}}, PartitionId(0), PartitionEpoch(1))).ok());
  ScrubWorker w = worker();
  EXPECT_EQ(scrub_all(w).missing, 1u);
  EXPECT_EQ(found.size(), 1u);
}

TEST_F(ScrubTest, FindsParityThatVerifiesButDoesNotFitTheData) {
  write_segments(4, {4, 2});
  const Location& location = work.rows.at(segment(2));
  // A valid fragment with the bytes of nobody's stripe.
  std::shared_ptr<Target> target = holder(segment(2), 5);
  ASSERT_TRUE(world.run(target->free({target->id(), {{segment(2), 5}}}, PartitionId(0), PartitionEpoch(1))).ok());
  FragmentWrite wrong;
  wrong.target = target->id();
  wrong.segment = segment(2);
  wrong.index = 5;
  wrong.protection = location.placement.protection;
  wrong.segment_length = location.length;
  wrong.payload = random_bytes(fragment_size(location.length, 4), 99);
  wrong.crcs = block_crcs(wrong.segment, 5, 0, wrong.payload.view());
  ASSERT_TRUE(world.run(target->write(wrong)).ok());
  ScrubWorker w = worker();
  ScrubProgress all = scrub_all(w);
  EXPECT_EQ(all.damaged, 0u);
  EXPECT_EQ(all.parity_wrong, 1u);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(*found.begin() == (Damage{segment(2), 5, target->id()}));
  RebuildWorker rebuild(machine.env(), work, fragments, io);
  ASSERT_TRUE(world.run(rebuild.repair(*found.begin())).ok());
  EXPECT_EQ(scrub_all(w).parity_wrong, 0u);
}

TEST_F(ScrubTest, LeavesAStripeAloneWhoseOnlyParityDoesNotFit) {
  write_segments(2, {2, 1});
  std::shared_ptr<Target> target = holder(segment(1), 0);
  const Location& location = work.rows.at(segment(1));
  ASSERT_TRUE(world.run(target->free({target->id(), {{segment(1), 0}}}, PartitionId(0), PartitionEpoch(1))).ok());
  FragmentWrite wrong;
  wrong.target = target->id();
  wrong.segment = segment(1);
  wrong.protection = location.placement.protection;
  wrong.segment_length = location.length;
  wrong.payload = random_bytes(fragment_size(location.length, 2), 99);
  wrong.crcs = block_crcs(wrong.segment, 0, 0, wrong.payload.view());
  ASSERT_TRUE(world.run(target->write(wrong)).ok());
  ScrubWorker w = worker();
  EXPECT_EQ(scrub_all(w).parity_wrong, 1u);
  EXPECT_TRUE(found.empty());
  EXPECT_FALSE(w.progress().target == TargetId());
}

TEST_F(ScrubTest, KeepsToItsRateAndGoesOnWhereItWasStopped) {
  write_segments(30, {2, 1});
  std::shared_ptr<Target> target = service.targets().front();
  const uint64_t fragments = target->status().fragments;
  ASSERT_GT(fragments, 4u);
  ScrubWorker w = worker({.page = 3, .stripes = 0});
  w.set_rate(100'000);
  Nanos before = world.now();
  ASSERT_TRUE(world.run(w.scrub(target, {})).ok());
  EXPECT_EQ(w.progress().fragments, fragments);
  EXPECT_GT((world.now() - before).seconds(), static_cast<double>(w.progress().bytes) / 100'000 - 2);
  // Stopped in the middle: the rest is the rest.
  Scope scope;
  Result<void> stopped;
  struct Run {
    static Task<void> one(ScrubWorker& w, std::shared_ptr<Target> target, Result<void>* out) {
      *out = co_await w.scrub(std::move(target), {});
    }
  };
  scope.spawn(Run::one(w, target, &stopped));
  ASSERT_TRUE(world.run_until([&] { return w.progress().fragments == 2; }));
  w.cancel();
  ASSERT_TRUE(world.run_until([&] { return scope.running() == 0; }));
  EXPECT_EQ(stopped.code(), Code::kCancelled);
  const uint64_t first = w.progress().fragments;
  const FragmentName at = w.progress().at;
  ASSERT_TRUE(world.run(w.scrub(target, at)).ok());
  EXPECT_EQ(first + w.progress().fragments, fragments);
}

}  // namespace
}  // namespace headrace
