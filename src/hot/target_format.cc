#include "hot/target_format.h"

#include <algorithm>
#include <cstring>

#include "base/checksum.h"
#include "base/codec.h"

namespace headrace {
namespace {

constexpr uint32_t kSuperblockMagic = 0x31535248;  // "HRS1"
constexpr uint32_t kFrameMagic = 0x314a5248;       // "HRJ1"

struct DiskSuperblock {
  uint32_t magic;
  uint32_t crc;  // of the 4 KiB with this field 0
  uint16_t format;
  uint8_t table;
  uint8_t reserved;
  uint32_t number;
  uint64_t target;
  uint64_t cluster;
  uint64_t name_space;
  uint64_t generation;
  uint64_t capacity;
  uint64_t log_bytes;
  uint64_t table_bytes;
  uint64_t table_batches;
};
static_assert(sizeof(DiskSuperblock) == 80);

struct DiskBatch {
  uint32_t magic;
  uint32_t crc;  // of `blocks` with this field 0, seeded with (magic, target, generation, sequence)
  uint64_t target;
  uint64_t generation;
  uint64_t sequence;
  uint32_t length;  // bytes of records
  uint32_t blocks;  // 4 KiB blocks, header included
  uint64_t reserved;
};
static_assert(sizeof(DiskBatch) == kBatchHeaderBytes);

struct DiskFrame {
  uint32_t magic;
  uint32_t crc;  // of header (this field 0) and payload, seeded with (magic, target, address)
  uint64_t target;
  uint64_t run;
  uint64_t first;
  uint64_t last;
  uint32_t length;
  uint32_t reserved;
  uint64_t zero[2];
};
static_assert(sizeof(DiskFrame) == kFrameHeaderBytes);

template <class T>
T read_struct(ByteView bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// The crc of bytes that begin with a T, its crc field taken as 0.
template <class T>
uint32_t crc_with_header(ByteView bytes, uint32_t seed) {
  T header = read_struct<T>(bytes);
  header.crc = 0;
  return crc32c(bytes.subspan(sizeof header), crc32c(std::as_bytes(std::span(&header, 1)), seed));
}

void record_fields(auto& v, auto& r) {
  v(r.kind);
  switch (r.kind) {
    case RecordKind::kFragmentAdded:
      v(r.fragment, r.protection, r.segment_length, r.block);
      return;
    case RecordKind::kFragmentFreed:
      v(r.fragment);
      return;
    case RecordKind::kRunOpened:
      v(r.run, r.partition, r.position, r.about);
      return;
    case RecordKind::kChunkAdded:
      v(r.run, r.block, r.blocks, r.position);
      return;
    case RecordKind::kRunTrimmed:
      v(r.run, r.block);
      return;
    case RecordKind::kRunForgotten:
      v(r.run);
      return;
    case RecordKind::kPromise:
      v(r.partition, r.epoch);
      return;
    case RecordKind::kNone:
      break;
  }
  if constexpr (requires { v.fail(); }) v.fail();
}

uint32_t batch_crc(ByteView bytes, const BatchPlace& place, uint64_t sequence) {
  return crc_with_header<DiskBatch>(
      bytes, crc32c_seed(static_cast<uint32_t>(place.kind), place.target.value(), place.generation, sequence));
}

// The header of a batch that verifies, of any sequence.
bool valid_batch(ByteView bytes, const BatchPlace& place, DiskBatch& out) {
  if (bytes.size() < kBlock) return false;
  out = read_struct<DiskBatch>(bytes);
  if (out.magic != static_cast<uint32_t>(place.kind) || out.target != place.target.value() ||
      out.generation != place.generation)
    return false;
  if (out.blocks == 0 || out.blocks > bytes.size() / kBlock || out.length > out.blocks * kBlock - sizeof(DiskBatch))
    return false;
  return batch_crc(bytes.first(out.blocks * kBlock), place, out.sequence) == out.crc;
}

}  // namespace

Superblock lay_out(uint64_t capacity) {
  Superblock out;
  out.capacity = round_down(capacity, kBlock);
  out.log_bytes = round_up(std::clamp<uint64_t>(capacity / 128, 256 * kKiB, 16 * kMiB), kBlock);
  // A record of a fragment takes 28 bytes; room for one per 16 KiB, and for the journal's.
  out.table_bytes = round_up(capacity / 16 / kKiB * 32 + 256 * kKiB, kMiB);
  return out;
}

Buffer encode_superblock(const Superblock& superblock) {
  Buffer out = Buffer::zeroed(kSuperblockBytes);
  DiskSuperblock disk{};
  disk.magic = kSuperblockMagic;
  disk.format = kTargetFormatVersion;
  disk.table = superblock.table;
  disk.number = superblock.number;
  disk.target = superblock.target.value();
  disk.cluster = superblock.cluster.value();
  disk.name_space = superblock.name_space.value();
  disk.generation = superblock.generation;
  disk.capacity = superblock.capacity;
  disk.log_bytes = superblock.log_bytes;
  disk.table_bytes = superblock.table_bytes;
  disk.table_batches = superblock.table_batches;
  std::memcpy(out.data(), &disk, sizeof disk);
  disk.crc = crc_with_header<DiskSuperblock>(out.view(), crc32c_seed(kSuperblockMagic));
  std::memcpy(out.data(), &disk, sizeof disk);
  return out;
}

Result<Superblock> decode_superblock(ByteView bytes) {
  if (bytes.size() < kSuperblockBytes) return Error(Code::kCorrupt, "superblock: truncated");
  bytes = bytes.first(kSuperblockBytes);
  auto disk = read_struct<DiskSuperblock>(bytes);
  if (disk.magic != kSuperblockMagic) return Error(Code::kCorrupt, "superblock: not a Headrace target");
  if (crc_with_header<DiskSuperblock>(bytes, crc32c_seed(kSuperblockMagic)) != disk.crc)
    return Error(Code::kCorrupt, "superblock: checksum does not match");
  if (disk.format > kTargetFormatVersion)
    return Error(Code::kUnsupportedFormat, "target format " + std::to_string(disk.format) +
                                               " is newer than this version reads (" +
                                               std::to_string(kTargetFormatVersion) + "): upgrade headrace");
  constexpr uint64_t kLimit = uint64_t{1} << 44;  // 16 TiB: block numbers are 32 bits
  if (disk.format == 0 || disk.target == 0 || disk.table > 1 || disk.generation == 0 || disk.capacity == 0 ||
      disk.capacity > kLimit || disk.log_bytes < 2 * kMaxRecordBytes || disk.log_bytes > kLimit ||
      disk.table_bytes == 0 || disk.table_bytes > kLimit ||
      (disk.capacity | disk.log_bytes | disk.table_bytes) % kBlock != 0 ||
      disk.table_batches > disk.table_bytes / kBlock)
    return Error(Code::kCorrupt, "superblock: fields contradict each other");
  Superblock out;
  out.target = TargetId(disk.target);
  out.cluster = ClusterId(disk.cluster);
  out.name_space = NamespaceId(disk.name_space);
  out.number = disk.number;
  out.table = disk.table;
  out.generation = disk.generation;
  out.capacity = disk.capacity;
  out.log_bytes = disk.log_bytes;
  out.table_bytes = disk.table_bytes;
  out.table_batches = disk.table_batches;
  return out;
}

void encode_record(const LogRecord& record, std::string& into) {
  Writer writer(64);
  record_fields(writer, record);
  HR_ASSERT(writer.size() <= kMaxRecordBytes);
  into += writer.bytes();
}

Buffer encode_batch(const BatchPlace& place, std::string_view records) {
  HR_ASSERT(records.size() + sizeof(DiskBatch) <= kMaxBatchBytes);
  Buffer out = Buffer::zeroed(round_up(sizeof(DiskBatch) + records.size(), kBlock));
  DiskBatch disk{};
  disk.magic = static_cast<uint32_t>(place.kind);
  disk.target = place.target.value();
  disk.generation = place.generation;
  disk.sequence = place.sequence;
  disk.length = static_cast<uint32_t>(records.size());
  disk.blocks = static_cast<uint32_t>(out.size() / kBlock);
  std::memcpy(out.data(), &disk, sizeof disk);
  if (!records.empty()) std::memcpy(out.data() + sizeof disk, records.data(), records.size());
  disk.crc = batch_crc(out.view(), place, place.sequence);
  std::memcpy(out.data(), &disk, sizeof disk);
  return out;
}

uint64_t batch_sequence(ByteView bytes, const BatchPlace& place) {
  DiskBatch disk;
  return valid_batch(bytes, place, disk) ? disk.sequence : 0;
}

bool is_batch(ByteView bytes) {
  if (bytes.size() < kBlock) return false;
  auto disk = read_struct<DiskBatch>(bytes);
  for (BatchKind kind : {BatchKind::kLog, BatchKind::kTable})
    if (valid_batch(bytes, {kind, TargetId(disk.target), disk.generation, disk.sequence}, disk)) return true;
  return false;
}

Result<Batch> decode_batch(ByteView bytes, const BatchPlace& place) {
  DiskBatch disk;
  if (!valid_batch(bytes, place, disk) || disk.sequence != place.sequence)
    return Error(Code::kCorrupt, "no valid batch " + std::to_string(place.sequence) + " here");
  Batch out;
  out.bytes = disk.blocks * kBlock;
  Reader reader(bytes.subspan(sizeof disk, disk.length));
  while (reader.ok() && reader.left() > 0) record_fields(reader, out.records.emplace_back());
  if (!reader.ok()) return Error(Code::kCorrupt, "batch " + std::to_string(place.sequence) + ": malformed record");
  return out;
}

Buffer encode_journal_frame(const JournalAppend& append, TargetId target, uint64_t address) {
  uint64_t size = frame_bytes(append.payload.size());
  uint64_t used = kFrameHeaderBytes + append.payload.size();
  Buffer out = Buffer::allocate(size);
  DiskFrame disk{};
  disk.magic = kFrameMagic;
  disk.target = target.value();
  disk.run = append.run.value();
  disk.first = append.first.value();
  disk.last = append.last.value();
  disk.length = static_cast<uint32_t>(append.payload.size());
  std::memcpy(out.data(), &disk, sizeof disk);
  if (!append.payload.empty()) std::memcpy(out.data() + sizeof disk, append.payload.data(), append.payload.size());
  std::memset(out.data() + used, 0, size - used);
  disk.crc = crc_with_header<DiskFrame>(out.view().first(used), crc32c_seed(kFrameMagic, target.value(), address));
  std::memcpy(out.data(), &disk, sizeof disk);
  return out;
}

Result<JournalFrame> decode_journal_frame(ByteView bytes, TargetId target, uint64_t address) {
  if (bytes.size() < sizeof(DiskFrame)) return Error(Code::kCorrupt, "journal frame: truncated");
  auto disk = read_struct<DiskFrame>(bytes);
  if (disk.magic != kFrameMagic || disk.target != target.value() || disk.length > bytes.size() - sizeof disk ||
      disk.first > disk.last || frame_bytes(disk.length) > bytes.size())
    return Error(Code::kCorrupt, "journal frame: none begins here");
  if (crc_with_header<DiskFrame>(bytes.first(sizeof disk + disk.length),
                                 crc32c_seed(kFrameMagic, target.value(), address)) != disk.crc)
    return Error(Code::kCorrupt, "journal frame: checksum does not match");
  JournalFrame out;
  out.run = RunId(disk.run);
  out.first = Position(disk.first);
  out.last = Position(disk.last);
  out.crc = disk.crc;
  out.bytes = frame_bytes(disk.length);
  out.payload = bytes.subspan(sizeof disk, disk.length);
  return out;
}

}  // namespace headrace
