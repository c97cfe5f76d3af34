// A target whose log or table is lost: a scan of the fragment headers on the device yields candidates, their homes say
// which of them still are (hot/rescue.h asks), and with those it serves again.
#include <algorithm>

#include "hot/target.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr uint64_t kScanBytes = 4 * kMiB;

bool has_magic(ByteView block) {
  return block.size() >= 4 && text_of(block.first(4)) == "HRF1";
}

}  // namespace

// Any part of it that cannot be read is zeros: no header begins there.
Task<Buffer> Target::read_for_scan(uint64_t offset, uint64_t size) {
  Buffer bytes = Buffer::zeroed(size);
  Result<size_t> got = co_await file_->read(offset, bytes);
  if (got && *got == size) co_return bytes;
  for (uint64_t at = 0; at < size; at += kBlock) {
    Buffer block = Buffer::zeroed(kBlock);
    Result<size_t> one = co_await file_->read(offset + at, block);
    std::memset(bytes.data() + at, 0, kBlock);
    if (one && *one == kBlock) std::memcpy(bytes.data() + at, block.data(), kBlock);
  }
  co_return bytes;
}

Task<std::optional<FragmentEntry>> Target::scan_one(uint32_t block) {
  // The longest header there is: 16 MiB in blocks, one crc each.
  const uint64_t address = address_of(block);
  const uint64_t end = superblock_.data_offset() + prewritten_;
  Buffer bytes = co_await read_for_scan(address, std::min<uint64_t>(fragment_header_size(kMaxSegment), end - address));
  Result<FragmentHeader> header = decode_fragment_header(bytes.view(), id(), address);
  if (!header) co_return std::nullopt;
  FragmentEntry entry;
  entry.name = {header->segment, header->index};
  entry.protection = header->protection;
  entry.segment_length = header->segment_length;
  entry.block = block;
  if (!entry.protection.valid() || entry.segment_length == 0 || entry.segment_length > kMaxSegment ||
      entry.name.index >= entry.protection.width())
    co_return std::nullopt;
  const uint64_t size = fragment_size(entry.segment_length, entry.protection.data);
  if (header->fragment_length != size || header->crcs.size() != size / kBlock) co_return std::nullopt;
  const uint64_t payload = address + fragment_header_size(size);
  if (payload + size > end) co_return std::nullopt;
  // One that was freed may have been written over in part: only what is whole is a candidate.
  for (uint64_t at = 0; at < size; at += kScanBytes) {
    const uint64_t piece = std::min(kScanBytes, size - at);
    Buffer data = co_await read_for_scan(payload + at, piece);
    const auto begin = header->crcs.begin() + static_cast<ptrdiff_t>(at / kBlock);
    const std::vector<uint32_t> crcs(begin, begin + static_cast<ptrdiff_t>(piece / kBlock));
    if (!verify_blocks(entry.name.segment, entry.name.index, static_cast<uint32_t>(at / kBlock), data.view(), crcs))
      co_return std::nullopt;
  }
  co_return entry;
}

Task<Result<std::vector<FragmentEntry>>> Target::scan(std::function<bool()> wanted) {
  HR_ASSERT(scannable());
  // Fetched again when more or fewer targets were there, a segment may be cut in another way.
  std::map<std::pair<FragmentName, uint8_t>, FragmentEntry> found;
  const uint32_t blocks = static_cast<uint32_t>(prewritten_ / kBlock);
  uint32_t block = 0;
  while (block < blocks) {
    if (closing_ || !wanted()) co_return Error(Code::kCancelled, name() + ": the scan was stopped");
    const uint32_t begin = block;
    const uint32_t many = std::min<uint32_t>(static_cast<uint32_t>(kScanBytes / kBlock), blocks - begin);
    Buffer bytes = co_await read_for_scan(address_of(begin), uint64_t{many} * kBlock);
    if (!scannable_) co_return usable().error();  // what was not read is not empty
    while (block < begin + many) {
      std::optional<FragmentEntry> entry;
      if (has_magic(bytes.view().subspan(uint64_t{block - begin} * kBlock))) entry = co_await scan_one(block);
      if (!scannable_) co_return usable().error();  // what was not read is not empty
      if (!entry) {
        ++block;
        continue;
      }
      // Freed and written again, it may be here twice: cut in the same way, the bytes are the same.
      found.emplace(std::pair(entry->name, entry->protection.data), *entry);
      block += extent_blocks(*entry);  // what lies inside are somebody's bytes
    }
  }
  std::vector<FragmentEntry> out;
  out.reserve(found.size());
  for (const auto& [fragment, entry] : found) out.push_back(entry);
  co_return out;
}

Task<Result<void>> Target::adopt(std::vector<FragmentEntry> confirmed,
                                 std::vector<std::pair<PartitionId, PartitionEpoch>> promises) {
  if (!scannable()) {
    Result<void> out = usable();
    HR_ASSERT(!out.ok());
    co_return out;
  }
  // An earlier attempt may have ended when it was written.
  table_ = FragmentTable();
  for (const auto& [partition, epoch] : promises) promises_[partition] = std::max(promises_[partition], epoch);
  for (const FragmentEntry& entry : confirmed) {
    const bool fresh = table_.insert(entry);
    HR_ASSERT(fresh);
  }
  HR_CO_TRY(take_space());
  Result<void> flipped = co_await flip();
  if (!flipped) co_return std::move(flipped).error().within(name());
  scannable_ = false;
  fenced_.reset();
  counters_.flips = 0;
  start();
  co_return Result<void>();
}

}  // namespace headrace
