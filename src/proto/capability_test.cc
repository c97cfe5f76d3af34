#include "proto/capability.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

constexpr SegmentId kSegment(NamespaceId(7), Slot(3), NamespaceEpoch(1), 42);
constexpr uint8_t kBoth = static_cast<uint8_t>(Right::kRead) | static_cast<uint8_t>(Right::kWrite);

NamespaceSecret secret(uint8_t first) {
  NamespaceSecret out{};
  out[0] = first;
  return out;
}

TEST(Capability, AllowsWhatItWasSignedFor) {
  Capability c = sign_capability(secret(1), kSegment, 4096, 8192, kBoth, 1000);
  EXPECT_TRUE(verify_capability(secret(1), c, kSegment, 4096, 8192, Right::kRead, 1000).ok());
  EXPECT_TRUE(verify_capability(secret(1), c, kSegment, 5000, 5001, Right::kWrite, 0).ok());
  EXPECT_TRUE(verify_capability(secret(1), c, kSegment, 8192, 8192, Right::kWrite, 0).ok());
}

TEST(Capability, RefusesEverythingElseAndSaysWhy) {
  auto why = [](const Capability& c, SegmentId segment, uint64_t begin, uint64_t end, Right right, uint32_t now) {
    Result<void> result = verify_capability(secret(1), c, segment, begin, end, right, now);
    EXPECT_EQ(result.code(), Code::kDenied);
    return result.ok() ? std::string() : result.error().message();
  };
  Capability c = sign_capability(secret(1), kSegment, 4096, 8192, static_cast<uint8_t>(Right::kRead), 1000);
  SegmentId other(kSegment.high(), kSegment.low() + 1);
  EXPECT_NE(why(c, other, 4096, 8192, Right::kRead, 0).find("asked for segment"), std::string::npos);
  EXPECT_NE(why(c, kSegment, 4095, 8192, Right::kRead, 0).find("outside"), std::string::npos);
  EXPECT_NE(why(c, kSegment, 4096, 8193, Right::kRead, 0).find("outside"), std::string::npos);
  EXPECT_NE(why(c, kSegment, 8192, 4096, Right::kRead, 0).find("outside"), std::string::npos);
  EXPECT_NE(why(c, kSegment, 4096, 8192, Right::kWrite, 0).find("writing"), std::string::npos);
  EXPECT_NE(why(c, kSegment, 4096, 8192, Right::kRead, 1001).find("expired 1 s ago"), std::string::npos);
  EXPECT_NE(why(Capability{}, SegmentId(), 0, 0, Right::kRead, 0).find("signature"), std::string::npos);
}

TEST(Capability, EveryChangedFieldBreaksTheSignature) {
  Capability good = sign_capability(secret(1), kSegment, 4096, 8192, kBoth, 1000);
  auto broken = [](Capability c) {
    return verify_capability(secret(1), c, c.segment, 5000, 6000, Right::kRead, 0).code() == Code::kDenied;
  };
  ASSERT_FALSE(broken(good));
  Capability c = good;
  c.segment = SegmentId(kSegment.high(), kSegment.low() + 1);
  EXPECT_TRUE(broken(c));
  c = good;
  c.begin = 0;
  EXPECT_TRUE(broken(c));
  c = good;
  c.end = 16384;
  EXPECT_TRUE(broken(c));
  c = good;
  c.rights = 7;
  EXPECT_TRUE(broken(c));
  c = good;
  c.expiry_s = 2000;
  EXPECT_TRUE(broken(c));
  for (size_t i = 0; i < c.mac.size(); ++i) {
    c = good;
    c.mac[i] ^= 1;
    EXPECT_TRUE(broken(c)) << "byte " << i;
  }
  EXPECT_EQ(verify_capability(secret(2), good, kSegment, 5000, 6000, Right::kRead, 0).code(), Code::kDenied);
}

// HMAC-SHA256 of the 37 bytes that docs/formats/messages.md describes, computed with Python's hmac module.
TEST(Capability, HasTheBytesThatTheFormatPageDescribes) {
  Capability c = sign_capability(secret(1), kSegment, 4096, 8192, 3, 1000);
  std::string text;
  for (uint8_t byte : c.mac) text += hex(byte, 2);
  EXPECT_EQ(text, "4e99b442960417e483bdc1ccc612159d");
}

TEST(Capability, AVerifierRemembersOnlyWhatWasGenuine) {
  CapabilityVerifier verifier(secret(1));
  const auto read = static_cast<uint8_t>(Right::kRead);
  Capability good = sign_capability(secret(1), kSegment, 0, 8192, read, 1000);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(verifier.verify(good, kSegment, 0, 8192, Right::kRead, 1000).ok());
  // What it knows of the segment lends nothing to another capability, nor past what this one allows.
  Capability forged = good;
  forged.rights |= static_cast<uint8_t>(Right::kWrite);
  EXPECT_EQ(verifier.verify(forged, kSegment, 0, 1, Right::kWrite, 0).code(), Code::kDenied);
  forged = good;
  forged.expiry_s += 1;
  EXPECT_EQ(verifier.verify(forged, kSegment, 0, 1, Right::kRead, 0).code(), Code::kDenied);
  forged = good;
  forged.mac[15] ^= 1;
  EXPECT_EQ(verifier.verify(forged, kSegment, 0, 1, Right::kRead, 0).code(), Code::kDenied);
  EXPECT_EQ(verifier.verify(good, kSegment, 0, 8193, Right::kRead, 0).code(), Code::kDenied);
  EXPECT_EQ(verifier.verify(good, kSegment, 0, 1, Right::kWrite, 0).code(), Code::kDenied);
  EXPECT_EQ(verifier.verify(good, kSegment, 0, 1, Right::kRead, 1001).code(), Code::kDenied);
  EXPECT_TRUE(verifier.verify(good, kSegment, 0, 1, Right::kRead, 1000).ok());
}

}  // namespace
}  // namespace headrace
