#include "object/retrying_store.h"

#include "object/memory_store.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"

namespace headrace::test {

// Fails the next calls with what the script says, before or after the effect.
class ScriptedStore final : public ObjectStore {
 public:
  explicit ScriptedStore(std::shared_ptr<MemoryBucket> bucket) : inner(std::move(bucket)) {}
  MemoryStore inner;
  std::deque<Code> script;
  bool after = false;  // the failure comes after the effect
  int calls = 0;
  bool hangs = false;
  Event cancelled;

  void cancel() override { cancelled.set(); }
  std::optional<Error> next() {
    ++calls;
    if (script.empty()) return std::nullopt;
    Code code = script.front();
    script.pop_front();
    if (code == Code::kOk) return std::nullopt;
    return Error(code, "scripted");
  }
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition) override {
    std::optional<Error> error = next();
    if (error && !after) co_return *error;
    Result<ObjectInfo> done = co_await inner.put(key, body, condition);
    if (error) co_return *error;
    co_return done;
  }
  Task<Result<Got>> get_with_etag(std::string key) override {
    std::optional<Error> error = next();
    if (hangs) {
      co_await cancelled.wait();
      co_return Error(Code::kCancelled, "scripted");
    }
    if (error) co_return *error;
    Result<Got> got = co_await inner.get_with_etag(key);
    co_return got;
  }
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size, std::string etag) override {
    std::optional<Error> error = next();
    if (error) co_return *error;
    Result<Buffer> got = co_await inner.get_range(key, offset, size, etag);
    co_return got;
  }
  Task<Result<ObjectInfo>> head(std::string key) override { return inner.head(key); }
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override {
    std::optional<Error> error = next();
    if (error) {  // the service removed some, and says so of each
      std::vector<RemoveFailure> failures;
      for (const std::string& key : keys) failures.push_back({key, *error});
      co_return failures;
    }
    Result<std::vector<RemoveFailure>> done = co_await inner.remove_batch(keys);
    co_return done;
  }
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override {
    return inner.list(prefix, continuation, limit);
  }
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override { return inner.begin_upload(key); }
  [[nodiscard]] std::string url() const override { return "memory:scripted"; }
};

Task<bool> ended(Scope* scope) {
  co_await scope->join();
  co_return true;
}
Task<bool> sleep(Clock* clock, Nanos time) {
  co_await clock->sleep(time);
  co_return true;
}
template <class T>
Task<void> ignore(Task<Result<T>> task) {
  (void)co_await std::move(task);
}

class RetryingStoreTest : public ::testing::Test {
 protected:
  void pass(Nanos time) { EXPECT_TRUE(world_.run(sleep(&world_.clock, time))); }
  World world_{true, 1};
  std::shared_ptr<MemoryBucket> bucket_ = std::make_shared<MemoryBucket>();
  ScriptedStore* script_ = new ScriptedStore(bucket_);
  RetryingStore store_{std::unique_ptr<ObjectStore>(script_), world_.clock, world_.random};
};

TEST_F(RetryingStoreTest, AsksAgainWithGrowingPauses) {
  ASSERT_OK(world_.run(store_.put("k", text("v"))));
  script_->script = {Code::kUnavailable, Code::kTimeout, Code::kDisconnected, Code::kCorrupt};
  const Nanos begun = world_.clock.now();
  auto got = world_.run(store_.get("k"));
  ASSERT_OK(got);
  EXPECT_EQ(got->text(), "v");
  const Nanos took = world_.clock.now() - begun;
  EXPECT_GE(took, milliseconds(50 + 100 + 200 + 400));
  EXPECT_LE(took, milliseconds(100 + 200 + 400 + 800));
}

TEST_F(RetryingStoreTest, GivesUpAfterItsAttempts) {
  script_->script.assign(100, Code::kUnavailable);
  EXPECT_EQ(world_.run(store_.get("k")).code(), Code::kUnavailable);
  EXPECT_EQ(script_->calls, 8);
}

TEST_F(RetryingStoreTest, GivesUpAfterItsTime) {
  auto* script = new ScriptedStore(bucket_);
  RetryingStore store(std::unique_ptr<ObjectStore>(script), world_.clock, world_.random,
                      {.attempts = 1000, .total = seconds(10)});
  script->script.assign(1000, Code::kUnavailable);
  const Nanos begun = world_.clock.now();
  EXPECT_FALSE(world_.run(store.get("k")).ok());
  EXPECT_LE(world_.clock.now() - begun, seconds(10));
  EXPECT_GT(script->calls, 3);
}

