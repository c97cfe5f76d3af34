#include "object/s3/sigv4.h"

#include <time.h>

#include <algorithm>

#include <fmt/core.h>

namespace headrace {

namespace {

// Runs of blanks become one, as the canonical form wants.
std::string canonical_value(std::string_view value) {
  std::string out;
  for (char c : value) {
    if (c == ' ' && (out.empty() || out.back() == ' ')) continue;
    out.push_back(c);
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

}  // namespace

HttpHeaders sign_v4(const SigningInput& input, const Credentials& credentials) {
  const time_t time = static_cast<time_t>(input.wall.count / 1'000'000'000);
  tm utc{};
  ::gmtime_r(&time, &utc);
  const std::string date = fmt::format("{:04}{:02}{:02}", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
  const std::string stamp = fmt::format("{}T{:02}{:02}{:02}Z", date, utc.tm_hour, utc.tm_min, utc.tm_sec);

  HttpHeaders headers = input.headers;
  headers.emplace_back("host", input.host);
  headers.emplace_back("x-amz-content-sha256", input.payload_hash);
  headers.emplace_back("x-amz-date", stamp);
  if (!credentials.session_token.empty()) headers.emplace_back("x-amz-security-token", credentials.session_token);
  std::sort(headers.begin(), headers.end());

  std::string canonical_headers;
  std::string signed_names;
  for (const auto& [name, value] : headers) {
    canonical_headers += fmt::format("{}:{}\n", name, canonical_value(value));
    if (!signed_names.empty()) signed_names.push_back(';');
    signed_names += name;
  }
  const std::string canonical =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}", input.method, uri_encoded(input.path, true), canonical_query(input.query),
                  canonical_headers, signed_names, input.payload_hash);
  const std::string scope = fmt::format("{}/{}/s3/aws4_request", date, input.region);
  const std::string to_sign =
      fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", stamp, scope, sha256_hex(bytes_of(canonical)));
  std::string key = hmac_sha256("AWS4" + credentials.secret_key, date);
  key = hmac_sha256(key, input.region);
  key = hmac_sha256(key, "s3");
  key = hmac_sha256(key, "aws4_request");
  headers.emplace_back("authorization",
                       fmt::format("AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={},Signature={}",
                                   credentials.access_key, scope, signed_names, hex_text(hmac_sha256(key, to_sign))));
  return headers;
}

}  // namespace headrace
