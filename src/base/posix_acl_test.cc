#include "base/posix_acl.h"

#include <gtest/gtest.h>

#include <cstring>

namespace headrace {
namespace {

std::string entry(uint16_t tag, uint16_t permissions, uint32_t id = ~uint32_t{0}) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &tag, 2);
  std::memcpy(out.data() + 2, &permissions, 2);
  std::memcpy(out.data() + 4, &id, 4);
  return out;
}
template <class... Entries>
std::string bytes(const Entries&... entries) {
  return (std::string("\2\0\0\0", 4) + ... + entries);
}
PosixAcl acl(const std::string& from) {
  return **PosixAcl::decode(from);
}
const std::string kOwner = entry(1, 7);
const std::string kGroup = entry(4, 5);
const std::string kMask = entry(16, 6);
const std::string kOthers = entry(32, 4);

TEST(PosixAcl, ComesBackAsItWas) {
  const std::string with_names =
      bytes(kOwner, entry(2, 6, 1000), entry(2, 4, 7), kGroup, entry(8, 1, 50), kMask, kOthers);
  EXPECT_EQ(acl(with_names).encode(), with_names);
  EXPECT_FALSE(acl(with_names).is_mode());
  EXPECT_TRUE(acl(bytes(kOwner, kGroup, kOthers)).is_mode());
  EXPECT_FALSE(acl(bytes(kOwner, kGroup, kMask, kOthers)).is_mode());
  // An id of one that needs none is none.
  EXPECT_EQ(acl(bytes(entry(1, 7, 5), kGroup, kOthers)).encode(), bytes(kOwner, kGroup, kOthers));
}

TEST(PosixAcl, WithoutEntriesIsNone) {
  EXPECT_FALSE(PosixAcl::decode("")->has_value());
  EXPECT_FALSE(PosixAcl::decode(bytes())->has_value());
}

TEST(PosixAcl, BadInputIsRefused) {
  const std::string user = entry(2, 7, 1000);
  const std::string named = entry(8, 7, 1000);
  for (const std::string& wrong : {
           std::string("\2\0\0", 3),
           bytes(kOwner, kGroup, kOthers).substr(0, 27),
           bytes(kOwner, kGroup),
           bytes(kGroup, kOwner, kOthers),
           bytes(kOwner, kOwner, kGroup, kOthers),
           bytes(kOwner, kGroup, kOthers, kOthers),
           bytes(kOwner, kGroup, kOthers, kMask),
           bytes(kOwner, user, kGroup, kOthers),  // somebody is named: a mask it must have
           bytes(kOwner, kGroup, named, kOthers),
           bytes(kOwner, kGroup, user, kMask, kOthers),
           bytes(kOwner, named, kGroup, kMask, kOthers),
           bytes(user, kOwner, kGroup, kMask, kOthers),
           bytes(kOwner, entry(2, 7), kGroup, kMask, kOthers),  // without an id
           bytes(entry(1, 8), kGroup, kOthers),
           bytes(entry(64, 7), kGroup, kOthers),
           bytes(entry(0, 7), kGroup, kOthers),
       })
    EXPECT_EQ(PosixAcl::decode(wrong).code(), Code::kInvalid) << wrong.size();
  EXPECT_EQ(PosixAcl::decode(std::string("\1\0\0\0", 4) + kOwner + kGroup + kOthers).code(), Code::kNotSupported);
  std::string many = bytes(kOwner);
  for (uint32_t i = 0; i < 507; ++i) many += entry(2, 7, i);
  EXPECT_TRUE(PosixAcl::decode(many + kGroup + kMask + kOthers).ok());
  EXPECT_EQ(PosixAcl::decode(many + user + kGroup + kMask + kOthers).code(), Code::kTooLarge);
}

TEST(PosixAcl, AndModeAgreeOnOwnerMaskAndOthers) {
  PosixAcl plain = acl(bytes(kOwner, kGroup, kOthers));
  EXPECT_EQ(plain.in_mode(06000), 06754U);
  plain.set_mode(0640);
  EXPECT_EQ(plain.encode(), bytes(entry(1, 6), entry(4, 4), entry(32, 0)));
  PosixAcl named = acl(bytes(kOwner, entry(2, 7, 9), kGroup, kMask, kOthers));
  EXPECT_EQ(named.in_mode(0), 0764U);
  named.set_mode(0710);
  EXPECT_EQ(named.encode(), bytes(kOwner, entry(2, 7, 9), kGroup, entry(16, 1), entry(32, 0)));
}

TEST(PosixAcl, OfADirectoryIsLimitedByTheModeThatAFileIsMadeWith) {
  PosixAcl made = acl(bytes(kOwner, entry(2, 7, 9), kGroup, kMask, kOthers));
  made.limit(0644);
  EXPECT_EQ(made.encode(), bytes(entry(1, 6), entry(2, 7, 9), kGroup, entry(16, 4), kOthers));
  EXPECT_EQ(made.in_mode(0644), 0644U);
  PosixAcl plain = acl(bytes(kOwner, kGroup, kOthers));
  plain.limit(0666);
  EXPECT_EQ(plain.in_mode(0666), 0644U);
}

}  // namespace
}  // namespace headrace
