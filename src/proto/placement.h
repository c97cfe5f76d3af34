// Where a segment is: the location that its home keeps, joined into replies as a hint.
#pragma once

#include <vector>

#include "base/codec.h"
#include "base/ids.h"

namespace headrace {

inline constexpr uint64_t kMaxSegment = 16 * kMiB;

// D data and P parity fragments. A mirror is D = 1. "4+2", "replica-3" = 1+2.
struct Protection {
  static constexpr uint8_t kMaxData = 16;
  static constexpr uint8_t kMaxParity = 4;
  uint8_t data = 1;
  uint8_t parity = 0;
  void fields(this auto& self, auto& v) { v(self.data, self.parity); }
  [[nodiscard]] bool valid() const { return data >= 1 && data <= kMaxData && parity <= kMaxParity; }
  [[nodiscard]] uint16_t width() const { return static_cast<uint16_t>(data + parity); }
  bool operator==(const Protection&) const = default;
};

// targets[i] holds fragment i (data first). Empty: not in the hot tier.
struct Placement {
  Protection protection;
  std::vector<TargetId> targets;
  void fields(this auto& self, auto& v) { v(self.protection, self.targets); }
  [[nodiscard]] bool hot() const { return !targets.empty(); }
  // One target for each fragment.
  [[nodiscard]] bool valid() const { return protection.valid() && targets.size() == protection.width(); }
};

// The packed object that holds the segment, and where its index is. Zero id: not in the bucket.
struct ObjectRef {
  ObjectId object;
  uint64_t index_offset = 0;  // of the footer index in the object
  uint32_t index_length = 0;
  void fields(this auto& self, auto& v) { v(self.object, self.index_offset, self.index_length); }
};

struct Location {
  SegmentId segment;
  uint64_t length = 0;  // bytes of data
  NamespaceId bucket;   // whose bucket the object is in (a clone's origin); the segment's own, usually
  Placement placement;
  ObjectRef object;
  void fields(this auto& self, auto& v) { v(self.segment, self.length, self.bucket, self.placement, self.object); }
};

// A fragment that was found not to verify, or to be absent from where its home says that it is.
struct Damage {
  SegmentId segment;
  uint8_t index = 0;
  TargetId target;
  void fields(this auto& self, auto& v) { v(self.segment, self.index, self.target); }
  auto operator<=>(const Damage&) const = default;
};

// A piece of a file. Offsets in bytes; pieces of one file never overlap and ascend.
enum class ExtentKind : uint8_t { kHole = 0, kSegment = 1, kStaged = 2, kInline = 3, kForeign = 4 };
struct Extent {
  uint64_t offset = 0;  // in the file
  uint64_t length = 0;
  ExtentKind kind = ExtentKind::kHole;
  SegmentId segment;            // kSegment
  uint64_t segment_offset = 0;  // kSegment, kStaged: where in it the piece begins
  uint64_t staged = 0;          // kStaged: id of the staged row
  void fields(this auto& self, auto& v) {
    v(self.offset, self.length, self.kind, self.segment, self.segment_offset, self.staged);
  }
};

}  // namespace headrace
