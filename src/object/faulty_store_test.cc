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
