#include "base/checksum.h"

#include <isa-l/crc.h>

#include <array>

namespace headrace {

uint32_t crc32c(ByteView bytes, uint32_t seed) {
  // ISA-L neither inverts on entry nor on exit; the standard does both.
  uint32_t crc = ~seed;
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  while (left > 0) {
    size_t n = left > kGiB ? kGiB : left;  // its length is an int
    crc = crc32_iscsi(reinterpret_cast<unsigned char*>(const_cast<std::byte*>(at)), static_cast<int>(n), crc);
    at += n;
    left -= n;
  }
  return ~crc;
}

uint32_t crc32c_seed(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  const std::array<uint64_t, 4> words{a, b, c, d};
  return crc32c(std::as_bytes(std::span(words)));
}

}  // namespace headrace
