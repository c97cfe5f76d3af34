// FUZZES: fuse_header
// FUZZES: fuse_request
#include "gateway/fuse/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: a fuzz target
  Buffer input = Buffer::copy_of(std::as_bytes(std::span(data, size)));
  (void)decode_fuse_request(input);
  (void)decode_fuse_request(input, true);
  if (size < sizeof(fuse_in_header)) return 0;
  // With the length mended and the operation folded into the known ones, so that every body is
  // reached.
  auto length = static_cast<uint32_t>(size);
  uint32_t opcode = 0;
  std::memcpy(&opcode, input.data() + offsetof(fuse_in_header, opcode), sizeof opcode);
  opcode %= 64;
  std::memcpy(input.data() + offsetof(fuse_in_header, len), &length, sizeof length);
  std::memcpy(input.data() + offsetof(fuse_in_header, opcode), &opcode, sizeof opcode);
  HR_ASSERT(decode_fuse_header(input.view()).ok());
  (void)decode_fuse_request(input, true);
  Result<FuseRequest> request = decode_fuse_request(input);
  if (!request.ok()) return 0;
  if (auto* write = std::get_if<FuseWrite>(&request->body))
    HR_ASSERT(write->data.data() + write->data.size() == input.data() + input.size());
  if (auto* lookup = std::get_if<FuseLookup>(&request->body))
    HR_ASSERT(!lookup->name.empty() && lookup->name.find('/') == std::string::npos &&
              lookup->name.find('\0') == std::string::npos);
  return 0;
}
