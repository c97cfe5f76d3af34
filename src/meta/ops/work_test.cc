#include "meta/ops/work.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

ObjectId object(uint32_t n) {
  return ObjectId(NamespaceEpoch(1), PartitionId(0), n);
}
Uploaded uploaded(uint32_t n, std::vector<SegmentId> segments) {
  return {{object(n), 100, 20}, 5'000, std::move(segments)};
}

std::vector<SegmentId> ids(const SegmentsReply& reply) {
  std::vector<SegmentId> out;
  for (const Location& location : reply.segments) out.push_back(location.segment);
  return out;
}

struct Filled : OnePartition {
  explicit Filled(uint64_t seed, int segments, uint32_t miss_percent = 0)
      : OnePartition(seed, miss_percent), u(user()), file(create(u, "a")) {
    for (int i = 0; i < segments; ++i) EXPECT_EQ(write(u, file, static_cast<uint64_t>(i) * 10'000, 1'000), Code::kOk);
  }
  std::vector<SegmentId> all() { return ids(must(ask(SegmentsOf{file, {}, 4096}))); }
  User u;
  FileId file;
};

TEST(Work, AnObjectRowOfTheFirstVersionIsRead) {
  Writer first;  // which ended before `raw`
  first(uint8_t{1}, uint64_t{5'000}, uint64_t{700}, Cut(NamespaceEpoch(1), 3), kNever);
  Result<ObjectRow> row = decode_durable<ObjectRow>(first.take());
  ASSERT_TRUE(row.ok()) << row.error().text();
  EXPECT_EQ(row->bytes, 5'000u);
  EXPECT_EQ(row->live, 700u);
  EXPECT_EQ(row->death, kNever);
  EXPECT_EQ(row->raw, 0u);
}

TEST(Work, ASegmentGoesFromUploadableToDroppableToTheBucketOnly) {
  Filled p(1, 5);
  SegmentsReply waiting = p.must(p.ask(Uploadable{{}, 0, 3}));
  ASSERT_EQ(waiting.segments.size(), 3u);
  EXPECT_TRUE(waiting.more);
  EXPECT_EQ(p.must(p.ask(Uploadable{waiting.segments.back().segment, 0, 3})).segments.size(), 2u);
  EXPECT_TRUE(p.must(p.ask(Uploadable{{}, 3'600'000, 3})).segments.empty());  // too young
  EXPECT_TRUE(p.must(p.ask(Droppable{})).segments.empty());

  std::vector<SegmentId> segments = ids(waiting);
  EXPECT_EQ(p.must(p.ask(uploaded(1, segments))).recorded, 3u);
  EXPECT_EQ(p.must(p.ask(uploaded(1, segments))).recorded, 3u);  // again
  EXPECT_EQ(p.must(p.ask(Uploadable{})).segments.size(), 2u);
  EXPECT_EQ(ids(p.must(p.ask(Droppable{}))), segments);
  p.check_rows();

  // A segment that is not in the bucket stays hot, whatever is asked.
  p.must(p.ask(Drop{p.all()}));
  EXPECT_EQ(p.targets.freed, 3u);
  EXPECT_TRUE(p.must(p.ask(Droppable{})).segments.empty());
  Location cold = p.must(p.ask(Locate{segments[0]})).location;
  EXPECT_FALSE(cold.placement.hot());
  EXPECT_EQ(cold.object.object, object(1));
  EXPECT_EQ(cold.bucket, NamespaceId(9));
  p.check_rows();
  p.fail_over();
  EXPECT_EQ(p.must(p.ask(Uploadable{})).segments.size(), 2u);
  p.check_rows();
}

TEST(Work, WhatIsDroppedFromALostTargetCanBeFetchedAgain) {
  Filled p(10, 12);
  std::vector<SegmentId> segments = p.all();
  p.must(p.ask(uploaded(1, segments)));
  const TargetId lost = OnePartition::kTarget;
  const TargetId silent(lost.value() + 1);
  std::map<SegmentId, TargetId> was;
  for (const SegmentId& id : segments) was[id] = p.must(p.ask(Locate{id})).location.placement.targets.at(0);
  ClusterMap map = p.view.map();
  ++map.version;
  for (TargetInfo& target : map.targets)
    if (target.id == lost) target.state = TargetState::kLost;
  p.view.update(map);
  p.targets.keeping.insert(silent);
  p.must(p.ask(Drop{segments}));
  std::set<TargetId> met;
  for (const SegmentId& id : segments) {
    met.insert(was[id]);
    EXPECT_EQ(p.ask(PlaceAgain{id}).code(), was[id] == silent ? Code::kBusy : Code::kOk) << to_string(id);
  }
  EXPECT_EQ(met.size(), 3u);
  p.world.run_for(seconds(3'605));  // no request is still on its way
  for (const SegmentId& id : segments) EXPECT_TRUE(p.ask(PlaceAgain{id}).ok());
}

TEST(Work, WhatAWorkerGivesUpIsNoLongerReserved) {
  Filled p(13, 65);
  std::vector<SegmentId> segments = p.all();
  p.must(p.ask(uploaded(1, segments)));
  p.must(p.ask(Drop{segments}));
  const Sessions& sessions = p.partition->sessions();
  std::vector<PlaceAgainReply> places;
  for (size_t i = 0; i < 64; ++i) places.push_back(p.must(p.ask(PlaceAgain{segments[i]})));
  EXPECT_EQ(p.ask(PlaceAgain{segments[64]}).code(), Code::kUnavailable);
  EXPECT_EQ(sessions.unwritten_reservations(), 64u);
  p.partition->set_read_only("the bucket does not answer", Code::kUnavailable);
  p.must(p.ask(Reserve{{}, Slot(0), 0, {segments[3]}}));  // also then
  p.partition->set_read_only("");
  EXPECT_EQ(sessions.unwritten_reservations(), 63u);
  // What it may have written is nobody's; its own record comes too late.
  EXPECT_EQ(p.must(p.ask(Claims{places[3].placement.targets.at(0), {segments[3]}, {0}})).claimed.at(0), 0);
  EXPECT_EQ(p.ask(PlacedAgain{segments[3], places[3].placement}).code(), Code::kConflict);
  // Nor is one that it asked for twice, because it had no answer.
  p.must(p.ask(PlaceAgain{segments[4]}));
  p.must(p.ask(Reserve{{}, Slot(0), 0, {segments[4]}}));
  EXPECT_EQ(p.ask(PlacedAgain{segments[4], places[4].placement}).code(), Code::kConflict);
  EXPECT_EQ(sessions.unwritten_reservations(), 62u);
  // What another node was given as well is not given up for it.
  const int other = 0;
  p.partition->sessions().reserve_for_work(segments[5], p.env.clock.now() + seconds(3600), &other);
  p.must(p.ask(Reserve{{}, Slot(0), 0, {segments[5]}}));
  p.must(p.ask(Reserve{{}, Slot(0), 0, {segments[5]}}));
  p.must(p.ask(PlacedAgain{segments[5], places[5].placement}));
  EXPECT_EQ(sessions.unwritten_reservations(), 61u);
  EXPECT_TRUE(p.ask(PlaceAgain{segments[64]}).ok());
  p.world.run_for(seconds(3'605));
  EXPECT_EQ(sessions.unwritten_reservations(), 0u);
  EXPECT_EQ(p.ask(Reserve{{}, Slot(0), 0, {}}).code(), Code::kInvalid);
  p.check_rows();
}

TEST(Work, WhatIsGivenUpWhileItIsRecordedIsNotRecorded) {
  std::optional<Code> code;
  Filled p(15, 1);
  const SegmentId segment = p.all().at(0);
  p.must(p.ask(uploaded(1, {segment})));
  p.must(p.ask(Drop{{segment}}));
  PlaceAgainReply place = p.must(p.ask(PlaceAgain{segment}));
  const TransactionId other{PartitionId(1), PartitionEpoch(1), 7};
  p.partition->lock(segment_key(segment, Table::kLocation), other);
  p.begin(PlacedAgain{segment, place.placement}, code);
  p.world.run_for(milliseconds(10));
  EXPECT_EQ(code, std::nullopt) << "it waits for the row";
  p.must(p.ask(Reserve{{}, Slot(0), 0, {segment}}));
  p.partition->unlock(other);
  p.world.run_for(seconds(1));
  EXPECT_EQ(code, Code::kConflict) << "a sweep may have freed it meanwhile";
  EXPECT_FALSE(p.must(p.ask(Locate{segment})).location.placement.hot());
}

TEST(Work, AnObjectDiesWithItsLastSegmentAndIsForgottenOnce) {
  Filled p(2, 2);
  p.must(p.ask(uploaded(1, p.all())));
  p.must(p.ask(Uploaded{{object(2), 0, 1}, 700, {}}));  // nothing of it lives
  p.must(p.resize(p.u, p.file, 500));
  p.settle();
  p.partition->observe(Cut(NamespaceEpoch(1), 1));
  EXPECT_EQ(p.must(p.ask(DeadObjects{Cut()})).objects.size(), 0u);
  p.must(p.ask(ReleaseCut{Cut(NamespaceEpoch(1), 1), true}));
  EXPECT_EQ(p.must(p.ask(DeadObjects{Cut(NamespaceEpoch(1), 1)})).objects, std::vector<ObjectId>{object(2)});
  EXPECT_EQ(p.ask(ForgetObjects{{object(1)}}).code(), Code::kConflict);
  p.must(p.resize(p.u, p.file, 0));
  p.settle();
  EXPECT_EQ(p.must(p.ask(DeadObjects{Cut(NamespaceEpoch(1), 9)})).objects,
            (std::vector<ObjectId>{object(1), object(2)}));
  p.must(p.ask(ForgetObjects{{object(1), object(2)}}));
  p.must(p.ask(ForgetObjects{{object(1), object(2)}}));
  EXPECT_EQ(p.partition->counters().sums.objects, 0);
  p.check_rows();
}

TEST(Work, SegmentsThatMoveToAnotherObjectLeaveTheOldOne) {
  Filled p(3, 3);
  std::vector<SegmentId> segments = p.all();
  p.must(p.ask(uploaded(1, segments)));
  p.must(p.ask(uploaded(2, segments)));
  EXPECT_EQ(p.must(p.ask(Locate{segments[0]})).location.object.object, object(2));
  EXPECT_EQ(p.must(p.ask(DeadObjects{Cut(NamespaceEpoch(1), 9)})).objects, std::vector<ObjectId>{object(1)});
  p.check_rows();
}

TEST(Work, AStartOnAManifestThatIsCutShortTakesNoBytesOffAnObjectTwice) {
  for (uint64_t whole = 0;; ++whole) {
    SCOPED_TRACE(whole);
    Filled p(9, 601);
    std::vector<SegmentId> segments = p.all();
    p.must(p.ask(uploaded(1, segments)));
    std::vector<Location> moved;
    for (const SegmentId& id : segments) {
      if (id == segments.back()) break;
      Location& location = moved.emplace_back(p.must(p.ask(Locate{id})).location);
      location.placement = {};
      location.object = {object(2), 100, 20};
    }
    p.options.batch_bytes = 1;  // each record is an append of its own
    p.rehydrate(Cut(NamespaceEpoch(1), 1), std::move(moved));
    p.targets.last_append = p.targets.appends + whole;
    const bool done = p.start_again().ok();
    p.targets.last_append = UINT64_MAX;
    OnePartition::check(p.start_again());
    EXPECT_TRUE(p.must(p.ask(DeadObjects{Cut(NamespaceEpoch(9), 1)})).objects.empty()) << "one of it lives";
    EXPECT_EQ(p.must(p.ask(SparseObjects{})).live, 601'000u);
    EXPECT_EQ(p.must(p.ask(Locate{segments.front()})).location.object.object, object(2));
    p.check_rows();
    if (done || testing::Test::HasFailure()) break;
  }
}

TEST(Work, AStartOnAManifestThatIsCutShortLeavesNoResultsWithoutASession) {
  for (uint64_t whole = 0;; ++whole) {
    SCOPED_TRACE(whole);
    Filled p(17, 1);
    p.options.batch_bytes = 1;  // each record is an append of its own
    p.options.lease = seconds(10);
    p.rehydrate(Cut(NamespaceEpoch(1), 1), {});
    p.targets.last_append = p.targets.appends + whole;
    const bool done = p.start_again().ok();
    p.world.run_for(seconds(1));
    p.targets.last_append = UINT64_MAX;
    OnePartition::check(p.start_again());
    p.partition->clients_may_come();
    p.world.run_for(seconds(60));
    for (Table table : {Table::kSession, Table::kResult}) {
      const Key from = KeyBuilder(Slot(0), table).take();
      EXPECT_TRUE(p.must(p.world.run(p.partition->store().scan(from, prefix_end(from), 10))).empty());
    }
    if ((done && whole > 4) || testing::Test::HasFailure()) break;
  }
}

TEST(Work, ADeadSegmentIsUploadedOnlyForACutThatContainsIt) {
  Filled p(4, 1);
  std::vector<SegmentId> segments = p.all();
  Cut cut(NamespaceEpoch(1), 1);
  TakeCutReply taken = p.must(p.ask(TakeCut{cut}));
  EXPECT_EQ(taken.unplaced, 1u);
  p.must(p.resize(p.u, p.file, 0));
  p.settle();
  EXPECT_EQ(ids(p.must(p.ask(Uploadable{}))), segments);
  p.must(p.ask(uploaded(1, segments)));
  SegmentsReply changed = p.must(p.ask(CutLocations{cut}));
  ASSERT_EQ(changed.segments.size(), 1u);
  EXPECT_EQ(changed.segments[0].object.object, object(1));
  EXPECT_EQ(p.must(p.ask(TakeCut{cut})).unplaced, 0u);
  p.must(p.ask(ReleaseCut{cut, true}));
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  EXPECT_TRUE(p.must(p.ask(DeadObjects{cut})).objects.empty());  // the manifest of that cut needs it
  EXPECT_EQ(p.must(p.ask(DeadObjects{cut.next()})).objects.size(), 1u);
  p.check_rows();
}

struct Writing {
  static Task<void> run(OnePartition& p, User& user, FileId file, const bool& stop, uint64_t& writes) {
    while (!stop) {
      Stage stage{user.next(), file, user.grants[file].id, {{0, std::string(10, 'x')}}, 0, 0};
      Result<Empty> done = co_await handle(*p.partition, std::move(stage), CallInfo());
      if (done.ok()) ++writes;
      co_await p.env.clock.sleep(milliseconds(1));
    }
  }
};
struct Listing {
  static Task<void> run(OnePartition& p, SegmentsOf request, std::optional<Result<SegmentsReply>>& out) {
    out = co_await handle(*p.partition, std::move(request), CallInfo());
  }
};

TEST(Work, TheSegmentsOfAFileAreListedWhileItIsWritten) {
  constexpr uint64_t kLeaves = 3'000;
  bool stop = false;
  uint64_t writes = 0;
  std::optional<Result<SegmentsReply>> listed;
  OnePartition p(14, 100);
  User u = p.user();
  const FileId file = p.create(u, "a");
  Reservation r = p.reserve(u);
  for (uint64_t leaf = 0; leaf < kLeaves;) {
    std::vector<Extent> extents;
    for (int i = 0; i < 250 && leaf < kLeaves; ++i, ++leaf)
      extents.push_back({.offset = leaf * 16 * kMiB, .length = 100});
    r = p.reserve(u);
    p.must(p.ask(p.commit_of(u, file, r, 100, std::move(extents))));
  }
  p.partition->scope().spawn(Writing::run(p, u, file, stop, writes));
  p.partition->scope().spawn(Listing::run(p, SegmentsOf{file, {}, 4096}, listed));
  p.world.run_for(seconds(10));
  EXPECT_GT(writes, 1'000u);
  stop = true;
  ASSERT_TRUE(listed.has_value());
  ASSERT_TRUE(listed->ok());
  EXPECT_EQ((*listed)->segments.size(), kLeaves / 250);
  p.world.run_for(seconds(1));
}

TEST(Work, ACutIsNotGivenUpWhileTheStoreIsFlushedAtIt) {
  std::optional<Code> taken;
  Filled p(11, 1);
  const Cut cut(NamespaceEpoch(1), 1);
  p.checkpoint_takes = seconds(70);
  p.begin(TakeCut{cut}, taken);
  p.world.run_for(seconds(80));
  EXPECT_EQ(taken, Code::kOk);
  p.must(p.ask(CutLocations{cut}));
}

TEST(Work, ACutThatIsReleasedWhileItIsTakenIsHeldByNobody) {
  std::optional<Code> taken;
  Filled p(12, 1);
  const Cut cut(NamespaceEpoch(1), 1);
  p.checkpoint_takes = seconds(10);
  p.begin(TakeCut{cut}, taken);
  p.world.run_for(seconds(5));
  p.must(p.ask(ReleaseCut{cut, false}));
  p.world.run_for(seconds(10));
  EXPECT_EQ(taken, Code::kConflict);
  EXPECT_TRUE(p.world.run(p.partition->store().checkpoint(cut.packed())).ok()) << "its files were let go";
  EXPECT_EQ(p.ask(CutLocations{cut}).code(), Code::kConflict) << "an empty list would be a wrong one";
}

struct Named {
  static Make make(User& user, std::string name) {
    Make make;
    make.ticket = user.next();
    make.parent = kRootFile;
    make.name = std::move(name);
    make.mode = 0644;
    return make;
  }
};

// What a store did not take is in the journal only: nothing is served, and no checkpoint made, without it.
TEST(Work, AStoreThatFailsWhileACutIsTakenEndsTheServing) {
  std::optional<Code> made;
  std::optional<Code> taken;
  OnePartition p(15);
  User u = p.user();
  p.world.run_for(seconds(1));
  p.store_faults.next_applies = 1;
  p.begin(Named::make(u, "first"), made);
  p.begin(TakeCut{Cut(NamespaceEpoch(1), 1)}, taken);
  p.world.run_for(seconds(1));
  EXPECT_EQ(made, Code::kOk);
  EXPECT_EQ(taken, Code::kIo);
  EXPECT_EQ(p.store_faults.failed_applies, 1u);
  EXPECT_EQ(p.ask(Named::make(u, "second")).code(), Code::kNotLeader);
  p.world.run_for(seconds(1));
  EXPECT_FALSE(p.world.run(p.partition->checkpoint_now()).ok());
  p.fail_over();
  p.claim(u);
  p.must(p.ask(Lookup{u.session, kRootFile, "first"}));
  p.check_rows();
}

TEST(Work, NothingFollowsIntoAStoreWhatItDidNotTake) {
  std::optional<Code> made;
  std::optional<Code> taken;
  OnePartition p(16);
  User u = p.user();
  p.world.run_for(seconds(1));
  p.store_faults.next_applies = 1;
  p.begin(Named::make(u, "first"), made);
  while (p.store_faults.failed_applies == 0) p.world.run_for(microseconds(1));
  const Position before = p.partition->store().applied();
  p.begin(TakeCut{Cut(NamespaceEpoch(1), 1)}, taken);  // waits for the store, which is about to fail
  p.world.run_for(seconds(1));
  EXPECT_EQ(made, Code::kOk);
  EXPECT_EQ(taken, Code::kNotLeader);
  EXPECT_EQ(p.partition->store().applied(), before);
}

TEST(Work, StagedPiecesArePackedWhereTheyStillStand) {
  OnePartition p(5);
  User u = p.user();
  FileId a = p.create(u, "a");
  FileId b = p.create(u, "b");
  ASSERT_TRUE(p.stage(u, a, 100, "0123456789").ok());
  ASSERT_TRUE(p.stage(u, b, 0, "abc").ok());
  ASSERT_TRUE(p.stage(u, a, 104, "xx").ok());
  PackableReply packable = p.must(p.ask(Packable{}));
  ASSERT_EQ(packable.items.size(), 4u);
  std::string packed;
  Packed request;
  for (PackItem& item : packable.items) {
    request.offsets.push_back(packed.size());
    packed += item.bytes.text();
    item.bytes = Buffer();
  }
  EXPECT_EQ(packed.size(), 13u);
  request.items = packable.items;
  request.length = packed.size();
  Reservation reservation = p.must(p.ask(Reserve{{}, Slot(0), 1})).reservations.at(0);
  request.segment = reservation.segment;
  request.placement = reservation.placement;
  // Meanwhile one piece is overwritten, and one wholly gone.
  ASSERT_TRUE(p.stage(u, a, 108, "zz").ok());
  p.must(p.resize(u, b, 0));
  Packed unreserved = request;
  unreserved.segment = SegmentId(NamespaceId(9), Slot(0), NamespaceEpoch(1), 4'000'000);
  EXPECT_EQ(p.ask(unreserved).code(), Code::kConflict);
  p.must(p.ask(request));
  EXPECT_EQ(p.ask(request).code(), Code::kConflict);  // its effect is there, once
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, a, 100, 100}));
  std::string got;
  for (const Extent& extent : reply.extents) {
    if (extent.kind == ExtentKind::kSegment) got += packed.substr(extent.segment_offset, extent.length);
    if (extent.kind == ExtentKind::kStaged)
      got += reply.staged.at(0).bytes.text().substr(extent.segment_offset, extent.length);
  }
  EXPECT_EQ(got, "0123xx67zz");
  EXPECT_EQ(p.partition->counters().sums.staged_bytes, 2);
  p.check_rows();
  Packed bad = request;
  bad.offsets[0] = 1'000;
  EXPECT_EQ(p.ask(bad).code(), Code::kInvalid);
  bad.offsets.pop_back();
  EXPECT_EQ(p.ask(bad).code(), Code::kInvalid);
}

TEST(Work, FragmentsOnATargetAreListedAndMove) {
  Filled p(6, 40);
  // Files of other slots, too: each slot has its own rows.
  Make make;
  make.ticket = p.u.next();
  make.parent = kRootFile;
  make.name = "d";
  make.type = FileType::kDirectory;
  FileId directory = p.must(p.ask(make)).attributes.id;
  make.ticket = p.u.next();
  make.parent = directory;
  make.name = "f";
  make.type = FileType::kFile;
  FileId file = p.must(p.ask(make)).attributes.id;
  p.grant(p.u, file);
  std::vector<SegmentId> expected[3];
  for (int i = 0; i < 20; ++i) {
    Reservation r = p.must(p.ask(Reserve{p.u.session, file.slot(), 1})).reservations.at(0);
    p.must(p.ask(p.commit_of(p.u, file, r, 100, {{.offset = static_cast<uint64_t>(i) * 100, .length = 100}})));
  }
  for (const Location& location : p.must(p.ask(SegmentsOf{{}, {}, 4096})).segments)
    expected[location.placement.targets.at(0).value() - OnePartition::kTarget.value()].push_back(location.segment);
  EXPECT_EQ(expected[0].size() + expected[1].size() + expected[2].size(), 60u);
  for (uint64_t t = 0; t < 3; ++t) {
    std::vector<SegmentId> found;
    SegmentsReply page;
    do {
      page = p.must(p.ask(
          FragmentsOn{TargetId(OnePartition::kTarget.value() + t), found.empty() ? SegmentId() : found.back(), 7}));
      for (SegmentId id : ids(page)) found.push_back(id);
    } while (page.more);
    EXPECT_EQ(found, expected[t]) << t;
  }
  SegmentId moved = expected[0].at(0);
  TargetId from = OnePartition::kTarget;
  TargetId to(from.value() + 1);
  EXPECT_EQ(p.ask(Placed{moved, 0, to, from}).code(), Code::kOk);  // it is there already
  EXPECT_EQ(p.ask(Placed{moved, 0, TargetId(from.value() + 2), to}).code(), Code::kConflict);
  EXPECT_EQ(p.ask(Placed{moved, 5, from, to}).code(), Code::kConflict);
  p.must(p.ask(Placed{moved, 0, from, to}));
  p.must(p.ask(Placed{moved, 0, from, to}));
  EXPECT_EQ(p.must(p.ask(Locate{moved})).location.placement.targets.at(0), to);
  p.check_rows();
}

TEST(Work, WhatACheckpointIsInIsListedApart) {
  Filled p(8, 4);
  ASSERT_TRUE(p.world.run(p.partition->checkpoint_now()).ok());
  std::set<SegmentId> named;
  std::vector<SegmentId> page;
  for (uint64_t t = 0; t < 3; ++t) {
    SegmentId after;
    SegmentsReply reply;
    do {
      reply = p.must(p.ask(FragmentsOn{TargetId(OnePartition::kTarget.value() + t), after, 1, true}));
      for (const Location& location : reply.segments) {
        EXPECT_TRUE(location.placement.valid());
        EXPECT_EQ(std::ranges::count(location.placement.targets, TargetId(OnePartition::kTarget.value() + t)), 1);
        named.insert(after = location.segment);
      }
    } while (reply.more);
  }
  EXPECT_GE(named.size(), 2u) << "a store file and the record";
  for (SegmentId id : p.all()) EXPECT_FALSE(named.contains(id));
}

TEST(Work, OnlyWhatNothingNamesIsUnclaimed) {
  Filled p(7, 1);
  SegmentId live = p.all().at(0);
  TargetId on = p.must(p.ask(Locate{live})).location.placement.targets.at(0);
  TargetId other(on == OnePartition::kTarget ? on.value() + 1 : OnePartition::kTarget.value());
  SegmentId reserved = p.reserve(p.u).segment;
  SegmentId working = p.must(p.ask(Reserve{{}, Slot(0), 1})).reservations.at(0).segment;
  SegmentId orphan(NamespaceId(9), Slot(0), NamespaceEpoch(1), 3'000'000);
  SegmentId foreign(NamespaceId(8), Slot(0), NamespaceEpoch(1), 3'000'000);
  auto claimed = [&](TargetId target, SegmentId segment, uint8_t index) {
    return p.must(p.ask(Claims{target, {segment}, {index}})).claimed.at(0);
  };
  // Cut in another way, it is another fragment.
  EXPECT_EQ(p.must(p.ask(Claims{on, {live}, {0}, {1}})).claimed.at(0), 1);
  EXPECT_EQ(p.must(p.ask(Claims{on, {live}, {0}, {2}})).claimed.at(0), 0);
  EXPECT_EQ(claimed(on, live, 0), 1);
  EXPECT_EQ(claimed(other, live, 0), 0);
  EXPECT_EQ(claimed(on, live, 1), 0);
  EXPECT_EQ(claimed(on, reserved, 0), 1);
  EXPECT_EQ(claimed(on, working, 0), 1);
  EXPECT_EQ(claimed(on, orphan, 0), 0);
  EXPECT_EQ(claimed(on, foreign, 0), 1);
  // What stands in for a lost target's copy may be a rebuild's that is not recorded yet.
  ClusterMap map = p.view.map();
  ++map.version;
  for (TargetInfo& target : map.targets)
    if (target.id == on) target.state = TargetState::kLost;
  p.view.update(map);
  EXPECT_EQ(claimed(other, live, 0), 1);
  // A reservation ends with its session.
  p.must(p.ask(SessionClose{p.u.session}));
  EXPECT_EQ(claimed(on, reserved, 0), 0);
  // No 'unclaimed' without a record behind it.
  uint64_t before = p.targets.appends;
  EXPECT_EQ(claimed(on, orphan, 0), 0);
  EXPECT_GT(p.targets.appends, before);
  EXPECT_EQ(p.ask(Claims{on, {live}, {}}).code(), Code::kInvalid);
}

}  // namespace
}  // namespace headrace
