#include "object/s3/credentials.h"

#include <gtest/gtest.h>

#include <fstream>

#include "object/http/http_server_test.h"
#include "object/posix_env_test.h"

namespace headrace::test {

constexpr Nanos kNow = seconds(1'800'000'000);  // 2027-01-15T08:00:00Z

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() { variables_["AWS_EC2_METADATA_DISABLED"] = "true"; }
  CredentialChain chain() {
    return CredentialChain(http_, [this](const std::string& name) -> std::optional<std::string> {
      auto it = variables_.find(name);
      return it == variables_.end() ? std::nullopt : std::optional(it->second);
    });
  }
  void file(const std::string& name, const std::string& content) {
    std::filesystem::create_directories(dir_.path + "/.aws");
    std::ofstream(dir_.path + "/.aws/" + name) << content;
    variables_["HOME"] = dir_.path;
  }
  TempDir dir_;
  HttpPool http_;
  std::map<std::string, std::string> variables_;
};

TEST_F(CredentialsTest, ComeFromTheEnvironmentFirst) {
  file("credentials", "[default]\naws_access_key_id = file\naws_secret_access_key = file\n");
  variables_["AWS_ACCESS_KEY_ID"] = "AKIA";
  variables_["AWS_SECRET_ACCESS_KEY"] = "secret";
  variables_["AWS_SESSION_TOKEN"] = "token";
  CredentialChain chain = CredentialsTest::chain();
  auto got = chain.get(kNow);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->access_key, "AKIA");
  EXPECT_EQ(got->secret_key, "secret");
  EXPECT_EQ(got->session_token, "token");
}

TEST_F(CredentialsTest, NameTheMendWhenHalfIsSetBadInput) {
  variables_["AWS_ACCESS_KEY_ID"] = "AKIA";
  CredentialChain chain = CredentialsTest::chain();
  auto got = chain.get(kNow);
  EXPECT_EQ(got.code(), Code::kDenied);
  EXPECT_NE(got.error().message().find("AWS_SECRET_ACCESS_KEY is not"), std::string::npos) << got.error().text();
}

TEST_F(CredentialsTest, NameTheMendWhenThereAreNoneBadInput) {
  CredentialChain chain = CredentialsTest::chain();
  auto got = chain.get(kNow);
  EXPECT_EQ(got.code(), Code::kDenied);
  EXPECT_NE(got.error().message().find("set AWS_ACCESS_KEY_ID"), std::string::npos);
}

TEST_F(CredentialsTest, ComeFromProfileFiles) {
  file("credentials",
       "# comment\n[default]\naws_access_key_id=D\naws_secret_access_key = d=with=equals \n"
       "[work]\r\naws_access_key_id = W\r\naws_secret_access_key = w\r\n");
  file("config",
       "[profile other]\naws_access_key_id = O\naws_secret_access_key = o\nregion = eu-west-3\ns3 "
       "=\n  region = nested\n");
  {
    CredentialChain chain = CredentialsTest::chain();
    auto got = chain.get(kNow);
    ASSERT_TRUE(got.ok());
    EXPECT_EQ(got->secret_key, "d=with=equals");
  }
  variables_["AWS_PROFILE"] = "work";
  {
    CredentialChain chain = CredentialsTest::chain();
    EXPECT_EQ(chain.get(kNow)->access_key, "W");
    EXPECT_EQ(chain.region(), "");
  }
  variables_["AWS_PROFILE"] = "other";
  {
    CredentialChain chain = CredentialsTest::chain();
    EXPECT_EQ(chain.get(kNow)->access_key, "O");
    EXPECT_EQ(chain.region(), "eu-west-3");
  }
  variables_["AWS_PROFILE"] = "absent";
  CredentialChain chain = CredentialsTest::chain();
  auto got = chain.get(kNow);
  EXPECT_EQ(got.code(), Code::kDenied);
  EXPECT_NE(got.error().message().find("'absent'"), std::string::npos);
}

TEST_F(CredentialsTest, ComeFromTheContainerService) {
  HttpServer server([](const httplib::Request& request, httplib::Response& response) {
    if (request.get_header_value("Authorization") != "bearer-text") {
      response.status = 401;
      return;
    }
    response.set_content(R"({"AccessKeyId":"C","SecretAccessKey":"c","Token":"t","Expiration":"2027-01-15T14:00:00Z"})",
                         "application/json");
  });
  variables_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server.endpoint() + "/creds";
  {
    CredentialChain chain = CredentialsTest::chain();
    EXPECT_EQ(chain.get(kNow).code(), Code::kDenied);
  }
  variables_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "bearer-text";
  CredentialChain chain = CredentialsTest::chain();
  auto got = chain.get(kNow);
  ASSERT_TRUE(got.ok()) << got.error().text();
  EXPECT_EQ(got->access_key, "C");
  EXPECT_EQ(got->session_token, "t");
  EXPECT_EQ(got->expires, kNow + seconds(6 * 3600));
}

TEST_F(CredentialsTest, ComeFromInstanceMetadataAndAreRenewed) {
  std::atomic<int> fetched = 0;
  std::atomic<bool> down = false;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    if (down) {
      response.status = 500;
      return;
    }
    if (request.path == "/latest/api/token") {
      response.status =
          request.method == "PUT" && request.has_header("X-aws-ec2-metadata-token-ttl-seconds") ? 200 : 400;
      response.set_content("metadata-token", "text/plain");
      return;
    }
    if (request.get_header_value("X-aws-ec2-metadata-token") != "metadata-token") {
      response.status = 401;
      return;
    }
    response.status = 200;
    if (request.path == "/latest/meta-data/iam/security-credentials/") {
      response.set_content("my-role", "text/plain");
    } else if (request.path == "/latest/meta-data/iam/security-credentials/my-role") {
      ++fetched;
      response.set_content(R"({"Code":"Success","AccessKeyId":"I)" + std::to_string(fetched.load()) +
                               R"(","SecretAccessKey":"i","Token":"t","Expiration":"2027-01-15T09:00:00Z"})",
                           "application/json");
    } else {
      response.status = 404;
    }
  });
  variables_.erase("AWS_EC2_METADATA_DISABLED");
  variables_["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = server.endpoint();
  CredentialChain chain = CredentialsTest::chain();
  EXPECT_EQ(chain.get(kNow)->access_key, "I1");
  EXPECT_EQ(chain.get(kNow + seconds(3000))->access_key, "I1");
  EXPECT_EQ(chain.get(kNow + seconds(3301))->access_key, "I2");  // 5 minutes before the end
  chain.forget();
  EXPECT_EQ(chain.get(kNow)->access_key, "I3");
  // What still holds is used while the service is away; what has ended is not.
  down = true;
  EXPECT_EQ(chain.get(kNow + seconds(3500))->access_key, "I3");
  EXPECT_EQ(chain.get(kNow + seconds(3601)).code(), Code::kDenied);
}

TEST(CredentialsJson, RefusesBadInput) {
  for (const char* json : {"", "[]", "{", "{\"AccessKeyId\":1}", "{\"AccessKeyId\":\"a\"}",
                           R"({"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"soon"})"})
    EXPECT_EQ(parse_credentials_json(json).code(), Code::kCorrupt) << json;
}

}  // namespace headrace::test
