#include "object/s3/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#include <algorithm>

#include <fmt/core.h>

#include "base/checksum.h"

namespace headrace {

namespace {

std::string to_hex(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (unsigned char c : bytes) {
    out.push_back("0123456789abcdef"[c >> 4]);
    out.push_back("0123456789abcdef"[c & 15]);
  }
  return out;
}

std::string hmac_sha256(std::string_view key, std::string_view text) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  const void* done =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), out, &size);
  HR_ASSERT(done != nullptr);
  return {reinterpret_cast<const char*>(out), size};
}

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

std::string uri_encoded(std::string_view text, bool keep_slash) {
  std::string out;
  out.reserve(text.size() * 5 / 4);
  for (unsigned char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash);
    if (plain) {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back('%');
      out.push_back("0123456789ABCDEF"[c >> 4]);
      out.push_back("0123456789ABCDEF"[c & 15]);
    }
  }
  return out;
}

std::string canonical_query(const std::vector<std::pair<std::string, std::string>>& query) {
  std::vector<std::pair<std::string, std::string>> encoded;
  for (const auto& [name, value] : query)
    encoded.emplace_back(uri_encoded(name, false), uri_encoded(value, false));
  std::sort(encoded.begin(), encoded.end());
  std::string out;
  for (const auto& [name, value] : encoded) {
    if (!out.empty()) out.push_back('&');
    out += name;
    out.push_back('=');
    out += value;
  }
  return out;
}

std::string sha256_hex(ByteView bytes) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HR_ASSERT(EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_sha256(), nullptr) == 1);
  return to_hex({reinterpret_cast<const char*>(out), size});
}

std::string md5_bytes(ByteView bytes) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_md5(), nullptr) != 1) return {};
  return {reinterpret_cast<const char*>(out), size};
}

std::string base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(size));
  return out;
}

std::string crc32c_base64(ByteView bytes) {
  const uint32_t crc = crc32c(bytes);
  const char big_endian[4] = {static_cast<char>(crc >> 24), static_cast<char>(crc >> 16),
                              static_cast<char>(crc >> 8), static_cast<char>(crc)};
  return base64({big_endian, 4});
}

HttpHeaders sign_v4(const SigningInput& input, const Credentials& credentials) {
  const time_t time = static_cast<time_t>(input.wall.count / 1'000'000'000);
  tm utc{};
  ::gmtime_r(&time, &utc);
  const std::string date =
      fmt::format("{:04}{:02}{:02}", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
  const std::string stamp =
      fmt::format("{}T{:02}{:02}{:02}Z", date, utc.tm_hour, utc.tm_min, utc.tm_sec);

  HttpHeaders headers = input.headers;
  headers.emplace_back("host", input.host);
  headers.emplace_back("x-amz-content-sha256", input.payload_hash);
  headers.emplace_back("x-amz-date", stamp);
  if (!credentials.session_token.empty())
    headers.emplace_back("x-amz-security-token", credentials.session_token);
  std::sort(headers.begin(), headers.end());

  std::string canonical_headers;
  std::string signed_names;
  for (const auto& [name, value] : headers) {
    canonical_headers += fmt::format("{}:{}\n", name, canonical_value(value));
    if (!signed_names.empty()) signed_names.push_back(';');
    signed_names += name;
  }
  const std::string canonical = fmt::format(
      "{}\n{}\n{}\n{}\n{}\n{}", input.method, uri_encoded(input.path, true),
      canonical_query(input.query), canonical_headers, signed_names, input.payload_hash);
  const std::string scope = fmt::format("{}/{}/s3/aws4_request", date, input.region);
  const std::string to_sign =
      fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", stamp, scope, sha256_hex(bytes_of(canonical)));
  std::string key = hmac_sha256("AWS4" + credentials.secret_key, date);
  key = hmac_sha256(key, input.region);
  key = hmac_sha256(key, "s3");
  key = hmac_sha256(key, "aws4_request");
  headers.emplace_back(
      "authorization",
      fmt::format("AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={},Signature={}",
                  credentials.access_key, scope, signed_names, to_hex(hmac_sha256(key, to_sign))));
  return headers;
}

}  // namespace headrace
