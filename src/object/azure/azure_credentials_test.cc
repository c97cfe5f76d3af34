// Whence the credentials come, against token services of our own.
#include "object/azure/azure_credentials.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "object/http/http_server_test.h"
#include "object/posix_env_test.h"

namespace headrace::test {

class AzureCredentialsTest : public ::testing::Test {
 protected:
  EnvironmentLookup environment() {
    return [this](const std::string& name) -> std::optional<std::string> {
      auto it = variables_.find(name);
      return it == variables_.end() ? std::nullopt : std::optional(it->second);
    };
  }
  AzureCredentials credentials() { return AzureCredentials(http_, "account", environment()); }

  HttpPool http_;
  // Nobody listens there: the instance has no identity.
  std::map<std::string, std::string> variables_ = {{"AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1"}};
  Nanos wall_ = seconds(1'800'000'000);
};

TEST_F(AzureCredentialsTest, NamesEverySourceWhenThereIsNoneBadInput) {
  auto none = credentials().get(wall_);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.code(), Code::kDenied);
  for (const char* name : {"AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "managed identity"})
    EXPECT_NE(none.error().message().find(name), std::string::npos) << none.error().text();
}

TEST_F(AzureCredentialsTest, PrefersTheKeyToASasToken) {
  variables_["AZURE_STORAGE_SAS_TOKEN"] = "?sv=1&sig=abc";
  auto sas = credentials().get(wall_);
  ASSERT_TRUE(sas.ok());
  EXPECT_EQ(sas->kind, AzureAuthorization::Kind::kSas);
  EXPECT_EQ(sas->secret, "sv=1&sig=abc");
  variables_["AZURE_STORAGE_KEY"] = "a2V5";
  auto key = credentials().get(wall_);
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->kind, AzureAuthorization::Kind::kKey);
  EXPECT_EQ(key->secret, "key");
}

TEST_F(AzureCredentialsTest, RefusesBadInputWithoutRepeatingIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"AZURE_STORAGE_KEY", "hidden not base64"},
      {"AZURE_STORAGE_SAS_TOKEN", "sv=hidden"},
      {"AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;hidden"},
      {"AZURE_STORAGE_CONNECTION_STRING", "AccountName=account"},
      {"AZURE_STORAGE_CONNECTION_STRING", "AccountName=account;SharedAccessSignature=hidden"},
      {"AZURE_CLIENT_SECRET", "hidden"},
  };
  for (const auto& [name, value] : cases) {
    variables_[name] = value;
    auto got = credentials().get(wall_);
    ASSERT_FALSE(got.ok()) << name;
    EXPECT_EQ(got.code(), Code::kDenied) << got.error().text();
    EXPECT_NE(got.error().message().find(name), std::string::npos) << got.error().text();
    EXPECT_EQ(got.error().message().find("hidden"), std::string::npos) << got.error().text();
    variables_.erase(name);
  }
}

TEST_F(AzureCredentialsTest, AsksTheInstanceForATokenAndRenewsItInTime) {
  std::atomic<int> calls = 0;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    EXPECT_EQ(request.path, "/metadata/identity/oauth2/token");
    EXPECT_EQ(request.get_header_value("metadata"), "true");
    EXPECT_EQ(request.get_param_value("resource"), "https://storage.azure.com/");
    EXPECT_EQ(request.get_param_value("client_id"), "me");
    ++calls;
    response.set_content(fmt::format("{{\"access_token\":\"token-{}\",\"expires_on\":\"{}\"}}", calls.load(),
                                     1'800'000'000 + 3600 * calls.load()),
                         "application/json");
  });
  variables_["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = server.endpoint();
  variables_["AZURE_CLIENT_ID"] = "me";
  AzureCredentials chain = AzureCredentials(http_, "account", environment());
  EXPECT_EQ(chain.get(wall_)->secret, "token-1");
  EXPECT_EQ(chain.get(wall_ + seconds(3000))->secret, "token-1");
  EXPECT_EQ(chain.get(wall_ + seconds(3400))->secret, "token-2");  // less than 5 minutes were left
  EXPECT_EQ(chain.get(wall_ + seconds(3400))->kind, AzureAuthorization::Kind::kBearer);
  chain.forget();
  EXPECT_EQ(chain.get(wall_)->secret, "token-3");
}

