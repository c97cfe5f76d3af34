#include "runtime/uring/frame_header.h"

#include "base/checksum.h"
#include "runtime/net.h"

namespace headrace {

namespace {

constexpr uint32_t kMagic = 0x31465248;  // "HRF1" in memory

struct OnWire {
  uint32_t magic;
  uint32_t head_size;
  uint32_t payload_size;
  uint32_t crc;
};
static_assert(sizeof(OnWire) == kFrameHeaderSize);

uint32_t crc_of(const OnWire& header) {
  return crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(OnWire, crc)));
}

}  // namespace

void encode_frame_header(FrameHeader header, std::byte* to) {
  HR_ASSERT(header.head_size <= kMaxHead && header.payload_size <= kMaxPayload);
  OnWire wire{kMagic, header.head_size, header.payload_size, 0};
  wire.crc = crc_of(wire);
  std::memcpy(to, &wire, sizeof wire);
}

Result<FrameHeader> decode_frame_header(ByteView from) {
  if (from.size() < kFrameHeaderSize) return Error(Code::kCorrupt, "frame header is cut short");
  OnWire wire;
  std::memcpy(&wire, from.data(), sizeof wire);
  if (wire.magic != kMagic) return Error(Code::kCorrupt, "not a frame: the magic number differs");
  if (wire.crc != crc_of(wire)) return Error(Code::kCorrupt, "frame header fails its checksum");
  if (wire.head_size > kMaxHead || wire.payload_size > kMaxPayload)
    return Error(Code::kCorrupt, "frame of " + std::to_string(wire.head_size) + " + " +
                                     std::to_string(wire.payload_size) + " bytes is over the limit");
  return FrameHeader{wire.head_size, wire.payload_size};
}

}  // namespace headrace
