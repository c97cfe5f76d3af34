#include "tier/packed_object.h"

#include <zstd.h>

#include <algorithm>

#include "base/checksum.h"
#include "base/codec.h"

namespace headrace {
namespace {

constexpr uint32_t kHeaderMagic = 0x314f5248;  // "HRO1"
constexpr uint32_t kIndexMagic = 0x31495248;   // "HRI1"
constexpr uint32_t kTailMagic = 0x31545248;    // "HRT1"
constexpr uint16_t kFormat = 1;
constexpr int kLevel = 1;

uint32_t frame_seed(SegmentId segment, size_t frame) {
  return crc32c_seed(segment.high(), segment.low(), frame);
}

// What compresses by less than a sixteenth is stored as it is: reads are then free of decoding.
bool worth_it(size_t stored, size_t raw) {
  return stored <= raw - raw / 16 && stored < raw;
}

std::string encode_index(const ObjectIndex& index) {
  Writer out(1024);
  out(kIndexMagic, kFormat, uint16_t{0}, index.name_space, index.object, static_cast<uint32_t>(kFrameBytes),
      static_cast<uint32_t>(index.segments.size()));
  for (const PackedSegment& segment : index.segments) {
    out(segment.segment, segment.length, segment.offset, uint32_t{0});
    for (const PackedFrame& frame : segment.frames) out(frame.stored, frame.codec, frame.stored_crc, frame.raw_crc);
  }
  out(crc32c(bytes_of(out.bytes())));
  return out.take();
}

Error corrupt(ObjectId object, const std::string& what) {
  return Error(Code::kCorrupt, "object " + to_string(object) + ": " + what);
}

}  // namespace

uint64_t PackedSegment::frame_offset(size_t frame) const {
  HR_ASSERT(frame <= frames.size());
  uint64_t at = offset;
  for (size_t i = 0; i < frame; ++i) at += frames[i].stored;
  return at;
}

const PackedSegment* ObjectIndex::find(SegmentId segment) const {
  for (const PackedSegment& candidate : segments)
    if (candidate.segment == segment) return &candidate;
  return nullptr;
}

uint64_t ObjectIndex::memory() const {
  uint64_t bytes = sizeof *this;
  for (const PackedSegment& segment : segments) bytes += sizeof segment + segment.frames.size() * sizeof(PackedFrame);
  return bytes;
}

EncodedSegment encode_segment(SegmentId segment, Buffer data) {
  HR_ASSERT(!data.empty() && data.size() <= kMaxSegment);
  EncodedSegment out;
  out.about.segment = segment;
  out.about.length = data.size();
  out.stored = Buffer::allocate(data.size());
  std::string scratch(ZSTD_compressBound(kFrameBytes), '\0');
  uint64_t at = 0;
  for (uint64_t offset = 0; offset < data.size(); offset += kFrameBytes) {
    size_t number = out.about.frames.size();
    ByteView raw = data.view().subspan(offset, std::min(kFrameBytes, data.size() - offset));
    PackedFrame frame;
    ByteView stored = raw;
    size_t size = ZSTD_compress(scratch.data(), scratch.size(), raw.data(), raw.size(), kLevel);
    if (ZSTD_isError(size) == 0 && worth_it(size, raw.size())) {
      frame.codec = FrameCodec::kZstd;
      stored = bytes_of(std::string_view(scratch).substr(0, size));
    }
    frame.stored = static_cast<uint32_t>(stored.size());
    frame.stored_crc = crc32c(stored, frame_seed(segment, number));
    frame.raw_crc = frame.codec == FrameCodec::kRaw ? frame.stored_crc : crc32c(raw, frame_seed(segment, number));
    std::memcpy(out.stored.data() + at, stored.data(), stored.size());
    at += stored.size();
    out.about.frames.push_back(frame);
  }
  // Many segments wait for their object together: what compression saved is given back at once.
  out.stored = at < data.size() / 2 ? Buffer::copy_of(out.stored.view().first(at)) : out.stored.slice(0, at);
  return out;
}

EncodedObject encode_object(NamespaceId name_space, ObjectId object, std::vector<EncodedSegment> segments) {
  HR_ASSERT(!segments.empty() && segments.size() <= kMaxObjectSegments);
  ObjectIndex index{name_space, object, {}};
  uint64_t at = kObjectHeaderBytes;
  uint64_t raw = 0;
  for (EncodedSegment& segment : segments) {
    segment.about.offset = at;
    at += segment.stored.size();
    raw += segment.about.length;
    index.segments.push_back(segment.about);
  }
  HR_ASSERT(raw <= kMaxObjectData);
  std::string index_bytes = encode_index(index);
  EncodedObject out;
  out.ref.object = object;
  out.ref.index_offset = at;
  out.ref.index_length = static_cast<uint32_t>(index_bytes.size());

  Writer header;
  header(kHeaderMagic, kFormat, uint16_t{0}, name_space, object);
  header(crc32c(bytes_of(header.bytes())), uint32_t{0});
  HR_ASSERT(header.size() == kObjectHeaderBytes);
  Writer tail;
  tail(out.ref.index_offset, out.ref.index_length, kFormat, uint16_t{0}, name_space, object);
  tail(crc32c(bytes_of(tail.bytes())), kTailMagic);
  HR_ASSERT(tail.size() == kObjectTailBytes);

  out.body = Buffer::allocate(at + index_bytes.size() + tail.size());
  HR_ASSERT(out.body.size() <= kMaxObject);
  std::byte* into = out.body.data();
  auto append = [&into](const void* bytes, size_t size) {
    std::memcpy(into, bytes, size);
    into += size;
  };
  append(header.bytes().data(), header.size());
  for (EncodedSegment& segment : segments) {
    append(segment.stored.data(), segment.stored.size());
    segment.stored = {};
  }
  append(index_bytes.data(), index_bytes.size());
  append(tail.bytes().data(), tail.size());
  return out;
}

Result<ObjectRef> decode_object_tail(ByteView tail, NamespaceId name_space, uint64_t object_size) {
  if (tail.size() != kObjectTailBytes || object_size < kObjectHeaderBytes + kObjectTailBytes)
    return Error(Code::kCorrupt, "a packed object is cut short");
  Reader reader(tail);
  ObjectRef ref;
  uint16_t format = 0;
  uint16_t zero = 0;
  NamespaceId owner;
  uint32_t crc = 0;
  uint32_t magic = 0;
  reader(ref.index_offset, ref.index_length, format, zero, owner, ref.object, crc, magic);
  if (!reader.ok() || magic != kTailMagic) return Error(Code::kCorrupt, "not a packed object, or cut short");
  if (crc != crc32c(tail.first(kObjectTailBytes - 8)))
    return Error(Code::kCorrupt, "a packed object's tail does not verify");
  if (format > kFormat)
    return Error(Code::kUnsupportedFormat, "packed object format " + std::to_string(format) + ": upgrade headrace");
  if (owner != name_space) return corrupt(ref.object, "of another namespace");
  uint64_t room = object_size - kObjectTailBytes;
  if (ref.index_offset < kObjectHeaderBytes || ref.index_offset > room || ref.index_length != room - ref.index_offset)
    return corrupt(ref.object, "its tail names no index");
  return ref;
}

Result<ObjectIndex> decode_object_index(ByteView bytes, NamespaceId name_space, ObjectRef ref) {
  if (bytes.size() != ref.index_length || bytes.size() < 36 || bytes.size() > kMaxObjectIndex)
    return corrupt(ref.object, "its index has an impossible length");
  ByteView body = bytes.first(bytes.size() - 4);
  Reader reader(body);
  uint32_t magic = 0;
  uint16_t format = 0;
  uint16_t zero = 0;
  uint32_t frame_bytes = 0;
  uint32_t count = 0;
  ObjectIndex index;
  reader(magic, format, zero, index.name_space, index.object, frame_bytes, count);
  if (!reader.ok() || magic != kIndexMagic) return corrupt(ref.object, "there is no index where there should be one");
  uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + body.size(), sizeof crc);
  if (crc != crc32c(body)) return corrupt(ref.object, "its index does not verify");
  if (format > kFormat)
    return Error(Code::kUnsupportedFormat,
                 "object " + to_string(ref.object) + " has format " + std::to_string(format) + ": upgrade headrace");
  if (index.name_space != name_space || index.object != ref.object)
    return corrupt(ref.object, "the index is another object's");
  if (frame_bytes != kFrameBytes || count == 0 || count > kMaxObjectSegments)
    return corrupt(ref.object, "its index says impossible things");
  uint64_t at = kObjectHeaderBytes;
  for (uint32_t i = 0; i < count; ++i) {
    PackedSegment segment;
    uint32_t key = 0;
    reader(segment.segment, segment.length, segment.offset, key);
    if (!reader.ok() || segment.length == 0 || segment.length > kMaxSegment || segment.offset != at)
      return corrupt(ref.object, "its index says impossible things of a segment");
    if (key != 0)
      return Error(Code::kUnsupportedFormat, "object " + to_string(ref.object) + " is encrypted: upgrade headrace");
    segment.frames.resize(divide_up(segment.length, kFrameBytes));
    for (size_t f = 0; f < segment.frames.size(); ++f) {
      PackedFrame& frame = segment.frames[f];
      reader(frame.stored, frame.codec, frame.stored_crc, frame.raw_crc);
      uint64_t raw = segment.raw_size(f);
      bool possible = (frame.codec == FrameCodec::kRaw && frame.stored == raw) ||
                      (frame.codec == FrameCodec::kZstd && frame.stored > 0 && frame.stored < raw);
      if (!reader.ok() || !possible) return corrupt(ref.object, "its index says impossible things of a frame");
      at += frame.stored;
    }
    index.segments.push_back(std::move(segment));
  }
  if (reader.left() != 0 || at != ref.index_offset) return corrupt(ref.object, "its index does not fit its frames");
  return index;
}

