#include "object/probe.h"

#include "object/faulty_store.h"
#include "object/memory_store.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"

namespace headrace::test {

// A service that takes writes and does not look at some of their conditions.
class CarelessStore final : public ObjectStore {
 public:
  enum Fault { kIgnoresAll, kIgnoresMatch, kRefusesAll, kRacy };
  CarelessStore(std::shared_ptr<MemoryBucket> bucket, Clock& clock, Fault fault)
      : bucket_(bucket), clock_(clock), fault_(fault), inner_(bucket) {}
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition) override {
    if (fault_ == kRefusesAll) co_return Error(Code::kNotSupported, "501");
    if (fault_ == kIgnoresAll) condition = {};
    if (fault_ == kIgnoresMatch && condition.kind == PutCondition::kIfMatch) condition = {};
    if (fault_ == kRacy) {  // looks first, writes later
      Result<MemoryBucket::Object> now = bucket_->get(key);
      const bool allowed = condition.kind == PutCondition::kNone ||
                           (condition.kind == PutCondition::kIfAbsent && !now.ok()) ||
                           (condition.kind == PutCondition::kIfMatch && now.ok() && now->etag == condition.etag);
      co_await clock_.sleep(milliseconds(1));
      if (!allowed) co_return Error(Code::kConflict, "412");
      condition = {};
    }
    Result<ObjectInfo> done = bucket_->put(key, body, condition);
    co_return done;
  }
  Task<Result<Got>> get_with_etag(std::string key) override { return inner_.get_with_etag(key); }
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size, std::string etag) override {
    return inner_.get_range(key, offset, size, etag);
  }
  Task<Result<ObjectInfo>> head(std::string key) override { return inner_.head(key); }
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override {
    return inner_.remove_batch(keys);
  }
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override {
    return inner_.list(prefix, continuation, limit);
  }
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override { return inner_.begin_upload(key); }
  [[nodiscard]] std::string url() const override { return "memory:careless"; }

 private:
  std::shared_ptr<MemoryBucket> bucket_;
  Clock& clock_;
  Fault fault_;
  MemoryStore inner_;
};

TEST(Probe, RefusesAServiceWithoutConditionalWritesBadInput) {
  World world(true, 1);
  for (CarelessStore::Fault fault :
       {CarelessStore::kIgnoresAll, CarelessStore::kIgnoresMatch, CarelessStore::kRefusesAll, CarelessStore::kRacy}) {
    auto bucket = std::make_shared<MemoryBucket>();
    CarelessStore store(bucket, world.clock, fault);
    auto verdict = world.run(probe_conditional_writes(store, world.random));
    EXPECT_EQ(verdict.code(), Code::kNotSupported) << fault;
    EXPECT_NE(verdict.error().message().find("use one that has them"), std::string::npos) << verdict.error().text();
    EXPECT_EQ(bucket->size(), 0U);
  }
}

TEST(Probe, BelievesNothingOfAServiceThatLosesItsReplies) {
  World world(true, 1);
  auto bucket = std::make_shared<MemoryBucket>();
  FaultyStore store(std::make_unique<MemoryStore>(bucket), world.clock, world.random, {.timeout_after = 900'000});
  EXPECT_FALSE(world.run(probe_conditional_writes(store, world.random)).ok());
}

TEST(Probe, StandsAFewLostReplies) {
  World world(true, 1);
  auto bucket = std::make_shared<MemoryBucket>();
  FaultyStore store(std::make_unique<MemoryStore>(bucket, &world.clock, milliseconds(1)), world.clock, world.random,
                    {.timeout_after = 30'000});
  auto verdict = world.run(probe_conditional_writes(store, world.random));
  // The removal at the end may meet the fault as well: then it says so, and never that writes are
  // unconditional.
  EXPECT_NE(verdict.code(), Code::kNotSupported);
}

}  // namespace headrace::test
