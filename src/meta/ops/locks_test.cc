#include "meta/ops/locks.h"

#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

Lock lock(User& user, FileId file, LockKind kind, uint64_t begin = 0, uint64_t end = kLockEnd) {
  return Lock{user.next(), file, {.owner = 1, .pid = 7, .whole = false, .kind = kind, .begin = begin, .end = end}, 0};
}

TEST(LockOps, OutliveALeaderButNotTheirSession) {
  OnePartition p(1);
  User a = p.user();
  User b = p.user();
  FileId file = p.create(a, "f");
  Lock first = lock(a, file, LockKind::kExclusive, 10, 20);
  EXPECT_TRUE(p.must(p.ask(first)).granted);
  EXPECT_TRUE(p.must(p.ask(first)).granted) << "the same ticket again";
  EXPECT_FALSE(p.must(p.ask(lock(b, file, LockKind::kShared, 0, 11))).granted);
  EXPECT_TRUE(p.must(p.ask(lock(b, file, LockKind::kShared, 0, 10))).granted);
  p.fail_over();
  p.claim(a);
  p.claim(b);
  EXPECT_FALSE(p.must(p.ask(lock(b, file, LockKind::kExclusive, 15, 16))).granted);
  FindLock find{b.session, file, lock(b, file, LockKind::kExclusive).lock};
  EXPECT_EQ(p.must(p.ask(find)).lock, first.lock);
  p.must(p.ask(SessionClose{a.session}));
  EXPECT_TRUE(p.must(p.ask(lock(b, file, LockKind::kExclusive))).granted);
  EXPECT_EQ(p.must(p.ask(find)).lock, std::nullopt);
}

TEST(LockOps, WhoWaitsIsWokenByTheUnlock) {
  OnePartition p(2);
  User a = p.user();
  User b = p.user();
  FileId file = p.create(a, "f");
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kExclusive))).granted);
  Lock wanted = lock(b, file, LockKind::kExclusive);
  wanted.wait_ms = 3000;
  Nanos before = p.env.clock.now();
  EXPECT_FALSE(p.must(p.ask(wanted)).granted) << "in vain";
  EXPECT_GE(p.env.clock.now() - before, milliseconds(3000));
  std::optional<bool> granted;
  struct Waiting {
    static Task<void> run(OnePartition& p, Lock wanted, std::optional<bool>& granted) {
      Result<LockReply> reply = co_await handle(*p.partition, std::move(wanted), CallInfo());
      granted = reply.ok() && reply->granted;
    }
  };
  wanted.ticket = b.next();
  p.partition->scope().spawn(Waiting::run(p, wanted, granted));
  p.world.run_for(milliseconds(500));
  EXPECT_FALSE(granted);
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kUnlock))).granted);
  p.world.run_for(milliseconds(500));
  EXPECT_EQ(granted, true);
}

TEST(LockOps, BadInputIsRefused) {
  OnePartition p(3);
  User a = p.user();
  FileId file = p.create(a, "f");
  EXPECT_EQ(p.ask(lock(a, file, LockKind::kShared, 5, 5)).code(), Code::kInvalid);
  EXPECT_EQ(p.ask(lock(a, file, LockKind::kShared, 5, kLockEnd + 1)).code(), Code::kInvalid);
  EXPECT_EQ(p.ask(lock(a, FileId(Slot(1), 12345), LockKind::kShared)).code(), Code::kNotFound);
}

TEST(NameOps, AFileWithoutANameGetsOneOnce) {
  OnePartition p(4);
  User a = p.user();
  Make make;
  make.ticket = a.next();
  make.parent = kRootFile;
  make.unnamed = true;
  make.keep_open = true;
  FileId file = p.must(p.ask(make)).attributes.id;
  EXPECT_EQ(p.must(p.ask(make)).attributes.id, file) << "the same ticket again";
  p.settle();
  EXPECT_EQ(p.stat(a, file).links, 0u);
  EXPECT_EQ(p.ask(Link{a.next(), file, kRootFile, "f", false}).code(), Code::kNotFound);
  EXPECT_EQ(p.must(p.ask(Link{a.next(), file, kRootFile, "f", true})).attributes.links, 1u);
  p.must(p.ask(Forget{a.next(), {file}}));
  p.settle();
  EXPECT_EQ(p.stat(a, file).links, 1u);
  make.ticket = a.next();
  FileId gone = p.must(p.ask(make)).attributes.id;
  p.must(p.ask(Forget{a.next(), {gone}}));
  p.settle();
  EXPECT_EQ(p.ask(GetAttributes{a.session, gone, GrantKind::kNone}).code(), Code::kNotFound);
  EXPECT_EQ(p.ask(Link{a.next(), gone, kRootFile, "g", true}).code(), Code::kNotFound);
  p.check_rows();
}

TEST(NameOps, ExchangeSwapsNamesParentsAndCounts) {
  OnePartition p(5);
  User a = p.user();
  auto make = [&](FileId parent, const std::string& name, FileType type) {
    Make request;
    request.ticket = a.next();
    request.parent = parent;
    request.name = name;
    request.type = type;
    return p.must(p.ask(request)).attributes.id;
  };
  FileId x = make(kRootFile, "x", FileType::kDirectory);
  FileId y = make(kRootFile, "y", FileType::kDirectory);
  FileId below = make(x, "below", FileType::kDirectory);
  FileId file = make(y, "file", FileType::kFile);
  auto exchange = [&](FileId from, const std::string& from_name, FileId to, const std::string& to_name) {
    return p.ask(Rename{a.next(), from, from_name, to, to_name, false, true}).code();
  };
  EXPECT_EQ(exchange(x, "below", y, "file"), Code::kOk);
  EXPECT_EQ(p.must(p.ask(Lookup{a.session, x, "below"})).attributes.id, file);
  EXPECT_EQ(p.must(p.ask(Lookup{a.session, y, "file"})).attributes.id, below);
  EXPECT_EQ(p.stat(a, x).links, 2u);
  EXPECT_EQ(p.stat(a, y).links, 3u);
  EXPECT_EQ(p.stat(a, below).parent, y);
  EXPECT_EQ(p.stat(a, file).links, 1u);
  EXPECT_EQ(exchange(kRootFile, "y", y, "file"), Code::kInvalid) << "below itself";
  EXPECT_EQ(exchange(y, "file", kRootFile, "y"), Code::kInvalid);
  EXPECT_EQ(exchange(x, "below", y, "absent"), Code::kNotFound);
  EXPECT_EQ(exchange(kRootFile, "x", kRootFile, "y"), Code::kOk);
  EXPECT_EQ(p.must(p.ask(Lookup{a.session, kRootFile, "x"})).attributes.id, y);
  EXPECT_EQ(p.ask(Rename{a.next(), x, "below", y, "file", true, true}).code(), Code::kInvalid);
  p.check_rows();
}

}  // namespace
}  // namespace headrace
