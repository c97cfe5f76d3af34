// The fragment format (fixed, format 1): a header, then data blocks. docs/formats/fragment.md has the bytes.
//
// A segment of length L under D+P is D contiguous data fragments of fragment_size(L, D) bytes and P parity fragments
// over equal offsets. Every 4 KiB block has a crc32c seeded with (segment, index, block), so that a misdirected or
// stale block does not verify. D = 1 is a mirror: every fragment is the data.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "proto/placement.h"

namespace headrace {

[[nodiscard]] uint64_t fragment_size(uint64_t segment_length, uint8_t data);  // ⌈L/D⌉ rounded up to kBlock; ≥ kBlock
[[nodiscard]] uint32_t block_crc(SegmentId segment, uint8_t index, uint32_t block, ByteView bytes);  // bytes: kBlock
[[nodiscard]] std::vector<uint32_t> block_crcs(SegmentId segment, uint8_t index, uint32_t first_block, ByteView bytes);
// kCorrupt naming the first block that does not fit.
[[nodiscard]] Result<void> verify_blocks(SegmentId segment, uint8_t index, uint32_t first_block, ByteView bytes,
                                         const std::vector<uint32_t>& crcs);

struct FragmentHeader {  // on disk before the blocks: fixed part, then the vector of crcs, rounded up to kBlock
  static constexpr uint32_t kMagic = 0x31465248;  // "HRF1"
  uint16_t format = 1;
  SegmentId segment;
  uint8_t index = 0;
  Protection protection;
  uint64_t segment_length = 0;
  uint64_t fragment_length = 0;
  KeyId key;
  std::vector<uint32_t> crcs;  // (or 16 B tags, with a key)
};
[[nodiscard]] uint64_t fragment_header_size(uint64_t fragment_length);  // multiple of kBlock
// `place` seeds the header's crc with (target id, address on it), so that user bytes never pass for a header.
[[nodiscard]] Buffer encode_fragment_header(const FragmentHeader& header, TargetId target, uint64_t address);
// DECODER: fragment_header
[[nodiscard]] Result<FragmentHeader> decode_fragment_header(ByteView bytes, TargetId target, uint64_t address);

}  // namespace headrace
