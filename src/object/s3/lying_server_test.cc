// S3Store against services that fail, stall or lie.
#include "object/http/http_server_test.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"
#include "object/retrying_store.h"
#include "object/s3/s3_store.h"

namespace headrace::test {

constexpr const char* kSlowDown = "<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>";

class LyingServer : public ::testing::Test {
 protected:
  std::unique_ptr<S3Store> store(const std::string& endpoint, const std::string& secret = "secret-text") {
    BucketUrl url{.kind = BucketUrl::Kind::kS3, .bucket = "bucket", .endpoint = endpoint};
    return std::make_unique<S3Store>(
        url, world_.env(), S3Options{.environment = [secret](const std::string& name) -> std::optional<std::string> {
          if (name == "AWS_ACCESS_KEY_ID") return "access";
          if (name == "AWS_SECRET_ACCESS_KEY") return secret;
          return std::nullopt;
        }});
  }
  World world_;
};

TEST_F(LyingServer, IsAskedAgainAfter503) {
  std::atomic<int> calls = 0;
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    if (++calls <= 2) {
      response.status = 503;
      response.set_content(kSlowDown, "application/xml");
      return;
    }
    response.status = 200;
    response.set_header("ETag", "\"0cc175b9c0f1b6a831c399e269772661\"");  // MD5 of "a"
    response.set_content("a", "binary/octet-stream");
  });
  RetryingStore retrying(store(server.endpoint()), world_.clock, world_.random, {.first_pause = milliseconds(1)});
  auto got = world_.run(retrying.get("k"));
  ASSERT_OK(got);
  EXPECT_EQ(got->text(), "a");
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(retrying.retries(), 2U);
}

TEST_F(LyingServer, IsAskedAgainAfter408) {
  std::atomic<int> calls = 0;
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    response.status = ++calls == 1 ? 408 : 200;  // a proxy's: no S3 error within
    if (response.status == 200) response.set_content("a", "binary/octet-stream");
  });
  RetryingStore retrying(store(server.endpoint()), world_.clock, world_.random, {.first_pause = milliseconds(1)});
  auto got = world_.run(retrying.get("k"));
  ASSERT_OK(got);
  EXPECT_EQ(got->text(), "a");
  EXPECT_EQ(calls, 2);
}

TEST_F(LyingServer, IsAskedAgainWithFreshCredentialsWhenItRefusesAHead) {
  std::string token = "old";
  std::atomic<int> calls = 0;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    ++calls;
    response.status = request.get_header_value("x-amz-security-token") == "new" ? 200 : 400;
    response.set_header("ETag", "\"x\"");
  });
  BucketUrl url{.kind = BucketUrl::Kind::kS3, .bucket = "bucket", .endpoint = server.endpoint()};
  S3Store store(url, world_.env(), S3Options{.environment = [&](const std::string& name) -> std::optional<std::string> {
                  if (name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY") return "text";
                  if (name == "AWS_SESSION_TOKEN") return token;
                  return std::nullopt;
                }});
  EXPECT_FALSE(world_.run(store.head("k")).ok());
  EXPECT_EQ(calls, 2) << "once more, not for ever";
  token = "new";
  ASSERT_OK(world_.run(store.head("k")));
  EXPECT_EQ(calls, 4);
}

TEST_F(LyingServer, NeverMakesAConditionalPutRepeatAnUnknownOutcome) {
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    response.status = 500;
    response.set_content("<Error><Code>InternalError</Code></Error>", "application/xml");
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

TEST_F(LyingServer, IsNotBelievedWhenACompletionFailsWith200BadInput) {
  std::atomic<int> aborts = 0;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    response.status = 200;
    if (request.method == "POST" && request.has_param("uploads")) {
      response.set_content("<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
                           "application/xml");
    } else if (request.method == "PUT") {
      response.set_header("ETag", "\"part\"");
    } else if (request.method == "DELETE") {
      ++aborts;
      response.status = 204;
    } else {
      response.set_content("<Error><Code>InternalError</Code><Message>We are sorry</Message></Error>",
                           "application/xml");
    }
  });
  auto put = world_.run(store(server.endpoint())->put("big", pattern(17 * kMiB, 1)));
  ASSERT_FALSE(put.ok());
  EXPECT_EQ(put.code(), Code::kTimeout) << put.error().text();
  EXPECT_NE(put.error().message().find("failed in a reply of 200"), std::string::npos);
  EXPECT_EQ(aborts, 1);
}

