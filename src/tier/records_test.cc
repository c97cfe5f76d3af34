// Head's own damage is in head_test.
#include "tier/records.h"

#include <gtest/gtest.h>

#include "base/checksum.h"
#include "proto/messages_fill_test.h"

namespace headrace {
namespace {

ManifestRecord manifest_of(uint64_t seed) {
  RandomFill fill(seed);
  ManifestRecord manifest;
  fill(manifest);
  manifest.partitions.resize(3);
  for (uint16_t i = 0; i < 3; ++i) {
    PartitionManifest& partition = manifest.partitions[i];
    fill(partition);
    fill(partition.files.emplace_back());
    partition.first_slot = static_cast<uint16_t>(i * 20'000);
    partition.last_slot = static_cast<uint16_t>(i == 2 ? 65'535 : (i + 1) * 20'000 - 1);
  }
  return manifest;
}

LocationsRecord locations_of(uint64_t seed) {
  RandomFill fill(seed);
  LocationsRecord locations;
  fill(locations);
  locations.locations.resize(5);
  for (Location& location : locations.locations) fill(location);
  return locations;
}

template <class Decode>
void refuses_all_damage(const std::string& bytes, Decode decode) {
  ASSERT_TRUE(decode(bytes_of(bytes)).ok());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(decode(bytes_of(bytes).first(i)).ok()) << "cut to " << i;
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      EXPECT_FALSE(decode(bytes_of(flipped)).ok()) << "byte " << i << " bit " << bit;
    }
  }
  EXPECT_FALSE(decode(bytes_of(bytes + '\0')).ok()) << "the checksum covers all that is there";
}

// A checksum that somebody made of damaged bytes: whatever they are taken for, it is one record.
template <class Decode, class Encode>
void survives_damage_with_a_right_checksum(const std::string& bytes, Decode decode, Encode encode) {
  constexpr size_t kHead = 8;  // magic and crc
  auto mended = [&](std::string damaged) {
    const uint32_t crc = crc32c(bytes_of(damaged).subspan(kHead));
    std::memcpy(damaged.data() + 4, &crc, sizeof crc);
    return damaged;
  };
  for (size_t i = kHead; i < bytes.size(); ++i) {
    EXPECT_FALSE(decode(bytes_of(mended(bytes.substr(0, i)))).ok()) << "cut to " << i;
    for (unsigned char value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(value);
      auto record = decode(bytes_of(mended(damaged)));
      if (!record.ok()) continue;
      const Buffer again = encode(*record);
      EXPECT_TRUE(decode(again.view()).ok()) << "byte " << i;
    }
  }
}

TEST(BucketRecords, BadInputAManifestWithAnyBitFlippedOrAnyCutIsRefused) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::string bytes(encode_manifest(manifest_of(seed)).text());
    refuses_all_damage(bytes, decode_manifest);
    survives_damage_with_a_right_checksum(bytes, decode_manifest, encode_manifest);
  }
}

TEST(BucketRecords, BadInputLocationsWithAnyBitFlippedOrAnyCutAreRefused) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::string bytes(encode_locations(locations_of(seed)).text());
    refuses_all_damage(bytes, decode_locations);
    survives_damage_with_a_right_checksum(bytes, decode_locations, encode_locations);
  }
}

TEST(BucketRecords, BadInputNoRecordIsTakenForAnother) {
  const Buffer manifest = encode_manifest(manifest_of(1));
  const Buffer locations = encode_locations(locations_of(1));
  EXPECT_FALSE(decode_locations(manifest.view()).ok());
  EXPECT_FALSE(decode_bucket_head(manifest.view()).ok());
  EXPECT_FALSE(decode_manifest(locations.view()).ok());
  EXPECT_FALSE(decode_bucket_head(locations.view()).ok());
}

TEST(BucketRecords, BadInputAManifestThatLacksASlotOrHasOneTwiceIsRefused) {
  for (int how = 0; how < 4; ++how) {
    ManifestRecord manifest = manifest_of(1);
    if (how == 0) ++manifest.partitions[0].first_slot;
    if (how == 1) ++manifest.partitions[1].last_slot;
    if (how == 2) --manifest.partitions[1].last_slot;
    if (how == 3) manifest.partitions.pop_back();
    EXPECT_EQ(decode_manifest(encode_manifest(manifest).view()).code(), Code::kCorrupt) << how;
  }
}

}  // namespace
}  // namespace headrace
