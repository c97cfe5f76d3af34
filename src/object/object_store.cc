#include "object/object_store.h"

#include <fmt/core.h>

namespace headrace {

namespace {

// RFC 3629: no overlong forms, no surrogates, at most U+10FFFF.
bool is_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    size_t more = 0;
    uint32_t point = 0;
    uint32_t least = 0;
    if (byte < 0x80) {
      ++i;
      continue;
    } else if ((byte & 0xe0) == 0xc0) {
      more = 1, point = byte & 0x1f, least = 0x80;
    } else if ((byte & 0xf0) == 0xe0) {
      more = 2, point = byte & 0x0f, least = 0x800;
    } else if ((byte & 0xf8) == 0xf0) {
      more = 3, point = byte & 0x07, least = 0x10000;
    } else {
      return false;
    }
    if (text.size() - i <= more) return false;
    for (size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      point = point << 6 | (next & 0x3f);
    }
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace

Result<void> check_key(const std::string& key) {
  if (key.empty()) return Error(Code::kInvalid, "an object's key is empty");
  if (key.size() > kMaxKey)
    return Error(Code::kNameTooLong, fmt::format("an object's key has {} bytes; the most is {}", key.size(), kMaxKey));
  if (key.find('\0') != std::string::npos) return Error(Code::kInvalid, "an object's key contains a NUL");
  if (!is_utf8(key)) return Error(Code::kInvalid, "an object's key is not UTF-8");
  return {};
}

Task<Result<Buffer>> ObjectStore::get(std::string key) {
  HR_CO_TRY(Got got, co_await get_with_etag(std::move(key)));
  co_return std::move(got.body);
}

}  // namespace headrace
