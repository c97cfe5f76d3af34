// crc32c (Castagnoli, iSCSI polynomial; RFC 3720 appendix B.4), by ISA-L.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace headrace {

// Continues `seed` (0 to start). crc32c(b, crc32c(a)) is the crc of a followed by b.
[[nodiscard]] uint32_t crc32c(ByteView bytes, uint32_t seed = 0);

// A crc seeded with up to four words of identity, so that bytes at the wrong address never verify.
[[nodiscard]] uint32_t crc32c_seed(uint64_t a, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0);

}  // namespace headrace
