#include "tier/head.h"

#include <gtest/gtest.h>

#include "coord/sim/shared_coordinator.h"
#include "object/faulty_store.h"
#include "object/memory_store.h"
#include "runtime/sim/world.h"
#include "tier/fake_partitions_test_support.h"
#include "tier/rehydrate.h"

namespace headrace {
namespace {

HeadRecord record_of(uint64_t owner, uint16_t epoch = 1) {
  HeadRecord record;
  record.name_space = NamespaceId(7);
  record.cluster = ClusterId(owner);
  record.epoch = NamespaceEpoch(epoch);
  record.owner = owner;
  record.description = "host" + std::to_string(owner);
  return record;
}

// A put that takes effect, or not, and whose answer is lost.
struct LosesAnswers final : public ObjectStore {
  explicit LosesAnswers(std::shared_ptr<MemoryBucket> bucket) : inner(std::move(bucket)) {}
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition) override {
    ++puts;
    if (lose_before > 0) {
      --lose_before;
      co_return Error(Code::kTimeout, "lost before");
    }
    Result<ObjectInfo> info = co_await inner.put(key, body, condition);
    if (lose_after > 0) {
      --lose_after;
      co_return Error(Code::kTimeout, "lost after");
    }
    co_return info;
  }
  Task<Result<Got>> get_with_etag(std::string key) override {
    if (mute) co_return Error(Code::kUnavailable, "mute");
    co_return co_await inner.get_with_etag(std::move(key));
  }
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size, std::string etag) override {
    return inner.get_range(std::move(key), offset, size, std::move(etag));
  }
  Task<Result<ObjectInfo>> head(std::string key) override { return inner.head(std::move(key)); }
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override {
    return inner.remove_batch(std::move(keys));
  }
  Task<Result<Listing>> list(std::string p, std::string c, size_t l) override {
    return inner.list(std::move(p), std::move(c), l);
  }
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override {
    return inner.begin_upload(std::move(key));
  }
  [[nodiscard]] std::string url() const override { return inner.url(); }

  MemoryStore inner;
  int lose_before = 0;
  int lose_after = 0;
  bool mute = false;  // reads
  int puts = 0;
};

struct HeadTest : public testing::Test {
  World world{1};
  Machine& machine = world.add_machine("m");
  Env& env = machine.env();
  std::shared_ptr<MemoryBucket> bucket = std::make_shared<MemoryBucket>();
  LosesAnswers store{bucket};
  BucketHead head{env, store};
  SharedCoordinator shared{env.clock, env.random};
  SharedCoordinatorHandle coordinator{shared, "m"};
  ResumeOptions ours{NamespaceId(7), ClusterId(1), NamespaceEpoch(1), "host"};
  Result<HeadVersion> resume() { return world.run(resume_ownership(env, coordinator, store, ours)); }
};

TEST_F(HeadTest, IsCreatedOnceAndReadBack) {
  EXPECT_EQ(world.run(head.read()).code(), Code::kNotFound);
  auto made = world.run(head.create(record_of(1)));
  ASSERT_TRUE(made.ok()) << made.error().text();
  auto other = world.run(head.create(record_of(2)));
  EXPECT_EQ(other.code(), Code::kExists);
  EXPECT_NE(other.error().message().find("host1"), std::string::npos) << other.error().text();
  auto there = world.run(head.read());
  ASSERT_TRUE(there.ok());
  EXPECT_EQ(there->record.owner, 1u);
  EXPECT_EQ(there->etag, made->etag);
}

TEST_F(HeadTest, LostAnswersOfCreateAndSwapAreSettledByTheNonce) {
  store.lose_after = 1;
  auto made = world.run(head.create(record_of(1)));
  ASSERT_TRUE(made.ok()) << made.error().text();
  store.lose_after = 1;
  auto swapped = world.run(head.swap(*made, record_of(1, 2)));
  ASSERT_TRUE(swapped.ok()) << swapped.error().text();
  store.lose_before = 2;
  auto again = world.run(head.swap(*swapped, record_of(1, 3)));
  ASSERT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(world.run(head.read())->record.epoch, NamespaceEpoch(3));
}

