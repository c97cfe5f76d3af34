#include "apps/devices.h"

#include <gtest/gtest.h>

#include <cstring>

#include "hot/target.h"
#include "hot/target_place.h"

namespace headrace {
namespace {

TEST(Devices, ReadsANumberOrPaths) {
  EXPECT_EQ(parse_target_places("")->count, 6u);
  EXPECT_EQ(parse_target_places("8")->count, 8u);
  Result<TargetPlaces> two = parse_target_places("/dev/loop7,/srv/../data");
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(two->count, 2u);
  EXPECT_EQ(two->paths, (std::vector<std::string>{"/dev/loop7", "/data"}));
}

TEST(Devices, RefusesBadInputAsPlaces) {
  for (const char* text : {"123456", "/dev/a,", ",", "/dev/a,,/dev/b", "/dev/a,/dev/a", "/dev/a\n"})
    EXPECT_EQ(parse_target_places(text).code(), Code::kInvalid) << text;
  BootstrapOptions bootstrap;
  Result<TargetPlaces> places = parse_target_places("/no/such/place");
  ASSERT_TRUE(places.ok());
  Result<void> prepared = prepare_target_places(*places, {.state = "/tmp"}, bootstrap);
  EXPECT_EQ(prepared.code(), Code::kInvalid);
  EXPECT_NE(prepared.error().message().find("/no/such/place"), std::string::npos);
}

TEST(Devices, KnowsWhatIsOnADevice) {
  auto with = [](size_t offset, std::string_view magic) {
    Buffer bytes = Buffer::zeroed(kMiB);
    std::memcpy(bytes.data() + offset, magic.data(), magic.size());
    return signature_of(bytes.view());
  };
  EXPECT_EQ(signature_of(Buffer::zeroed(kMiB).view()), "");
  EXPECT_EQ(with(1080, "\x53\xef"), "an ext file system");
  EXPECT_EQ(with(0, "XFSB"), "an XFS file system");
  EXPECT_EQ(with(65'600, "_BHRfS_M"), "a btrfs file system");
  EXPECT_EQ(with(512, "EFI PART"), "a partition table (GPT)");
  EXPECT_EQ(with(500'000, "x"), "data of an unknown kind");
  Superblock superblock = lay_out(64 * kMiB);
  superblock.target = TargetId(1);
  superblock.cluster = ClusterId(0xc1);
  superblock.number = 4;
  superblock.generation = 1;
  superblock.table_batches = 1;
  const Buffer encoded = encode_superblock(superblock);
  EXPECT_NE(with(64 * kKiB, encoded.text()).find("target t4 of Headrace cluster"), std::string::npos);
}

TEST(Devices, KnowsWhatATargetMayNotOverwrite) {
  const PlaceClaim claim{ClusterId(0xc1), 4};
  auto superblock = [](uint64_t cluster, uint32_t number) {
    Superblock out = lay_out(64 * kMiB);
    out.target = TargetId(1);
    out.cluster = ClusterId(cluster);
    out.number = number;
    out.generation = 1;
    out.table_batches = 1;
    return std::string(encode_superblock(out).text());
  };
  using Pieces = std::vector<std::pair<size_t, std::string>>;
  auto there = [&](const Pieces& pieces) {
    Buffer bytes = Buffer::zeroed(kMiB);
    for (const auto& [offset, piece] : pieces) std::memcpy(bytes.data() + offset, piece.data(), piece.size());
    return somebody_elses(bytes.view(), claim);
  };
  const std::string log(encode_batch({BatchKind::kLog, TargetId(9), 3, 1}, "").text());
  const std::string mine = superblock(0xc1, 4);
  EXPECT_EQ(there({}), "");
  EXPECT_EQ(there({{0, mine}, {64 * kKiB, mine}, {4 * kKiB, "records"}, {kLogOffset, log}}), "");
  EXPECT_EQ(there({{0, mine}}), "");
  EXPECT_EQ(there({{64 * kKiB, mine}}), "");
  EXPECT_EQ(there({{kLogOffset, log}, {300 * kKiB, "older"}}), "") << "a log without superblocks";
  EXPECT_NE(there({{0, superblock(0xc1, 5)}}), "");
  EXPECT_NE(there({{0, superblock(0xc2, 4)}}), "");
  EXPECT_NE(there({{0, mine}, {64 * kKiB, superblock(0xc1, 5)}}), "");
  // What was made over a target of ours, and left its second superblock.
  EXPECT_EQ(there({{1080, "\x53\xef"}, {64 * kKiB, mine}}), "an ext file system");
  EXPECT_EQ(there({{0, "what?"}, {64 * kKiB, mine}}), "data of an unknown kind");
  EXPECT_EQ(there({{0, mine}, {65'600, "_BHRfS_M"}}), "a btrfs file system");
  EXPECT_EQ(there({{0, mine}, {4096, "\xfc\x4e\x2b\xa9"}}), "a member of a RAID");
  EXPECT_EQ(there({{500'000, "x"}}), "data of an unknown kind");
  EXPECT_EQ(there({{kLogOffset, "HLB1 but none"}}), "data of an unknown kind");
  EXPECT_EQ(somebody_elses(Buffer::zeroed(kBlock).view(), claim), "");
}

TEST(Devices, FindsTheLargestDataSpaceThatFits) {
  EXPECT_EQ(capacity_of_device(0), 0u);
  EXPECT_EQ(capacity_of_device(kMiB), 0u);
  for (uint64_t bytes : {64 * kMiB, 300 * kMiB + 12'345, 10 * kGiB, uint64_t{3'840'755'982'336}}) {
    const uint64_t capacity = capacity_of_device(bytes);
    EXPECT_LE(lay_out(capacity).file_bytes(), bytes);
    EXPECT_GT(capacity, bytes * 8 / 10) << bytes;
  }
}

}  // namespace
}  // namespace headrace
