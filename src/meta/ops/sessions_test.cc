#include "meta/ops/sessions.h"

#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

struct Wanting {
  static Task<void> run(OnePartition& p, GrantAcquire request, std::optional<Code>& code) {
    Result<GrantAcquireReply> reply = co_await handle(*p.partition, std::move(request), CallInfo());
    code = reply.code();
  }
};

// The way of each message that brings a grant; all of them before any mutation of the session.
enum class Way { kAcquireToWrite, kAcquireToRead, kLookup, kGetAttributes };

class FirstGrant : public testing::TestWithParam<Way> {};

TEST_P(FirstGrant, OfASessionIsKnownToTheNextLeader) {
  OnePartition p(1);
  User maker = p.user();
  FileId file = p.create(maker, "f");
  p.must(p.ask(SessionClose{maker.session}));
  User first = p.user();
  User second = p.user();
  switch (GetParam()) {
    case Way::kAcquireToWrite:
      p.grant(first, file);
      break;
    case Way::kAcquireToRead:
      first.grants[file] = p.must(p.ask(GrantAcquire{first.session, file, GrantKind::kRead})).grant;
      break;
    case Way::kLookup: {
      EntryReply reply = p.must(p.ask(Lookup{first.session, kRootFile, "f"}));
      ASSERT_TRUE(reply.file_grant && reply.directory_grant);
      first.grants[file] = *reply.file_grant;
      first.grants[kRootFile] = *reply.directory_grant;
      break;
    }
    case Way::kGetAttributes: {
      EntryReply reply = p.must(p.ask(GetAttributes{first.session, file, GrantKind::kRead}));
      ASSERT_TRUE(reply.file_grant);
      first.grants[file] = *reply.file_grant;
      break;
    }
  }
  p.fail_over();
  // `second` held nothing: it is not listed, and nobody waits for it.
  ASSERT_NE(p.partition->sessions().find(first.session), nullptr);
  EXPECT_EQ(p.partition->sessions().find(second.session), nullptr);
  second = p.user();
  std::optional<Code> given;
  p.partition->scope().spawn(Wanting::run(p, GrantAcquire{second.session, file, GrantKind::kWrite}, given));
  p.world.run_for(seconds(2));
  EXPECT_EQ(given, std::nullopt) << "while another one has not said what it holds";
  p.claim(first);
  p.world.run_for(seconds(2));
  EXPECT_EQ(given, std::nullopt) << "it is recalled first";
  for (const auto& [id, grant] : first.grants) p.must(p.ask(GrantRelease{first.session, {grant.id}}));
  p.must(p.ask(SessionClose{first.session}));
  p.world.run_for(seconds(2));
  EXPECT_EQ(given, Code::kOk);
}

INSTANTIATE_TEST_SUITE_P(Each, FirstGrant,
                         testing::Values(Way::kAcquireToWrite, Way::kAcquireToRead, Way::kLookup, Way::kGetAttributes));

TEST(SessionOps, WhoReadsGetsGrantsWhileChangesAreRefused) {
  OnePartition p(3);
  User maker = p.user();
  FileId file = p.create(maker, "f");
  p.must(p.ask(SessionClose{maker.session}));
  p.partition->set_read_only("another cluster owns the namespace", Code::kReadOnly);
  User user = p.user();
  EXPECT_TRUE(p.must(p.ask(Lookup{user.session, kRootFile, "f"})).directory_grant);
  EXPECT_TRUE(p.must(p.ask(GetAttributes{user.session, file, GrantKind::kRead})).file_grant);
  EXPECT_EQ(p.ask(GrantAcquire{user.session, file, GrantKind::kWrite}).code(), Code::kReadOnly);
}

TEST(SessionOps, WhoIsEvictedWhileChangesAreRefusedDoesNotComeBack) {
  OnePartition p(4);
  User a = p.user();
  FileId file = p.create(a, "f");
  const ClientId client = p.partition->sessions().find(a.session)->client;
  p.partition->set_read_only("the bucket does not answer", Code::kUnavailable);
  ASSERT_TRUE(p.world.run_until(p.partition->evict(a.session, "did not answer a recall within its lease")));
  p.partition->set_read_only("");
  User b = p.user();
  p.grant(b, file);
  EXPECT_EQ(p.write(b, file, 0, 100), Code::kOk);
  p.must(p.ask(SessionClose{b.session}));
  p.fail_over();
  EXPECT_EQ(p.partition->sessions().find(a.session), nullptr);
  EXPECT_EQ(p.ask(SessionOpen{client, a.session, {a.grants[file]}}).code(), Code::kStale);
}

TEST(SessionOps, WhatWasDoneIsAnsweredAlsoWhereChangesAreRefusedSince) {
  OnePartition p(6);
  User user = p.user();
  Make make;
  make.ticket = user.next();
  make.parent = kRootFile;
  make.name = "f";
  make.mode = 0644;
  const FileId made = p.must(p.ask(make)).attributes.id;  // and the answer is lost
  p.fail_over();
  p.partition->set_read_only("the bucket does not answer", Code::kUnavailable);
  p.claim(user);
  Result<EntryReply> again = p.ask(make);
  ASSERT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(again->attributes.id, made);
  make.ticket = user.next();
  make.name = "g";
  EXPECT_EQ(p.ask(make).code(), Code::kUnavailable);
}

TEST(SessionOps, WhoDoesNotComeBackKeepsNobodyFromReadingWhileChangesAreRefused) {
  std::optional<Code> seen;
  OnePartition p(5);
  User gone = p.user();
  FileId file = p.create(gone, "f");
  p.options.lease = seconds(10);
  p.fail_over();
  p.partition->set_read_only("the bucket does not answer", Code::kUnavailable);
  User reader = p.user();
  p.begin(GetAttributes{reader.session, file, GrantKind::kNone}, seen);
  p.world.run_for(seconds(5));
  EXPECT_EQ(seen, std::nullopt) << "it may come back, with what it wrote";
  p.world.run_for(seconds(10));
  EXPECT_EQ(seen, Code::kOk);
  EXPECT_EQ(p.partition->sessions().find(gone.session), nullptr);
  EXPECT_NE(p.partition->sessions().find(reader.session), nullptr) << "who is here is not sent away meanwhile";
}

TEST(SessionOps, OnlyTheFirstGrantIsJournaled) {
  OnePartition p(2);
  User maker = p.user();
  FileId file = p.create(maker, "f");
  FileId other = p.create(maker, "g");
  p.must(p.ask(SessionClose{maker.session}));
  User user = p.user();
  const uint64_t appends = p.targets.appends;
  p.must(p.ask(GetAttributes{user.session, file, GrantKind::kNone}));
  EXPECT_EQ(p.targets.appends, appends);
  p.must(p.ask(GetAttributes{user.session, file, GrantKind::kRead}));
  EXPECT_EQ(p.targets.appends, appends + 1);
  p.must(p.ask(GetAttributes{user.session, other, GrantKind::kRead}));
  p.grant(user, other);
  EXPECT_EQ(p.targets.appends, appends + 1);
  p.must(p.ask(SessionClose{user.session}));
  p.fail_over();
  EXPECT_EQ(p.partition->sessions().find(user.session), nullptr);
  p.check_rows();
}

}  // namespace
}  // namespace headrace
