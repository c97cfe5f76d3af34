// FUZZES: posix_acl
//
// What decodes is valid whatever is done with it, and encodes to bytes that decode to the same again.
#include "base/posix_acl.h"

namespace headrace {
namespace {

PosixAcl again(const PosixAcl& acl) {
  std::string bytes = acl.encode();
  Result<std::optional<PosixAcl>> decoded = PosixAcl::decode(bytes);
  HR_ASSERT(decoded.ok() && decoded->has_value() && (*decoded)->encode() == bytes);
  return **decoded;
}

void check(std::string_view input, uint32_t mode) {
  Result<std::optional<PosixAcl>> decoded = PosixAcl::decode(input);
  if (!decoded.ok() || !*decoded) return;
  const PosixAcl acl = again(**decoded);
  HR_ASSERT(acl.encode().size() == input.size());
  const uint32_t had = acl.in_mode(0);
  PosixAcl changed = acl;
  changed.set_mode(mode);
  HR_ASSERT(changed.in_mode(mode) == mode && again(changed).is_mode() == acl.is_mode());
  PosixAcl limited = acl;
  limited.limit(mode);
  HR_ASSERT(again(limited).in_mode(mode) == (mode & (had | ~uint32_t{0777})));
}

}  // namespace
}  // namespace headrace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint32_t mode = size > 1 ? data[size - 1] * 16U + data[size - 2] : 0;
  headrace::check({reinterpret_cast<const char*>(data), size}, mode & 07777);
  // With the entries that any has about it, so that those between are reached.
  std::string whole("\2\0\0\0\1\0\7\0\xff\xff\xff\xff", 12);
  whole.append(reinterpret_cast<const char*>(data), size - size % 8);
  whole.append("\x10\0\5\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff", 16);
  headrace::check(whole, mode & 07777);
  return 0;
}