TEST_F(HeadTest, TheLoserOfASwapLearnsWhoWon) {
  auto made = world.run(head.create(record_of(1)));
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(world.run(head.swap(*made, record_of(2, 2))).ok());
  auto lost = world.run(head.swap(*made, record_of(3, 2)));
  EXPECT_EQ(lost.code(), Code::kDeposed);
  EXPECT_NE(lost.error().message().find("host2"), std::string::npos);
  EXPECT_EQ(world.run(head.read())->record.owner, 2u);
}

TEST_F(HeadTest, OwnerSeesAnotherOwnerWithinTwentySecondsAndStopsSwapping) {
  auto made = world.run(head.create(record_of(1)));
  std::string winner;
  Ownership ownership(env, store, coordinator, *made, [&](std::string who) { winner = std::move(who); });
  ownership.start();
  world.run_for(seconds(60));
  EXPECT_TRUE(ownership.held());
  EXPECT_TRUE(world.run(ownership.update([](HeadRecord& h) { h.manifest = "m1"; })).ok());
  ASSERT_TRUE(world.run(head.swap(*world.run(head.read()), record_of(2, 2))).ok());
  world.run_for(seconds(20));
  EXPECT_FALSE(ownership.held());
  EXPECT_NE(winner.find("host2"), std::string::npos) << winner;
  int puts = store.puts;
  EXPECT_EQ(world.run(ownership.update([](HeadRecord&) {})).code(), Code::kDeposed);
  EXPECT_EQ(store.puts, puts);
}

// A process that ended knew less than its coordinator: which heads may be its own.
TEST_F(HeadTest, AWriteWhoseAnswerNobodySawIsKnownToTheNextProcess) {
  auto held = resume();
  ASSERT_TRUE(held.ok()) << held.error().text();
  {
    Ownership ownership(env, store, coordinator, *held, {});
    store.lose_after = 1'000;
    store.mute = true;
    EXPECT_FALSE(world.run(ownership.update([](HeadRecord& h) { h.manifest = "m1"; })).ok());
  }
  store.lose_after = 0;
  store.mute = false;
  held = resume();
  ASSERT_TRUE(held.ok()) << held.error().text();
  EXPECT_EQ(held->record.manifest, "m1");
}

TEST_F(HeadTest, HeadStaysOursHoweverManyWritesOfItFailed) {
  auto held = resume();
  ASSERT_TRUE(held.ok()) << held.error().text();
  {
    Ownership ownership(env, store, coordinator, *held, {});
    for (int i = 0; i < 100; ++i) {
      store.lose_before = 10;
      ASSERT_FALSE(world.run(ownership.update([](HeadRecord& h) { h.manifest = "m1"; })).ok());
    }
  }
  store.lose_before = 0;
  auto again = resume();
  ASSERT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(again->record.nonce, held->record.nonce);
}

TEST_F(HeadTest, NothingIsWrittenThatTheCoordinatorDoesNotKnowOf) {
  auto held = resume();
  ASSERT_TRUE(held.ok()) << held.error().text();
  Ownership ownership(env, store, coordinator, *held, {});
  const int puts = store.puts;
  shared.make_unavailable("m", seconds(60));
  EXPECT_EQ(world.run(ownership.update([](HeadRecord&) {})).code(), Code::kUnavailable);
  EXPECT_EQ(store.puts, puts);
  shared.heal();
  EXPECT_TRUE(world.run(ownership.update([](HeadRecord&) {})).ok());
  EXPECT_TRUE(ownership.held());
}

TEST_F(HeadTest, AnOldAnswerIsNoReasonToGiveHeadUp) {
  auto held = resume();
  ASSERT_TRUE(held.ok()) << held.error().text();
  Buffer old = bucket->get(kHeadKey)->body;
  Ownership ownership(env, store, coordinator, *held, {});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(world.run(ownership.update([](HeadRecord&) {})).ok());
  ASSERT_TRUE(bucket->put(kHeadKey, old, {}).ok());
  EXPECT_TRUE(world.run(ownership.check()).ok());
  EXPECT_TRUE(ownership.held());
}

