#include "object/bucket_url.h"

#include <gtest/gtest.h>

namespace headrace {

TEST(BucketUrl, ReadsADirectory) {
  auto url = parse_bucket_url("file:///srv//my bucket/");
  ASSERT_TRUE(url.ok()) << url.error().text();
  EXPECT_EQ(url->kind, BucketUrl::Kind::kDirectory);
  EXPECT_EQ(url->path, "/srv/my bucket");
  EXPECT_EQ(url->text(), "file:///srv/my bucket");
}

TEST(BucketUrl, ReadsAnS3Bucket) {
  auto url = parse_bucket_url("s3://my-bucket/some/prefix/?endpoint=http://127.0.0.1:9000/&region=eu-central-1");
  ASSERT_TRUE(url.ok()) << url.error().text();
  EXPECT_EQ(url->kind, BucketUrl::Kind::kS3);
  EXPECT_EQ(url->bucket, "my-bucket");
  EXPECT_EQ(url->prefix, "some/prefix");
  EXPECT_EQ(url->endpoint, "http://127.0.0.1:9000");
  EXPECT_EQ(url->region, "eu-central-1");
  EXPECT_EQ(url->text(), "s3://my-bucket/some/prefix?endpoint=http://127.0.0.1:9000&region=eu-central-1");
  EXPECT_EQ(*parse_bucket_url("s3://my-bucket/p?endpoint=http%3A%2F%2Fhost%3A1"),
            *parse_bucket_url("s3://my-bucket/p?endpoint=http://host:1"));
  EXPECT_TRUE(parse_bucket_url("s3://my.bucket?endpoint=https://[::1]:9000&style=virtual").ok());
}

TEST(BucketUrl, ReadsAnAzureContainer) {
  auto url = parse_bucket_url("az://account1/some-container/a/b/?endpoint=http://127.0.0.1:10000");
  ASSERT_TRUE(url.ok()) << url.error().text();
  EXPECT_EQ(url->kind, BucketUrl::Kind::kAzure);
  EXPECT_EQ(url->account, "account1");
  EXPECT_EQ(url->bucket, "some-container");
  EXPECT_EQ(url->prefix, "a/b");
  EXPECT_EQ(url->endpoint, "http://127.0.0.1:10000");
  EXPECT_EQ(url->text(), "az://account1/some-container/a/b?endpoint=http://127.0.0.1:10000");
}

TEST(BucketUrl, ParsesItsOwnText) {
  for (const char* text :
       {"file:///a/b", "s3://abc", "s3://abc/d/e", "s3://abc?region=x", "s3://abc/p?endpoint=https://h&style=path",
        "az://acc/con", "az://acc/con/p/q?endpoint=https://h", "memory:one"}) {
    auto url = parse_bucket_url(text);
    ASSERT_TRUE(url.ok()) << text;
    EXPECT_EQ(url->text(), text);
    EXPECT_EQ(*parse_bucket_url(url->text()), *url);
  }
}

TEST(BucketUrl, NamesTheMendForBadInput) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "file:///dir"},
      {"/srv/bucket", "written file:///srv/bucket"},
      {"file://srv/bucket", "three slashes"},
      {"file:///", "below '/'"},
      {"file:///a/../b", "without '.' and '..'"},
      {"http://host/bucket", "?endpoint="},
      {"gs://bucket", "unknown scheme"},
      {"azure://account/container", "az://ACCOUNT/CONTAINER"},
      {"abfss://container@account", "az://ACCOUNT/CONTAINER"},
      {"az://account", "container's name"},
      {"az://a/container", "account's name"},
      {"az://Account/container", "account's name"},
      {"az://account/con..tainer", "container's name"},
      {"az://account/container//x", "no empty part"},
      {"az://account:secret@host/container", "credentials do not belong"},
      {"az://account/container?sv=2020&sig=secret", "AZURE_STORAGE_SAS_TOKEN"},
      {"az://account/container?region=x", "there is endpoint"},
      {"s3://", "3 to 63"},
      {"s3://UPPER", "3 to 63"},
      {"s3://bucket//x", "no empty part"},
      {"s3://bucket/a/../x", "no empty part"},
      {"s3://bucket?endpoint=127.0.0.1:9000", "begin with http://"},
      {"s3://bucket?endpoint=http://host:port", "1 to 65535"},
      {"s3://bucket?endpoint=http://host:99999", "1 to 65535"},
      {"s3://bucket?endpoint=http://host/path", "without a path"},
      {"s3://bucket?endpoint=http://key:secret@host", "credentials do not belong"},
      {"s3://key:secret@bucket/x", "credentials do not belong"},
      {"s3://bucket?endpoint", "name=value"},
      {"s3://bucket?colour=red", "unknown option"},
      {"s3://bucket?style=odd", "path or virtual"},
      {std::string("file:///a\0b", 11), "control"},
      {"s3://" + std::string(5000, 'a'), "longer"},
  };
  for (const auto& [text, mend] : cases) {
    auto url = parse_bucket_url(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_NE(url.error().message().find(mend), std::string::npos) << text << " → " << url.error().text();
    EXPECT_EQ(url.error().message().find("secret"), std::string::npos) << url.error().text();
  }
}

}  // namespace headrace