Result<void> decode_frame(const PackedSegment& segment, size_t number, ByteView stored, ByteSpan into) {
  HR_ASSERT(number < segment.frames.size() && into.size() == segment.raw_size(number));
  const PackedFrame& frame = segment.frames[number];
  auto bad = [&](const char* what) {
    return Error(Code::kCorrupt,
                 "frame " + std::to_string(number) + " of segment " + to_string(segment.segment) + ": " + what);
  };
  uint32_t seed = frame_seed(segment.segment, number);
  if (stored.size() != frame.stored || crc32c(stored, seed) != frame.stored_crc)
    return bad("the bytes from the bucket do not verify");
  if (frame.codec == FrameCodec::kRaw) {
    if (stored.size() != into.size()) return bad("has the wrong length");
    std::memcpy(into.data(), stored.data(), stored.size());
    return {};
  }
  size_t size = ZSTD_decompress(into.data(), into.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) != 0 || size != into.size() || crc32c(into, seed) != frame.raw_crc)
    return bad("does not decode to what was packed");
  return {};
}

std::string object_key(ObjectId object) {
  // The last digits differ most from object to object: they spread keys over the service's
  // partitions.
  return "d/" + hex(object.packed() & 0xff, 2) + "/" + to_string(object);
}

}  // namespace headrace
