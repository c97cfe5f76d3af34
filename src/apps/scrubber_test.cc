// Scrubber: the schedule of passes and asked runs, over real targets on simulated disks.
#include "apps/scrubber.h"

#include "hot/rebuild.h"
#include "hot/workers_test_support.h"

namespace headrace {
namespace {

struct ScrubberTest : public WorkersTest {
  std::unique_ptr<Scrubber> start(ScrubberOptions options) {
    auto made = std::make_unique<Scrubber>(
        Scrubber::Context{machine.env(), service, work, fragments, NodeId(1),
                          [this](Damage d, bool) { return note(d); }, [this] { return load(); },
                          [this](std::string record) { return save(std::move(record)); },
                          [this](std::string, bool trouble, const ScrubTotals& of) {
                            ++told;
                            troubles += trouble ? 1 : 0;
                            last_told = of;
                          }},
        options);
    made->start();
    return made;
  }
  void stop(Scrubber& scrubber) { ASSERT_TRUE(world.run_until(scrubber.stop())); }
  Task<void> note(Damage damage) {
    found.insert(damage);
    co_return;
  }
  Task<Result<std::string>> load() { co_return stored; }
  Task<Result<void>> save(std::string record) {
    co_await machine.env().clock.sleep(save_takes);
    stored = std::move(record);
    co_return Result<void>();
  }
  void damage(SegmentId id, uint8_t index) {
    std::shared_ptr<Target> target = service.find(work.rows.at(id).placement.targets[index]);
    FragmentEntry entry = *target->find({id, index});
    ASSERT_TRUE(machine.disk().flip("/t" + std::to_string(target->number()) + "/target.dat",
                                    target->superblock().data_offset() + entry.block * kBlock + 5000));
  }
  uint64_t fragments_there() {
    uint64_t out = 0;
    for (const auto& target : service.targets()) out += target->status().fragments;
    return out;
  }
  std::set<Damage> found;
  std::string stored;
  Nanos save_takes{};
  uint64_t told = 0;
  uint64_t troubles = 0;
  ScrubTotals last_told;
};

TEST_F(ScrubberTest, APassLooksAtEverythingOnceInItsTime) {
  write_segments(10, {4, 2});
  damage(segment(3), 2);
  auto scrubber = start({.pass = seconds(1000), .first = seconds(10)});
  world.run_for(seconds(5));
  EXPECT_EQ(scrubber->status().ever.fragments, 0u);
  world.run_for(seconds(500));
  ScrubStatus status = scrubber->status();
  EXPECT_EQ(status.passes, 1u);
  EXPECT_FALSE(status.running);
  EXPECT_EQ(status.ever.fragments, 60u);
  EXPECT_EQ(status.ever.damaged, 1u);
  EXPECT_EQ(found.size(), 1u);
  EXPECT_EQ(told, 1u);
  EXPECT_EQ(troubles, 1u);
  EXPECT_EQ(status.next_s, status.began_s + 1000);
  world.run_for(seconds(2000));
  EXPECT_EQ(scrubber->status().passes, 3u);
  EXPECT_EQ(scrubber->status().ever.fragments, 180u);
  stop(*scrubber);
}

TEST_F(ScrubberTest, NeverIsSlowerThanThePassAllows) {
  write_segments(40, {4, 2});
  uint64_t bytes = 0;
  for (const auto& target : service.targets()) bytes += target->status().used;
  // By at_least alone it would take twice as long.
  auto scrubber =
      start({.pass = seconds(1000), .at_least = bytes / 2000, .first = seconds(1), .work = {.page = 16, .stripes = 0}});
  world.run_for(seconds(1000));
  EXPECT_EQ(scrubber->status().passes, 1u);
  stop(*scrubber);
}

TEST_F(ScrubberTest, APassGoesOnWhereItWasAfterARestart) {
  write_segments(40, {4, 2});
  const uint64_t all = fragments_there();
  ScrubberOptions options{.pass = seconds(100'000),
                          .at_least = 20'000,
                          .first = seconds(1),
                          .save = seconds(5),
                          .work = {.page = 16, .stripes = 0}};
  auto scrubber = start(options);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().ever.fragments >= all / 2; }));
  stop(*scrubber);
  const uint64_t before = scrubber->status().ever.fragments;
  EXPECT_EQ(scrubber->status().passes, 0u);
  scrubber = start(options);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().passes == 1; }));
  EXPECT_EQ(before + scrubber->status().ever.fragments, all);
  stop(*scrubber);
}

