#include "meta/ops/two_phase.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

// The root's partition; the other one prepares whatever it is asked, and hears of decisions when the test lets it.
struct Coordinator2 : OnePartition {
  static constexpr uint16_t kLastSlot = 32767;

  explicit Coordinator2(uint64_t seed) : OnePartition(seed, 0, {}, kLastSlot), me(user()) {
    handlers.on<Prepare>([this](Prepare r, CallInfo) { return prepare_there(std::move(r)); });
    handlers.on<Finish>([this](Finish r, CallInfo) { return finish_there(r); });
    handlers.on<Decision>([this](Decision r, CallInfo) { return decision(*partition, r); });
    handlers.on<ParentOf>([this](ParentOf r, CallInfo) { return parent_there(r); });
    handlers.on<Lookup>([](Lookup, CallInfo) { return nothing_there(); });
  }
  ~Coordinator2() { (void)world.run_until(partition->stop()); }  // it tells us until then
  Task<Result<StepsReply>> prepare_there(Prepare request) {
    ++prepares;
    identity.cut = std::max(identity.cut, cut_there);
    StepsReply reply;
    for (const Step& step : request.steps) {
      Attributes attributes;
      if (step.kind == StepKind::kMakeDirectory) {
        attributes = step.attributes;
        attributes.id = FileId(step.slot, 1000 + next_there++);
        attributes.type = FileType::kDirectory;
        parents[attributes.id] = step.attributes.parent;
      }
      if (step.kind == StepKind::kSetParent) moves[request.transaction] = {step.file, step.directory};
      reply.attributes.push_back(attributes);
    }
    co_return reply;
  }
  Task<Result<Empty>> finish_there(Finish request) {
    if (!request.commit) co_return Empty{};
    const bool fresh = std::find(asked.begin(), asked.end(), request.transaction) == asked.end();
    if (fresh) asked.push_back(request.transaction);
    if (deaf && !may_hear.contains(request.transaction)) co_return Error(Code::kUnavailable, "not now");
    identity.cut = std::max(identity.cut, cut_at_finish);
    if (auto move = moves.find(request.transaction); move != moves.end())
      parents[move->second.first] = move->second.second;
    co_return Empty{};
  }
  Task<Result<ParentOfReply>> parent_there(ParentOf request) { co_return ParentOfReply{parents.at(request.directory)}; }
  static Task<Result<EntryReply>> nothing_there() { co_return Error(Code::kNotFound, "no such name"); }
  // Whose inode lives there, or here.
  FileId make_directory(bool there) {
    for (;;) {
      Make make;
      make.name = "d" + std::to_string(next_name++);
      make.parent = kRootFile;
      make.type = FileType::kDirectory;
      make.mode = 0755;
      make.ticket = me.next();
      EntryReply made = must(ask(make));
      if (made.directory_grant) must(ask(GrantRelease{me.session, {made.directory_grant->id}}));
      names[made.attributes.id] = make.name;
      if (partition->owns(made.attributes.id.slot()) != there) return made.attributes.id;
    }
  }
  struct Moving {
    static Task<void> run(Coordinator2& p, Rename request, std::optional<Code>& code) {
      Result<UnlinkReply> reply = co_await handle(*p.partition, std::move(request), CallInfo());
      code = reply.code();
    }
  };
  void move(FileId directory, FileId below, std::optional<Code>& code, FileId from = kRootFile) {
    Rename request;
    request.ticket = me.next();
    request.from_parent = from;
    request.from_name = names[directory];
    request.to_parent = below;
    request.to_name = "moved" + std::to_string(next_name++);
    names[directory] = request.to_name;
    partition->scope().spawn(Moving::run(*this, std::move(request), code));
  }

  User me;
  uint64_t next_name = 0;
  uint64_t next_there = 0;
  uint64_t prepares = 0;
  Cut cut_there;
  Cut cut_at_finish;
  std::map<FileId, std::string> names;
  std::map<FileId, FileId> parents;                          // of the other partition's directories
  std::map<TransactionId, std::pair<FileId, FileId>> moves;  // that it prepared: who, to where
  bool deaf = false;
  std::set<TransactionId> may_hear;
  std::vector<TransactionId> asked;  // in the order in which they were told first
};

