// Reed-Solomon over GF(2^8) by ISA-L, Cauchy matrix (gf_gen_cauchy1_matrix), systematic: data fragments are the data.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "proto/placement.h"

namespace headrace {

// P parity fragments over D data fragments of equal size. D = 1: copies.
[[nodiscard]] std::vector<Buffer> encode_parity(Protection protection, const std::vector<Buffer>& data);
// fragments[i] empty: missing. Rebuilds those in `wanted` from any D present ones of equal size.
// kIo when fewer than D are there.
[[nodiscard]] Result<std::vector<Buffer>> reconstruct(Protection protection, const std::vector<Buffer>& fragments,
                                                      const std::vector<uint8_t>& wanted);

}  // namespace headrace
