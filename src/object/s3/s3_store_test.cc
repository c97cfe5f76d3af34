// The contract suite against a real service: HEADRACE_S3_ENDPOINT (with HEADRACE_S3_BUCKET and the
// usual AWS_ variables) when it is set, otherwise a versitygw of our own.
#include "object/s3/s3_store.h"

#include "object/object_store_contract_test.h"
#include "object/open.h"
#include "object/s3/versitygw_fixture.h"

namespace headrace::test {

struct Service {
  std::string missing;  // why there is none
  std::unique_ptr<VersityGateway> gateway;
  BucketUrl url;

  [[nodiscard]] EnvironmentLookup environment() const {
    if (gateway == nullptr) return process_environment;
    return [access = gateway->access_key(),
            secret = gateway->secret_key()](const std::string& name) -> std::optional<std::string> {
      if (name == "AWS_ACCESS_KEY_ID") return access;
      if (name == "AWS_SECRET_ACCESS_KEY") return secret;
      return std::nullopt;
    };
  }
};

// One server for all tests of this process; stopped when it ends.
Service& service() {
  static Service one = [] {
    Service made;
    if (const char* endpoint = std::getenv("HEADRACE_S3_ENDPOINT")) {
      const char* bucket = std::getenv("HEADRACE_S3_BUCKET");
      made.url = {
          .kind = BucketUrl::Kind::kS3, .bucket = bucket != nullptr ? bucket : "headrace-test", .endpoint = endpoint};
      return made;
    }
    if (VersityGateway::binary().empty()) {
      made.missing =
          "versitygw is not installed (scripts/setup --tools versitygw) and HEADRACE_S3_ENDPOINT "
          "is not set";
      return made;
    }
    Result<std::unique_ptr<VersityGateway>> started = VersityGateway::start();
    // With a binary there must be a server: a failure here is a failure, not a reason to skip.
    EXPECT_TRUE(started.ok()) << started.error().text();
    if (!started.ok()) std::abort();
    made.gateway = *std::move(started);
    made.url = *parse_bucket_url(made.gateway->url(""));
    return made;
  }();
  return one;
}

std::unique_ptr<S3Store> make_s3(World& world, const std::string& prefix) {
  BucketUrl url = service().url;
  url.prefix = prefix;
  return std::make_unique<S3Store>(url, world.env(), S3Options{.parallel = 16, .environment = service().environment()});
}

INSTANTIATE_TEST_SUITE_P(S3, ObjectStoreContract,
                         ::testing::Values(Backend{
                             .name = "s3",
                             .unavailable = [] { return service().missing; },
                             .make = [](World& world, const std::string& fresh) -> std::unique_ptr<ObjectStore> {
                               std::unique_ptr<S3Store> store = make_s3(world, fresh + "/sub");
                               Result<void> made = world.run(store->create_bucket());
                               EXPECT_TRUE(made.ok()) << made.error().text();
                               return store;
                             }}),
                         [](const auto& info) { return info.param.name; });

class S3 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!service().missing.empty()) GTEST_SKIP() << service().missing;
    url_ = service().url;
    url_.prefix = "t" + std::to_string(random_seed_from_kernel());
  }
  // A store with something changed.
  std::unique_ptr<S3Store> store(BucketUrl url, std::map<std::string, std::string> overrides = {}) {
    return std::make_unique<S3Store>(
        url, world_.env(),
        S3Options{.environment = [base = service().environment(), overrides](const std::string& name) {
          auto it = overrides.find(name);
          return it != overrides.end() ? std::optional(it->second) : base(name);
        }});
  }
  World world_;
  BucketUrl url_;
};

#define EXPECT_FAILURE(result, wanted_code, words)                                                     \
  do {                                                                                                 \
    auto hr_result = (result);                                                                         \
    ASSERT_FALSE(hr_result.ok());                                                                      \
    EXPECT_EQ(hr_result.code(), wanted_code) << hr_result.error().text();                              \
    EXPECT_NE(hr_result.error().message().find(words), std::string::npos) << hr_result.error().text(); \
  } while (false)

TEST_F(S3, NamesTheMendForAMissingBucketBadInput) {
  BucketUrl url = url_;
  url.bucket = "no-such-bucket-here";
  auto s = store(url);
  EXPECT_FAILURE(world_.run(s->put("a", text("x"))), Code::kNotFound, "create the bucket or fix its name");
  EXPECT_FAILURE(world_.run(s->get("a")), Code::kNotFound, "create the bucket or fix its name");
}

TEST_F(S3, NamesTheMendForAnUnknownAccessKeyBadInput) {
  auto s = store(url_, {{"AWS_ACCESS_KEY_ID", "AKIANOBODY"}});
  EXPECT_FAILURE(world_.run(s->put("a", text("x"))), Code::kDenied, "check AWS_ACCESS_KEY_ID");
}

