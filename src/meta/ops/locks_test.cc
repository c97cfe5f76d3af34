#include "meta/ops/locks.h"

#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

Lock lock(User& user, FileId file, LockKind kind, uint64_t begin = 0, uint64_t end = kLockEnd) {
  return Lock{user.next(), file, {.owner = 1, .pid = 7, .whole = false, .kind = kind, .begin = begin, .end = end}, 0};
}

// A request whose answer is not waited for here.
class Asked {
 public:
  Asked(OnePartition& p, Lock wanted) { p.partition->scope().spawn(run(*p.partition, std::move(wanted), answer_)); }
  [[nodiscard]] std::string answer() const { return *answer_; }

 private:
  static Task<void> run(Partition& partition, Lock wanted, std::shared_ptr<std::string> answer) {
    Result<LockReply> reply = co_await handle(partition, std::move(wanted), CallInfo());
    *answer = !reply.ok() ? code_name(reply.code()) : reply->granted ? "granted" : "not granted";
  }
  std::shared_ptr<std::string> answer_ = std::make_shared<std::string>("waits");
};

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

// Seed 273 of the simulator: a copy of the request that the network was slow with took what its program was refused.
TEST(LockOps, ALateCopyOfWhatWasRefusedIsRefused) {
  OnePartition p(20);
  User a = p.user();
  User b = p.user();
  FileId file = p.create(a, "f");
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kExclusive))).granted);
  Lock wanted = lock(b, file, LockKind::kExclusive);
  EXPECT_FALSE(p.must(p.ask(wanted)).granted);
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kUnlock))).granted);
  EXPECT_FALSE(p.must(p.ask(wanted)).granted);
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kExclusive))).granted);
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
  wanted.ticket = b.next();
  Asked asked(p, wanted);
  p.world.run_for(milliseconds(500));
  EXPECT_EQ(asked.answer(), "waits");
  EXPECT_TRUE(p.must(p.ask(lock(a, file, LockKind::kUnlock))).granted);
  p.world.run_for(milliseconds(500));
  EXPECT_EQ(asked.answer(), "granted");
}

// One owner's locks on whole files, which it waits for.
struct Seeker {
  OnePartition& p;
  User& user;
  uint64_t owner;
  bool whole = false;

  [[nodiscard]] Lock of(FileId file, LockKind kind) const {
    Lock out = lock(user, file, kind);
    out.ticket.lowest_unanswered = 1;  // others of the user wait
    out.lock.owner = owner;
    out.lock.pid = static_cast<uint32_t>(owner);
    out.lock.whole = whole;
    return out;
  }
  void takes(FileId file) const { EXPECT_TRUE(p.must(p.ask(of(file, LockKind::kExclusive))).granted); }
  void unlocks(FileId file) const { EXPECT_TRUE(p.must(p.ask(of(file, LockKind::kUnlock))).granted); }
  [[nodiscard]] std::unique_ptr<Asked> seeks(FileId file, uint32_t wait_ms = 4000) const {
    Lock wanted = of(file, LockKind::kExclusive);
    wanted.wait_ms = wait_ms;
    auto asked = std::make_unique<Asked>(p, wanted);
    p.world.run_for(milliseconds(100));
    return asked;
  }
};

// flock(2): to change the kind of a lock is to give it up and to take another.
TEST(LockOps, OfTwoThatWantTheirFlockExclusiveOneGetsIt) {
  OnePartition p(8);
  User one = p.user();
  User two = p.user();
  FileId file = p.create(one, "f");
  const Seeker a{p, one, 1, true};
  const Seeker b{p, two, 1, true};
  for (const Seeker* each : {&a, &b}) EXPECT_TRUE(p.must(p.ask(each->of(file, LockKind::kShared))).granted);
  auto first = a.seeks(file);
  EXPECT_EQ(first->answer(), "not granted") << "at once, and without the shared one";
  first = a.seeks(file);
  EXPECT_EQ(first->answer(), "waits");
  EXPECT_TRUE(p.must(p.ask(b.of(file, LockKind::kExclusive))).granted);
  b.unlocks(file);
  p.world.run_for(milliseconds(100));
  EXPECT_EQ(first->answer(), "granted");
  // A refusal without waiting costs the shared lock as well, and asked again it answers the same.
  a.unlocks(file);
  for (const Seeker* each : {&a, &b}) EXPECT_TRUE(p.must(p.ask(each->of(file, LockKind::kShared))).granted);
  const Lock wanted = a.of(file, LockKind::kExclusive);
  EXPECT_FALSE(p.must(p.ask(wanted)).granted);
  EXPECT_FALSE(p.must(p.ask(wanted)).granted);
  b.takes(file);
  EXPECT_FALSE(p.must(p.ask(a.of(file, LockKind::kShared))).granted);
}

