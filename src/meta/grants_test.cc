#include "meta/grants.h"

#include <gtest/gtest.h>

#include <optional>

#include "runtime/sim/world.h"

namespace headrace {
namespace {

const FileId kFile(Slot(1), 5);
const SessionId kAnn(1);
const SessionId kBob(2);

struct GrantsTest : ::testing::Test {
  World world{1, {}};
  Machine& machine = world.add_machine("node");
  std::vector<std::pair<SessionId, GrantKind>> recalled;
  Grants grants{machine.env(),
                [this](SessionId session, Grant grant, GrantKind keep) { return recall(session, grant, keep); }};
  Scope scope;

  Task<void> recall(SessionId session, Grant, GrantKind keep) {
    co_await machine.env().clock.sleep(milliseconds(5));
    recalled.emplace_back(session, keep);
  }
  Task<void> clear(SessionId asking, GrantKind kind) { co_await grants.clear(kFile, asking, kind); }
  void run() {
    ASSERT_TRUE(world.run_until([&] { return scope.running() == 0; }));
  }
};

TEST_F(GrantsTest, AReaderLeavesTheWriterAReadGrant) {
  grants.give(kAnn, kFile, GrantKind::kWrite);
  EXPECT_TRUE(grants.conflict(kFile, kBob, GrantKind::kRead));
  EXPECT_FALSE(grants.conflict(kFile, kAnn, GrantKind::kWrite)) << "nobody is in one's own way";
  scope.spawn(clear(kBob, GrantKind::kRead));
  run();
  ASSERT_EQ(recalled.size(), 1u);
  EXPECT_EQ(recalled[0].second, GrantKind::kRead);
  ASSERT_NE(grants.held(kAnn, kFile), nullptr);
  EXPECT_EQ(grants.held(kAnn, kFile)->kind, GrantKind::kRead);
}

TEST_F(GrantsTest, AWriterTakesEverybodysGrantOnceEach) {
  grants.give(kAnn, kFile, GrantKind::kRead);
  grants.give(kBob, kFile, GrantKind::kRead);
  scope.spawn(clear(SessionId(3), GrantKind::kWrite));
  scope.spawn(clear(SessionId(4), GrantKind::kWrite));
  run();
  EXPECT_EQ(recalled.size(), 2u) << "recalls of one grant are merged";
  EXPECT_EQ(grants.count(), 0u);
}

TEST_F(GrantsTest, WhoseRecallIsGivenUpIsAskedAgain) {
  grants.give(kAnn, kFile, GrantKind::kWrite);
  std::optional<Scope> given_up(std::in_place);
  given_up->spawn(clear(kBob, GrantKind::kRead));
  scope.spawn(clear(SessionId(3), GrantKind::kRead));  // waits for the first
  world.run_for(milliseconds(2));
  given_up.reset();
  run();
  EXPECT_EQ(recalled.size(), 1u);
  EXPECT_FALSE(grants.conflict(kFile, kBob, GrantKind::kRead));
}

TEST_F(GrantsTest, WhatWasLoweredIsRaisedUnderANewId) {
  const Grant first = grants.give(kAnn, kFile, GrantKind::kWrite);
  EXPECT_EQ(grants.give(kAnn, kFile, GrantKind::kRead).id, first.id);
  scope.spawn(clear(kBob, GrantKind::kRead));
  run();
  EXPECT_EQ(grants.give(kAnn, kFile, GrantKind::kRead).id, first.id);
  const Grant again = grants.give(kAnn, kFile, GrantKind::kWrite);
  EXPECT_EQ(again.kind, GrantKind::kWrite);
  EXPECT_NE(again.id, first.id) << "what was sent under the first must not pass for what is sent under this";
  EXPECT_EQ(grants.held(kAnn, kFile)->id, again.id);
  grants.release(kAnn, first.id);
  EXPECT_EQ(grants.count(), 1u);
  grants.release(kAnn, again.id);
  EXPECT_EQ(grants.count(), 0u);
  EXPECT_EQ(grants.held(kAnn, kFile), nullptr);
}

TEST_F(GrantsTest, AClaimThatConflictsIsRefused) {
  Grant write = grants.give(kAnn, kFile, GrantKind::kWrite);
  EXPECT_FALSE(grants.claim(kBob, Grant{kFile, GrantKind::kRead, GrantId(99)}));
  grants.drop_session(kAnn);
  EXPECT_TRUE(grants.claim(kAnn, write));
  EXPECT_EQ(grants.count(), 1u);
}

}  // namespace
}  // namespace headrace
