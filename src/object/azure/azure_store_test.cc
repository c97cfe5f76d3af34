// The contract suite against a real service: HEADRACE_AZURE_URL (az://…, with the usual AZURE_STORAGE_
// variables) when it is set, otherwise an Azurite of our own.
#include "object/azure/azure_store.h"

#include <cstdlib>
#include <map>

#include "object/azure/azurite_fixture.h"
#include "object/object_store_contract_test.h"
#include "object/open.h"

namespace headrace::test {

struct AzureService {
  std::string missing;  // why there is none
  std::unique_ptr<Azurite> azurite;
  BucketUrl url;

  [[nodiscard]] EnvironmentLookup environment() const {
    return azurite == nullptr ? EnvironmentLookup(process_environment) : azurite->environment();
  }
};

// One server for all tests of this process; stopped when it ends.
AzureService& service() {
  static AzureService one = [] {
    AzureService made;
    if (const char* url = std::getenv("HEADRACE_AZURE_URL")) {
      made.url = *parse_bucket_url(url);
      return made;
    }
    if (Azurite::program().empty()) {
      made.missing =
          "azurite is not installed (scripts/setup --tools azurite) and HEADRACE_AZURE_URL is not "
          "set";
      return made;
    }
    Result<std::unique_ptr<Azurite>> started = Azurite::start();
    // With a program there must be a server: a failure here is a failure, not a reason to skip.
    EXPECT_TRUE(started.ok()) << started.error().text();
    if (!started.ok()) std::abort();
    made.azurite = *std::move(started);
    made.url = *parse_bucket_url(made.azurite->url(""));
    return made;
  }();
  return one;
}

INSTANTIATE_TEST_SUITE_P(Azure, ObjectStoreContract,
                         ::testing::Values(Backend{
                             .name = "azure",
                             .unavailable = [] { return service().missing; },
                             .make = [](World& world, const std::string& fresh) -> std::unique_ptr<ObjectStore> {
                               BucketUrl url = service().url;
                               url.prefix = fresh + "/sub";
                               auto store = std::make_unique<AzureStore>(
                                   url, world.env(),
                                   AzureOptions{.parallel = 16, .environment = service().environment()});
                               Result<void> made = world.run(store->create_container());
                               EXPECT_TRUE(made.ok()) << made.error().text();
                               return store;
                             }}),
                         [](const auto& info) { return info.param.name; });

class Azure : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!service().missing.empty()) GTEST_SKIP() << service().missing;
    if (service().azurite == nullptr) GTEST_SKIP() << "with an Azurite of our own only";
    url_ = service().url;
    url_.prefix = "t" + std::to_string(random_seed_from_kernel());
  }
  std::unique_ptr<AzureStore> store(BucketUrl url) {
    return std::make_unique<AzureStore>(url, world_.env(), AzureOptions{.environment = service().environment()});
  }
  // With these variables only.
  std::unique_ptr<AzureStore> store_with(std::map<std::string, std::string> variables) {
    return std::make_unique<AzureStore>(
        url_, world_.env(),
        AzureOptions{
            .environment = [variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
              auto it = variables.find(name);
              return it == variables.end() ? std::nullopt : std::optional(it->second);
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

TEST_F(Azure, NamesTheMendForAMissingContainerBadInput) {
  BucketUrl url = url_;
  url.bucket = "no-such-container";
  auto s = store(url);
  EXPECT_FAILURE(world_.run(s->put("a", text("x"))), Code::kNotFound, "create the container or fix its name");
  EXPECT_FAILURE(world_.run(s->get("a")), Code::kNotFound, "create the container or fix its name");
  auto removed = world_.run(s->remove_batch({"a"}));
  ASSERT_OK(removed);
  EXPECT_EQ(removed->size(), 1U) << "nothing was removed from a container that is not there";
}

TEST_F(Azure, NamesTheMendForAWrongKeyBadInput) {
  auto s = store_with({{"AZURE_STORAGE_KEY", "bm90LXRoZS1rZXk="}});
  auto put = world_.run(s->put("a", text("x")));
  EXPECT_FAILURE(put, Code::kDenied, "AZURE_STORAGE_KEY");
  EXPECT_EQ(put.error().message().find("bm90LXRoZS1rZXk="), std::string::npos);
  EXPECT_EQ(put.error().message().find("not-the-key"), std::string::npos);
}

TEST_F(Azure, TakesASasToken) {
  auto s =
      store_with({{"AZURE_STORAGE_SAS_TOKEN", "?" + service().azurite->sas_token("racwdl", "2090-01-01T00:00:00Z")}});
  Buffer body = pattern(17 * kMiB + 1, 3);
  ASSERT_OK(world_.run(s->put("k", body, PutCondition::if_absent())));
  EXPECT_EQ(world_.run(s->put("k", text("v"), PutCondition::if_absent())).code(), Code::kConflict);
  EXPECT_TRUE(same(*world_.run(s->get("k")), body));
  EXPECT_EQ(world_.run(s->get_range("k", 17 * kMiB, 1))->size(), 1U);
  EXPECT_EQ(world_.run(s->list("", "", 10))->objects.size(), 1U);
  auto removed = world_.run(s->remove_batch({"k"}));
  ASSERT_OK(removed);
  EXPECT_TRUE(removed->empty());
}

TEST_F(Azure, NamesTheMendForASasTokenThatHasEndedOrLacksTheRightBadInput) {
  const std::string ended = service().azurite->sas_token("racwdl", "2020-01-01T00:00:00Z");
  auto s = store_with({{"AZURE_STORAGE_SAS_TOKEN", ended}});
  auto put = world_.run(s->put("a", text("x")));
  EXPECT_FAILURE(put, Code::kDenied, "AZURE_STORAGE_SAS_TOKEN");
  EXPECT_EQ(put.error().message().find("sig="), std::string::npos) << put.error().text();
  auto reader = store_with({{"AZURE_STORAGE_SAS_TOKEN", service().azurite->sas_token("rl", "2090-01-01T00:00:00Z")}});
  EXPECT_FAILURE(world_.run(reader->put("a", text("x"))), Code::kDenied, "racwdl");
}

TEST_F(Azure, TakesAConnectionStringOfItsAccountOnly) {
  const std::string key = service().azurite->account_key();
  auto s =
      store_with({{"AZURE_STORAGE_CONNECTION_STRING", "DefaultEndpointsProtocol=https;AccountName=" + url_.account +
                                                          ";AccountKey=" + key + ";EndpointSuffix=core.windows.net"}});
  ASSERT_OK(world_.run(s->put("k", text("v"))));
  EXPECT_EQ(world_.run(s->get("k"))->text(), "v");
  auto other = store_with({{"AZURE_STORAGE_CONNECTION_STRING", "AccountName=other;AccountKey=" + key}});
  EXPECT_FAILURE(world_.run(other->get("k")), Code::kDenied, "is for account other");
}

TEST_F(Azure, SaysUnavailableWhenNobodyListensBadInput) {
  BucketUrl url = url_;
  url.endpoint = "http://127.0.0.1:1";
  EXPECT_FAILURE(world_.run(store(url)->put("a", text("x"))), Code::kUnavailable, "check that the service runs");
}

TEST_F(Azure, KeepsTheBlocksOfTwoUploadsOfOneNameApart) {
  auto s = store(url_);
  auto first = world_.run(s->begin_upload("k"));
  auto second = world_.run(s->begin_upload("k"));
  ASSERT_OK(first);
  ASSERT_OK(second);
  Buffer one = pattern(20 * kMiB, 1);
  Buffer two = pattern(20 * kMiB, 2);
  ASSERT_OK(world_.run((*first)->part(one)));
  ASSERT_OK(world_.run((*second)->part(two)));
  ASSERT_OK(world_.run((*first)->finish()));
  // The first's commit discards blocks of the second that were there before it: then that fails. Either
  // way the name has the bytes of one of them, whole.
  auto late = world_.run((*second)->finish());
  if (!late.ok()) EXPECT_EQ(late.error().retry(), Retry::kRetryable) << late.error().text();
  EXPECT_TRUE(same(*world_.run(s->get("k")), late.ok() ? two : one));
}

TEST_F(Azure, IsOpenedByItsUrl) {
  ::setenv("AZURE_STORAGE_KEY", service().azurite->account_key().c_str(), 1);
  auto opened = open_object_store(*parse_bucket_url(service().azurite->url("by/url")), world_.env());
  ASSERT_OK(opened);
  ASSERT_OK(world_.run((*opened)->put("k", text("v"))));
  EXPECT_EQ(world_.run((*opened)->get("k"))->text(), "v");
  ::unsetenv("AZURE_STORAGE_KEY");
}

TEST_F(Azure, AnswersWithinItsTimeWhenTheServiceStandsStillBadInput) {
  AzureStore impatient(url_, world_.env(),
                       AzureOptions{.silence_timeout = seconds(1), .environment = service().environment()});
  ASSERT_OK(world_.run(impatient.put("a", text("x"))));
  service().azurite->freeze(true);
  auto put = world_.run(impatient.put("a", text("y"), PutCondition::if_absent()));
  service().azurite->freeze(false);
  EXPECT_EQ(put.code(), Code::kTimeout);
  EXPECT_EQ(put.error().retry(), Retry::kOutcomeUnknown);
  EXPECT_EQ(world_.run(impatient.get("a"))->text(), "x");
}

}  // namespace headrace::test
