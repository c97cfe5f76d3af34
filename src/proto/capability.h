// Signing and verifying capabilities: HMAC-SHA256 (RFC 2104) truncated to 16 bytes, under the namespace's secret.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "proto/header.h"

namespace headrace {

using NamespaceSecret = std::array<uint8_t, 32>;

[[nodiscard]] Capability sign_capability(const NamespaceSecret& secret, SegmentId segment, uint64_t begin, uint64_t end,
                                         uint8_t rights, uint32_t expiry_s);
// kDenied, saying which part does not fit. Constant-time comparison. now_s: wall clock.
[[nodiscard]] Result<void> verify_capability(const NamespaceSecret& secret, const Capability& capability,
                                             SegmentId segment, uint64_t begin, uint64_t end, Right right,
                                             uint32_t now_s);

// The same for one secret, remembering what was genuine: the MAC of a capability that is shown again is not computed
// again.
class CapabilityVerifier {
 public:
  explicit CapabilityVerifier(const NamespaceSecret& secret) : secret_(secret) {}
  [[nodiscard]] Result<void> verify(const Capability& capability, SegmentId segment, uint64_t begin, uint64_t end,
                                    Right right, uint32_t now_s);

 private:
  static constexpr size_t kMaxKnown = 16'384;
  NamespaceSecret secret_;
  std::map<SegmentId, Capability> known_;  // of each segment the last that was genuine; hints
};

}  // namespace headrace
