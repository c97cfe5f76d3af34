#include "base/codec.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

enum class Colour : uint8_t { kRed = 1, kBlue = 2 };

struct Inner {
  uint32_t a = 0;
  std::string b;
  bool operator==(const Inner&) const = default;
  void fields(this auto& self, auto& v) { v(self.a, self.b); }
};

struct Everything {
  bool flag = false;
  uint8_t u8 = 0;
  int64_t i64 = 0;
  Colour colour = Colour::kRed;
  Slot slot;
  FileId file;
  SegmentId segment;
  Cut cut;
  ObjectId object;
  std::string text;
  std::vector<uint16_t> numbers;
  std::vector<Inner> inners;
  std::optional<Inner> maybe;
  std::array<uint32_t, 2> two{};
  std::pair<uint8_t, std::string> pair;
  bool operator==(const Everything&) const = default;
  void fields(this auto& self, auto& v) {
    v(self.flag, self.u8, self.i64, self.colour, self.slot, self.file, self.segment, self.cut, self.object, self.text,
      self.numbers, self.inners, self.maybe, self.two, self.pair);
  }
};

Everything sample() {
  return {.flag = true,
          .u8 = 200,
          .i64 = -5,
          .colour = Colour::kBlue,
          .slot = Slot(77),
          .file = FileId(Slot(3), 9),
          .segment = SegmentId(NamespaceId(5), Slot(6), NamespaceEpoch(7), 8),
          .cut = Cut(NamespaceEpoch(2), 11),
          .object = ObjectId(NamespaceEpoch(1), PartitionId(2), 3),
          .text = std::string("with\0zero", 9),
          .numbers = {1, 2, 65535},
          .inners = {{1, "x"}, {2, ""}},
          .maybe = Inner{3, "y"},
          .two = {4, 5},
          .pair = {6, "z"}};
}

TEST(Codec, ReadsBackWhatItWrote) {
  Everything value = sample();
  Result<Everything> back = decode<Everything>(encode(value));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, value);
  Result<Everything> empty = decode<Everything>(encode(Everything{}));
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(*empty, Everything{});
}

TEST(Codec, WritesLittleEndianFixedWidthsAndLengthsFirst) {
  EXPECT_EQ(encode(Inner{0x04030201, "ab"}), std::string("\x01\x02\x03\x04\x02\0\0\0ab", 10));
}

TEST(Codec, RefusesEveryTruncation) {
  std::string bytes = encode(sample());
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(decode<Everything>(std::string_view(bytes).substr(0, n)).code(), Code::kCorrupt) << n;
}

TEST(Codec, LeavesLaterFieldsAtTheirDefaultsAfterAnError) {
  Inner inner{9, "untouched"};
  Reader reader(std::string_view("\x01\x02\x03", 3));
  reader(inner);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(inner, (Inner{9, "untouched"}));
  EXPECT_EQ(reader.left(), 0u);
}

struct Huge {
  std::vector<uint64_t> numbers;
  std::vector<Inner> inners;
  std::string text;
  void fields(this auto& self, auto& v) { v(self.numbers, self.inners, self.text); }
};

TEST(Codec, AllocatesNoMoreThanTheInputCouldFill) {
  // A count of four billion in front of a few bytes.
  EXPECT_EQ(decode<Huge>(std::string("\xff\xff\xff\xff\x01\x02", 6)).code(), Code::kCorrupt);
  EXPECT_EQ(decode<Huge>(std::string("\0\0\0\0\xff\xff\xff\xff\x01", 9)).code(), Code::kCorrupt);
  EXPECT_EQ(decode<Huge>(std::string("\0\0\0\0\0\0\0\0\xff\xff\xff\x7f\x01", 13)).code(), Code::kCorrupt);
  // As many elements as bytes are left, but each takes eight.
  EXPECT_EQ(decode<Huge>(std::string("\x08\0\0\0abcdefgh", 12)).code(), Code::kCorrupt);
}

TEST(Codec, RefusesABoolThatIsNeitherZeroNorOne) {
  bool flag = true;
  Reader reader(std::string_view("\x02", 1));
  reader(flag);
  EXPECT_FALSE(reader.ok());
}

struct Old {
  uint32_t a = 0;
  void fields(this auto& self, auto& v) { v(self.a); }
};
struct New {
  uint32_t a = 0;
  std::string b = "default";
  uint16_t c = 7;
  void fields(this auto& self, auto& v) {
    v(self.a);
    v.tail(self.b, self.c);
  }
};

TEST(Codec, ReadsAnOlderWritersRecordWithDefaultsForTheTail) {
  Result<New> read = decode<New>(encode(Old{5}));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->a, 5u);
  EXPECT_EQ(read->b, "default");
  EXPECT_EQ(read->c, 7);
}

TEST(Codec, IgnoresANewerWritersTail) {
  Result<Old> read = decode<Old>(encode(New{6, "more", 8}));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->a, 6u);
}

TEST(Codec, RefusesATailThatIsCutInTheMiddle) {
  std::string bytes = encode(New{6, "more", 8});
  EXPECT_EQ(decode<New>(std::string_view(bytes).substr(0, bytes.size() - 1)).code(), Code::kCorrupt);
}

struct Durable {
  static constexpr uint8_t kFormat = 2;
  uint32_t a = 0;
  void fields(this auto& self, auto& v) { v(self.a); }
};

TEST(Codec, DurableValuesCarryTheirFormatAndANewerOneIsRefused) {
  std::string bytes = encode_durable(Durable{3});
  EXPECT_EQ(bytes[0], 2);
  Result<Durable> read = decode_durable<Durable>(bytes);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->a, 3u);
  bytes[0] = 3;
  Result<Durable> newer = decode_durable<Durable>(bytes);
  EXPECT_EQ(newer.code(), Code::kUnsupportedFormat);
  EXPECT_NE(newer.error().message().find("upgrade"), std::string::npos);
  bytes[0] = 0;
  EXPECT_EQ(decode_durable<Durable>(bytes).code(), Code::kCorrupt);
  EXPECT_EQ(decode_durable<Durable>("").code(), Code::kCorrupt);
}

TEST(Codec, DecodesABufferIntoMemoryOfItsOwn) {
  std::string bytes;
  {
    Writer writer;
    writer(Buffer::copy_of(bytes_of("payload")));
    bytes = writer.take();
  }
  Buffer out;
  Reader reader(bytes);
  reader(out);
  ASSERT_TRUE(reader.ok());
  bytes.assign(bytes.size(), 'x');
  EXPECT_EQ(out.text(), "payload");
}

TEST(Ids, PackTheirPartsWithoutOverlap) {
  SegmentId segment(NamespaceId(0xabcd'ef01'2345), Slot(0x6789), NamespaceEpoch(0xfedc), 0xba98'7654'3210);
  EXPECT_EQ(segment.name_space().value(), 0xabcd'ef01'2345u);
  EXPECT_EQ(segment.home(), Slot(0x6789));
  EXPECT_EQ(segment.epoch(), NamespaceEpoch(0xfedc));
  EXPECT_EQ(segment.sequence(), 0xba98'7654'3210u);
  FileId file(Slot(0xffff), 0x1234);
  EXPECT_EQ(file.slot(), Slot(0xffff));
  EXPECT_EQ(file.local(), 0x1234u);
  EXPECT_LT(Cut(NamespaceEpoch(1), 1'000'000), Cut(NamespaceEpoch(2), 1)) << "the epoch orders first";
  EXPECT_LT(Cut(NamespaceEpoch(9), 1), kNever);
}

}  // namespace
}  // namespace headrace