TEST(TwoPhase, TheNextRenameOfADirectoryWaitsUntilAllHaveHeardOfTheLast) {
  std::optional<Code> first;
  std::optional<Code> second;
  Coordinator2 p(1);
  FileId here = p.make_directory(false);
  FileId a = p.make_directory(true);
  FileId b = p.make_directory(true);
  p.world.run_for(seconds(1));
  p.asked.clear();
  p.prepares = 0;
  p.deaf = true;
  p.move(a, here, first);
  p.world.run_for(seconds(2));
  EXPECT_EQ(first, Code::kOk) << "it is decided";
  p.move(b, here, second);
  p.world.run_for(seconds(5));
  EXPECT_EQ(second, std::nullopt) << "the parent of the first is not what it will be";
  EXPECT_LE(p.prepares, 4u) << "nothing is prepared over and over meanwhile";
  ASSERT_FALSE(p.asked.empty());
  p.may_hear.insert(p.asked.front());
  p.world.run_for(seconds(2));
  EXPECT_EQ(second, Code::kOk);
}

// A participant that is in a later cut says so with its answer: the decision must not be in an earlier one.
TEST(TwoPhase, TheDecisionIsInTheCutOfItsParticipants) {
  Coordinator2 p(4);
  p.cut_there = Cut(NamespaceEpoch(1), 7);
  const Cut before = p.partition->cut();
  ASSERT_LT(before, p.cut_there);
  p.make_directory(true);
  EXPECT_EQ(p.partition->cut(), p.cut_there);
}

// One that enters a cut before it finishes has what it prepared in that cut, which needs the decision there.
TEST(TwoPhase, ADecisionIsForgottenBehindTheCutsOfItsParticipants) {
  Coordinator2 p(6);
  p.cut_at_finish = Cut(NamespaceEpoch(1), 7);
  ASSERT_LT(p.partition->cut(), p.cut_at_finish);
  p.make_directory(true);
  p.world.run_for(seconds(2));
  EXPECT_EQ(p.must(p.world.run(leftover_rows(*p.partition))), std::vector<std::string>()) << "it is forgotten";
  EXPECT_EQ(p.partition->cut(), p.cut_at_finish);
}

// Neither may the next one be refused for what was before.
TEST(TwoPhase, AMoveIsNotRefusedForAParentThatTheLastMoveHasChanged) {
  std::optional<Code> into, out, below;
  Coordinator2 p(3);
  FileId outer = p.make_directory(false);
  FileId inner = p.make_directory(true);
  p.move(inner, outer, into);
  p.world.run_for(seconds(2));
  ASSERT_EQ(into, Code::kOk);
  ASSERT_EQ(p.parents[inner], outer);
  p.asked.clear();
  p.deaf = true;
  p.move(inner, kRootFile, out, outer);
  p.world.run_for(seconds(2));
  EXPECT_EQ(out, Code::kOk) << "it is decided";
  p.move(outer, inner, below);
  p.world.run_for(seconds(2));
  EXPECT_EQ(below, std::nullopt) << "the parent of the first is not what it will be";
  p.may_hear.insert(p.asked.front());
  p.world.run_for(seconds(2));
  EXPECT_EQ(below, Code::kOk);
}

class ToldAgain : public testing::TestWithParam<bool> {};

TEST_P(ToldAgain, ANewLeadersRenamesOfDirectoriesWaitUntilAllDecisionsWereHeard) {
  std::optional<Code> moved;
  Coordinator2 p(2);
  FileId here = p.make_directory(false);
  FileId a = p.make_directory(true);
  p.world.run_for(seconds(1));
  p.deaf = true;
  (void)p.make_directory(true);
  (void)p.make_directory(true);
  p.fail_over();
  p.claim(p.me);
  p.move(a, here, moved);
  p.world.run_for(seconds(1));
  EXPECT_EQ(moved, std::nullopt) << "from the start on, before anything is told again";
  p.asked.clear();
  p.partition->scope().spawn(resolve_loop(*p.partition));
  p.world.run_for(seconds(2));
  ASSERT_EQ(p.asked.size(), 2u);
  EXPECT_EQ(moved, std::nullopt);
  std::sort(p.asked.begin(), p.asked.end());
  p.may_hear.insert(GetParam() ? p.asked.front() : p.asked.back());
  p.world.run_for(seconds(5));
  EXPECT_EQ(moved, std::nullopt) << "one has not been heard";
  p.may_hear.insert(p.asked.begin(), p.asked.end());
  p.world.run_for(seconds(5));
  // (Its own participant may not hear of it: it is decided.)
  EXPECT_EQ(moved, Code::kOk);
}

