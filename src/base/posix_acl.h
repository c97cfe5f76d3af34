// PosixAcl: whom a file admits beyond what its mode says: acl(5), POSIX 1003.1e draft 17 as Linux has it.
//
// Its bytes are the value of the extended attributes below as the kernel hands them over (linux/posix_acl_xattr.h): u32
// version (2), then u16 tag, u16 permissions, u32 id per entry, little-endian. Invariant: it is valid: the owner, named
// users, the owning group, named groups, the mask, the others, in this order; the owner, the group and the others are
// there once, the mask where anybody is named.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace headrace {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl =
    "system.posix_acl_default";  // of a directory: what is made in it has it
[[nodiscard]] inline bool is_acl(std::string_view xattr) {
  return xattr == kAccessAcl || xattr == kDefaultAcl;
}

class PosixAcl {
 public:
  static constexpr size_t kMaxBytes = 4096;  // a kernel asks for no more: 511 entries

  // nullopt: no entry is in it, which takes an ACL away. kInvalid: not one; kNotSupported: another version; kTooLarge.
  // DECODER: posix_acl
  [[nodiscard]] static Result<std::optional<PosixAcl>> decode(std::string_view bytes);
  [[nodiscard]] std::string encode() const;

  // It says nothing that a mode could not say.
  [[nodiscard]] bool is_mode() const;
  // `mode` with its nine bits as the ACL has them: the owner's, the mask's (the group's where there is none), the
  // others'.
  [[nodiscard]] uint32_t in_mode(uint32_t mode) const;
  // chmod: those three become the mode's.
  void set_mode(uint32_t mode);
  // Those three allow no more than the mode: a default ACL so becomes that of what is made with `mode`.
  void limit(uint32_t mode);

 private:
  struct Entry {
    uint16_t tag;
    uint16_t permissions;
    uint32_t id;
  };
  static_assert(sizeof(Entry) == 8);
  [[nodiscard]] bool valid() const;
  // Which three bits of a mode the entry is, as how far they are to the left; none for those that no mode knows.
  [[nodiscard]] std::optional<uint32_t> shift(const Entry& entry) const;
  [[nodiscard]] bool has_mask() const;

  std::vector<Entry> entries_;
};

}  // namespace headrace
