// The four examples of the Amazon S3 API reference, "Signature Calculations for the Authorization
// Header: Transferring Payload in a Single Chunk".
#include "object/s3/sigv4.h"

#include <gtest/gtest.h>

namespace headrace {

const Credentials kExample{.access_key = "AKIAIOSFODNN7EXAMPLE",
                           .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
constexpr const char* kEmptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

SigningInput example(std::string method, std::string path) {
  SigningInput input;
  input.method = std::move(method);
  input.host = "examplebucket.s3.amazonaws.com";
  input.path = std::move(path);
  input.payload_hash = kEmptyHash;
  input.region = "us-east-1";
  input.wall = seconds(1369353600);  // 2013-05-24T00:00:00Z
  return input;
}

std::string signature(const SigningInput& input) {
  const HttpHeaders headers = sign_v4(input, kExample);
  const std::string authorization(header_value(headers, "authorization"));
  return authorization.substr(authorization.find("Signature=") + 10);
}

TEST(SigV4, SignsTheExampleOfARangedGet) {
  SigningInput input = example("GET", "/test.txt");
  input.headers.emplace_back("range", "bytes=0-9");
  EXPECT_EQ(signature(input), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  const HttpHeaders headers = sign_v4(input, kExample);
  EXPECT_EQ(header_value(headers, "x-amz-date"), "20130524T000000Z");
  EXPECT_TRUE(header_value(headers, "authorization")
                  .starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                               "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature="));
}

TEST(SigV4, SignsTheExampleOfAPut) {
  SigningInput input = example("PUT", "/test$file.text");
  input.headers.emplace_back("date", "Fri, 24 May 2013 00:00:00 GMT");
  input.headers.emplace_back("x-amz-storage-class", "REDUCED_REDUNDANCY");
  input.payload_hash = sha256_hex(bytes_of("Welcome to Amazon S3."));
  EXPECT_EQ(signature(input), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(SigV4, SignsTheExampleOfASubresource) {
  SigningInput input = example("GET", "/");
  input.query = {{"lifecycle", ""}};
  EXPECT_EQ(signature(input), "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(SigV4, SignsTheExampleOfAListing) {
  SigningInput input = example("GET", "/");
  input.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_EQ(signature(input), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(SigV4, SignsTheSessionTokenToo) {
  Credentials credentials = kExample;
  credentials.session_token = "token";
  const HttpHeaders headers = sign_v4(example("GET", "/"), credentials);
  EXPECT_EQ(header_value(headers, "x-amz-security-token"), "token");
  EXPECT_NE(header_value(headers, "authorization").find("x-amz-security-token"), std::string::npos);
  for (const auto& [name, value] : headers) EXPECT_EQ(value.find(kExample.secret_key), std::string::npos) << name;
}

TEST(SigV4, EncodesAndHashesAsDocumented) {
  EXPECT_EQ(uri_encoded("a b/c~d$\xc3\xbc", true), "a%20b/c~d%24%C3%BC");
  EXPECT_EQ(uri_encoded("a/b", false), "a%2Fb");
  EXPECT_EQ(sha256_hex({}), kEmptyHash);
  EXPECT_EQ(base64("Man"), "TWFu");
  EXPECT_EQ(base64("Ma"), "TWE=");
  EXPECT_EQ(base64(md5_bytes({})), "1B2M2Y8AsgTpgAmY7PhCfg==");
  // RFC 3720 B.4: 32 zero bytes have crc32c 8a9136aa.
  EXPECT_EQ(crc32c_base64(bytes_of(std::string(32, '\0'))), base64("\x8a\x91\x36\xaa"));
}

}  // namespace headrace
