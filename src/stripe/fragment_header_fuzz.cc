// FUZZES: fragment_header
#include <cstring>

#include "base/checksum.h"
#include "stripe/fragment.h"

// Besides the bytes as they are, the same with a right checksum, so that the checks behind it are
// reached.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;
  const TargetId target(1);
  ByteView bytes = std::as_bytes(std::span(data, size));
  (void)decode_fragment_header(bytes, target, 4096);
  if (size < 128) return 0;
  uint64_t length = 0;
  std::memcpy(&length, data + 32, sizeof length);
  length = length % (64 * kBlock) / kBlock * kBlock;
  Buffer whole = Buffer::zeroed(fragment_header_size(length));
  std::memcpy(whole.data(), data, std::min(size, whole.size()));
  uint32_t magic = FragmentHeader::kMagic;
  uint32_t crc = 0;
  std::memcpy(whole.data(), &magic, sizeof magic);
  std::memcpy(whole.data() + 32 + 8, &length, sizeof length);
  std::memcpy(whole.data() + 4, &crc, sizeof crc);
  crc = crc32c(whole.view(), crc32c_seed(magic, target.value(), 4096));
  std::memcpy(whole.data() + 4, &crc, sizeof crc);
  Result<FragmentHeader> header = decode_fragment_header(whole.view(), target, 4096);
  if (header.ok()) {
    Buffer again = encode_fragment_header(*header, target, 4096);
    HR_ASSERT(decode_fragment_header(again.view(), target, 4096).ok());
  }
  return 0;
}