TEST_F(AzureCredentialsTest, KeepsAGoodTokenWhileTheServiceIsAway) {
  std::atomic<bool> away = false;
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    if (away)
      response.status = 503;
    else
      response.set_content("{\"access_token\":\"t\",\"expires_in\":3600}", "application/json");
  });
  variables_["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = server.endpoint();
  AzureCredentials chain = AzureCredentials(http_, "account", environment());
  EXPECT_EQ(chain.get(wall_)->secret, "t");
  away = true;
  EXPECT_EQ(chain.get(wall_ + seconds(3500))->secret, "t");
  EXPECT_EQ(chain.get(wall_ + seconds(3700)).code(), Code::kUnavailable);
}

TEST_F(AzureCredentialsTest, SaysWhatToDoWhenTheInstanceHasNoIdentityBadInput) {
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    response.status = 400;
    response.set_content("{\"error\":\"invalid_request\"}", "application/json");
  });
  variables_["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = server.endpoint();
  auto none = credentials().get(wall_);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message().find("AZURE_CLIENT_ID"), std::string::npos);
  EXPECT_NE(none.error().message().find("Storage Blob Data Contributor"), std::string::npos);
}

TEST_F(AzureCredentialsTest, AsksTheAppService) {
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    EXPECT_EQ(request.get_header_value("x-identity-header"), "hidden");
    response.set_content("{\"access_token\":\"app\",\"expires_on\":1900000000}", "application/json");
  });
  variables_["IDENTITY_ENDPOINT"] = server.endpoint() + "/msi/token";
  variables_["IDENTITY_HEADER"] = "hidden";
  EXPECT_EQ(credentials().get(wall_)->secret, "app");
}

TEST_F(AzureCredentialsTest, SendsASecretOrAFederatedTokenAsAServicePrincipal) {
  std::string body;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/tenant/oauth2/v2.0/token");
    body = request.get_param_value("client_assertion") + "|" + request.get_param_value("client_secret");
    EXPECT_EQ(request.get_param_value("scope"), "https://storage.azure.com/.default");
    response.set_content("{\"access_token\":\"sp\",\"expires_in\":\"3600\"}", "application/json");
  });
  TempDir dir;
  std::ofstream(dir.path + "/token") << "assertion-text\n";
  variables_["AZURE_AUTHORITY_HOST"] = server.endpoint() + "/";
  variables_["AZURE_TENANT_ID"] = "tenant";
  variables_["AZURE_CLIENT_ID"] = "client";
  variables_["AZURE_FEDERATED_TOKEN_FILE"] = dir.path + "/token";
  EXPECT_EQ(credentials().get(wall_)->secret, "sp");
  EXPECT_EQ(body, "assertion-text|");
  variables_["AZURE_CLIENT_SECRET"] = "hush";
  EXPECT_EQ(credentials().get(wall_)->secret, "sp");
  EXPECT_EQ(body, "|hush");
  variables_.erase("AZURE_CLIENT_SECRET");
  variables_["AZURE_FEDERATED_TOKEN_FILE"] = dir.path + "/none";
  EXPECT_EQ(credentials().get(wall_).code(), Code::kDenied);
}

TEST(AzureToken, RefusesBadInput) {
  for (const char* json :
       {"", "[]", "{}", "{\"access_token\":1}", "{\"access_token\":\"t\"}",
        "{\"access_token\":\"t\",\"expires_on\":\"soon\"}", "{\"access_token\":\"t\",\"expires_on\":-1}",
        "{\"access_token\":\"a\\nb\",\"expires_on\":1}"})
    EXPECT_EQ(parse_azure_token(json, Nanos{}).code(), Code::kCorrupt) << json;
  EXPECT_TRUE(parse_azure_token("{\"access_token\":\"t\",\"expires_on\":99999999999999}", Nanos{}).ok());
}

}  // namespace headrace::test
