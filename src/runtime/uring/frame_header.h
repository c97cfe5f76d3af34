// FrameHeader: the bytes before every frame on a stream socket. docs/formats/wire.md specifies them.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"

namespace headrace {

inline constexpr size_t kMinFrameHeader = 16;
inline constexpr size_t kMaxFrameHeader = 20;
struct FrameHeader {
  uint32_t head_size = 0;
  uint32_t payload_size = 0;
  std::optional<uint32_t> head_crc;  // absent: from a peer that sends none (HRF1)
  [[nodiscard]] size_t size() const { return head_crc ? kMaxFrameHeader : kMinFrameHeader; }
};

// `to` has room for header.size() bytes; the sizes are within kMaxHead and kMaxPayload.
void encode_frame_header(FrameHeader header, std::byte* to);

// How long a header is that begins so (at least kMinFrameHeader bytes).
[[nodiscard]] size_t frame_header_size(ByteView from);

// `from` has at least frame_header_size() bytes. kCorrupt where it is no header, or sizes exceed the
// bounds: the stream cannot be followed any further.
// DECODER: frame_header
[[nodiscard]] Result<FrameHeader> decode_frame_header(ByteView from);

}  // namespace headrace
