// The small text forms that signed HTTP requests are made of: percent and base64 encoding, digests.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace headrace {

// RFC 3986: all but unreserved characters, '/' too unless it is kept.
[[nodiscard]] std::string uri_encoded(std::string_view text, bool keep_slash);
// The reverse of uri_encoded; nothing when a '%' is not followed by two hex digits.
[[nodiscard]] std::optional<std::string> uri_decoded(std::string_view text);
// a=1&b=2, encoded, sorted as SigV4 wants it; also right as the URL's query.
[[nodiscard]] std::string canonical_query(const std::vector<std::pair<std::string, std::string>>& query);

[[nodiscard]] std::string sha256_hex(ByteView bytes);
[[nodiscard]] std::string md5_bytes(ByteView bytes);  // 16 raw bytes; empty where OpenSSL forbids MD5
[[nodiscard]] std::string base64(std::string_view bytes);
// As x-amz-checksum-crc32c has it: base64 of the big-endian crc.
[[nodiscard]] std::string crc32c_base64(ByteView bytes);
// Nothing when it is none (padding included).
[[nodiscard]] std::optional<std::string> base64_decoded(std::string_view text);
[[nodiscard]] std::string hmac_sha256(std::string_view key, std::string_view text);
[[nodiscard]] std::string hex_text(std::string_view bytes);

}  // namespace headrace