TEST_F(HeadTest, BadInputASwapThatIsAcknowledgedAndNotStoredIsDoneAgain) {
  FaultyStore faulty(std::make_unique<MemoryStore>(bucket), env.clock, env.random, {.swapped_other = 600'000});
  BucketHead through(env, faulty);
  auto held = world.run(through.create(record_of(1)));
  ASSERT_TRUE(held.ok()) << held.error().text();
  for (uint16_t epoch = 2; epoch < 60; ++epoch) {
    held = world.run(through.swap(*held, record_of(1, epoch)));
    ASSERT_TRUE(held.ok()) << held.error().text();
    auto there = world.run(head.read());
    ASSERT_TRUE(there.ok()) << there.error().text();
    EXPECT_EQ(there->record.epoch, NamespaceEpoch(epoch));
    EXPECT_EQ(there->etag, held->etag);
  }
  // What another put there meanwhile is not overwritten by doing it again.
  ASSERT_TRUE(world.run(head.swap(*held, record_of(2, 100))).ok());
  for (int i = 0; i < 20; ++i) EXPECT_EQ(world.run(through.swap(*held, record_of(1, 101))).code(), Code::kDeposed);
  EXPECT_EQ(world.run(head.read())->record.owner, 2u);
}

TEST_F(HeadTest, BadInputDamagedHeadIsAnErrorAndNeverOverwritten) {
  auto made = world.run(head.create(record_of(1)));
  ASSERT_TRUE(made.ok());
  std::string bytes(bucket->get(kHeadKey)->body.text());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 4);
    EXPECT_FALSE(decode_bucket_head(bytes_of(flipped)).ok()) << i;
    EXPECT_FALSE(decode_bucket_head(bytes_of(bytes).first(i)).ok()) << i;
  }
  bytes[20] = static_cast<char>(bytes[20] ^ 1);
  ASSERT_TRUE(bucket->put(kHeadKey, Buffer::copy_of(bytes_of(bytes)), {}).ok());
  EXPECT_EQ(world.run(head.read()).code(), Code::kCorrupt);
  EXPECT_FALSE(world.run(head.create(record_of(2))).ok());
  EXPECT_EQ(bucket->get(kHeadKey)->body.text(), bytes);
}

TEST(Head, ManyContendersUnderFaultsMakeOneWinnerPerRound) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    World world(seed);
    auto bucket = std::make_shared<MemoryBucket>();
    Machine& referee = world.add_machine("referee");
    MemoryStore clean(bucket);
    BucketHead referees(referee.env(), clean);
    ASSERT_TRUE(world.run(referees.create(record_of(9))).ok());
    struct Contender {
      Contender(World& world, const std::shared_ptr<MemoryBucket>& bucket, uint64_t n)
          : env(world.add_machine("c" + std::to_string(n)).env()),
            store(std::make_unique<MemoryStore>(bucket, &env.clock, milliseconds(5)), env.clock, env.random, rates()),
            head(env, store),
            number(n) {}
      static FaultRates rates() {
        FaultRates r;
        r.unavailable = r.timeout_before = r.timeout_after = r.corrupt = 150'000;
        return r;
      }
      Task<void> contend(HeadVersion expected, uint16_t epoch) {
        Result<HeadVersion> swapped = co_await head.swap(std::move(expected), record_of(number, epoch));
        won = swapped.ok();
        lost = swapped.code() == Code::kDeposed;
        done = true;
      }
      Env& env;
      FaultyStore store;
      BucketHead head;
      uint64_t number;
      bool won = false, lost = false, done = false;
    };
    std::vector<std::unique_ptr<Contender>> contenders;
    for (uint64_t n = 1; n <= 3; ++n) contenders.push_back(std::make_unique<Contender>(world, bucket, n));
    for (uint16_t round = 2; round < 6; ++round) {
      auto now = world.run(referees.read());
      ASSERT_TRUE(now.ok());
      for (auto& c : contenders) {
        c->won = c->lost = c->done = false;
        world.spawn(c->contend(*now, round));
      }
      ASSERT_TRUE(world.run_until([&] { return contenders[0]->done && contenders[1]->done && contenders[2]->done; }));
      auto after = world.run(referees.read());
      ASSERT_TRUE(after.ok());
      for (auto& c : contenders) {
        if (c->won) EXPECT_EQ(after->record.owner, c->number) << "seed " << seed;
        if (c->lost) EXPECT_NE(after->record.owner, c->number) << "seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace headrace
