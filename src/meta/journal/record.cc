#include "meta/journal/record.h"

#include "base/checksum.h"

namespace headrace {

namespace {
uint32_t record_crc(ByteView body, PartitionId partition) {
  return crc32c(body, crc32c_seed(partition.value(), JournalRecord::kFormat));
}
}  // namespace

void append_record(const JournalRecord& record, std::string& out) {
  std::string body = encode_durable(record);
  Writer head(8);
  head(static_cast<uint32_t>(body.size()), record_crc(bytes_of(body), record.partition));
  out += head.bytes();
  out += body;
}

Result<std::vector<JournalRecord>> decode_records(ByteView bytes, PartitionId partition) {
  std::vector<JournalRecord> records;
  Reader reader(bytes);
  while (reader.left() > 0) {
    uint32_t length = 0;
    uint32_t crc = 0;
    reader(length, crc);
    if (!reader.ok() || length > reader.left()) return Error(Code::kCorrupt, "journal record is cut short");
    ByteView body = reader.rest().first(length);
    if (record_crc(body, partition) != crc) return Error(Code::kCorrupt, "journal record fails its checksum");
    HR_TRY(JournalRecord record, decode_durable<JournalRecord>(text_of(body)));
    if (record.partition != partition) return Error(Code::kCorrupt, "journal record of another partition");
    if (!records.empty() && record.position.value() != records.back().position.value() + 1)
      return Error(Code::kCorrupt, "journal records are not consecutive");
    records.push_back(std::move(record));
    reader = Reader(reader.rest().subspan(length));
  }
  return records;
}

}  // namespace headrace
