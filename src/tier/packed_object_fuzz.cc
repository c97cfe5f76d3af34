// FUZZES: object_index, object_tail, object_frame
//
// Whatever an index says must lie within the object, and decoding frames by it must neither read
// past their bytes nor write past their room. The index's crc is mended first, so that mutations
// get past it.
#include "base/checksum.h"
#include "tier/packed_object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: this file is one function
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= kObjectTailBytes)
    (void)decode_object_tail(bytes_of(bytes).last(kObjectTailBytes), NamespaceId(7), size).ok();
  ObjectRef ref;
  ref.object = ObjectId(NamespaceEpoch(1), PartitionId(2), 77);
  ref.index_length = static_cast<uint32_t>(size);
  (void)decode_object_index(bytes_of(bytes), NamespaceId(7), ref).ok();
  if (size < 48) return 0;
  // The fixed head, and where the frames end, as they should be; the rest as the fuzzer has it.
  Writer head;
  head(uint32_t{0x31495248}, uint16_t{1}, uint16_t{0}, NamespaceId(7), ref.object, static_cast<uint32_t>(kFrameBytes));
  std::memcpy(bytes.data(), head.bytes().data(), head.size());
  uint32_t crc = crc32c(bytes_of(bytes).first(size - 4));
  std::memcpy(bytes.data() + size - 4, &crc, 4);
  std::memcpy(&ref.index_offset, bytes.data() + size - 12, 4);
  Result<ObjectIndex> index = decode_object_index(bytes_of(bytes), NamespaceId(7), ref);
  if (index.ok())
    for (const PackedSegment& segment : index->segments)
      HR_ASSERT(segment.frame_offset(segment.frames.size()) <= ref.index_offset);
  // One frame, its stored crc right.
  PackedSegment one;
  one.segment = SegmentId(1, 2);
  one.length = 1 + bytes_of(bytes).size() % 5000;
  PackedFrame frame;
  frame.stored = static_cast<uint32_t>(size);
  frame.codec = (data[0] & 1) != 0 ? FrameCodec::kZstd : FrameCodec::kRaw;
  ByteView stored(reinterpret_cast<const std::byte*>(data), size);
  frame.stored_crc = crc32c(stored, crc32c_seed(1, 2, 0));
  one.frames = {frame};
  std::string out(one.length, '\0');
  (void)decode_frame(one, 0, stored, std::as_writable_bytes(std::span(out))).ok();
  return 0;
}
