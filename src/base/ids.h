// Strong types for everything that is named by a number. See DESIGN.md §5 "Ids (fixed)".
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

namespace headrace {

// A number that converts to no other. Rep is what it takes on the wire and on disk.
template <class Tag, class RepT>
class Id {
 public:
  using Rep = RepT;
  constexpr Id() = default;
  constexpr explicit Id(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  [[nodiscard]] constexpr explicit operator bool() const { return value_ != 0; }
  constexpr auto operator<=>(const Id&) const = default;

 private:
  Rep value_ = 0;
};

using Slot = Id<struct SlotTag, uint16_t>;                      // one of 65,536 slices of a namespace
using NamespaceId = Id<struct NamespaceTag, uint64_t>;          // 48 random bits; 0 is none
using NamespaceEpoch = Id<struct NamespaceEpochTag, uint16_t>;  // +1 at each take-over or resume
using ClusterId = Id<struct ClusterTag, uint64_t>;              // random; 0 is none
using NodeId = Id<struct NodeTag, uint32_t>;
using TargetId = Id<struct TargetTag, uint64_t>;  // random, for ever; 0 is none
using PartitionId = Id<struct PartitionTag, uint16_t>;
using PartitionEpoch = Id<struct PartitionEpochTag, uint64_t>;  // +1 at each new leader
using Position = Id<struct PositionTag, uint64_t>;              // of a record in a partition's journal; the first is 1
using RunId = Id<struct RunTag, uint64_t>;          // one run of a journal: partition:16 | its epoch:24 | number:24
using ClientId = Id<struct ClientTag, uint64_t>;    // random, one per client process
using SessionId = Id<struct SessionTag, uint64_t>;  // random, one per (client, partition) standing
using GrantId = Id<struct GrantTag, uint64_t>;
using TenantId = Id<struct TenantTag, uint32_t>;
using KeyId = Id<struct KeyTag, uint32_t>;  // 0: not encrypted
using QuotaId = Id<struct QuotaTag, uint32_t>;

// Cut n of a namespace epoch; cuts order by (namespace epoch, n). 0 is 'none yet'.
class Cut {
 public:
  constexpr Cut() = default;
  constexpr explicit Cut(uint64_t packed) : packed_(packed) {}
  constexpr Cut(NamespaceEpoch epoch, uint64_t n) : packed_(uint64_t{epoch.value()} << 48 | n) {}
  [[nodiscard]] constexpr NamespaceEpoch epoch() const { return NamespaceEpoch(static_cast<uint16_t>(packed_ >> 48)); }
  [[nodiscard]] constexpr uint64_t number() const { return packed_ & 0xffff'ffff'ffff; }
  [[nodiscard]] constexpr uint64_t packed() const { return packed_; }
  [[nodiscard]] constexpr Cut next() const { return Cut(packed_ + 1); }
  constexpr auto operator<=>(const Cut&) const = default;

 private:
  uint64_t packed_ = 0;
};
inline constexpr Cut kNever{~uint64_t{0}};  // 'death' of what still lives

// slot:16 | local:48. The slot is that of the directory it was created in (a directory's own: by hash).
class FileId {
 public:
  constexpr FileId() = default;
  constexpr explicit FileId(uint64_t packed) : packed_(packed) {}
  constexpr FileId(Slot slot, uint64_t local) : packed_(uint64_t{slot.value()} << 48 | local) {}
  [[nodiscard]] constexpr Slot slot() const { return Slot(static_cast<uint16_t>(packed_ >> 48)); }
  [[nodiscard]] constexpr uint64_t local() const { return packed_ & 0xffff'ffff'ffff; }
  [[nodiscard]] constexpr uint64_t packed() const { return packed_; }
  [[nodiscard]] constexpr explicit operator bool() const { return packed_ != 0; }
  constexpr auto operator<=>(const FileId&) const = default;