TEST_F(S3, NamesTheMendForAWrongSecretBadInput) {
  auto s = store(url_, {{"AWS_SECRET_ACCESS_KEY", "not-the-secret"}});
  auto put = world_.run(s->put("a", text("x")));
  EXPECT_FAILURE(put, Code::kDenied, "check AWS_SECRET_ACCESS_KEY");
  EXPECT_EQ(put.error().message().find("not-the-secret"), std::string::npos);
}

TEST_F(S3, NamesTheMendForAClockOffByTwentyMinutesBadInput) {
  auto s = store(url_);
  ASSERT_OK(world_.run(s->put("a", text("x"))));
  for (int64_t minutes : {20, -20}) {
    world_.clock.skew = seconds(minutes * 60);
    EXPECT_FAILURE(world_.run(s->put("a", text("y"))), Code::kDenied, "clock is off");
    EXPECT_FAILURE(world_.run(s->get("a")), Code::kDenied, "clock is off");
    EXPECT_FAILURE(world_.run(s->head("a")), Code::kDenied, "clock is off");
  }
  world_.clock.skew = {};
  EXPECT_EQ(world_.run(s->get("a"))->text(), "x");
}

TEST_F(S3, SaysUnavailableWhenNobodyListensBadInput) {
  BucketUrl url = url_;
  url.endpoint = "http://127.0.0.1:1";
  auto s = store(url);
  EXPECT_FAILURE(world_.run(s->put("a", text("x"))), Code::kUnavailable, "check that the service runs");
}

TEST_F(S3, IsOpenedByItsUrl) {
  if (service().gateway == nullptr) GTEST_SKIP() << "with a versitygw of our own only";
  ::setenv("AWS_ACCESS_KEY_ID", service().gateway->access_key().c_str(), 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", service().gateway->secret_key().c_str(), 1);
  auto opened = open_object_store(*parse_bucket_url(service().gateway->url("by/url")), world_.env());
  ASSERT_OK(opened);
  ASSERT_OK(world_.run((*opened)->put("k", text("v"))));
  EXPECT_EQ(world_.run((*opened)->get("k"))->text(), "v");
  ::unsetenv("AWS_ACCESS_KEY_ID");
  ::unsetenv("AWS_SECRET_ACCESS_KEY");
}

TEST_F(S3, AnswersWithinItsTimeWhenTheServiceStandsStillBadInput) {
  if (service().gateway == nullptr) GTEST_SKIP() << "with a versitygw of our own only";
  S3Store impatient(url_, world_.env(),
                    S3Options{.silence_timeout = seconds(1), .environment = service().environment()});
  ASSERT_OK(world_.run(impatient.put("a", text("x"))));
  service().gateway->freeze(true);
  auto put = world_.run(impatient.put("a", text("y"), PutCondition::if_absent()));
  service().gateway->freeze(false);
  EXPECT_EQ(put.code(), Code::kTimeout);
  EXPECT_EQ(put.error().retry(), Retry::kOutcomeUnknown);
  EXPECT_EQ(world_.run(impatient.get("a"))->text(), "x");
}

TEST_F(S3, SpeaksTlsAndTrustsNobodyUnknownBadInput) {
  if (service().gateway == nullptr) GTEST_SKIP() << "with a versitygw of our own only";
  auto gateway = VersityGateway::start({.tls = true});
  ASSERT_OK(gateway);
  BucketUrl url = *parse_bucket_url((*gateway)->url("tls"));
  std::map<std::string, std::string> keys = {{"AWS_ACCESS_KEY_ID", (*gateway)->access_key()},
                                             {"AWS_SECRET_ACCESS_KEY", (*gateway)->secret_key()}};
  auto distrusting = store(url, keys);
  EXPECT_FAILURE(world_.run(distrusting->put("k", text("v"))), Code::kDenied, "AWS_CA_BUNDLE");
  keys["AWS_CA_BUNDLE"] = (*gateway)->certificate();
  auto trusting = store(url, keys);
  Buffer body = pattern(17 * kMiB + 1, 3);
  auto put = world_.run(trusting->put("k", body));
  ASSERT_OK(put);
  EXPECT_TRUE(put->verified);
  EXPECT_TRUE(same(*world_.run(trusting->get("k")), body));
  ASSERT_OK(world_.run(trusting->put("small", text("v"), PutCondition::if_absent())));
  EXPECT_EQ(world_.run(trusting->get("small"))->text(), "v");
}

TEST(OpenObjectStore, OpensADirectoryByItsUrl) {
  World world;
  TempDir dir;
  auto opened = open_object_store(*parse_bucket_url("file://" + dir.path + "/bucket"), world.env());
  ASSERT_OK(opened);
  EXPECT_EQ((*opened)->url(), "file://" + dir.path + "/bucket");
  EXPECT_EQ(world.run((*opened)->get("k")).code(), Code::kNotFound);
  ASSERT_OK(world.run((*opened)->put("k", text("v"))));
  EXPECT_EQ(world.run((*opened)->get("k"))->text(), "v");
}

}  // namespace headrace::test