TEST(LockOps, WhoeverWouldWaitForItselfIsToldSo) {
  OnePartition p(6);
  User one = p.user();
  User two = p.user();
  const Seeker a{p, one, 1};
  const Seeker b{p, one, 2};
  const Seeker c{p, two, 1};  // the same number elsewhere is another
  FileId x = p.create(one, "x");
  FileId y = p.create(one, "y");
  FileId z = p.create(one, "z");
  a.takes(x);
  b.takes(y);
  c.takes(z);
  const auto a_for_y = a.seeks(y);
  const auto b_for_z = b.seeks(z);
  EXPECT_EQ(c.seeks(x)->answer(), "deadlock") << "a cycle of three";
  EXPECT_EQ(b.seeks(x)->answer(), "deadlock") << "and of two, of one session";
  EXPECT_EQ(a_for_y->answer(), "waits");
  EXPECT_EQ(b_for_z->answer(), "waits");
  EXPECT_EQ(p.ask(c.of(x, LockKind::kExclusive)).code(), Code::kOk) << "who does not wait is not told";
  c.unlocks(z);
  p.world.run_for(milliseconds(100));
  EXPECT_EQ(b_for_z->answer(), "granted");
  b.unlocks(y);
  p.world.run_for(milliseconds(100));
  EXPECT_EQ(a_for_y->answer(), "granted");
}

TEST(LockOps, ALateCopyOfWhoWasToldOfADeadlockIsToldSoToo) {
  OnePartition p(21);
  User one = p.user();
  const Seeker a{p, one, 1};
  const Seeker b{p, one, 2};
  FileId x = p.create(one, "x");
  FileId y = p.create(one, "y");
  a.takes(x);
  b.takes(y);
  const auto a_for_y = a.seeks(y);
  Lock wanted = b.of(x, LockKind::kExclusive);
  wanted.wait_ms = 4000;
  EXPECT_EQ(p.ask(wanted).code(), Code::kDeadlock);
  a.unlocks(x);
  EXPECT_EQ(p.ask(wanted).code(), Code::kDeadlock) << "it would hold what its program was refused";
  EXPECT_EQ(a_for_y->answer(), "waits");
}

TEST(LockOps, TwoThatShareALockCannotBothWaitToHaveItAlone) {
  OnePartition p(7);
  User one = p.user();
  const Seeker a{p, one, 1};
  const Seeker b{p, one, 2};
  FileId x = p.create(one, "x");
  EXPECT_TRUE(p.must(p.ask(a.of(x, LockKind::kShared))).granted);
  EXPECT_TRUE(p.must(p.ask(b.of(x, LockKind::kShared))).granted);
  const auto first = a.seeks(x);
  EXPECT_EQ(b.seeks(x)->answer(), "deadlock");
  b.unlocks(x);
  p.world.run_for(milliseconds(100));
  EXPECT_EQ(first->answer(), "granted");
}

TEST(LockOps, NoDeadlockIsMadeOfWhoLeftOrWhatEnded) {
  OnePartition p(8);
  User one = p.user();
  User two = p.user();
  const Seeker a{p, one, 1};
  const Seeker b{p, two, 2};
  FileId x = p.create(one, "x");
  FileId y = p.create(one, "y");
  a.takes(x);
  b.takes(y);
  const auto in_vain = a.seeks(y, 200);
  p.world.run_for(milliseconds(300));
  EXPECT_EQ(in_vain->answer(), "not granted");
  const auto b_for_x = b.seeks(x, 1000);
  EXPECT_EQ(b_for_x->answer(), "waits") << "a has left";
  a.unlocks(x);
  p.world.run_for(milliseconds(100));
  EXPECT_EQ(b_for_x->answer(), "granted");
  b.unlocks(x);
  a.takes(x);
  const auto a_for_y = a.seeks(y, 1000);
  b.unlocks(y);
  const auto b_for_x_again = b.seeks(x, 1000);
  EXPECT_EQ(b_for_x_again->answer(), "waits") << "a was let in";
  EXPECT_EQ(a_for_y->answer(), "granted");
  p.world.run_for(milliseconds(1000));
  EXPECT_EQ(b_for_x_again->answer(), "not granted");
  // A session that ended neither has locks nor waits.
  a.unlocks(y);
  b.takes(y);
  const auto again = a.seeks(y);
  p.must(p.ask(SessionClose{one.session}));
  EXPECT_EQ(b.seeks(x)->answer(), "granted");
  EXPECT_EQ(again->answer(), "stale");
  EXPECT_EQ(p.partition->lock_waits().size(), 0u);
}

TEST(LockOps, FlockIsNoPartOfADeadlock) {
  OnePartition p(9);
  User one = p.user();
  const Seeker a{p, one, 1, true};
  const Seeker b{p, one, 2, true};
  const Seeker b_fcntl{p, one, 2};
  FileId x = p.create(one, "x");
  FileId y = p.create(one, "y");
  a.takes(x);
  b.takes(y);
  b_fcntl.takes(y);
  const auto first = a.seeks(y);
  const auto second = b.seeks(x);
  EXPECT_EQ(first->answer(), "waits");
  EXPECT_EQ(second->answer(), "waits");
  EXPECT_EQ(b_fcntl.seeks(x)->answer(), "granted");
  EXPECT_EQ(p.partition->lock_waits().size(), 0u);
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
