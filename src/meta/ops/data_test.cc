#include "meta/ops/data.h"

#include <gtest/gtest.h>

#include "meta/ops/names.h"
#include "meta/ops/sessions.h"
#include "meta/partition_test_support.h"
#include "runtime/net.h"

namespace headrace {
namespace {

using User = OnePartition::User;

TEST(Data, CommitMakesAFileOfItsSegment) {
  OnePartition p(1);
  User u = p.user();
  FileId file = p.create(u, "a");
  Attributes before = p.stat(u, file);
  ASSERT_EQ(p.write(u, file, 4096, 100'000), Code::kOk);
  Attributes after = p.stat(u, file);
  EXPECT_EQ(after.size, 104'096u);
  EXPECT_EQ(after.bytes, 100'000u);
  EXPECT_GT(after.mtime, before.mtime);
  EXPECT_GT(after.change, before.change);
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 0, kGiB}));
  ASSERT_EQ(reply.extents.size(), 2u);
  EXPECT_EQ(reply.extents[0].kind, ExtentKind::kHole);
  EXPECT_EQ(reply.extents[0].length, 4096u);
  EXPECT_EQ(reply.extents[1].length, 100'000u);
  ASSERT_EQ(reply.locations.size(), 1u);
  EXPECT_TRUE(reply.locations[0].placement.hot());
  EXPECT_EQ(reply.capabilities.at(0).segment, reply.locations[0].segment);
  p.check_rows();
}

TEST(Data, AHoleReachesToTheNextBytesHoweverFar) {
  OnePartition p(30);
  User u = p.user();
  FileId file = p.create(u, "a");
  constexpr uint64_t kFar = uint64_t{1} << 45;
  ASSERT_EQ(p.write(u, file, kFar + 5 * kMiB, 4096), Code::kOk);
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 4096, kMiB}));
  ASSERT_EQ(reply.extents.size(), 1u);
  EXPECT_EQ(reply.extents[0].kind, ExtentKind::kHole);
  EXPECT_GE(reply.extents[0].offset + reply.extents[0].length, kFar);
  EXPECT_LE(reply.extents[0].offset + reply.extents[0].length, kFar + 5 * kMiB);
  reply = p.must(p.ask(GetExtents{u.session, file, kFar, 16 * kMiB}));
  ASSERT_EQ(reply.extents.size(), 2u);
  EXPECT_EQ(reply.extents[1].offset, kFar + 5 * kMiB);
}

// As long as others write, `ls -l` of their directory must come to an end.
TEST(Data, ListingADirectoryRecallsNobodysWriteGrant) {
  OnePartition p(31);
  User writer = p.user();
  User reader = p.user();
  FileId busy = p.create(writer, "busy");
  ASSERT_EQ(p.write(writer, busy, 0, 4096), Code::kOk);
  p.create(reader, "idle");
  bool done = false;
  std::map<std::string, bool> attributes;
  p.partition->scope().spawn(
      [](OnePartition& one, SessionId session, bool* end, std::map<std::string, bool>* out) -> Task<void> {
        Result<ReadDirectoryReply> reply = co_await handle(
            *one.partition, ReadDirectory{.session = session, .directory = kRootFile, .limit = 100, .plus = true},
            CallInfo());
        if (reply.ok())
          for (const DirectoryEntry& entry : reply->entries) (*out)[entry.name] = entry.attributes.has_value();
        *end = reply.ok();
      }(p, reader.session, &done, &attributes));
  ASSERT_TRUE(p.world.run_until([&] { return done; }, seconds(2)));
  EXPECT_FALSE(attributes.at("busy"));
  EXPECT_TRUE(attributes.at("idle"));
}

TEST(Data, TheSameTicketCommitsOnce) {
  OnePartition p(2);
  User u = p.user();
  FileId file = p.create(u, "a");
  Commit commit = p.commit_of(u, file, p.reserve(u), 4096, {{.offset = 0, .length = 4096}});
  EXPECT_EQ(p.must(p.ask(commit)).codes, std::vector<uint16_t>{0});
  uint64_t change = p.stat(u, file).change;
  EXPECT_EQ(p.must(p.ask(commit)).codes, std::vector<uint16_t>{0});
  EXPECT_EQ(p.stat(u, file).change, change);
  p.fail_over();
  p.claim(u);
  EXPECT_EQ(p.must(p.ask(commit)).codes, std::vector<uint16_t>{0});
  EXPECT_EQ(p.stat(u, file).change, change);
  p.check_rows();
}

TEST(Data, ALateDuplicateOfAnAnsweredMutationTakesNoEffect) {
  OnePartition p(33);
  User u = p.user();
  FileId file = p.create(u, "a");
  SetAttributes shrink;
  shrink.ticket = u.next();
  shrink.file = file;
  shrink.mask = kSetSize;
  shrink.size = 1'000;
  p.must(p.ask(shrink));
  ASSERT_TRUE(p.resize(u, file, 5'000).ok());  // its ticket says that everything before was answered
  // An attempt of the first that was long on its way.
  EXPECT_EQ(p.ask(shrink).code(), Code::kStale);
  EXPECT_EQ(p.stat(u, file).size, 5'000u);
  p.fail_over();
  p.claim(u);
  EXPECT_EQ(p.ask(shrink).code(), Code::kStale);
  EXPECT_EQ(p.stat(u, file).size, 5'000u);
  p.check_rows();
}

TEST(Data, ALateDuplicateOfARefusedMutationTakesNoEffect) {
  OnePartition p(34);
  User u = p.user();
  FileId file = p.create(u, "a");
  Make again;
  again.ticket = u.next();
  again.parent = kRootFile;
  again.name = "a";
  again.type = FileType::kFile;
  EXPECT_EQ(p.ask(again).code(), Code::kExists);
  Unlink unlink;
  unlink.ticket = u.next();
  unlink.ticket.lowest_unanswered = again.ticket.sequence;  // its answer is still on the way
  unlink.parent = kRootFile;
  unlink.name = "a";
  EXPECT_EQ(p.must(p.ask(unlink)).file, file);
  // By now it could: but it was answered.
  EXPECT_EQ(p.ask(again).code(), Code::kExists);
}

TEST(Data, CommitsOfUnreservedSegmentsAndEndedGrantsAreStale) {
  OnePartition p(3);
  User u = p.user();
  User other = p.user();
  FileId mine = p.create(u, "a");
  FileId theirs = p.create(other, "b");
  Reservation reservation = p.reserve(u);
  // Two files in one commit: the one without grant fails alone.
  Commit commit = p.commit_of(u, mine, reservation, 8192, {{.offset = 0, .length = 4096}});
  Extent second{.offset = 0,
                .length = 4096,
                .kind = ExtentKind::kSegment,
                .segment = reservation.segment,
                .segment_offset = 4096};
  commit.files.push_back({theirs, GrantId(5), {second}, 0, 0});
  EXPECT_EQ(p.must(p.ask(commit)).codes, (std::vector<uint16_t>{0, static_cast<uint16_t>(Code::kStale)}));
  EXPECT_EQ(p.stat(other, theirs).size, 0u);
  // The segment is known, but not in that file.
  Commit steal = p.commit_of(other, theirs, reservation, 8192, {{.offset = 0, .length = 4096}});
  EXPECT_EQ(p.must(p.ask(steal)).codes.at(0), static_cast<uint16_t>(Code::kStale));
  // Reservations do not outlive their leader.
  Reservation lost = p.reserve(u);
  p.fail_over();
  p.claim(u);
  p.claim(other);
  Commit late = p.commit_of(u, mine, lost, 4096, {{.offset = 0, .length = 4096}});
  EXPECT_EQ(p.must(p.ask(late)).codes.at(0), static_cast<uint16_t>(Code::kStale));
  p.check_rows();
}

TEST(Data, BadInputInACommitIsRefusedWhole) {
  OnePartition p(4);
  User u = p.user();
  FileId file = p.create(u, "a");
  Reservation r = p.reserve(u);
  auto code = [&](uint64_t length, std::vector<Extent> extents) {
    return p.ask(p.commit_of(u, file, r, length, std::move(extents))).code();
  };
  EXPECT_EQ(code(0, {{.offset = 0, .length = 1}}), Code::kInvalid);
  EXPECT_EQ(code(kMaxSegment + 1, {{.offset = 0, .length = 1}}), Code::kInvalid);
  EXPECT_EQ(code(4096, {{.offset = 0, .length = 4097}}), Code::kInvalid);
  EXPECT_EQ(code(4096, {{.offset = 0, .length = 4096, .segment_offset = ~uint64_t{0} - 10}}), Code::kInvalid);
  EXPECT_EQ(code(4096, {{.offset = 0, .length = 0}}), Code::kInvalid);
  EXPECT_EQ(code(4096, {{.offset = ~uint64_t{0} - 10, .length = 4096}}), Code::kTooLarge);
  EXPECT_EQ(code(8192, {{.offset = 4096, .length = 4096}, {.offset = 0, .length = 4096}}), Code::kInvalid);
  Commit wrong = p.commit_of(u, file, r, 4096, {{.offset = 0, .length = 4096}});
  wrong.segments[0].placement.targets = {TargetId(1)};
  EXPECT_EQ(p.ask(wrong).code(), Code::kInvalid);
  // 250 + 10 is 4 in eight bits.
  wrong = p.commit_of(u, file, r, 4096, {{.offset = 0, .length = 4096}});
  wrong.segments[0].placement = {{250, 10}, {TargetId(77), TargetId(78), TargetId(79), TargetId(80)}};
  EXPECT_EQ(p.ask(wrong).code(), Code::kInvalid);
  EXPECT_EQ(p.stage(u, file, ~uint64_t{0} - 2, "abc").code(), Code::kTooLarge);
  EXPECT_EQ(p.stage(u, file, 0, std::string(kMaxStageBytes + 1, 'x')).code(), Code::kInvalid);
  EXPECT_EQ(p.resize(u, file, kLargestFile + 1).code(), Code::kTooLarge);
  EXPECT_EQ(p.resize(u, kRootFile, 5).code(), Code::kIsDirectory);
  EXPECT_EQ(p.stat(u, file).bytes, 0u);
  p.check_rows();
}

TEST(Data, OverwrittenSegmentsAreReaped) {
  OnePartition p(5);
  User u = p.user();
  FileId file = p.create(u, "a");
  ASSERT_EQ(p.write(u, file, 0, 10'000), Code::kOk);
  ASSERT_EQ(p.write(u, file, 0, 5'000), Code::kOk);
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 2);
  ASSERT_EQ(p.write(u, file, 5'000, 5'000), Code::kOk);
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 2);
  EXPECT_EQ(p.targets.freed, 1u);
  p.check_rows();
}

TEST(Data, StagedBytesComeBackAndGoWithTheirLastPiece) {
  OnePartition p(6);
  User u = p.user();
  FileId file = p.create(u, "a");
  ASSERT_TRUE(p.stage(u, file, 10, "hello world").ok());
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 0, 100}));
  ASSERT_EQ(reply.extents.size(), 2u);
  EXPECT_EQ(reply.extents[1].kind, ExtentKind::kStaged);
  ASSERT_EQ(reply.staged.size(), 1u);
  EXPECT_EQ(reply.staged[0].bytes.text(), "hello world");
  EXPECT_EQ(p.partition->counters().sums.staged_bytes, 11);
  p.check_rows();
  ASSERT_TRUE(p.stage(u, file, 14, "xx").ok());
  p.check_rows();
  ASSERT_EQ(p.write(u, file, 0, 50), Code::kOk);
  EXPECT_EQ(p.partition->counters().sums.staged_bytes, 0);
  p.check_rows();
}

TEST(Data, StagingStopsAtItsBound) {
  PartitionOptions options;
  options.staged_bytes = 100;
  OnePartition p(7, 0, options);
  User u = p.user();
  FileId file = p.create(u, "a");
  ASSERT_TRUE(p.stage(u, file, 0, std::string(101, 'x')).ok());
  EXPECT_EQ(p.stage(u, file, 200, "y").code(), Code::kConflict);
  EXPECT_EQ(p.write(u, file, 200, 1), Code::kOk);
}

TEST(Data, TruncationCutsAndGrowingShowsZeros) {
  OnePartition p(8);
  User u = p.user();
  FileId file = p.create(u, "a");
  ASSERT_EQ(p.write(u, file, 0, 10'000), Code::kOk);
  Attributes cut = p.must(p.resize(u, file, 3'000));
  EXPECT_EQ(cut.size, 3'000u);
  EXPECT_EQ(cut.bytes, 3'000u);
  p.must(p.resize(u, file, uint64_t{1} << 60));
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 0, 10'000}));
  ASSERT_EQ(reply.extents.size(), 2u);
  EXPECT_EQ(reply.extents[1].kind, ExtentKind::kHole);
  EXPECT_EQ(reply.extents[1].offset, 3'000u);
  p.must(p.resize(u, file, 0));
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  p.check_rows();
}

// A file of far more segments than fit one transaction.
void fill(OnePartition& p, User& u, FileId file, int segments) {
  for (int i = 0; i < segments; ++i) ASSERT_EQ(p.write(u, file, static_cast<uint64_t>(i) * 100'000, 1'000), Code::kOk);
}

TEST(Data, ALongTruncationIsAtOnceForReadersAndThenDoneInSteps) {
  OnePartition p(9);
  User u = p.user();
  FileId file = p.create(u, "a");
  fill(p, u, file, 700);
  Attributes cut = p.must(p.resize(u, file, 500));
  EXPECT_EQ(cut.size, 500u);
  // It grows again: that waits until the old bytes behind its size are gone.
  p.must(p.resize(u, file, 70'000'000));
  EXPECT_EQ(p.stat(u, file).bytes, 500u);
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 0, kGiB}));
  ASSERT_EQ(reply.extents.size(), 2u);
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 1);
  p.check_rows();
}

TEST(Data, ALongTruncationGoesOnUnderTheNextLeader) {
  OnePartition p(10);
  User u = p.user();
  FileId file = p.create(u, "a");
  fill(p, u, file, 700);
  p.must(p.resize(u, file, 500));
  p.fail_over();
  p.claim(u);
  p.settle();
  EXPECT_EQ(p.stat(u, file).bytes, 500u);
  EXPECT_EQ(p.partition->counters().sums.segments, 1);
  p.check_rows();
}

TEST(Data, ACopySharesSegmentsUntilTheLastOfThemGoes) {
  OnePartition p(12);
  User u = p.user();
  FileId file = p.create(u, "a");
  ASSERT_EQ(p.write(u, file, 0, 10'000'000), Code::kOk);
  ASSERT_TRUE(p.stage(u, file, 20'000'000, std::string(10'000, 'x')).ok());
  FileId copy = p.create(u, "b");
  CopyRange request{u.next(), file, 1'000'000, copy, 500, 100'000'000};
  EXPECT_EQ(p.must(p.ask(request)).copied, 19'010'000u);
  EXPECT_EQ(p.must(p.ask(request)).copied, 19'010'000u) << "the same ticket copies once";
  Attributes a = p.stat(u, copy);
  EXPECT_EQ(a.size, 19'010'500u);
  EXPECT_EQ(a.bytes, 9'010'000u);
  EXPECT_EQ(p.partition->counters().sums.segments, 1);
  p.check_rows();
  GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, copy, 0, kGiB}));
  ASSERT_EQ(reply.extents.size(), 4u);
  EXPECT_EQ(reply.extents[1].offset, 500u);
  EXPECT_EQ(reply.extents[1].segment_offset, 1'000'000u);
  EXPECT_EQ(reply.extents[1].length, 9'000'000u);
  EXPECT_EQ(reply.extents[3].kind, ExtentKind::kStaged);
  ASSERT_EQ(reply.staged.size(), 1u);
  EXPECT_EQ(reply.staged[0].bytes.size(), 10'000u);
  // The source goes, and nothing of the copy with it; then that goes too.
  p.must(p.resize(u, file, 0));
  p.fail_over();
  p.claim(u);
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 1);
  EXPECT_EQ(p.stat(u, copy).bytes, 9'010'000u);
  p.check_rows();
  p.must(p.resize(u, copy, 0));
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  EXPECT_EQ(p.partition->counters().sums.staged_bytes, 0);
  p.check_rows();
}

TEST(Data, ACopyEndsWhereTheSourceDoesAndIsBounded) {
  OnePartition p(13);
  User u = p.user();
  FileId file = p.create(u, "a");
  fill(p, u, file, 500);
  FileId copy = p.create(u, "b");
  // 128 pieces and holes at a time.
  uint64_t done = 0;
  const uint64_t size = p.stat(u, file).size;
  int rounds = 0;
  while (done < size) {
    const uint64_t copied = p.must(p.ask(CopyRange{u.next(), file, done, copy, done, kGiB})).copied;
    ASSERT_GT(copied, 0u);
    done += copied;
    ++rounds;
  }
  EXPECT_GE(rounds, 7);
  EXPECT_EQ(p.stat(u, copy).size, size);
  EXPECT_EQ(p.stat(u, copy).bytes, p.stat(u, file).bytes);
  EXPECT_EQ(p.must(p.ask(CopyRange{u.next(), file, size + 5, copy, 0, 10})).copied, 0u);
  EXPECT_EQ(p.ask(CopyRange{u.next(), file, 0, file, 500, 1'000}).code(), Code::kInvalid) << "they overlap";
  EXPECT_EQ(p.ask(CopyRange{u.next(), file, 0, copy, 0, 0}).code(), Code::kInvalid);
  EXPECT_EQ(p.ask(CopyRange{u.next(), file, 0, copy, ~uint64_t{0}, 10}).code(), Code::kTooLarge);
  EXPECT_EQ(p.ask(CopyRange{u.next(), kRootFile, 0, copy, 0, 10}).code(), Code::kIsDirectory);
  p.must(p.resize(u, file, 0));
  p.must(p.resize(u, copy, 0));
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  p.check_rows();
}

TEST(Data, PunchingALongRangeLeavesTheRest) {
  OnePartition p(11);
  User u = p.user();
  FileId file = p.create(u, "a");
  fill(p, u, file, 500);
  p.must(p.ask(Punch{u.next(), file, 500, 49'899'800}));
  Attributes a = p.stat(u, file);
  EXPECT_EQ(a.size, 499u * 100'000 + 1'000);
  EXPECT_EQ(a.bytes, 500u + 700);
  p.must(p.ask(Punch{u.next(), file, 0, ~uint64_t{0}}));
  EXPECT_EQ(p.stat(u, file).bytes, 0u);
  p.settle();
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  p.check_rows();
}

TEST(Data, AnUnlinkedFileGoesWithItsSegmentsAndAttributes) {
  OnePartition p(12);
  User u = p.user();
  FileId file = p.create(u, "a");
  fill(p, u, file, 400);
  for (int i = 0; i < 300; ++i) p.must(p.ask(SetXattr{u.next(), file, "user.n" + std::to_string(i), "v"}));
  p.must(p.ask(OpenKept{u.next(), file}));
  p.must(p.ask(Unlink{u.next(), kRootFile, "a", false, 0}));
  p.settle();
  EXPECT_EQ(p.stat(u, file).links, 0u);  // still open
  EXPECT_EQ(p.stat(u, file).bytes, 400'000u);
  p.must(p.ask(Forget{u.next(), {file}}));
  p.settle();
  EXPECT_EQ(p.ask(GetAttributes{u.session, file, GrantKind::kNone}).code(), Code::kNotFound);
  EXPECT_EQ(p.partition->counters().sums.segments, 0);
  EXPECT_EQ(p.partition->counters().sums.inodes, 1);
  EXPECT_EQ(p.write(u, file, 0, 10), Code::kNotFound);
  p.check_rows();
}

// Half of it may be gone.
TEST(Data, AFileThatIsBeingRemovedIsNeitherOpenedNorRead) {
  struct BeginRemoval {
    using Reply = Empty;
    FileId file;
    Task<Result<Empty>> run(Transaction& txn) {
      txn.put(removal_key(file), "");
      co_return Empty{};
    }
  };
  OnePartition p(35);
  User u = p.user();
  FileId file = p.create(u, "a");
  FileId other = p.create(u, "b");
  ASSERT_EQ(p.write(u, file, 0, 100'000), Code::kOk);
  p.must(p.ask(OpenKept{u.next(), file}));
  p.must(p.ask(Unlink{u.next(), kRootFile, "a", false, 0}));
  EXPECT_TRUE(p.ask(GetExtents{u.session, file, 0, kGiB}).ok());
  p.must(p.world.run(p.partition->change(BeginRemoval{file})));
  EXPECT_EQ(p.ask(OpenKept{u.next(), file}).code(), Code::kNotFound);
  EXPECT_EQ(p.ask(GetExtents{u.session, file, 0, kGiB}).code(), Code::kNotFound);
  CopyRange copy;
  copy.ticket = u.next();
  copy.source = file;
  copy.file = other;
  copy.length = 100'000;
  EXPECT_EQ(p.ask(copy).code(), Code::kNotFound);
}

// What its client has given up must not happen behind its back, after what it did since.
TEST(Data, AMutationThatWasGivenUpWhileItWaitedTakesNoEffect) {
  struct Moving {
    static Task<void> run(OnePartition& p, Rename request, std::optional<Code>& code) {
      Result<UnlinkReply> reply = co_await handle(*p.partition, std::move(request), CallInfo());
      code = reply.code();
    }
  };
  OnePartition p(36);
  User a = p.user();
  User b = p.user();
  p.create(a, "from");
  FileId to = p.create(b, "to");  // and has its write grant
  Rename request;
  request.ticket = a.next();
  request.from_parent = request.to_parent = kRootFile;
  request.from_name = "from";
  request.to_name = "to";
  std::optional<Code> moved;
  p.partition->scope().spawn(Moving::run(p, request, moved));
  p.world.run_for(seconds(1));
  EXPECT_EQ(moved, std::nullopt) << "the other's grant is in the way";
  p.create(a, "later");  // its ticket says that all before was answered
  p.must(p.ask(GrantRelease{b.session, {b.grants[to].id}}));
  ASSERT_TRUE(p.world.run_until([&] { return moved.has_value(); }, seconds(30)));
  EXPECT_EQ(moved, Code::kStale);
  EXPECT_EQ(p.must(p.ask(Lookup{a.session, kRootFile, "to"})).attributes.id, to);
  EXPECT_TRUE(p.ask(Lookup{a.session, kRootFile, "from"}).ok());
  p.check_rows();
}

// Who waits for a grant must not hold up those that the holder needs to give it back.
TEST(Data, WhoWaitsForAGrantKeepsNoChangesInMemory) {
  struct Reading {
    static Task<void> run(OnePartition& p, GetAttributes request, std::optional<uint64_t>& size) {
      Result<EntryReply> reply = co_await handle(*p.partition, std::move(request), CallInfo());
      size = reply.ok() ? reply->attributes.size : ~uint64_t{0};
    }
  };
  PartitionOptions options;
  options.overlay_rows = 40;
  OnePartition p(37, 0, options);
  User writer = p.user();
  User reader = p.user();
  FileId file = p.create(writer, "a");
  std::optional<uint64_t> size;
  p.partition->scope().spawn(Reading::run(p, {reader.session, file, GrantKind::kRead}, size));
  p.world.run_for(seconds(1));
  for (int i = 0; i < 60; ++i) p.create(writer, "more" + std::to_string(i));
  ASSERT_EQ(p.write(writer, file, 0, 1'000), Code::kOk);
  EXPECT_EQ(size, std::nullopt);
  p.must(p.ask(GrantRelease{writer.session, {writer.grants[file].id}}));
  ASSERT_TRUE(p.world.run_until([&] { return size.has_value(); }, seconds(30)));
  EXPECT_EQ(size, 1'000u);
}

TEST(Data, StagedBytesThatDoNotFitOneAnswerComeInSeveral) {
  OnePartition p(38);
  User u = p.user();
  FileId file = p.create(u, "a");
  for (uint64_t i = 0; i < 160; ++i) p.must(p.stage(u, file, i * kMaxStageBytes, std::string(kMaxStageBytes, 'x')));
  uint64_t at = 0;
  int answers = 0;
  for (; at < 160 * kMaxStageBytes; ++answers) {
    GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, at, kGiB}));
    ASSERT_FALSE(reply.extents.empty());
    EXPECT_LE(encode(reply).size(), kMaxHead);
    ASSERT_EQ(reply.extents.front().offset, at);
    at = reply.extents.back().offset + reply.extents.back().length;
  }
  EXPECT_GE(answers, 2);
}

TEST(Data, FilesThatStayOpenDoNotKeepOthersFromGoing) {
  OnePartition p(39);
  User u = p.user();
  auto make_and_unlink = [&](const std::string& name, bool open) {
    FileId file = p.create(u, name);
    if (open) p.must(p.ask(OpenKept{u.next(), file}));
    p.must(p.ask(GrantRelease{u.session, {u.grants[file].id}}));
    p.must(p.ask(Unlink{u.next(), kRootFile, name, false, 0}));
    return file;
  };
  for (int i = 0; i < 300; ++i) make_and_unlink("open" + std::to_string(i), true);
  FileId file = make_and_unlink("b", false);
  p.settle();
  EXPECT_EQ(p.ask(GetAttributes{u.session, file, GrantKind::kNone}).code(), Code::kNotFound);
  p.check_rows();
}

TEST(Data, ReservationsAreBounded) {
  OnePartition p(13);
  User u = p.user();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(p.must(p.ask(Reserve{u.session, Slot(3), 1000})).reservations.size(), 64u);
  EXPECT_EQ(p.partition->sessions().reservations(), kMaxReserved);
}

TEST(Data, AbandonedReservationsGoBackAndWrittenOnesClaimNoMoreSpace) {
  OnePartition p(15);
  User u = p.user();
  std::vector<Reservation> made = p.must(p.ask(Reserve{u.session, Slot(3), 8})).reservations;
  ASSERT_EQ(made.size(), 8u);
  EXPECT_EQ(p.partition->sessions().unwritten_reservations(), 8u);
  p.must(p.ask(Reserve{u.session, Slot(3), 1, {made[0].segment, made[1].segment}, 2}));
  const Sessions& sessions = p.partition->sessions();
  EXPECT_FALSE(sessions.reserved(made[0].segment));
  p.world.run_for(seconds(1));
  EXPECT_EQ(p.targets.freed, made[0].placement.targets.size() + made[1].placement.targets.size());
  EXPECT_TRUE(sessions.reserved(made[2].segment));
  EXPECT_EQ(sessions.reservations(), 7u);
  EXPECT_EQ(sessions.unwritten_reservations(), 5u);
  // What was given back is given to nobody again, and no commit may name it.
  FileId file = p.create(u, "a");
  EXPECT_EQ(p.must(p.ask(p.commit_of(u, file, made[0], 10, {{.offset = 0, .length = 10}}))).codes.at(0),
            static_cast<uint8_t>(Code::kStale));
  // A refused request takes back as well, or a full hot tier would never have room.
  p.admits = Error(Code::kBusy, "full");
  EXPECT_EQ(p.ask(Reserve{u.session, Slot(3), 1, {made[2].segment}, 0}).code(), Code::kBusy);
  EXPECT_FALSE(sessions.reserved(made[2].segment));
}

struct Committing {
  static Task<void> run(OnePartition& p, Commit request, std::optional<Code>& code) {
    Result<CommitReply> reply = co_await handle(*p.partition, std::move(request), CallInfo());
    code = reply.ok() ? static_cast<Code>(reply->codes.at(0)) : reply.code();
  }
};

TEST(Data, WhatIsAbandonedWhileItIsCommittedIsEitherNamedOrFreed) {
  uint64_t named = 0;
  uint64_t freed = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    OnePartition p(200 + seed, 100);
    User u = p.user();
    FileId file = p.create(u, "a");
    Reservation reservation = p.reserve(u);
    const uint64_t before = p.targets.freed;
    std::optional<Code> code;
    p.partition->scope().spawn(
        Committing::run(p, p.commit_of(u, file, reservation, 10, {{.offset = 0, .length = 10}}), code));
    p.world.run_for(microseconds(static_cast<int64_t>(seed) * 250));
    p.must(p.ask(Reserve{u.session, Slot(0), 1, {reservation.segment}, 0}));
    p.world.run_for(seconds(5));
    ASSERT_TRUE(code.has_value());
    EXPECT_EQ(*code == Code::kOk, p.targets.freed == before) << "fragments that a file names are gone";
    (*code == Code::kOk ? named : freed) += 1;
    p.check_rows();
  }
  EXPECT_GT(named, 0u);
  EXPECT_GT(freed, 0u);
}

TEST(Data, SetAttributesSetsWhatItIsTold) {
  OnePartition p(14);
  User u = p.user();
  FileId file = p.create(u, "a");
  SetAttributes set;
  set.ticket = u.next();
  set.file = file;
  set.mask = kSetMode | kSetUid | kSetGid | kSetAtime | kSetMtime;
  set.mode = 04755;
  set.uid = 5;
  set.gid = 6;
  set.atime = 7;
  set.mtime = INT64_MIN;
  Attributes before = p.stat(u, file);
  Attributes a = p.must(p.ask(set)).attributes;
  EXPECT_EQ(a.mode, 04755u);
  EXPECT_EQ(a.uid, 5u);
  EXPECT_EQ(a.gid, 6u);
  EXPECT_EQ(a.atime, 7);
  EXPECT_GT(a.mtime, before.mtime);
  EXPECT_GT(a.ctime, before.ctime);
  set.ticket = u.next();
  set.mask = kSetMtime;
  set.mtime = 123;
  EXPECT_EQ(p.must(p.ask(set)).attributes.mtime, 123);
}

TEST(Data, ATimeAheadGivesWayToTheNextChange) {
  OnePartition p(17);
  User u = p.user();
  FileId file = p.create(u, "a");
  auto now = [&p] { return p.env.clock.wall().count + 1'000'000; };  // a partition's own runs a little ahead
  SetAttributes set;
  set.file = file;
  set.mask = kSetMtime;
  set.mtime = now() + 86'400'000'000'000;
  auto set_ahead = [&](FileId what) {
    set.ticket = u.next();
    set.file = what;
    Attributes a = p.must(p.ask(set)).attributes;
    EXPECT_EQ(a.mtime, set.mtime);
    EXPECT_LE(a.ctime, now());
  };
  auto check_now = [&](const Attributes& a) {
    EXPECT_LE(a.mtime, now());
    EXPECT_LE(a.ctime, now());
    EXPECT_GE(a.mtime, a.btime);
  };
  set_ahead(file);
  ASSERT_EQ(p.write(u, file, 0, 4096), Code::kOk);
  check_now(p.stat(u, file));
  set_ahead(file);
  check_now(p.must(p.resize(u, file, 100)));
  // A commit brings the time of its bytes; what was set meanwhile comes with them.
  set_ahead(file);
  Reservation reservation = p.reserve(u);
  Commit commit = p.commit_of(u, file, reservation, 10, {{.offset = 0, .length = 10}});
  commit.files[0].mtime = set.mtime;
  p.must(p.ask(commit));
  EXPECT_EQ(p.stat(u, file).mtime, set.mtime);
  EXPECT_LE(p.stat(u, file).ctime, now());
  set_ahead(kRootFile);
  (void)p.create(u, "b");
  check_now(p.stat(u, kRootFile));
}

TEST(Data, RowsAgreeWithExtentsUnderRandomChanges) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    OnePartition p(100 + seed, seed % 2 == 0 ? 30 : 0);
    User u = p.user();
    SeededRandom random(seed);
    std::vector<FileId> files;
    for (int i = 0; i < 3; ++i) files.push_back(p.create(u, "f" + std::to_string(i)));
    std::map<FileId, std::vector<int>> written;  // per 1,000 bytes: the step that wrote them, 0 a hole
    std::map<SegmentId, int> segment_of_step;
    std::map<uint64_t, int> staged_of_step;
    auto set = [&](FileId file, uint64_t from, uint64_t to, int what) {
      std::vector<int>& units = written[file];
      if (what != 0 && units.size() < to / 1'000) units.resize(to / 1'000);
      for (uint64_t i = from / 1'000; i < std::min<uint64_t>(to / 1'000, units.size()); ++i) units[i] = what;
    };
    for (int step = 1; step <= 150; ++step) {
      FileId file = files[random.below(files.size())];
      uint64_t offset = 1'000 * random.below(2'000);
      uint64_t length = 1'000 * random.between(1, 40);
      switch (random.below(8)) {
        case 0:
        case 1:
          ASSERT_EQ(p.write(u, file, offset, length), Code::kOk);
          set(file, offset, offset + length, step);
          break;
        case 2:
        case 3:
          ASSERT_TRUE(p.stage(u, file, offset, std::string(length, 'x')).ok());
          set(file, offset, offset + length, step);
          break;
        case 4:
          p.must(p.resize(u, file, offset));
          written[file].resize(offset / 1'000);
          break;
        case 5:
          p.must(p.ask(Punch{u.next(), file, offset, 10 * length}));
          set(file, offset, offset + 10 * length, 0);
          break;
        case 6: {
          FileId source = files[random.below(files.size())];
          uint64_t from = 1'000 * random.below(2'000);
          if (source == file && from < offset + 5 * length && offset < from + 5 * length) break;
          const uint64_t copied = p.must(p.ask(CopyRange{u.next(), source, from, file, offset, 5 * length})).copied;
          ASSERT_EQ(copied % 1'000, 0u);
          if (from < 1'000 * written[source].size()) ASSERT_GT(copied, 0u);
          std::vector<int> units = written[source];
          if (copied > 0 && written[file].size() < (offset + copied) / 1'000)
            written[file].resize((offset + copied) / 1'000);
          for (uint64_t i = 0; i < copied / 1'000; ++i)
            set(file, offset + 1'000 * i, offset + 1'000 * (i + 1), units.at(from / 1'000 + i));
          break;
        }
        default:
          if (random.below(4) == 0) {
            p.fail_over();
            p.claim(u);
          }
      }
      GetExtentsReply reply = p.must(p.ask(GetExtents{u.session, file, 0, kGiB}));
      const std::vector<int>& units = written[file];
      ASSERT_EQ(reply.size, units.size() * 1'000);
      uint64_t at = 0;
      for (const Extent& extent : reply.extents) {
        ASSERT_EQ(extent.offset, at);
        at += extent.length;
        for (uint64_t i = extent.offset / 1'000; i < at / 1'000; ++i) {
          int& source =
              extent.kind == ExtentKind::kStaged ? staged_of_step[extent.staged] : segment_of_step[extent.segment];
          if (source == 0 && extent.kind != ExtentKind::kHole)
            source = units[i];  // first seen: in the step that wrote it
          ASSERT_EQ(extent.kind == ExtentKind::kHole ? 0 : source, units[i]) << "step " << step << " at " << i;
        }
      }
      ASSERT_EQ(at, reply.size);
      if (step % 10 == 0) p.check_rows();
    }
    p.settle();
    p.check_rows();
  }
}

}  // namespace
}  // namespace headrace
