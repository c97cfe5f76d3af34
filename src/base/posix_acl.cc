#include "base/posix_acl.h"

#include <algorithm>
#include <cstring>

namespace headrace {

namespace {

constexpr uint32_t kVersion = 2;
constexpr uint16_t kOwner = 0x01;
constexpr uint16_t kUser = 0x02;
constexpr uint16_t kGroup = 0x04;
constexpr uint16_t kNamedGroup = 0x08;
constexpr uint16_t kMask = 0x10;
constexpr uint16_t kOthers = 0x20;
constexpr uint32_t kNobody = ~uint32_t{0};  // the id of those that need none

}  // namespace

Result<std::optional<PosixAcl>> PosixAcl::decode(std::string_view bytes) {
  if (bytes.empty()) return std::optional<PosixAcl>();
  uint32_t version = 0;
  if (bytes.size() < sizeof version) return Error(Code::kInvalid, "an ACL without a version");
  std::memcpy(&version, bytes.data(), sizeof version);
  if (version != kVersion)
    return Error(Code::kNotSupported, "ACLs of version " + std::to_string(version) + ": 2 is known");
  if (bytes.size() > kMaxBytes) return Error(Code::kTooLarge, "an ACL has at most 511 entries");
  bytes.remove_prefix(sizeof version);
  if (bytes.size() % sizeof(Entry) != 0) return Error(Code::kInvalid, "an ACL that ends within an entry");
  if (bytes.empty()) return std::optional<PosixAcl>();
  PosixAcl acl;
  acl.entries_.resize(bytes.size() / sizeof(Entry));
  std::memcpy(acl.entries_.data(), bytes.data(), bytes.size());
  for (Entry& entry : acl.entries_)
    if (entry.tag != kUser && entry.tag != kNamedGroup) entry.id = kNobody;
  if (!acl.valid()) return Error(Code::kInvalid, "not a valid ACL");
  return std::optional(std::move(acl));
}

// fs/posix_acl.c, posix_acl_valid: ids in any order, the same twice too.
bool PosixAcl::valid() const {
  uint16_t expected = kOwner;  // the next tag that only comes once
  bool named = false;
  for (const Entry& entry : entries_) {
    if (entry.permissions > 7) return false;
    switch (entry.tag) {
      case kOwner:
        if (expected != kOwner) return false;
        expected = kGroup;
        break;
      case kUser:
        if (expected != kGroup || entry.id == kNobody) return false;
        named = true;
        break;
      case kGroup:
        if (expected != kGroup) return false;
        expected = kMask;
        break;
      case kNamedGroup:
        if (expected != kMask || entry.id == kNobody) return false;
        named = true;
        break;
      case kMask:
        if (expected != kMask) return false;
        expected = kOthers;
        break;
      case kOthers:
        if (expected != kOthers && (expected != kMask || named)) return false;
        expected = 0;
        break;
      default:
        return false;
    }
  }
  return expected == 0;
}

std::string PosixAcl::encode() const {
  std::string out(sizeof kVersion + entries_.size() * sizeof(Entry), '\0');
  std::memcpy(out.data(), &kVersion, sizeof kVersion);
  std::memcpy(out.data() + sizeof kVersion, entries_.data(), entries_.size() * sizeof(Entry));
  return out;
}

bool PosixAcl::is_mode() const {
  return entries_.size() == 3;
}

bool PosixAcl::has_mask() const {
  return std::ranges::any_of(entries_, [](const Entry& entry) { return entry.tag == kMask; });
}

std::optional<uint32_t> PosixAcl::shift(const Entry& entry) const {
  switch (entry.tag) {
    case kOwner:
      return 6;
    case kMask:
      return 3;
    case kGroup:
      if (has_mask()) return std::nullopt;
      return 3;
    case kOthers:
      return 0;
    default:
      return std::nullopt;
  }
}

uint32_t PosixAcl::in_mode(uint32_t mode) const {
  mode &= ~uint32_t{0777};
  for (const Entry& entry : entries_)
    if (auto by = shift(entry)) mode |= uint32_t{entry.permissions} << *by;
  return mode;
}

void PosixAcl::set_mode(uint32_t mode) {
  for (Entry& entry : entries_)
    if (auto by = shift(entry)) entry.permissions = mode >> *by & 7;
}

void PosixAcl::limit(uint32_t mode) {
  for (Entry& entry : entries_)
    if (auto by = shift(entry)) entry.permissions &= mode >> *by & 7;
}

}  // namespace headrace
