#include "runtime/uring/frame_header.h"

#include <gtest/gtest.h>

#include "base/checksum.h"
#include "runtime/net.h"

namespace headrace {
namespace {

std::string encoded(FrameHeader header) {
  std::string out(header.size(), '\0');
  encode_frame_header(header, reinterpret_cast<std::byte*>(out.data()));
  return out;
}

// As it is now, and as peers have it that send no checksum of the head.
class FrameHeaders : public testing::TestWithParam<bool> {
 protected:
  static FrameHeader header(uint32_t head, uint32_t payload) {
    FrameHeader out{head, payload, {}};
    if (GetParam()) out.head_crc = 0x1234'5678;
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(WithAndWithoutAChecksumOfTheHead, FrameHeaders, testing::Bool());

TEST(FrameHeader, HasTheBytesThatTheFormatPageSays) {
  const std::string bytes = encoded({64, 4096, 0x1234'5678});
  ASSERT_EQ(bytes.size(), 20u);
  EXPECT_EQ(bytes.substr(0, 4), "HRF2");
  EXPECT_EQ(bytes.substr(4, 12), std::string_view("\x40\0\0\0\0\x10\0\0\x78\x56\x34\x12", 12));
  uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + 16, 4);
  EXPECT_EQ(crc, crc32c(bytes_of(bytes).first(16)));

  const std::string plain = encoded({64, 4096, {}});
  ASSERT_EQ(plain.size(), 16u);
  EXPECT_EQ(plain.substr(0, 4), "HRF1");
  EXPECT_EQ(plain.substr(4, 8), std::string_view("\x40\0\0\0\0\x10\0\0", 8));
  std::memcpy(&crc, plain.data() + 12, 4);
  EXPECT_EQ(crc, crc32c(bytes_of(plain).first(12)));
}

TEST_P(FrameHeaders, RoundTripAtTheirLimits) {
  for (const FrameHeader& one : {header(0, 0), header(kMaxHead, kMaxPayload)}) {
    const std::string bytes = encoded(one);
    EXPECT_EQ(frame_header_size(bytes_of(bytes)), bytes.size());
    Result<FrameHeader> back = decode_frame_header(bytes_of(bytes));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->head_size, one.head_size);
    EXPECT_EQ(back->payload_size, one.payload_size);
    EXPECT_EQ(back->head_crc, one.head_crc);
  }
}

TEST_P(FrameHeaders, BadInputEverySingleFlippedBitIsCorrupt) {
  const std::string bytes = encoded(header(77, 88));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(decode_frame_header(bytes_of(flipped)).code(), Code::kCorrupt) << bit;
  }
}

TEST_P(FrameHeaders, BadInputSizesOverTheLimitAreRefusedEvenWithAValidChecksum) {
  for (size_t field : {4, 8}) {
    std::string bytes = encoded(header(0, 0));
    uint32_t size = static_cast<uint32_t>(field == 4 ? kMaxHead : kMaxPayload) + 1;
    std::memcpy(bytes.data() + field, &size, 4);
    uint32_t crc = crc32c(bytes_of(bytes).first(bytes.size() - 4));
    std::memcpy(bytes.data() + bytes.size() - 4, &crc, 4);
    EXPECT_EQ(decode_frame_header(bytes_of(bytes)).code(), Code::kCorrupt);
  }
}

TEST_P(FrameHeaders, BadInputACutHeaderIsCorrupt) {
  const std::string bytes = encoded(header(1, 2));
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_EQ(decode_frame_header(bytes_of(bytes).first(size)).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace headrace
