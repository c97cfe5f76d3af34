#include "object/faulty_store.h"

#include "object/memory_store.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"
#include "object/retrying_store.h"

namespace headrace::test {

class FaultyStoreTest : public ::testing::Test {
 protected:
  FaultyStore faulty(FaultRates rates) {
    return FaultyStore(std::make_unique<MemoryStore>(bucket_), world_.clock, world_.random, rates, counts_);
  }
  World world_{true, 1};
  std::shared_ptr<MemoryBucket> bucket_ = std::make_shared<MemoryBucket>();
  std::shared_ptr<FaultCounts> counts_ = std::make_shared<FaultCounts>();
};

TEST_F(FaultyStoreTest, TimesOutBeforeOrAfterTheEffect) {
  FaultyStore before = faulty({.timeout_before = 1'000'000});
  EXPECT_EQ(world_.run(before.put("k", text("v"))).code(), Code::kTimeout);
  EXPECT_EQ(bucket_->size(), 0U);
  FaultyStore after = faulty({.timeout_after = 1'000'000});
  EXPECT_EQ(world_.run(after.put("k", text("v"))).code(), Code::kTimeout);
  EXPECT_EQ(bucket_->size(), 1U);
  EXPECT_EQ((*counts_)["bucket_timeout_before"], 1U);
  EXPECT_EQ((*counts_)["bucket_timeout_after"], 1U);
}

TEST_F(FaultyStoreTest, ChangesBodiesWithoutTouchingTheBucket) {
  ASSERT_OK(bucket_->put("k", text("0123456789"), {}));
  FaultyStore flips = faulty({.corrupt = 1'000'000});
  EXPECT_NE(world_.run(flips.get("k"))->text(), "0123456789");
  EXPECT_NE(world_.run(flips.get_range("k", 0, 10))->text(), "0123456789");
  FaultyStore cuts = faulty({.truncated = 1'000'000});
  EXPECT_LT(world_.run(cuts.get("k"))->size(), 10U);
  EXPECT_EQ(world_.run(cuts.get_range("k", 0, 10)).code(), Code::kDisconnected);
  EXPECT_EQ(bucket_->get("k")->body.text(), "0123456789");
}

TEST_F(FaultyStoreTest, ShowsTheVersionBefore) {
  FaultyStore store = faulty({.stale = 1'000'000});
  ASSERT_OK(world_.run(store.put("head", text("one"))));
  ASSERT_OK(world_.run(store.put("head", text("two"))));
  EXPECT_EQ(world_.run(store.get("head"))->text(), "one");
  EXPECT_EQ((*counts_)["bucket_stale"], 1U);
}

TEST_F(FaultyStoreTest, AcknowledgesWhatItDoesNotStore) {
  FaultyStore store = faulty({.stored_other = 500'000, .swapped_other = 500'000});
  const std::string body(100, 'b');
  auto look = [&](const std::string& key, const std::string& former) -> std::string {
    Result<MemoryBucket::Object> there = bucket_->get(key);
    if (!there.ok() || there->body.text() == former) return "nothing";
    if (there->body.text() == body) return "given";
    return there->body.size() < body.size() ? "cut" : "flipped";
  };
  std::map<std::string, int> puts, uploads, swaps;
  for (int i = 0; i < 100; ++i) {
    const std::string key = std::to_string(i);
    Result<ObjectInfo> put = world_.run(store.put(key, text(body), PutCondition::if_absent()));
    ASSERT_OK(put);
    EXPECT_FALSE(put->verified);
    ++puts[look(key, "")];
    std::unique_ptr<Upload> upload = *world_.run(store.begin_upload("u" + key));
    for (int part = 0; part < 4; ++part) ASSERT_OK(world_.run(upload->part(text(body.substr(0, 25)))));
    ASSERT_OK(world_.run(upload->finish(PutCondition::if_absent())));
    ++uploads[look("u" + key, "")];
    ASSERT_OK(bucket_->put("s" + key, text("before"), {}));
    const std::string etag = bucket_->get("s" + key)->etag;
    Result<ObjectInfo> swap = world_.run(store.put("s" + key, text(body), PutCondition::if_match(etag)));
    ASSERT_OK(swap);
    EXPECT_FALSE(swap->verified);
    ++swaps[look("s" + key, "before")];
    // Nobody wins what another has won.
    EXPECT_EQ(world_.run(store.put("s" + key, text(body), PutCondition::if_match("other"))).code(), Code::kConflict);
    EXPECT_EQ(world_.run(store.put("s" + key, text(body), PutCondition::if_absent())).code(), Code::kConflict);
  }
  for (const char* as : {"given", "nothing", "cut", "flipped"})
    for (auto* seen : {&puts, &uploads, &swaps}) EXPECT_GT((*seen)[as], 5) << as;
  EXPECT_GT((*counts_)["bucket_stored_other"], 50U);
  EXPECT_GT((*counts_)["bucket_swapped_other"], 25U);
}

TEST_F(FaultyStoreTest, GoesDownAndComesBack) {
  FaultyStore store = faulty({});
  store.down(true);
  EXPECT_EQ(world_.run(store.put("k", text("v"))).code(), Code::kUnavailable);
  store.down(false);
  ASSERT_OK(world_.run(store.put("k", text("v"))));
}

TEST_F(FaultyStoreTest, IsWornDownByRetries) {
  auto inner = std::make_unique<FaultyStore>(
      std::make_unique<MemoryStore>(bucket_), world_.clock, world_.random,
      FaultRates{.unavailable = 200'000, .timeout_before = 100'000, .timeout_after = 100'000, .slow = 100'000},
      counts_);
  RetryingStore store(std::move(inner), world_.clock, world_.random, {.attempts = 20, .total = seconds(600)});
  for (int i = 0; i < 300; ++i) {
    const std::string key = "k" + std::to_string(i);
    ASSERT_OK(world_.run(store.put(key, text(key))));
    ASSERT_EQ(world_.run(store.get(key))->text(), key);
  }
  for (const char* name : {"bucket_unavailable", "bucket_timeout_before", "bucket_timeout_after", "bucket_slow"})
    EXPECT_GT((*counts_)[name], 0U) << name;
}

}  // namespace headrace::test