TEST_F(RetryingStoreTest, DoesNotRepeatFinalAnswers) {
  EXPECT_EQ(world_.run(store_.get("absent")).code(), Code::kNotFound);
  EXPECT_EQ(script_->calls, 1);
  script_->script = {Code::kDenied};
  EXPECT_EQ(world_.run(store_.put("k", text("v"))).code(), Code::kDenied);
  EXPECT_EQ(script_->calls, 2);
}

TEST_F(RetryingStoreTest, RepeatsPlainPutsOfUnknownOutcome) {
  script_->after = true;
  script_->script = {Code::kTimeout};
  ASSERT_OK(world_.run(store_.put("k", text("v"))));
  EXPECT_EQ(script_->calls, 2);
}

TEST_F(RetryingStoreTest, LeavesConditionalPutsOfUnknownOutcomeToTheCaller) {
  script_->after = true;
  for (Code code : {Code::kTimeout, Code::kDisconnected}) {
    bucket_->clear();
    script_->calls = 0;
    script_->script = {code};
    EXPECT_EQ(world_.run(store_.put("head", text("v"), PutCondition::if_absent())).code(), code);
    EXPECT_EQ(script_->calls, 1);
    EXPECT_EQ(bucket_->size(), 1U);  // it did happen
  }
  bucket_->clear();
  script_->after = false;
  script_->script = {Code::kUnavailable};
  ASSERT_OK(world_.run(store_.put("head", text("v"), PutCondition::if_absent())));
}

TEST_F(RetryingStoreTest, RemovesAgainOnlyWhatFailed) {
  ASSERT_OK(world_.run(store_.put("a", text("v"))));
  script_->script = {Code::kUnavailable};
  auto failed = world_.run(store_.remove_batch({"a", "b"}));
  ASSERT_OK(failed);
  EXPECT_TRUE(failed->empty());
  EXPECT_EQ(bucket_->size(), 0U);
  script_->script = {Code::kDenied};
  failed = world_.run(store_.remove_batch({"a"}));
  ASSERT_OK(failed);
  ASSERT_EQ(failed->size(), 1U);
  EXPECT_EQ(failed->front().error.code(), Code::kDenied);
}

TEST_F(RetryingStoreTest, NamesAServiceThatRefusesFromItsFirstAnswerOnUntilItIsWell) {
  EXPECT_EQ(store_.trouble(), "");
  ASSERT_OK(world_.run(store_.put("k", text("v"))));
  EXPECT_EQ(world_.run(store_.get("absent")).code(), Code::kNotFound);
  EXPECT_EQ(store_.trouble(), "");  // it does what it is there for
  script_->script.assign(3, Code::kUnavailable);
  Scope scope;
  scope.spawn(ignore(store_.get("k")));
  EXPECT_EQ(store_.trouble(), "scripted");
  EXPECT_TRUE(world_.run(ended(&scope)));
  EXPECT_EQ(store_.trouble(), "");
  script_->script = {Code::kDenied};
  EXPECT_FALSE(world_.run(store_.get("k")).ok());
  EXPECT_EQ(store_.trouble(), "scripted");
}

TEST_F(RetryingStoreTest, NamesAServiceThatDoesNotAnswer) {
  script_->hangs = true;
  Scope scope;
  scope.spawn(ignore(store_.get("k")));
  pass(seconds(4));
  EXPECT_EQ(store_.trouble(), "");
  pass(seconds(3));
  EXPECT_EQ(store_.trouble(), "memory:scripted has not answered for 7 s");
  ASSERT_OK(world_.run(store_.put("k", text("v"))));  // another request is answered: it is slow, not silent
  EXPECT_EQ(store_.trouble(), "");
  store_.cancel();
  EXPECT_TRUE(world_.run(ended(&scope)));
  EXPECT_EQ(store_.trouble(), "");
}

TEST_F(RetryingStoreTest, CancelEndsPausesAndRequestsAndRefusesLaterOnes) {
  script_->script.assign(100, Code::kUnavailable);
  Scope scope;
  scope.spawn(ignore(store_.put("k", text("v"))));
  pass(seconds(5));
  EXPECT_EQ(scope.running(), 1U);
  const Nanos begun = world_.clock.now();
  const int calls = script_->calls;
  store_.cancel();
  EXPECT_TRUE(world_.run(ended(&scope)));
  EXPECT_LT(world_.clock.now() - begun, milliseconds(10));
  EXPECT_EQ(world_.run(store_.get("k")).code(), Code::kCancelled);
  EXPECT_EQ(world_.run(store_.remove_batch({"k"})).code(), Code::kCancelled);
  EXPECT_EQ(script_->calls, calls);
  EXPECT_EQ(store_.trouble(), "scripted (for 5 s already)");
}

}  // namespace headrace::test
