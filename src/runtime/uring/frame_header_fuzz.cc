// FUZZES: frame_header
#include "base/checksum.h"
#include "runtime/net.h"
#include "runtime/uring/frame_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: a fuzz target
  ByteView input = std::as_bytes(std::span(data, size));
  (void)decode_frame_header(input);
  if (size < kFrameHeaderSize) return 0;
  // With magic and crc mended, so that the sizes are reached; what is accepted must encode to
  // itself.
  std::byte mended[kFrameHeaderSize];
  std::memcpy(mended, data, kFrameHeaderSize);
  std::memcpy(mended, "HRF1", 4);
  uint32_t crc = crc32c(ByteView(mended, 12));
  std::memcpy(mended + 12, &crc, 4);
  Result<FrameHeader> header = decode_frame_header(mended);
  if (!header.ok()) return 0;
  HR_ASSERT(header->head_size <= kMaxHead && header->payload_size <= kMaxPayload);
  std::byte again[kFrameHeaderSize];
  encode_frame_header(*header, again);
  HR_ASSERT(std::memcmp(mended, again, kFrameHeaderSize) == 0);
  return 0;
}
