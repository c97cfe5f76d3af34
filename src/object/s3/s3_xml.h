// The XML of the S3 API: what replies say, and the bodies of requests. Everything read here comes
// from outside; every decoder is bounded by the size of its input and says kCorrupt for what it
// cannot read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace headrace {

struct S3Error {
  std::string code;     // "NoSuchKey"
  std::string message;  // the service's words
  std::string region;   // where the bucket is, when the service says
  std::string server_time;
};
// Nothing when the body is not an error document.
// DECODER: s3_error
[[nodiscard]] std::optional<S3Error> parse_s3_error(std::string_view xml);

struct S3Listing {
  struct Entry {
    std::string key;
    uint64_t size = 0;
    std::string etag;
  };
  std::vector<Entry> entries;
  std::string continuation;  // empty: the last piece
};
// Of ListObjectsV2 with encoding-type=url.
// DECODER: s3_listing
[[nodiscard]] Result<S3Listing> parse_s3_listing(std::string_view xml);

// Of CreateMultipartUpload.
// DECODER: s3_upload_id
[[nodiscard]] Result<std::string> parse_s3_upload_id(std::string_view xml);

// Of CompleteMultipartUpload, which may be 200 and still an error: that is kUnavailable.
// DECODER: s3_completion
[[nodiscard]] Result<std::string> parse_s3_completion(std::string_view xml);

struct S3RemoveError {
  std::string key;
  std::string code;
  std::string message;
};
// DECODER: s3_removal
[[nodiscard]] Result<std::vector<S3RemoveError>> parse_s3_removal(std::string_view xml);

[[nodiscard]] std::string s3_removal_request(const std::vector<std::string>& keys);

struct S3Part {
  std::string etag;
  std::string crc32c;
};
[[nodiscard]] std::string s3_completion_request(const std::vector<S3Part>& parts);

// Always with quotes, as HTTP has it.
[[nodiscard]] std::string quoted_etag(std::string_view etag);

}  // namespace headrace
