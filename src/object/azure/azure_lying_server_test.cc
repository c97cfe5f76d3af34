// AzureStore against services that fail, stall or lie.
#include "object/azure/azure_store.h"

#include "object/http/http_server_test.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"
#include "object/retrying_store.h"

namespace headrace::test {

constexpr const char* kBusy = "<Error><Code>ServerBusy</Code><Message>Slow down\nRequestId:1</Message></Error>";

class LyingAzure : public ::testing::Test {
 protected:
  std::unique_ptr<AzureStore> store(const std::string& endpoint) {
    BucketUrl url{.kind = BucketUrl::Kind::kAzure, .account = "account", .bucket = "container", .endpoint = endpoint};
    return std::make_unique<AzureStore>(
        url, world_.env(), AzureOptions{.environment = [](const std::string& name) -> std::optional<std::string> {
          if (name == "AZURE_STORAGE_KEY") return "c2VjcmV0LXRleHQ=";  // "secret-text"
          return std::nullopt;
        }});
  }
  World world_;
};

TEST_F(LyingAzure, IsAskedAgainAfter503) {
  std::atomic<int> calls = 0;
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    if (++calls <= 2) {
      response.status = 503;
      response.set_content(kBusy, "application/xml");
      return;
    }
    response.set_header("ETag", "\"0x1\"");
    response.set_content("a", "application/octet-stream");
  });
  RetryingStore retrying(store(server.endpoint()), world_.clock, world_.random, {.first_pause = milliseconds(1)});
  auto got = world_.run(retrying.get("k"));
  ASSERT_OK(got);
  EXPECT_EQ(got->text(), "a");
  EXPECT_EQ(calls, 3);
}

TEST_F(LyingAzure, NeverMakesAConditionalPutRepeatAnUnknownOutcome) {
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    response.status = 500;
    response.set_content("<Error><Code>OperationTimedOut</Code></Error>", "application/xml");
  });
  RetryingStore retrying(store(server.endpoint()), world_.clock, world_.random,
                         {.attempts = 3, .first_pause = milliseconds(1)});
  auto put = world_.run(retrying.put("head", text("x"), PutCondition::if_absent()));
  EXPECT_EQ(put.code(), Code::kTimeout);
  EXPECT_EQ(put.error().retry(), Retry::kOutcomeUnknown);
  EXPECT_EQ(server.requests, 1);
  EXPECT_FALSE(world_.run(retrying.put("plain", text("x"))).ok());
  EXPECT_EQ(server.requests, 4);
}

TEST_F(LyingAzure, SendsABlockAgainAndListsAllOfThem) {
  std::atomic<int> blocks = 0;
  std::string list;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    response.status = 201;
    if (request.get_param_value("comp") == "block") {
      if (++blocks == 2) {
        response.status = 503;
        response.set_content(kBusy, "application/xml");
      }
      return;
    }
    list = request.body;
    response.set_header("ETag", "\"0x3\"");
  });
  auto put = world_.run(store(server.endpoint())->put("big", pattern(17 * kMiB, 1)));
  ASSERT_OK(put);
  EXPECT_EQ(put->etag, "\"0x3\"");
  EXPECT_FALSE(put->verified);  // nobody confirmed a checksum
  EXPECT_EQ(blocks, 4);
  size_t listed = 0;
  for (size_t at = 0; (at = list.find("<Latest>", at)) != std::string::npos; ++at) ++listed;
  EXPECT_EQ(listed, 3U) << list;
}

TEST_F(LyingAzure, IsCaughtWithATruncatedBodyBadInput) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: \"x\"\r\n\r\nonly this");
  EXPECT_EQ(world_.run(store(server.endpoint())->get("k")).code(), Code::kDisconnected);
  RawServer range(
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/1000\r\nContent-Length: "
      "100\r\n\r\nonly this");
  EXPECT_EQ(world_.run(store(range.endpoint())->get_range("k", 0, 100)).code(), Code::kDisconnected);
}

TEST_F(LyingAzure, IsCaughtWithAWrongRangeBadInput) {
  RawServer whole("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd");
  EXPECT_EQ(world_.run(store(whole.endpoint())->get_range("k", 2, 4)).code(), Code::kCorrupt);
  RawServer other(
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-8/10\r\nContent-Length: "
      "4\r\n\r\nabcd");
  EXPECT_EQ(world_.run(store(other.endpoint())->get_range("k", 2, 4)).code(), Code::kCorrupt);
  RawServer less("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/10\r\nContent-Length: 2\r\n\r\nab");
  EXPECT_EQ(world_.run(store(less.endpoint())->get_range("k", 2, 4)).code(), Code::kCorrupt);
  RawServer more(
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: "
      "8\r\n\r\nabcdefgh");
  EXPECT_EQ(world_.run(store(more.endpoint())->get_range("k", 2, 4)).code(), Code::kTooLarge);
}

TEST_F(LyingAzure, IsCaughtWithOtherBytesThanItsChecksumBadInput) {
  RawServer server(  // the MD5 of "a"
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"q\"\r\n"
      "Content-MD5: DMF1ucDxtqgxw5niaXcmYQ==\r\n\r\nb");
  EXPECT_EQ(world_.run(store(server.endpoint())->get("k")).code(), Code::kCorrupt);
}

