#include "stripe/fragment.h"

#include <gtest/gtest.h>

#include <cstring>

#include "runtime/random.h"

namespace headrace {
namespace {

const SegmentId kSegment(NamespaceId(7), Slot(9), NamespaceEpoch(1), 5);
const TargetId kTarget(0x1234);

FragmentHeader sample(uint64_t segment_length, Protection protection, uint8_t index) {
  FragmentHeader header;
  header.segment = kSegment;
  header.index = index;
  header.protection = protection;
  header.segment_length = segment_length;
  header.fragment_length = fragment_size(segment_length, protection.data);
  for (uint64_t i = 0; i < header.fragment_length / kBlock; ++i) header.crcs.push_back(static_cast<uint32_t>(i * 77));
  return header;
}

TEST(Fragment, SizeIsTheShareRoundedUpToBlocks) {
  EXPECT_EQ(fragment_size(1, 4), kBlock);
  EXPECT_EQ(fragment_size(4 * kBlock, 4), kBlock);
  EXPECT_EQ(fragment_size(4 * kBlock + 1, 4), 2 * kBlock);
  EXPECT_EQ(fragment_size(16 * kMiB, 4), 4 * kMiB);
  EXPECT_EQ(fragment_size(16 * kMiB, 16), kMiB);
  EXPECT_EQ(fragment_size(100, 1), kBlock);
}

TEST(Fragment, HeaderComesBackAsItWas) {
  for (uint64_t length : {uint64_t{1}, uint64_t{4096}, uint64_t{100'000}, 16 * kMiB}) {
    for (Protection protection : {Protection{1, 2}, Protection{4, 2}, Protection{16, 4}}) {
      FragmentHeader header = sample(length, protection, static_cast<uint8_t>(protection.width() - 1));
      Buffer bytes = encode_fragment_header(header, kTarget, 8192);
      ASSERT_EQ(bytes.size(), fragment_header_size(header.fragment_length));
      auto back = decode_fragment_header(bytes.view(), kTarget, 8192);
      ASSERT_TRUE(back.ok()) << back.error().text();
      EXPECT_EQ(back->segment, header.segment);
      EXPECT_EQ(back->index, header.index);
      EXPECT_EQ(back->protection, header.protection);
      EXPECT_EQ(back->segment_length, length);
      EXPECT_EQ(back->fragment_length, header.fragment_length);
      EXPECT_EQ(back->crcs, header.crcs);
    }
  }
}

TEST(Fragment, BadInputHeaderWithAnyBitFlippedIsRefused) {
  FragmentHeader header = sample(300'000, {4, 2}, 3);
  Buffer bytes = encode_fragment_header(header, kTarget, 4096);
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (std::byte bit : {std::byte{1}, std::byte{0x80}}) {
      bytes.data()[i] ^= bit;
      EXPECT_FALSE(decode_fragment_header(bytes.view(), kTarget, 4096).ok()) << i;
      bytes.data()[i] ^= bit;
    }
  }
  EXPECT_TRUE(decode_fragment_header(bytes.view(), kTarget, 4096).ok());
}

TEST(Fragment, BadInputHeaderOfAnotherPlaceIsRefused) {
  Buffer bytes = encode_fragment_header(sample(5000, {2, 1}, 0), kTarget, 4096);
  EXPECT_EQ(decode_fragment_header(bytes.view(), TargetId(99), 4096).code(), Code::kCorrupt);
  EXPECT_EQ(decode_fragment_header(bytes.view(), kTarget, 8192).code(), Code::kCorrupt);
}

TEST(Fragment, BadInputTruncatedHeaderIsRefused) {
  Buffer bytes = encode_fragment_header(sample(16 * kMiB, {4, 2}, 0), kTarget, 4096);
  for (size_t size : {size_t{0}, size_t{1}, size_t{127}, size_t{128}, size_t{4096}, bytes.size() - 1})
    EXPECT_EQ(decode_fragment_header(bytes.view().first(size), kTarget, 4096).code(), Code::kCorrupt) << size;
}

TEST(Fragment, RandomBytesAreNeverAHeader) {
  SeededRandom random(5);
  Buffer bytes = Buffer::allocate(8192);
  for (int round = 0; round < 2000; ++round) {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      uint64_t word = random.next();
      std::memcpy(bytes.data() + i, &word, 8);
    }
    uint32_t magic = FragmentHeader::kMagic;
    std::memcpy(bytes.data(), &magic, 4);
    EXPECT_FALSE(decode_fragment_header(bytes.view(), kTarget, 0).ok());
  }
}

TEST(Fragment, BlocksVerifyOnlyInTheirPlace) {
  Buffer data = Buffer::zeroed(4 * kBlock);  // equal blocks: only identity tells them apart
  std::vector<uint32_t> crcs = block_crcs(kSegment, 2, 10, data.view());
  EXPECT_TRUE(verify_blocks(kSegment, 2, 10, data.view(), crcs).ok());
  EXPECT_EQ(verify_blocks(kSegment, 2, 11, data.view(), crcs).code(), Code::kCorrupt);
  EXPECT_EQ(verify_blocks(kSegment, 1, 10, data.view(), crcs).code(), Code::kCorrupt);
  SegmentId other(kSegment.high(), kSegment.low() + 1);
  EXPECT_EQ(verify_blocks(other, 2, 10, data.view(), crcs).code(), Code::kCorrupt);
  data.data()[2 * kBlock + 17] ^= std::byte{4};
  auto bad = verify_blocks(kSegment, 2, 10, data.view(), crcs);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message().find("block 12"), std::string::npos) << bad.error().text();
  EXPECT_EQ(verify_blocks(kSegment, 2, 10, data.view().first(kBlock), crcs).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace headrace
