// AWS Signature Version 4 for S3, by header ("Authenticating Requests: Using the Authorization
// Header", Amazon S3 API reference). Pure: time and credentials come in as arguments.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "object/http/encoding.h"
#include "object/http/http.h"
#include "runtime/timers.h"

namespace headrace {

struct Credentials {
  std::string access_key;
  std::string secret_key;     // never in a message
  std::string session_token;  // may be empty
  Nanos expires;              // wall clock; 0: never
  std::string source;         // for messages: "environment", "profile x", …
};

struct SigningInput {
  std::string method;
  std::string host;                                        // as in the Host header
  std::string path;                                        // decoded, begins with '/'
  std::vector<std::pair<std::string, std::string>> query;  // decoded
  HttpHeaders headers;                                     // all of them are signed; names in lower case
  std::string payload_hash;                                // hex SHA-256, or kUnsignedPayload
  std::string region;
  Nanos wall;
};

inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

// The headers to send: those of the input, host, x-amz-date, x-amz-content-sha256,
// x-amz-security-token, authorization.
[[nodiscard]] HttpHeaders sign_v4(const SigningInput& input, const Credentials& credentials);

}  // namespace headrace