TEST_F(LyingAzure, IsCaughtWhenItStoresOtherBytesBadInput) {
  RawServer server(
      "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: \"q\"\r\n"
      "Content-MD5: DMF1ucDxtqgxw5niaXcmYQ==\r\n\r\n");
  auto s = store(server.endpoint());
  auto put = world_.run(s->put("k", text("a")));
  ASSERT_OK(put);
  EXPECT_TRUE(put->verified);
  EXPECT_EQ(world_.run(s->put("k", text("b"))).code(), Code::kTimeout);
  RawServer silent("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(world_.run(store(silent.endpoint())->put("k", text("b"))).code(), Code::kTimeout);
}

TEST_F(LyingAzure, GivesClearErrorsForGarbageBadInput) {
  const struct {
    const char* reply;
    Code code;
  } cases[] = {
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", Code::kInvalid},  // no Blob service at all
      {"HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\nContent-Length: 0\r\n\r\n", Code::kNotFound},
      {"HTTP/1.1 404 Not Found\r\nx-ms-error-code: ContainerNotFound\r\nContent-Length: 0\r\n\r\n", Code::kNotFound},
      {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Code::kDenied},
      {"HTTP/1.1 409 Conflict\r\nx-ms-error-code: KeyBasedAuthenticationNotPermitted\r\n"
       "Content-Length: 0\r\n\r\n",
       Code::kDenied},
      {"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere\r\nContent-Length: 0\r\n\r\n", Code::kInvalid},
      {"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n", Code::kNoSpace},
      {"garbage\r\n\r\n", Code::kDisconnected},
      {"", Code::kDisconnected},
  };
  for (const auto& one : cases) {
    RawServer server(one.reply);
    auto got = world_.run(store(server.endpoint())->get("k"));
    ASSERT_FALSE(got.ok()) << one.reply;
    EXPECT_EQ(got.code(), one.code) << one.reply << got.error().text();
    EXPECT_EQ(got.error().message().find("secret-text"), std::string::npos);
    EXPECT_EQ(got.error().message().find("c2VjcmV0LXRleHQ="), std::string::npos);
  }
  RawServer xml("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
  EXPECT_EQ(world_.run(store(xml.endpoint())->list("", "", 10)).code(), Code::kCorrupt);
}

TEST_F(LyingAzure, LearnsTheClockFromTheDateOfARefusalBadInput) {
  RawServer server("HTTP/1.1 403 Forbidden\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n");
  auto head = world_.run(store(server.endpoint())->head("k"));
  EXPECT_EQ(head.code(), Code::kDenied);
  EXPECT_NE(head.error().message().find("clock is off"), std::string::npos);
  EXPECT_NE(head.error().message().find("24 May 2013"), std::string::npos);
}

TEST_F(LyingAzure, ReportsTheKeysThatARemovalLeft) {
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    response.status = 202;
    if (request.path.ends_with("/b")) {
      response.status = 403;
      response.set_header("x-ms-error-code", "AuthorizationPermissionMismatch");
    } else if (request.path.ends_with("/c")) {
      response.status = 404;
      response.set_header("x-ms-error-code", "BlobNotFound");
    }
  });
  auto failed = world_.run(store(server.endpoint())->remove_batch({"a", "b", "c"}));
  ASSERT_OK(failed);
  ASSERT_EQ(failed->size(), 1U);
  EXPECT_EQ(failed->front().key, "b");
  EXPECT_EQ(failed->front().error.code(), Code::kDenied);
}

namespace {
Task<void> get(ObjectStore* store, std::vector<Code>* codes) {
  Result<Buffer> got = co_await store->get("k");
  codes->push_back(got.code());
}
Task<bool> ended_after(Clock* clock, Scope* scope, ObjectStore* store, Nanos wait) {
  co_await clock->sleep(wait);
  store->cancel();
  co_await scope->join();
  co_return true;
}
}  // namespace

TEST_F(LyingAzure, ThatNeverAnswersHoldsUpNoEndBadInput) {
  SilentServer server;
  auto s = store(server.endpoint());
  std::vector<Code> codes;
  Scope scope;
  for (int i = 0; i < 40; ++i)
    scope.spawn(get(s.get(), &codes));  // more than there are threads, and than may be under way
  const Nanos begun = world_.clock.now();
  EXPECT_TRUE(world_.run(ended_after(&world_.clock, &scope, s.get(), milliseconds(300))));
  EXPECT_LT(world_.clock.now() - begun, seconds(5));
  EXPECT_EQ(codes, std::vector<Code>(40, Code::kCancelled));
  EXPECT_EQ(world_.run(s->put("k", text("v"))).code(), Code::kCancelled);
  // A store that goes takes with it what nobody waits for any more.
  auto other = store(server.endpoint());
  {
    Scope dropped;
    dropped.spawn(get(other.get(), &codes));
    EXPECT_TRUE(world_.run(ended_after(&world_.clock, &scope, s.get(), milliseconds(100))));
  }
  other.reset();
  EXPECT_LT(world_.clock.now() - begun, seconds(8));
}

}  // namespace headrace::test
