#include "base/ids.h"

#include <charconv>

namespace headrace {

std::string hex(uint64_t value, int digits) {
  std::string out(static_cast<size_t>(digits), '0');
  for (int i = digits - 1; i >= 0; --i, value >>= 4) out[static_cast<size_t>(i)] = "0123456789abcdef"[value & 15];
  return out;
}

Result<uint64_t> parse_hex(std::string_view text) {
  uint64_t value = 0;
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (failure != std::errc{} || end != text.data() + text.size() || text.empty())
    return Error(Code::kInvalid, "not a hexadecimal number: '" + std::string(text) + "'");
  return value;
}

std::string to_string(const SegmentId& id) {
  return hex(id.high()) + "-" + hex(id.low());
}
std::string to_string(FileId id) {
  return hex(id.packed());
}
std::string to_string(Cut cut) {
  return std::to_string(cut.epoch().value()) + "." + std::to_string(cut.number());
}
std::string to_string(TargetId id) {
  return hex(id.value());
}
std::string to_string(ObjectId id) {
  return hex(id.packed());
}

}  // namespace headrace
