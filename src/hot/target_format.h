// The bytes of a target: superblock, log batches, tables, journal frames. docs/formats/target.md
// has them one by one.
//
// A target file: superblock twice, log, two table areas, data space; all in 4 KiB blocks.
// Everything that is not user bytes carries a crc32c seeded with where it belongs (target,
// generation and sequence, or address), so that a stale, misdirected or foreign block does not
// verify. A table is the log's records again, those that still matter. Owner: Target; pure
// functions, no I/O.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "proto/placement.h"
#include "proto/target.h"

namespace headrace {

inline constexpr uint16_t kTargetFormatVersion = 1;
inline constexpr uint64_t kSuperblockBytes = kBlock;
inline constexpr std::array<uint64_t, 2> kSuperblockOffsets{0, 64 * kKiB};
inline constexpr uint64_t kLogOffset = 128 * kKiB;
// Behind each superblock: on a device, a copy of the coordinator's file (docs/formats/coordinator.md).
inline constexpr std::array<uint64_t, 2> kCoordinatorCopyOffsets{4 * kKiB, 68 * kKiB};
inline constexpr uint64_t kCoordinatorCopyBytes = 60 * kKiB;

struct Superblock {
  TargetId target;
  ClusterId cluster;
  NamespaceId name_space;
  uint32_t number = 0;      // 'tN'
  uint8_t table = 0;        // which area is current
  uint64_t generation = 0;  // grows at each open and each flip; log and current table are of this one
  uint64_t capacity = 0;    // bytes of data space
  uint64_t log_bytes = 0;
  uint64_t table_bytes = 0;    // of each area
  uint64_t table_batches = 0;  // in the current table

  [[nodiscard]] uint64_t log_offset() const { return kLogOffset; }
  [[nodiscard]] uint64_t table_offset(uint8_t area) const { return kLogOffset + log_bytes + area * table_bytes; }
  [[nodiscard]] uint64_t data_offset() const { return table_offset(2); }
  [[nodiscard]] uint64_t file_bytes() const { return data_offset() + capacity; }
};
// Log and table sizes for a data space of so many bytes.
[[nodiscard]] Superblock lay_out(uint64_t capacity);
[[nodiscard]] Buffer encode_superblock(const Superblock& superblock);
// kCorrupt, or kUnsupportedFormat for a newer writer's.
// DECODER: target_superblock
[[nodiscard]] Result<Superblock> decode_superblock(ByteView bytes);

enum class RecordKind : uint8_t {
  kNone = 0,
  kFragmentAdded = 1,  // name, protection, segment_length, block
  kFragmentFreed = 2,  // name
  kRunOpened = 3,      // run, partition, position (its first), about
  kChunkAdded = 4,     // run, block, blocks, position (the first that it will hold)
  kRunTrimmed = 5,     // run, block: the first chunk that is kept
  kRunForgotten = 6,   // run
  kPromise = 7,        // partition, epoch
};
struct LogRecord {
  RecordKind kind = RecordKind::kNone;
  FragmentName fragment;
  Protection protection;
  uint32_t segment_length = 0;
  uint32_t block = 0;  // in the data space
  uint32_t blocks = 0;
  RunId run;
  PartitionId partition;
  PartitionEpoch epoch;
  Position position;
  std::string about;
};
inline constexpr size_t kMaxRecordBytes = 20 * kKiB;

enum class BatchKind : uint32_t { kLog = 0x31424c48 /* HLB1 */, kTable = 0x31425448 /* HTB1 */ };
struct BatchPlace {
  BatchKind kind = BatchKind::kLog;
  TargetId target;
  uint64_t generation = 0;
  uint64_t sequence = 0;  // from 1
};
inline constexpr size_t kBatchHeaderBytes = 48;
inline constexpr size_t kMaxBatchBytes = kMiB;
void encode_record(const LogRecord& record, std::string& into);
// Whole blocks: header, records, zeros.
[[nodiscard]] Buffer encode_batch(const BatchPlace& place, std::string_view records);
struct Batch {
  std::vector<LogRecord> records;
  size_t bytes = 0;  // taken on disk
};
// kCorrupt unless a whole batch of exactly this place begins here.
// DECODER: target_batch
[[nodiscard]] Result<Batch> decode_batch(ByteView bytes, const BatchPlace& place);
// The sequence of a valid batch of this kind, target and generation that begins here, whatever its
// sequence; 0: none.
[[nodiscard]] uint64_t batch_sequence(ByteView bytes, const BatchPlace& place);
// A valid batch begins here, of whichever target.
[[nodiscard]] bool is_batch(ByteView bytes);

// A journal batch as it lies in a chunk: 64 bytes of header, then the payload, then zeros up to a
// block.
struct JournalFrame {
  RunId run;
  Position first;
  Position last;
  uint32_t crc = 0;  // of header and payload
  size_t bytes = 0;  // taken on disk
  ByteView payload;  // into the bytes that were decoded
};
inline constexpr size_t kFrameHeaderBytes = 64;
[[nodiscard]] inline uint64_t frame_bytes(uint64_t payload) {
  return round_up(kFrameHeaderBytes + payload, kBlock);
}
[[nodiscard]] Buffer encode_journal_frame(const JournalAppend& append, TargetId target, uint64_t address);
// DECODER: journal_frame
[[nodiscard]] Result<JournalFrame> decode_journal_frame(ByteView bytes, TargetId target, uint64_t address);

}  // namespace headrace
