// The packed object: NS/d/XX/OBJECT in the bucket, at most 64 MiB: segments of one partition as
// frames, then an index, then a tail. Byte by byte in docs/formats/object.md.
//
// A frame is kFrameBytes of a segment, stored as it is or zstd-compressed, with a crc of what is
// stored and one of what it decodes to; both are seeded with (segment, frame number), so that bytes
// of another place never verify. Pure functions: no I/O, any thread. Immutable once written.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "proto/placement.h"

namespace headrace {

inline constexpr uint64_t kFrameBytes = 256 * kKiB;
inline constexpr uint64_t kMaxObject = 64 * kMiB;
inline constexpr uint64_t kMaxObjectData = 60 * kMiB;  // raw bytes that are put into one object
inline constexpr uint32_t kMaxObjectSegments = 4096;
inline constexpr uint64_t kMaxObjectIndex = 4 * kMiB;
inline constexpr uint64_t kObjectHeaderBytes = 32;
inline constexpr uint64_t kObjectTailBytes = 40;

enum class FrameCodec : uint8_t { kRaw = 0, kZstd = 1 };

struct PackedFrame {
  uint32_t stored = 0;  // bytes in the object
  FrameCodec codec = FrameCodec::kRaw;
  uint32_t stored_crc = 0;
  uint32_t raw_crc = 0;
  bool operator==(const PackedFrame&) const = default;
};

struct PackedSegment {
  SegmentId segment;
  uint64_t length = 0;  // bytes of data
  uint64_t offset = 0;  // of its first frame in the object; the others follow
  std::vector<PackedFrame> frames;

  [[nodiscard]] uint64_t raw_size(size_t frame) const { return std::min(kFrameBytes, length - frame * kFrameBytes); }
  [[nodiscard]] uint64_t frame_offset(size_t frame) const;  // in the object; one past the last works
};

struct ObjectIndex {
  NamespaceId name_space;
  ObjectId object;
  std::vector<PackedSegment> segments;  // as they lie in the object
  [[nodiscard]] const PackedSegment* find(SegmentId segment) const;
  [[nodiscard]] uint64_t memory() const;  // estimate, for caches
};

// One segment's frames, ready to be put into an object. Costs CPU: call it off the core.
struct EncodedSegment {
  PackedSegment about;  // offset 0
  Buffer stored;
};
[[nodiscard]] EncodedSegment encode_segment(SegmentId segment, Buffer data);

struct EncodedObject {
  Buffer body;
  ObjectRef ref;
};
// At least one segment, together within kMaxObjectData and kMaxObjectSegments (asserts).
[[nodiscard]] EncodedObject encode_object(NamespaceId name_space, ObjectId object,
                                          std::vector<EncodedSegment> segments);

// Where the index is, from the object's last kObjectTailBytes: for whoever has no ObjectRef
// (unpack).
// DECODER: object_tail
[[nodiscard]] Result<ObjectRef> decode_object_tail(ByteView tail, NamespaceId name_space, uint64_t object_size);

// The index as ObjectRef names it. kCorrupt when it is not that of the object, or no frame table
// can be.
// DECODER: object_index
[[nodiscard]] Result<ObjectIndex> decode_object_index(ByteView bytes, NamespaceId name_space, ObjectRef ref);

// Verifies and decodes one frame into `into` (raw_size(frame) bytes). Nothing of it may be used on
// kCorrupt.
// DECODER: object_frame
[[nodiscard]] Result<void> decode_frame(const PackedSegment& segment, size_t frame, ByteView stored, ByteSpan into);

// "d/XX/OBJECT", relative to the bucket URL.
[[nodiscard]] std::string object_key(ObjectId object);

}  // namespace headrace