TEST_F(ScrubberTest, AnAskedRunComesAtOnceAndThePassGoesOnBehindIt) {
  write_segments(40, {4, 2});
  const uint64_t all = fragments_there();
  auto scrubber =
      start({.pass = seconds(100'000), .at_least = 20'000, .first = seconds(1), .work = {.page = 16, .stripes = 0}});
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().ever.fragments >= 10; }));
  Result<uint64_t> run = scrubber->ask(3);
  ASSERT_TRUE(run.ok());
  const Nanos asked = world.now();
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  EXPECT_LT((world.now() - asked).seconds(), 10);
  EXPECT_EQ(last_told.fragments, service.find(TargetId(103))->status().fragments);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().passes == 1; }));
  EXPECT_EQ(scrubber->status().ever.fragments, all + service.find(TargetId(103))->status().fragments);
  EXPECT_EQ(scrubber->ask(9).code(), Code::kInvalid);
  stop(*scrubber);
}

TEST_F(ScrubberTest, AHomeThatDoesNotAnswerKeepsNoFragmentFromBeingRead) {
  write_segments(10, {4, 2});
  damage(segment(3), 2);
  auto scrubber = start({.pass = seconds(1000), .first = seconds(900)});
  work.homes_fail = 1;  // once
  Result<uint64_t> run = scrubber->ask(std::nullopt);
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  EXPECT_EQ(scrubber->status().ever.fragments, 60u);
  EXPECT_EQ(scrubber->status().ever.damaged, 1u);
  EXPECT_EQ(scrubber->status().ever.failed, 0u);
  EXPECT_EQ(found.size(), 1u);
  work.homes_fail = 1000;
  run = scrubber->ask(4);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  EXPECT_EQ(scrubber->status().ever.fragments, 70u);
  EXPECT_EQ(scrubber->status().ever.failed, 1u);
  EXPECT_EQ(troubles, 2u);
  stop(*scrubber);
}

TEST_F(ScrubberTest, AHomeThatWasSilentIsAskedAgainThoughThePassWasInterrupted) {
  write_segments(40, {4, 2});
  const auto on_first = [](const auto& row) { return row.second.placement.targets[2] == TargetId(100); };
  const auto row = std::ranges::find_if(work.rows, on_first);
  ASSERT_NE(row, work.rows.end());
  const Damage gone{row->first, 2, TargetId(100)};
  ASSERT_TRUE(world
                  .run(service.find(gone.target)
                           ->free({gone.target, {{gone.segment, gone.index}}}, PartitionId(0), PartitionEpoch(1)))
                  .ok());
  work.homes_fail = 1;
  ScrubberOptions options{
      .pass = seconds(100'000), .at_least = 20'000, .first = seconds(1), .work = {.page = 16, .stripes = 0}};
  auto scrubber = start(options);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().ever.fragments >= 5; }));
  EXPECT_EQ(work.homes_fail, 0u);
  Result<uint64_t> run = scrubber->ask(3);
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().ever.fragments >= 50; }));
  stop(*scrubber);  // and by a restart
  EXPECT_FALSE(found.contains(gone));
  scrubber = start(options);
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().passes == 1; }));
  EXPECT_TRUE(found.contains(gone));
  stop(*scrubber);
}

// What is asked for while the pass stores its begin comes first.
TEST_F(ScrubberTest, AnAskedRunThatComesAsThePassBeginsDoesNotWaitForIt) {
  write_segments(40, {4, 2});
  save_takes = seconds(5);
  auto scrubber =
      start({.pass = seconds(100'000), .at_least = 20'000, .first = seconds(1), .work = {.page = 16, .stripes = 0}});
  world.run_for(seconds(3));
  Result<uint64_t> run = scrubber->ask(3);
  ASSERT_TRUE(run.ok());
  const Nanos asked = world.now();
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  EXPECT_LT((world.now() - asked).seconds(), 15);
  stop(*scrubber);
}

TEST_F(ScrubberTest, AnAskedRunOverAllCountsAsAPass) {
  write_segments(5, {4, 2});
  auto scrubber = start({.pass = seconds(1000), .first = seconds(900)});
  Result<uint64_t> run = scrubber->ask(std::nullopt);
  ASSERT_TRUE(run.ok());
  ASSERT_TRUE(world.run_until([&] { return scrubber->status().run_ended == *run; }));
  EXPECT_EQ(scrubber->status().ever.fragments, 30u);
  EXPECT_EQ(scrubber->status().passes, 1u);
  world.run_for(seconds(950));
  EXPECT_EQ(scrubber->status().passes, 1u);
  world.run_for(seconds(200));
  EXPECT_EQ(scrubber->status().passes, 2u);
  stop(*scrubber);
}

}  // namespace
}  // namespace headrace
