// FrameHeader: the 16 bytes before every frame on a stream socket. docs/formats/wire.md specifies
// them.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace headrace {

struct FrameHeader {
  uint32_t head_size = 0;
  uint32_t payload_size = 0;
};
inline constexpr size_t kFrameHeaderSize = 16;

// `to` has room for kFrameHeaderSize bytes; the sizes are within kMaxHead and kMaxPayload.
void encode_frame_header(FrameHeader header, std::byte* to);

// `from` has at least kFrameHeaderSize bytes. kCorrupt where it is no header, or sizes exceed the
// bounds: the stream cannot be followed any further.
// DECODER: frame_header
[[nodiscard]] Result<FrameHeader> decode_frame_header(ByteView from);

}  // namespace headrace
