#include "tier/packed_object.h"

#include <gtest/gtest.h>

#include "tier/fake_partitions_test_support.h"

namespace headrace {
namespace {

constexpr NamespaceId kSpace{7};
SegmentId segment_id(uint64_t n) {
  return SegmentId(kSpace, Slot(3), NamespaceEpoch(1), n);
}

EncodedObject object_of(const std::vector<Buffer>& data) {
  std::vector<EncodedSegment> segments;
  for (size_t i = 0; i < data.size(); ++i) segments.push_back(encode_segment(segment_id(i + 1), data[i]));
  return encode_object(kSpace, ObjectId(NamespaceEpoch(1), PartitionId(2), 77), std::move(segments));
}

Result<std::string> unpack(const PackedSegment& segment, ByteView object) {
  std::string out(segment.length, '\0');
  for (size_t f = 0; f < segment.frames.size(); ++f)
    HR_TRY(decode_frame(segment, f, object.subspan(segment.frame_offset(f), segment.frames[f].stored),
                        std::as_writable_bytes(std::span(out)).subspan(f * kFrameBytes, segment.raw_size(f))));
  return out;
}

TEST(PackedObject, GivesBackWhatWasPackedAtEverySize) {
  std::vector<Buffer> data;
  uint64_t seed = 0;
  for (size_t size : {size_t{1}, size_t{4095}, size_t{kFrameBytes}, size_t{kFrameBytes + 1}, size_t{3 * kMiB + 5}})
    for (bool compressible : {false, true}) data.push_back(random_bytes(size, ++seed, compressible));
  EncodedObject object = object_of(data);
  auto ref = decode_object_tail(object.body.view().last(kObjectTailBytes), kSpace, object.body.size());
  ASSERT_TRUE(ref.ok()) << ref.error().text();
  EXPECT_EQ(ref->object, object.ref.object);
  EXPECT_EQ(ref->index_offset, object.ref.index_offset);
  EXPECT_EQ(ref->index_length, object.ref.index_length);
  auto index = decode_object_index(object.body.view().subspan(ref->index_offset, ref->index_length), kSpace, *ref);
  ASSERT_TRUE(index.ok()) << index.error().text();
  ASSERT_EQ(index->segments.size(), data.size());
  for (size_t i = 0; i < data.size(); ++i) {
    const PackedSegment* segment = index->find(segment_id(i + 1));
    ASSERT_NE(segment, nullptr);
    auto back = unpack(*segment, object.body.view());
    ASSERT_TRUE(back.ok()) << back.error().text();
    EXPECT_TRUE(*back == data[i].text()) << i;
  }
}

TEST(PackedObject, CompressesOnlyWhatGetsSmaller) {
  EncodedSegment random = encode_segment(segment_id(1), random_bytes(kFrameBytes, 1));
  EncodedSegment text = encode_segment(segment_id(2), random_bytes(kFrameBytes, 1, true));
  EXPECT_EQ(random.about.frames[0].codec, FrameCodec::kRaw);
  EXPECT_EQ(text.about.frames[0].codec, FrameCodec::kZstd);
  EXPECT_LT(text.stored.size(), kFrameBytes / 2);
}

TEST(PackedObject, BadInputFlippedBitsAreFoundWhereverTheyAre) {
  std::vector<Buffer> data{random_bytes(3000, 1), random_bytes(5000, 2, true)};
  EncodedObject object = object_of(data);
  const std::string whole(object.body.text());
  SeededRandom random(5);
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    size_t at = kObjectHeaderBytes + random.below(bytes.size() - kObjectHeaderBytes);
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
    ByteView view = bytes_of(bytes);
    auto ref = decode_object_tail(view.last(kObjectTailBytes), kSpace, bytes.size());
    bool tail_hit = at >= bytes.size() - kObjectTailBytes;
    EXPECT_EQ(ref.ok(), !tail_hit) << at;
    if (!ref.ok()) continue;
    auto index = decode_object_index(view.subspan(ref->index_offset, ref->index_length), kSpace, *ref);
    bool index_hit = at >= ref->index_offset;
    EXPECT_EQ(index.ok(), !index_hit) << at;
    if (!index.ok()) continue;
    int bad = 0;
    for (const PackedSegment& segment : index->segments) bad += unpack(segment, view).ok() ? 0 : 1;
    EXPECT_EQ(bad, 1) << at;
  }
}

TEST(PackedObject, BadInputBytesOfAnotherPlaceNeverVerify) {
  Buffer data = random_bytes(2 * kFrameBytes, 1);
  std::memcpy(data.data() + kFrameBytes, data.data(), kFrameBytes);  // two equal frames
  EncodedSegment encoded = encode_segment(segment_id(1), data);
  std::string out(kFrameBytes, '\0');
  auto frame = encoded.stored.view().first(kFrameBytes);
  EXPECT_TRUE(decode_frame(encoded.about, 0, frame, std::as_writable_bytes(std::span(out))).ok());
  PackedSegment moved = encoded.about;
  moved.frames[1] = moved.frames[0];
  EXPECT_EQ(decode_frame(moved, 1, frame, std::as_writable_bytes(std::span(out))).code(), Code::kCorrupt);
}

TEST(PackedObject, BadInputAnotherNamespacesOrObjectsIndexIsRefused) {
  EncodedObject object = object_of({random_bytes(100, 1)});
  ByteView index = object.body.view().subspan(object.ref.index_offset, object.ref.index_length);
  EXPECT_EQ(decode_object_index(index, NamespaceId(8), object.ref).code(), Code::kCorrupt);
  ObjectRef other = object.ref;
  other.object = ObjectId(other.object.packed() + 1);
  EXPECT_EQ(decode_object_index(index, kSpace, other).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace headrace