INSTANTIATE_TEST_SUITE_P(EitherFirst, ToldAgain, testing::Bool());

TEST(TwoPhase, ANewLeaderThatCannotReadWhatWasDecidedTriesAgain) {
  Coordinator2 p(6);
  p.deaf = true;
  (void)p.make_directory(true);
  p.fail_over();
  p.deaf = false;
  p.asked.clear();
  p.faulty.failing_scans[Table::kDecision] = 2;
  p.partition->scope().spawn(resolve_loop(*p.partition));
  p.world.run_for(seconds(5));
  EXPECT_EQ(p.faulty.failing_scans[Table::kDecision], 0u);
  EXPECT_EQ(p.asked.size(), 1u);
  EXPECT_FALSE(p.partition->locked(rename_lock_key(p.partition->first_slot())));
}

// Seed 9313 of the simulator: it ran again for ever, without a pause.
TEST(TwoPhase, WhatHoldsTheRenameLockIsFinishedUnderANewLeaderThatHasDecisionsToTell) {
  Coordinator2 p(4);
  p.deaf = true;
  (void)p.make_directory(true);  // decided, and not heard of
  const TransactionId theirs{PartitionId(1), PartitionEpoch(1), 77};
  Step step;
  step.kind = StepKind::kLockRename;
  step.slot = Slot(0);
  OnePartition::must(p.world.run(prepare(*p.partition, Prepare{theirs, {step}})));
  p.fail_over();
  p.partition->scope().spawn(resolve_loop(*p.partition));
  p.world.run_for(seconds(1));
  std::optional<Result<Empty>> finished;
  struct Finishing {
    static Task<void> run(Partition& partition, TransactionId id, std::optional<Result<Empty>>& out) {
      out = co_await finish(partition, Finish{id, true});
    }
  };
  p.partition->scope().spawn(Finishing::run(*p.partition, theirs, finished));
  p.world.run_for(seconds(2));
  ASSERT_TRUE(finished.has_value());
  EXPECT_TRUE(finished->ok());
  // What is left to tell changes no parent: it could not have been decided while they held the lock.
  EXPECT_FALSE(p.partition->locked(rename_lock_key(p.partition->first_slot())));
}

// Seed 125 of the simulator: nobody asked any more what had been decided, and the lock was not held.
TEST(TwoPhase, APreparedTransactionKeepsTheRenameLockUnderANewLeaderThatHasDecisionsToTell) {
  Coordinator2 p(5);
  p.deaf = true;
  (void)p.make_directory(true);
  const TransactionId theirs{PartitionId(1), PartitionEpoch(1), 77};
  Step step;
  step.kind = StepKind::kLockRename;
  step.slot = Slot(0);
  OnePartition::must(p.world.run(prepare(*p.partition, Prepare{theirs, {step}})));
  const Key lock = rename_lock_key(p.partition->first_slot());
  p.fail_over();
  EXPECT_TRUE(p.partition->locked_by(lock, theirs));
  p.deaf = false;
  p.partition->scope().spawn(resolve_loop(*p.partition));
  p.world.run_for(seconds(1));
  EXPECT_TRUE(p.partition->locked_by(lock, theirs)) << "though all have heard of what was decided here";
  p.world.run_for(seconds(5));  // whoever coordinated it knows nothing of it
  EXPECT_FALSE(p.partition->locked(lock));
  EXPECT_TRUE(p.partition->prepared_transactions().empty());
}

TEST(TwoPhase, ADecisionIsForgottenWhenAllHaveHeard) {
  Coordinator2 p(3);
  p.deaf = true;
  (void)p.make_directory(true);
  p.world.run_for(seconds(1));
  auto left = [&p] {
    size_t decisions = 0;
    for (const std::string& line : p.must(p.world.run(leftover_rows(*p.partition))))
      decisions += line.find("decision") != std::string::npos;
    return decisions;
  };
  EXPECT_EQ(left(), 1u);
  p.deaf = false;
  p.world.run_for(seconds(2));
  EXPECT_EQ(left(), 0u);
}

}  // namespace
}  // namespace headrace
