#include "runtime/uring/frame_header.h"

#include <gtest/gtest.h>

#include "base/checksum.h"
#include "runtime/net.h"

namespace headrace {
namespace {

TEST(FrameHeader, HasTheBytesThatTheFormatPageSays) {
  std::byte bytes[kFrameHeaderSize];
  encode_frame_header({64, 4096}, bytes);
  EXPECT_EQ(text_of(ByteView(bytes, 4)), "HRF1");
  EXPECT_EQ(text_of(ByteView(bytes + 4, 8)), std::string_view("\x40\0\0\0\0\x10\0\0", 8));
  uint32_t crc = 0;
  std::memcpy(&crc, bytes + 12, 4);
  EXPECT_EQ(crc, crc32c(ByteView(bytes, 12)));
}

TEST(FrameHeader, RoundTripsAtItsLimits) {
  for (FrameHeader header : {FrameHeader{0, 0}, FrameHeader{kMaxHead, kMaxPayload}}) {
    std::byte bytes[kFrameHeaderSize];
    encode_frame_header(header, bytes);
    Result<FrameHeader> back = decode_frame_header(bytes);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->head_size, header.head_size);
    EXPECT_EQ(back->payload_size, header.payload_size);
  }
}

TEST(FrameHeader, BadInputEverySingleFlippedBitIsCorrupt) {
  std::byte bytes[kFrameHeaderSize];
  encode_frame_header({77, 88}, bytes);
  for (size_t bit = 0; bit < kFrameHeaderSize * 8; ++bit) {
    std::byte flipped[kFrameHeaderSize];
    std::memcpy(flipped, bytes, sizeof flipped);
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_EQ(decode_frame_header(flipped).code(), Code::kCorrupt) << bit;
  }
}

TEST(FrameHeader, BadInputSizesOverTheLimitAreRefusedEvenWithAValidChecksum) {
  for (size_t field : {4, 8}) {
    std::byte bytes[kFrameHeaderSize];
    encode_frame_header({0, 0}, bytes);
    uint32_t size = static_cast<uint32_t>(field == 4 ? kMaxHead : kMaxPayload) + 1;
    std::memcpy(bytes + field, &size, 4);
    uint32_t crc = crc32c(ByteView(bytes, 12));
    std::memcpy(bytes + 12, &crc, 4);
    EXPECT_EQ(decode_frame_header(bytes).code(), Code::kCorrupt);
  }
}

TEST(FrameHeader, BadInputACutHeaderIsCorrupt) {
  std::byte bytes[kFrameHeaderSize];
  encode_frame_header({1, 2}, bytes);
  for (size_t size = 0; size < kFrameHeaderSize; ++size)
    EXPECT_EQ(decode_frame_header(ByteView(bytes, size)).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace headrace
