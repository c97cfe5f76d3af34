#include "meta/journal/record.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

std::string batch_of(uint64_t first, int count) {
  std::string batch;
  for (int i = 0; i < count; ++i) {
    JournalRecord record;
    record.partition = PartitionId(3);
    record.epoch = PartitionEpoch(9);
    record.position = Position(first + static_cast<uint64_t>(i));
    record.acknowledged = Position(first - 1);
    record.cut = Cut(NamespaceEpoch(1), 4);
    record.changes = {{"key" + std::to_string(i), "value"}, {"gone", std::nullopt}};
    append_record(record, batch);
  }
  return batch;
}

TEST(JournalRecord, ABatchComesBackAsItWasWritten) {
  auto records = decode_records(bytes_of(batch_of(7, 3)), PartitionId(3));
  ASSERT_TRUE(records.ok()) << records.error().text();
  ASSERT_EQ(records->size(), 3u);
  EXPECT_EQ((*records)[2].position, Position(9));
  EXPECT_EQ((*records)[1].changes[0].key, "key1");
  EXPECT_FALSE((*records)[1].changes[1].value.has_value());
}

TEST(JournalRecordBadInput, EveryFlippedByteAndEveryCutIsFound) {
  const std::string good = batch_of(1, 2);
  const size_t one = batch_of(1, 1).size();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(decode_records(bytes_of(bad), PartitionId(3)).ok()) << "byte " << i;
    if (i != 0 && i != one) {
      EXPECT_FALSE(decode_records(bytes_of(good.substr(0, i)), PartitionId(3)).ok()) << "cut at " << i;
    }
  }
}

TEST(JournalRecordBadInput, RecordsOfAnotherPartitionOrOutOfOrderAreRefused) {
  EXPECT_FALSE(decode_records(bytes_of(batch_of(1, 1)), PartitionId(4)).ok());
  EXPECT_FALSE(decode_records(bytes_of(batch_of(1, 1) + batch_of(3, 1)), PartitionId(3)).ok());
}

}  // namespace
}  // namespace headrace
