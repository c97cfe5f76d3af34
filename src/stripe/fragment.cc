#include "stripe/fragment.h"

#include <cstring>

#include "base/checksum.h"

namespace headrace {
namespace {

// The fixed part, little-endian; docs/formats/fragment.md.
struct FixedHeader {
  uint32_t magic;
  uint32_t crc;  // of the whole header with this field 0, seeded with (target, address)
  uint16_t format;
  uint8_t index;
  uint8_t data;
  uint8_t parity;
  uint8_t tag_bytes;  // per block: 4, a crc32c
  uint16_t reserved;
  uint64_t segment_high;
  uint64_t segment_low;
  uint64_t segment_length;
  uint64_t fragment_length;
  uint32_t key;
  uint32_t tags;
  uint64_t target;
  uint64_t address;
  uint8_t zero[56];
};
static_assert(sizeof(FixedHeader) == 128);

constexpr uint64_t kTagBytes = 4;

uint32_t header_crc(ByteView bytes, TargetId target, uint64_t address) {
  FixedHeader fixed;
  std::memcpy(&fixed, bytes.data(), sizeof fixed);
  fixed.crc = 0;
  uint32_t crc = crc32c_seed(FragmentHeader::kMagic, target.value(), address);
  crc = crc32c(std::as_bytes(std::span(&fixed, 1)), crc);
  return crc32c(bytes.subspan(sizeof fixed), crc);
}

}  // namespace

uint64_t fragment_size(uint64_t segment_length, uint8_t data) {
  HR_ASSERT(data > 0);
  uint64_t size = round_up(divide_up(segment_length, data), kBlock);
  return size == 0 ? kBlock : size;
}

uint32_t block_crc(SegmentId segment, uint8_t index, uint32_t block, ByteView bytes) {
  HR_ASSERT(bytes.size() == kBlock);
  return crc32c(bytes, crc32c_seed(segment.high(), segment.low(), uint64_t{index} << 32 | block));
}

std::vector<uint32_t> block_crcs(SegmentId segment, uint8_t index, uint32_t first_block, ByteView bytes) {
  HR_ASSERT(bytes.size() % kBlock == 0);
  std::vector<uint32_t> crcs(bytes.size() / kBlock);
  for (size_t i = 0; i < crcs.size(); ++i)
    crcs[i] = block_crc(segment, index, static_cast<uint32_t>(first_block + i), bytes.subspan(i * kBlock, kBlock));
  return crcs;
}

Result<void> verify_blocks(SegmentId segment, uint8_t index, uint32_t first_block, ByteView bytes,
                           const std::vector<uint32_t>& crcs) {
  if (bytes.size() != crcs.size() * kBlock)
    return Error(Code::kCorrupt, "segment " + to_string(segment) + " fragment " + std::to_string(index) + ": " +
                                     std::to_string(bytes.size()) + " bytes came with " + std::to_string(crcs.size()) +
                                     " checksums");
  for (size_t i = 0; i < crcs.size(); ++i) {
    uint32_t block = static_cast<uint32_t>(first_block + i);
    if (block_crc(segment, index, block, bytes.subspan(i * kBlock, kBlock)) != crcs[i])
      return Error(Code::kCorrupt, "segment " + to_string(segment) + " fragment " + std::to_string(index) + ": block " +
                                       std::to_string(block) + " does not match its checksum");
  }
  return {};
}

uint64_t fragment_header_size(uint64_t fragment_length) {
  return round_up(sizeof(FixedHeader) + fragment_length / kBlock * kTagBytes, kBlock);
}

Buffer encode_fragment_header(const FragmentHeader& header, TargetId target, uint64_t address) {
  HR_ASSERT(header.crcs.size() * kBlock == header.fragment_length);
  Buffer out = Buffer::zeroed(fragment_header_size(header.fragment_length));
  FixedHeader fixed{};
  fixed.magic = FragmentHeader::kMagic;
  fixed.format = header.format;
  fixed.index = header.index;
  fixed.data = header.protection.data;
  fixed.parity = header.protection.parity;
  fixed.tag_bytes = kTagBytes;
  fixed.segment_high = header.segment.high();
  fixed.segment_low = header.segment.low();
  fixed.segment_length = header.segment_length;
  fixed.fragment_length = header.fragment_length;
  fixed.key = header.key.value();
  fixed.tags = static_cast<uint32_t>(header.crcs.size());
  fixed.target = target.value();
  fixed.address = address;
  std::memcpy(out.data(), &fixed, sizeof fixed);
  std::memcpy(out.data() + sizeof fixed, header.crcs.data(), header.crcs.size() * kTagBytes);
  fixed.crc = header_crc(out.view(), target, address);
  std::memcpy(out.data(), &fixed, sizeof fixed);
  return out;
}

Result<FragmentHeader> decode_fragment_header(ByteView bytes, TargetId target, uint64_t address) {
  if (bytes.size() < sizeof(FixedHeader)) return Error(Code::kCorrupt, "fragment header: truncated");
  FixedHeader fixed;
  std::memcpy(&fixed, bytes.data(), sizeof fixed);
  if (fixed.magic != FragmentHeader::kMagic) return Error(Code::kCorrupt, "fragment header: no fragment begins here");
  if (fixed.fragment_length == 0 || fixed.fragment_length > kMaxSegment || fixed.fragment_length % kBlock != 0)
    return Error(Code::kCorrupt, "fragment header: impossible length");
  uint64_t size = fragment_header_size(fixed.fragment_length);
  if (bytes.size() < size) return Error(Code::kCorrupt, "fragment header: truncated");
  if (header_crc(bytes.first(size), target, address) != fixed.crc)
    return Error(Code::kCorrupt, "fragment header: checksum does not match (damaged, or written for another place)");
  // From here on the bytes are what some writer meant; a newer one may have meant more than we
  // know.
  if (fixed.format != 1 || fixed.tag_bytes != kTagBytes)
    return Error(Code::kUnsupportedFormat, "fragment format " + std::to_string(fixed.format) +
                                               " is newer than this version reads (1): upgrade headrace");
  if (fixed.data == 0 || fixed.index >= fixed.data + fixed.parity || fixed.segment_length == 0 ||
      fixed.segment_length > kMaxSegment || fragment_size(fixed.segment_length, fixed.data) != fixed.fragment_length ||
      fixed.tags != fixed.fragment_length / kBlock)
    return Error(Code::kCorrupt, "fragment header: fields contradict each other");
  FragmentHeader header;
  header.format = fixed.format;
  header.segment = SegmentId(fixed.segment_high, fixed.segment_low);
  header.index = fixed.index;
  header.protection = {fixed.data, fixed.parity};
  header.segment_length = fixed.segment_length;
  header.fragment_length = fixed.fragment_length;
  header.key = KeyId(fixed.key);
  header.crcs.resize(fixed.tags);
  std::memcpy(header.crcs.data(), bytes.data() + sizeof fixed, fixed.tags * kTagBytes);
  return header;
}

}  // namespace headrace