 private:
  uint64_t packed_ = 0;
};
inline constexpr FileId kRootFile{Slot(0), 1};

// namespace:48 | home slot:16 | namespace epoch:16 | sequence:48. Never reused.
class SegmentId {
 public:
  constexpr SegmentId() = default;
  constexpr SegmentId(uint64_t high, uint64_t low) : high_(high), low_(low) {}
  constexpr SegmentId(NamespaceId ns, Slot home, NamespaceEpoch epoch, uint64_t sequence)
      : high_(ns.value() << 16 | home.value()), low_(uint64_t{epoch.value()} << 48 | sequence) {}
  [[nodiscard]] constexpr NamespaceId name_space() const { return NamespaceId(high_ >> 16); }
  [[nodiscard]] constexpr Slot home() const { return Slot(static_cast<uint16_t>(high_)); }
  [[nodiscard]] constexpr NamespaceEpoch epoch() const { return NamespaceEpoch(static_cast<uint16_t>(low_ >> 48)); }
  [[nodiscard]] constexpr uint64_t sequence() const { return low_ & 0xffff'ffff'ffff; }
  [[nodiscard]] constexpr uint64_t high() const { return high_; }
  [[nodiscard]] constexpr uint64_t low() const { return low_; }
  [[nodiscard]] constexpr explicit operator bool() const { return high_ != 0 || low_ != 0; }
  constexpr auto operator<=>(const SegmentId&) const = default;

 private:
  uint64_t high_ = 0;
  uint64_t low_ = 0;
};

// An object in the bucket, unique for ever within a namespace: the namespace epoch is in the name, so
// that what a deposed owner still writes can overwrite nothing. epoch:16 | partition:16 | number:32.
class ObjectId {
 public:
  constexpr ObjectId() = default;
  constexpr explicit ObjectId(uint64_t packed) : packed_(packed) {}
  constexpr ObjectId(NamespaceEpoch epoch, PartitionId partition, uint32_t number)
      : packed_(uint64_t{epoch.value()} << 48 | uint64_t{partition.value()} << 32 | number) {}
  [[nodiscard]] constexpr NamespaceEpoch epoch() const { return NamespaceEpoch(static_cast<uint16_t>(packed_ >> 48)); }
  [[nodiscard]] constexpr uint64_t packed() const { return packed_; }
  [[nodiscard]] constexpr explicit operator bool() const { return packed_ != 0; }
  constexpr auto operator<=>(const ObjectId&) const = default;

 private:
  uint64_t packed_ = 0;
};

// Fixed-width lower-case hexadecimal, as used in object names, file names, logs and status.
[[nodiscard]] std::string hex(uint64_t value, int digits = 16);
[[nodiscard]] Result<uint64_t> parse_hex(std::string_view text);
[[nodiscard]] std::string to_string(const SegmentId& id);
[[nodiscard]] std::string to_string(FileId id);
[[nodiscard]] std::string to_string(Cut cut);
[[nodiscard]] std::string to_string(TargetId id);
[[nodiscard]] std::string to_string(ObjectId id);

}  // namespace headrace

template <class Tag, class Rep>
struct std::hash<headrace::Id<Tag, Rep>> {
  size_t operator()(const headrace::Id<Tag, Rep>& id) const noexcept { return std::hash<Rep>{}(id.value()); }
};
template <>
struct std::hash<headrace::FileId> {
  size_t operator()(const headrace::FileId& id) const noexcept {
    return std::hash<uint64_t>{}(id.packed() * 0x9e3779b97f4a7c15);
  }
};
template <>
struct std::hash<headrace::SegmentId> {
  size_t operator()(const headrace::SegmentId& id) const noexcept {
    return std::hash<uint64_t>{}((id.high() ^ (id.low() * 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd);
  }
};
template <>
struct std::hash<headrace::ObjectId> {
  size_t operator()(const headrace::ObjectId& id) const noexcept { return std::hash<uint64_t>{}(id.packed()); }
};
