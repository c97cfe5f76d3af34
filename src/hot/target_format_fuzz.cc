// FUZZES: target_superblock, target_batch, journal_frame
#include <cstring>

#include "base/checksum.h"
#include "hot/target_format.h"

// As they are, and with right checksums around them, so that what lies behind is reached.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;
  ByteView bytes = std::as_bytes(std::span(data, size));
  BatchPlace place{BatchKind::kLog, TargetId(1), 2, 3};
  (void)decode_superblock(bytes);
  (void)decode_batch(bytes, place);
  (void)batch_sequence(bytes, place);
  (void)decode_journal_frame(bytes, TargetId(1), 4096);

  if (size <= 64 * kKiB) {
    Buffer batch = encode_batch(place, text_of(bytes));
    Result<Batch> back = decode_batch(batch.view(), place);
    if (back.ok()) {
      std::string again;
      for (const LogRecord& record : back->records)
        if (record.about.size() < 16 * kKiB) encode_record(record, again);
    }
  }
  Buffer superblock = Buffer::zeroed(kSuperblockBytes);
  std::memcpy(superblock.data(), data, std::min(size, superblock.size()));
  std::memcpy(superblock.data(), "HRS1", 4);
  std::memset(superblock.data() + 4, 0, 4);
  uint32_t crc = crc32c(superblock.view(), crc32c_seed(0x31535248));
  std::memcpy(superblock.data() + 4, &crc, 4);
  if (Result<Superblock> ok = decode_superblock(superblock.view()); ok.ok())
    HR_ASSERT(decode_superblock(encode_superblock(*ok).view()).ok());
  return 0;
}
