// Signing and verifying capabilities: HMAC-SHA256 (RFC 2104) truncated to 16 bytes, under the namespace's secret.
#pragma once

#include <array>
#include <cstdint>

#include "proto/header.h"

namespace headrace {

using NamespaceSecret = std::array<uint8_t, 32>;

[[nodiscard]] Capability sign_capability(const NamespaceSecret& secret, SegmentId segment, uint64_t begin, uint64_t end,
                                         uint8_t rights, uint32_t expiry_s);
// kDenied, saying which part does not fit. Constant-time comparison. now_s: wall clock.
[[nodiscard]] Result<void> verify_capability(const NamespaceSecret& secret, const Capability& capability, SegmentId segment,
                                             uint64_t begin, uint64_t end, Right right, uint32_t now_s);

}  // namespace headrace
