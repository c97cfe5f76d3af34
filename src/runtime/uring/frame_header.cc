#include "runtime/uring/frame_header.h"

#include "base/checksum.h"
#include "runtime/net.h"

namespace headrace {

namespace {

constexpr uint32_t kPlainMagic = 0x31465248;  // "HRF1" in memory
constexpr uint32_t kMagic = 0x32465248;       // "HRF2"

struct PlainOnWire {
  uint32_t magic;
  uint32_t head_size;
  uint32_t payload_size;
  uint32_t crc;
};
static_assert(sizeof(PlainOnWire) == kMinFrameHeader);

struct OnWire {
  uint32_t magic;
  uint32_t head_size;
  uint32_t payload_size;
  uint32_t head_crc;
  uint32_t crc;
};
static_assert(sizeof(OnWire) == kMaxFrameHeader);

template <class Wire>
uint32_t crc_of(const Wire& header) {
  return crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(Wire, crc)));
}

template <class Wire>
Result<Wire> read(ByteView from) {
  Wire wire;
  if (from.size() < sizeof wire) return Error(Code::kCorrupt, "frame header is cut short");
  std::memcpy(&wire, from.data(), sizeof wire);
  if (wire.crc != crc_of(wire)) return Error(Code::kCorrupt, "frame header fails its checksum");
  return wire;
}

uint32_t magic_of(ByteView from) {
  uint32_t magic = 0;
  std::memcpy(&magic, from.data(), sizeof magic);
  return magic;
}

}  // namespace

void encode_frame_header(FrameHeader header, std::byte* to) {
  HR_ASSERT(header.head_size <= kMaxHead && header.payload_size <= kMaxPayload);
  if (header.head_crc) {
    OnWire wire{kMagic, header.head_size, header.payload_size, *header.head_crc, 0};
    wire.crc = crc_of(wire);
    std::memcpy(to, &wire, sizeof wire);
  } else {
    PlainOnWire wire{kPlainMagic, header.head_size, header.payload_size, 0};
    wire.crc = crc_of(wire);
    std::memcpy(to, &wire, sizeof wire);
  }
}

size_t frame_header_size(ByteView from) {
  HR_ASSERT(from.size() >= kMinFrameHeader);
  return magic_of(from) == kMagic ? sizeof(OnWire) : sizeof(PlainOnWire);
}

Result<FrameHeader> decode_frame_header(ByteView from) {
  if (from.size() < kMinFrameHeader) return Error(Code::kCorrupt, "frame header is cut short");
  FrameHeader header;
  if (magic_of(from) == kMagic) {
    HR_TRY(OnWire wire, read<OnWire>(from));
    header = {wire.head_size, wire.payload_size, wire.head_crc};
  } else if (magic_of(from) == kPlainMagic) {
    HR_TRY(PlainOnWire wire, read<PlainOnWire>(from));
    header = {wire.head_size, wire.payload_size, std::nullopt};
  } else {
    return Error(Code::kCorrupt, "not a frame: the magic number differs");
  }
  if (header.head_size > kMaxHead || header.payload_size > kMaxPayload)
    return Error(Code::kCorrupt, "frame of " + std::to_string(header.head_size) + " + " +
                                     std::to_string(header.payload_size) + " bytes is over the limit");
  return header;
}

}  // namespace headrace
