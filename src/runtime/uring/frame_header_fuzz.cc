// FUZZES: frame_header
#include <string>

#include "base/checksum.h"
#include "runtime/net.h"
#include "runtime/uring/frame_header.h"

namespace {

// With magic and crc mended, so that the sizes are reached; what is accepted must encode to itself.
void check(std::string bytes, const char* magic, size_t size) {
  using namespace headrace;  // NOLINT: a fuzz target
  if (bytes.size() < size) return;
  bytes.resize(size);
  bytes.replace(0, 4, magic);
  const uint32_t crc = crc32c(bytes_of(bytes).first(size - 4));
  std::memcpy(bytes.data() + size - 4, &crc, 4);
  HR_ASSERT(frame_header_size(bytes_of(bytes)) == size);
  Result<FrameHeader> header = decode_frame_header(bytes_of(bytes));
  if (!header.ok()) return;
  HR_ASSERT(header->head_size <= kMaxHead && header->payload_size <= kMaxPayload && header->size() == size);
  std::string again(size, '\0');
  encode_frame_header(*header, reinterpret_cast<std::byte*>(again.data()));
  HR_ASSERT(bytes == again);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: a fuzz target
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  (void)decode_frame_header(bytes_of(bytes)).ok();
  check(bytes, "HRF1", kMinFrameHeader);
  check(bytes, "HRF2", kMaxFrameHeader);
  return 0;
}