TEST_F(LyingServer, SendsFailedPartsAgain) {
  std::atomic<int> parts = 0;
  HttpServer server([&](const httplib::Request& request, httplib::Response& response) {
    response.status = 200;
    if (request.method == "POST" && request.has_param("uploads")) {
      response.set_content("<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
                           "application/xml");
    } else if (request.method == "PUT") {
      if (++parts == 2) {
        response.status = 503;
        response.set_content(kSlowDown, "application/xml");
        return;
      }
      response.set_header("ETag", "\"part\"");
    } else {
      response.set_content("<CompleteMultipartUploadResult><ETag>\"all-3\"</ETag></CompleteMultipartUploadResult>",
                           "application/xml");
    }
  });
  auto put = world_.run(store(server.endpoint())->put("big", pattern(17 * kMiB, 1)));
  ASSERT_OK(put);
  EXPECT_EQ(put->etag, "\"all-3\"");
  EXPECT_FALSE(put->verified);  // nobody confirmed a checksum
  EXPECT_EQ(parts, 4);
}

TEST_F(LyingServer, IsCaughtWithATruncatedBodyBadInput) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: \"x\"\r\n\r\nonly this");
  auto s = store(server.endpoint());
  EXPECT_EQ(world_.run(s->get("k")).code(), Code::kDisconnected);
  RawServer range(
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/1000\r\nContent-Length: "
      "100\r\n\r\nonly this");
  auto r = store(range.endpoint());
  EXPECT_EQ(world_.run(r->get_range("k", 0, 100)).code(), Code::kDisconnected);
}

TEST_F(LyingServer, IsCaughtWithAWrongRangeBadInput) {
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

TEST_F(LyingServer, IsCaughtWithOtherBytesThanItsChecksumBadInput) {
  RawServer by_md5(
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: "
      "\"0cc175b9c0f1b6a831c399e269772661\"\r\n\r\nb");
  EXPECT_EQ(world_.run(store(by_md5.endpoint())->get("k")).code(), Code::kCorrupt);
  RawServer by_crc(
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nx-amz-checksum-crc32c: AAAAAA==\r\nETag: "
      "\"q\"\r\n\r\nb");
  EXPECT_EQ(world_.run(store(by_crc.endpoint())->get("k")).code(), Code::kCorrupt);
  // An ETag that is no MD5 (a key of the service's own) proves nothing.
  RawServer kms(
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nx-amz-server-side-encryption: aws:kms\r\n"
      "ETag: \"0cc175b9c0f1b6a831c399e269772661\"\r\n\r\nb");
  EXPECT_OK(world_.run(store(kms.endpoint())->get("k")));
}

TEST_F(LyingServer, IsCaughtWhenItStoresOtherBytesBadInput) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"0cc175b9c0f1b6a831c399e269772661\"\r\n\r\n");
  auto s = store(server.endpoint());
  auto put = world_.run(s->put("k", text("a")));
  ASSERT_OK(put);
  EXPECT_TRUE(put->verified);
  auto wrong = world_.run(s->put("k", text("b")));
  EXPECT_EQ(wrong.code(), Code::kTimeout);
}

TEST_F(LyingServer, GivesClearErrorsForGarbageBadInput) {
  const struct {
    const char* reply;
    Code code;
  } cases[] = {
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", Code::kInvalid},  // no S3 service at all
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 37\r\n\r\n<Error><Code>NoSuchKey</Code></Error>", Code::kNotFound},
      {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Code::kDenied},
      {"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n", Code::kInvalid},
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
    if (one.code == Code::kInvalid && std::string_view(one.reply).find("eu-west-1") != std::string_view::npos)
      EXPECT_NE(got.error().message().find("add region=eu-west-1"), std::string::npos) << got.error().text();
  }
  RawServer xml("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
  auto s = store(xml.endpoint());
  EXPECT_EQ(world_.run(s->list("", "", 10)).code(), Code::kCorrupt);
  EXPECT_EQ(world_.run(s->remove_batch({"a"})).code(), Code::kCorrupt);
}

TEST_F(LyingServer, LearnsTheClockFromTheDateOfARefusalBadInput) {
  RawServer server("HTTP/1.1 403 Forbidden\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n");
  auto head = world_.run(store(server.endpoint())->head("k"));
  EXPECT_EQ(head.code(), Code::kDenied);
  EXPECT_NE(head.error().message().find("clock is off"), std::string::npos);
  EXPECT_NE(head.error().message().find("24 May 2013"), std::string::npos);
}

TEST_F(LyingServer, ReportsTheKeysThatARemovalLeft) {
  HttpServer server([&](const httplib::Request&, httplib::Response& response) {
    response.status = 200;
    response.set_content(
        "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        "<Error><Key>c</Key><Code>NoSuchKey</Code></Error></DeleteResult>",
        "application/xml");
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

TEST_F(LyingServer, ThatNeverAnswersHoldsUpNoEndBadInput) {
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
