#include "tier/records.h"

#include <algorithm>
#include <ctime>

#include "base/checksum.h"

namespace headrace {
namespace {

constexpr uint32_t kHeadMagic = 0x44485248;       // "HRHD"
constexpr uint32_t kManifestMagic = 0x464d5248;   // "HRMF"
constexpr uint32_t kLocationsMagic = 0x434c5248;  // "HRLC"

template <class T>
Buffer seal(uint32_t magic, const T& record) {
  std::string body = encode_durable(record);
  Writer out(body.size() + 8);
  out(magic, crc32c(bytes_of(body)));
  out.raw(body.data(), body.size());
  return Buffer::adopt(out.take());
}

template <class T>
Result<T> unseal(uint32_t magic, ByteView bytes, const char* what) {
  Reader reader(bytes);
  uint32_t found = 0;
  uint32_t crc = 0;
  reader(found, crc);
  if (!reader.ok() || found != magic) return Error(Code::kCorrupt, std::string("this is no ") + what + " of headrace");
  if (crc != crc32c(reader.rest())) return Error(Code::kCorrupt, std::string("the ") + what + " does not verify");
  Result<T> record = decode_durable<T>(text_of(reader.rest()));
  if (!record.ok()) return std::move(record).error().within(what);
  return record;
}

std::string time_text(uint64_t seconds_since_1970) {
  auto when = static_cast<time_t>(seconds_since_1970);
  std::tm parts{};
  if (gmtime_r(&when, &parts) == nullptr) return "?";
  char text[40];
  size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return std::string(text, size);
}

// What hex() writes with so many digits, up to `end` ('\0': to the end of the text); taken off `text`.
std::optional<uint64_t> take_hex(std::string_view& text, int digits, char end) {
  const size_t size = end == '\0' ? text.size() : text.find(end);
  if (size == std::string_view::npos) return std::nullopt;
  Result<uint64_t> value = parse_hex(text.substr(0, size));
  if (!value.ok() || hex(*value, digits) != text.substr(0, size)) return std::nullopt;
  text.remove_prefix(std::min(text.size(), size + 1));
  return *value;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::string_view to_string(HeadState state) {
  switch (state) {
    case HeadState::kOwned:
      return "owned";
    case HeadState::kClosing:
      return "closing";
    case HeadState::kReleased:
      return "released";
  }
  return "unknown";
}

std::string describe(const HeadRecord& head) {
  return "epoch " + std::to_string(head.epoch.value()) + ", " + std::string(to_string(head.state)) + " since " +
         time_text(head.owned_since_s) + " by " + head.description;
}

Buffer encode_bucket_head(const HeadRecord& head) {
  return seal(kHeadMagic, head);
}
Result<HeadRecord> decode_bucket_head(ByteView bytes) {
  HR_TRY(HeadRecord head, unseal<HeadRecord>(kHeadMagic, bytes, "head"));
  if (head.state != HeadState::kOwned && head.state != HeadState::kClosing && head.state != HeadState::kReleased)
    return Error(Code::kCorrupt, "the head has an unknown state");
  if (!head.name_space || !head.epoch) return Error(Code::kCorrupt, "the head names no namespace");
  return head;
}

Buffer encode_manifest(const ManifestRecord& manifest) {
  return seal(kManifestMagic, manifest);
}
Result<ManifestRecord> decode_manifest(ByteView bytes) {
  HR_TRY(ManifestRecord manifest, unseal<ManifestRecord>(kManifestMagic, bytes, "manifest"));
  uint32_t next = 0;
  for (const PartitionManifest& partition : manifest.partitions) {
    if (partition.first_slot != next || partition.last_slot < partition.first_slot)
      return Error(Code::kCorrupt, "the manifest's partitions do not cover every slot once");
    next = uint32_t{partition.last_slot} + 1;
  }
  if (next != 65'536) return Error(Code::kCorrupt, "the manifest's partitions do not cover every slot once");
  return manifest;
}

Buffer encode_locations(const LocationsRecord& locations) {
  return seal(kLocationsMagic, locations);
}
Result<LocationsRecord> decode_locations(ByteView bytes) {
  return unseal<LocationsRecord>(kLocationsMagic, bytes, "list of locations");
}

std::string manifest_key(Cut cut) {
  return "manifest/" + hex(cut.epoch().value(), 4) + "-" + hex(cut.number(), 12);
}

std::string store_file_key(NamespaceEpoch epoch, PartitionId partition, PartitionEpoch leadership,
                           const StoreFile& file) {
  std::string name;
  for (char c : file.name)  // a store may name its files as it likes; a key keeps to letters that
                            // every service takes
    name +=
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ? c : '_';
  if (name.size() > 200) name.resize(200);
  return "m/" + hex(epoch.value(), 4) + "-" + hex(partition.value(), 4) + "/" + hex(leadership.value(), 8) + "-" +
         hex(file.crc, 8) + "-" + hex(file.size, 10) + "-" + name;
}

std::string locations_key(Cut cut, PartitionId partition) {
  return "m/" + hex(cut.epoch().value(), 4) + "-" + hex(partition.value(), 4) + "/locations-" + hex(cut.number(), 12);
}

std::optional<PublishedKey> parse_published_key(std::string_view key) {
  PublishedKey out;
  std::string_view rest = key;
  const bool manifest = take_prefix(rest, "manifest/");
  if (!manifest && !take_prefix(rest, "m/")) return std::nullopt;
  std::optional<uint64_t> epoch = take_hex(rest, 4, '-');
  if (!epoch || *epoch > 0xffff) return std::nullopt;
  out.epoch = NamespaceEpoch(static_cast<uint16_t>(*epoch));
  bool numbered = manifest;
  if (!manifest) {
    std::optional<uint64_t> partition = take_hex(rest, 4, '/');
    if (!partition || *partition > 0xffff) return std::nullopt;
    out.partition = PartitionId(static_cast<uint16_t>(*partition));
    numbered = take_prefix(rest, "locations-");
  }
  if (numbered) {
    std::optional<uint64_t> number = take_hex(rest, 12, '\0');
    if (!number || *number > Cut(~uint64_t{0}).number()) return std::nullopt;
    out.cut = Cut(out.epoch, *number);
    return out;
  }
  std::optional<uint64_t> leadership = take_hex(rest, 8, '-');
  std::optional<uint64_t> crc = take_hex(rest, 8, '-');
  std::optional<uint64_t> size = take_hex(rest, 10, '-');
  if (!leadership || !crc || !size || rest.empty()) return std::nullopt;
  out.leadership = PartitionEpoch(*leadership);
  return out;
}

}  // namespace headrace
