#include "proto/capability.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstring>

namespace headrace {

namespace {

std::array<uint8_t, 16> mac_of(const NamespaceSecret& secret, const Capability& capability) {
  Writer writer(64);
  writer(capability.segment, capability.begin, capability.end, capability.rights, capability.expiry_s);
  std::array<uint8_t, 32> whole{};
  unsigned size = 0;
  const auto* done = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                          reinterpret_cast<const uint8_t*>(writer.bytes().data()), writer.size(), whole.data(), &size);
  HR_ASSERT(done != nullptr && size == whole.size());
  std::array<uint8_t, 16> mac{};
  std::memcpy(mac.data(), whole.data(), mac.size());
  return mac;
}

Error refused(const Capability& capability, const std::string& why) {
  return Error(Code::kDenied, "capability for segment " + to_string(capability.segment) + ": " + why);
}

}  // namespace

Capability sign_capability(const NamespaceSecret& secret, SegmentId segment, uint64_t begin, uint64_t end,
                           uint8_t rights, uint32_t expiry_s) {
  Capability capability{.segment = segment, .begin = begin, .end = end, .rights = rights, .expiry_s = expiry_s};
  capability.mac = mac_of(secret, capability);
  return capability;
}

namespace {

bool genuine(const NamespaceSecret& secret, const Capability& capability) {
  std::array<uint8_t, 16> mac = mac_of(secret, capability);
  return CRYPTO_memcmp(mac.data(), capability.mac.data(), mac.size()) == 0;
}

bool same(const Capability& a, const Capability& b) {
  return a.segment == b.segment && a.begin == b.begin && a.end == b.end && a.rights == b.rights &&
         a.expiry_s == b.expiry_s && CRYPTO_memcmp(a.mac.data(), b.mac.data(), a.mac.size()) == 0;
}

Error not_genuine() {
  return {Code::kDenied, "capability: its signature does not verify (made under another secret, changed, or absent)"};
}

// What a genuine one allows.
Result<void> allows(const Capability& capability, SegmentId segment, uint64_t begin, uint64_t end, Right right,
                    uint32_t now_s) {
  if (capability.segment != segment) return refused(capability, "asked for segment " + to_string(segment));
  if ((capability.rights & static_cast<uint8_t>(right)) == 0)
    return refused(capability, right == Right::kWrite ? "does not allow writing" : "does not allow reading");
  if (begin > end || begin < capability.begin || end > capability.end)
    return refused(capability, "bytes " + std::to_string(begin) + "-" + std::to_string(end) + " are outside " +
                                   std::to_string(capability.begin) + "-" + std::to_string(capability.end));
  if (now_s > capability.expiry_s)
    return refused(capability, "expired " + std::to_string(now_s - capability.expiry_s) +
                                   " s ago; if this repeats, compare the clocks of the machines");
  return {};
}

}  // namespace

Result<void> verify_capability(const NamespaceSecret& secret, const Capability& capability, SegmentId segment,
                               uint64_t begin, uint64_t end, Right right, uint32_t now_s) {
  // The MAC first: until it verifies, nothing that the capability says about itself means anything.
  if (!genuine(secret, capability)) return not_genuine();
  return allows(capability, segment, begin, end, right, now_s);
}

Result<void> CapabilityVerifier::verify(const Capability& capability, SegmentId segment, uint64_t begin, uint64_t end,
                                        Right right, uint32_t now_s) {
  auto known = known_.find(capability.segment);
  if (known == known_.end() || !same(known->second, capability)) {
    if (!genuine(secret_, capability)) return not_genuine();
    if (known_.size() >= kMaxKnown) known_.clear();
    known_[capability.segment] = capability;
  }
  return allows(capability, segment, begin, end, right, now_s);
}

}  // namespace headrace
