#include "hot/target_format.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

Superblock sample() {
  Superblock out = lay_out(100 * kMiB);
  out.target = TargetId(11);
  out.cluster = ClusterId(22);
  out.name_space = NamespaceId(33);
  out.number = 4;
  out.generation = 9;
  out.table = 1;
  out.table_batches = 3;
  return out;
}

TEST(TargetFormat, SuperblockComesBackAsItWas) {
  Superblock in = sample();
  auto out = decode_superblock(encode_superblock(in).view());
  ASSERT_TRUE(out.ok()) << out.error().text();
  EXPECT_EQ(out->target, in.target);
  EXPECT_EQ(out->cluster, in.cluster);
  EXPECT_EQ(out->name_space, in.name_space);
  EXPECT_EQ(out->number, in.number);
  EXPECT_EQ(out->generation, in.generation);
  EXPECT_EQ(out->table, in.table);
  EXPECT_EQ(out->table_batches, in.table_batches);
  EXPECT_EQ(out->data_offset(), in.data_offset());
  EXPECT_EQ(out->capacity, in.capacity);
}

TEST(TargetFormat, BadInputSuperblockWithAnyByteFlippedIsRefused) {
  Buffer bytes = encode_superblock(sample());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes.data()[i] ^= std::byte{0x10};
    EXPECT_FALSE(decode_superblock(bytes.view()).ok()) << i;
    bytes.data()[i] ^= std::byte{0x10};
  }
}

TEST(TargetFormat, BatchComesBackAsItWasAndOnlyInItsPlace) {
  std::string records;
  LogRecord added;
  added.kind = RecordKind::kFragmentAdded;
  added.fragment = {SegmentId(5, 6), 3};
  added.protection = {4, 2};
  added.segment_length = 77;
  added.block = 88;
  LogRecord opened;
  opened.kind = RecordKind::kRunOpened;
  opened.run = RunId(9);
  opened.partition = PartitionId(2);
  opened.position = Position(100);
  opened.about = "about";
  encode_record(added, records);
  encode_record(opened, records);
  BatchPlace place{BatchKind::kLog, TargetId(1), 7, 3};
  Buffer bytes = encode_batch(place, records);
  auto batch = decode_batch(bytes.view(), place);
  ASSERT_TRUE(batch.ok()) << batch.error().text();
  ASSERT_EQ(batch->records.size(), 2u);
  EXPECT_EQ(batch->records[0].fragment, added.fragment);
  EXPECT_EQ(batch->records[0].block, 88u);
  EXPECT_EQ(batch->records[1].about, "about");
  EXPECT_EQ(batch->bytes, kBlock);
  EXPECT_EQ(batch_sequence(bytes.view(), {BatchKind::kLog, TargetId(1), 7, 99}), 3u);
  for (BatchPlace other :
       {BatchPlace{BatchKind::kTable, TargetId(1), 7, 3}, BatchPlace{BatchKind::kLog, TargetId(2), 7, 3},
        BatchPlace{BatchKind::kLog, TargetId(1), 6, 3}, BatchPlace{BatchKind::kLog, TargetId(1), 7, 4}})
    EXPECT_FALSE(decode_batch(bytes.view(), other).ok());
}

TEST(TargetFormat, BadInputBatchWithAnyByteFlippedIsRefused) {
  std::string records;
  LogRecord record;
  record.kind = RecordKind::kPromise;
  record.partition = PartitionId(3);
  record.epoch = PartitionEpoch(8);
  encode_record(record, records);
  BatchPlace place{BatchKind::kLog, TargetId(1), 7, 3};
  Buffer bytes = encode_batch(place, records);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes.data()[i] ^= std::byte{0x04};
    EXPECT_FALSE(decode_batch(bytes.view(), place).ok()) << i;
    bytes.data()[i] ^= std::byte{0x04};
  }
}

TEST(TargetFormat, BadInputJournalFrameWithAnyByteFlippedIsRefused) {
  JournalAppend append;
  append.run = RunId(5);
  append.first = Position(10);
  append.last = Position(12);
  append.payload = Buffer::copy_of(bytes_of("some records of a journal"));
  Buffer bytes = encode_journal_frame(append, TargetId(1), 8192);
  auto frame = decode_journal_frame(bytes.view(), TargetId(1), 8192);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(text_of(frame->payload), "some records of a journal");
  EXPECT_EQ(frame->last, append.last);
  EXPECT_FALSE(decode_journal_frame(bytes.view(), TargetId(2), 8192).ok());
  EXPECT_FALSE(decode_journal_frame(bytes.view(), TargetId(1), 4096).ok());
  for (size_t i = 0; i < kFrameHeaderBytes + append.payload.size(); ++i) {
    bytes.data()[i] ^= std::byte{0x20};
    EXPECT_FALSE(decode_journal_frame(bytes.view(), TargetId(1), 8192).ok()) << i;
    bytes.data()[i] ^= std::byte{0x20};
  }
}

}  // namespace
}  // namespace headrace
