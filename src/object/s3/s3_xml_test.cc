#include "object/s3/s3_xml.h"

#include <gtest/gtest.h>

namespace headrace {

TEST(S3Xml, ReadsAListing) {
  auto listing = parse_s3_listing(
      "<?xml version=\"1.0\"?><ListBucketResult "
      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><EncodingType>url</EncodingType>"
      "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;k</NextContinuationToken>"
      "<Contents><Key>a%2Fb+c%C3%BC</Key><Size>12</Size><ETag>&quot;abc&quot;</ETag></Contents>"
      "<Contents><Key>d</Key><Size>0</Size><ETag>raw</ETag></Contents></ListBucketResult>");
  ASSERT_TRUE(listing.ok()) << listing.error().text();
  ASSERT_EQ(listing->entries.size(), 2U);
  EXPECT_EQ(listing->entries[0].key, "a/b c\xc3\xbc");
  EXPECT_EQ(listing->entries[0].size, 12U);
  EXPECT_EQ(listing->entries[0].etag, "\"abc\"");
  EXPECT_EQ(listing->entries[1].etag, "\"raw\"");
  EXPECT_EQ(listing->continuation, "t&k");
}

TEST(S3Xml, RefusesBadInput) {
  const std::string deep = [] {
    std::string text = "<ListBucketResult>";
    for (int i = 0; i < 50; ++i) text += "<a>";
    for (int i = 0; i < 50; ++i) text += "</a>";
    return text + "</ListBucketResult>";
  }();
  for (const std::string& text :
       {std::string(), std::string("nonsense"), std::string("<Error><Code>x</Code></Error>"), deep,
        std::string("<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>"),
        std::string("<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></"
                    "ListBucketResult>"),
        std::string("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        std::string("<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%zz</"
                    "Key><Size>1</Size></Contents></ListBucketResult>"),
        std::string("<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Cont")})
    EXPECT_EQ(parse_s3_listing(text).code(), Code::kCorrupt) << text;
  EXPECT_EQ(parse_s3_upload_id("<InitiateMultipartUploadResult/>").code(), Code::kCorrupt);
  EXPECT_EQ(parse_s3_removal("<html/>").code(), Code::kCorrupt);
  EXPECT_FALSE(parse_s3_error("<html><body>Bad gateway</body></html>").has_value());
}

TEST(S3Xml, KnowsACompletionThatFailedWithStatus200) {
  auto good =
      parse_s3_completion("<CompleteMultipartUploadResult><ETag>\"x-2\"</ETag></CompleteMultipartUploadResult>");
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good, "\"x-2\"");
  EXPECT_EQ(parse_s3_completion("<Error><Code>InternalError</Code></Error>").code(), Code::kTimeout);
  EXPECT_EQ(parse_s3_completion("<Error><Code>SlowDown</Code></Error>").code(), Code::kUnavailable);
  EXPECT_EQ(parse_s3_completion("<Error><Code>PreconditionFailed</Code></Error>").code(), Code::kConflict);
  EXPECT_EQ(parse_s3_completion("").code(), Code::kCorrupt);
}

TEST(S3Xml, WritesRequestsThatEscapeTheirText) {
  const std::string removal = s3_removal_request({"a<b>&\"c", "d"});
  EXPECT_NE(removal.find("<Object><Key>a&lt;b&gt;&amp;"), std::string::npos) << removal;
  EXPECT_NE(removal.find("<Quiet>true</Quiet>"), std::string::npos);
  const std::string completion = s3_completion_request({{"\"e1\"", "crc1"}, {"\"e2\"", ""}});
  EXPECT_NE(completion.find("<PartNumber>1</PartNumber>"), std::string::npos);
  EXPECT_NE(completion.find("<PartNumber>2</PartNumber>"), std::string::npos);
  EXPECT_NE(completion.find("<ChecksumCRC32C>crc1</ChecksumCRC32C>"), std::string::npos);
}

TEST(S3Xml, ReadsErrorsOfARemoval) {
  auto errors = parse_s3_removal(
      "<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></"
      "DeleteResult>");
  ASSERT_TRUE(errors.ok());
  ASSERT_EQ(errors->size(), 1U);
  EXPECT_EQ(errors->front().key, "k");
  EXPECT_EQ(errors->front().code, "AccessDenied");
}

}  // namespace headrace
