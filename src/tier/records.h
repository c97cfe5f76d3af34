// The small records of a bucket: `head`, manifests, lists of locations. Byte by byte in
// docs/formats/bucket.md.
//
// Each is one object: magic u32, crc32c of the rest u32, then the record as the codec writes it
// behind its format version. All are immutable but head, which is only ever swapped (tier/head.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/codec.h"
#include "proto/work.h"

namespace headrace {

inline constexpr const char* kHeadKey = "head";

enum class HeadState : uint8_t { kOwned = 1, kClosing = 2, kReleased = 3 };
[[nodiscard]] std::string_view to_string(HeadState state);

struct HeadRecord {
  static constexpr uint8_t kFormat = 1;
  NamespaceId name_space;
  ClusterId cluster;  // of the owner
  NamespaceEpoch epoch;
  HeadState state = HeadState::kOwned;
  uint64_t owner = 0;         // random, one per cluster that takes the namespace
  uint64_t nonce = 0;         // random, one per write of head
  std::string manifest;       // key of the current one; empty: nothing was published yet
  uint32_t manifest_crc = 0;  // crc32c of the whole manifest object
  Cut cut;                    // that it publishes
  uint64_t published_s = 0;   // when, wall clock
  std::string description;    // of the owner, for people: host, state directory
  uint64_t owned_since_s = 0;
  uint64_t changed_s = 0;
  void fields(this auto& self, auto& v) {
    v(self.name_space, self.cluster, self.epoch, self.state, self.owner, self.nonce, self.manifest, self.manifest_crc,
      self.cut, self.published_s, self.description, self.owned_since_s, self.changed_s);
  }
};
// "epoch 3, owned since 2025-01-01T00:00:00Z by node1:/srv/state", for messages and status.
[[nodiscard]] std::string describe(const HeadRecord& head);

struct ManifestFile {
  StoreFile file;
  std::string key;  // in the bucket
  void fields(this auto& self, auto& v) { v(self.file, self.key); }
};

struct PartitionManifest {
  PartitionId id;
  uint16_t first_slot = 0;
  uint16_t last_slot = 0;
  PartitionEpoch epoch;
  Position at;
  std::string store_import;
  std::vector<ManifestFile> files;
  std::string locations;  // key of a LocationsRecord: what changed after the cut was journaled.
                          // Empty: nothing
  uint64_t locations_size = 0;
  uint32_t locations_crc = 0;  // of the whole object
  uint64_t inodes = 0;
  uint64_t bytes = 0;
  void fields(this auto& self, auto& v) {
    v(self.id, self.first_slot, self.last_slot, self.epoch, self.at, self.store_import, self.files, self.locations,
      self.locations_size, self.locations_crc, self.inodes, self.bytes);
  }
};

// A key that no manifest names since then (by the wall clock, for people): deleted when the horizon has passed.
struct GarbageKey {
  std::string key;
  uint64_t since_s = 0;
  void fields(this auto& self, auto& v) { v(self.key, self.since_s); }
};

struct ManifestRecord {
  static constexpr uint8_t kFormat = 1;
  NamespaceId name_space;
  ClusterId cluster;
  NamespaceEpoch epoch;  // of its publisher
  Cut cut;
  uint64_t created_s = 0;
  Protection protection;                      // of new segments, as a hint for whoever attaches
  std::vector<PartitionManifest> partitions;  // by id; together all slots
  std::vector<GarbageKey> garbage;
  void fields(this auto& self, auto& v) {
    v(self.name_space, self.cluster, self.epoch, self.cut, self.created_s, self.protection, self.partitions,
      self.garbage);
  }
};

struct LocationsRecord {
  static constexpr uint8_t kFormat = 1;
  NamespaceId name_space;
  PartitionId partition;
  Cut cut;
  std::vector<Location> locations;  // placements left out: they are void elsewhere
  void fields(this auto& self, auto& v) { v(self.name_space, self.partition, self.cut, self.locations); }
};

[[nodiscard]] Buffer encode_bucket_head(const HeadRecord& head);
// DECODER: bucket_head
[[nodiscard]] Result<HeadRecord> decode_bucket_head(ByteView bytes);
[[nodiscard]] Buffer encode_manifest(const ManifestRecord& manifest);
// Also checks that the partitions cover each slot once.
// DECODER: bucket_manifest
[[nodiscard]] Result<ManifestRecord> decode_manifest(ByteView bytes);
[[nodiscard]] Buffer encode_locations(const LocationsRecord& locations);
// DECODER: bucket_locations
[[nodiscard]] Result<LocationsRecord> decode_locations(ByteView bytes);

// "manifest/EPOCH-NUMBER"
[[nodiscard]] std::string manifest_key(Cut cut);
// "m/EPOCH-PARTITION/LEADERSHIP-CRC-NAME": unique for ever, so that it is never overwritten.
[[nodiscard]] std::string store_file_key(NamespaceEpoch epoch, PartitionId partition, PartitionEpoch leadership,
                                         const StoreFile& file);
[[nodiscard]] std::string locations_key(Cut cut, PartitionId partition);

// One of these three keys taken apart. Nothing: it is none of them.
struct PublishedKey {
  NamespaceEpoch epoch;
  std::optional<Cut> cut;     // that made it; of a manifest or a list of locations
  PartitionId partition;      // of what is in m/
  PartitionEpoch leadership;  // of a store file
};
[[nodiscard]] std::optional<PublishedKey> parse_published_key(std::string_view key);

}  // namespace headrace
