// BucketUrl: where a namespace's objects are. It names no secret: credentials come from the
// environment.
//
//   file:///dir                        a directory of this machine
//   s3://bucket[/prefix][?endpoint=http://host:port][&region=…][&style=path|virtual]
//   az://account/container[/prefix][?endpoint=http://host:port]
//   memory:name                        tests and the simulator only; open_object_store refuses it
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace headrace {

struct BucketUrl {
  enum class Kind : uint8_t { kDirectory, kS3, kAzure, kMemory };
  Kind kind = Kind::kDirectory;
  std::string path;      // directory: absolute, no trailing '/'
  std::string account;   // azure: the storage account
  std::string bucket;    // s3: the bucket; azure: the container; memory: its name
  std::string prefix;    // s3, azure: without leading or trailing '/'; may be empty
  std::string endpoint;  // s3, azure: scheme://host[:port], empty for AWS or public Azure itself
  std::string region;    // s3: empty: the environment's, else us-east-1
  enum class Style : uint8_t { kAuto, kPath, kVirtual };
  Style style = Style::kAuto;  // auto: path style when an endpoint is given

  // Canonical; parses back to the same value.
  [[nodiscard]] std::string text() const;
  bool operator==(const BucketUrl&) const = default;
};

// kInvalid, with the mend, for anything else.
// DECODER: bucket_url
[[nodiscard]] Result<BucketUrl> parse_bucket_url(std::string_view text);

}  // namespace headrace
