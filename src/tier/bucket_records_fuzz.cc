// FUZZES: bucket_head, bucket_manifest, bucket_locations
//
// As they come, and with magic and crc mended. What decodes must encode to what decodes to the same
// again.
#include "base/checksum.h"
#include "tier/records.h"

namespace {

template <class T, class Decode, class Encode>
void check(std::string bytes, uint32_t magic, Decode decode, Encode encode) {
  using namespace headrace;  // NOLINT
  (void)decode(bytes_of(bytes)).ok();
  if (bytes.size() < 8) return;
  uint32_t crc = crc32c(bytes_of(bytes).subspan(8));
  std::memcpy(bytes.data(), &magic, 4);
  std::memcpy(bytes.data() + 4, &crc, 4);
  Result<T> record = decode(bytes_of(bytes));
  if (!record.ok()) return;
  Buffer again = encode(*record);
  Result<T> second = decode(again.view());
  HR_ASSERT(second.ok());
  HR_ASSERT(encode(*second).text() == again.text());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT
  std::string bytes(reinterpret_cast<const char*>(data), size);
  check<HeadRecord>(bytes, 0x44485248, decode_bucket_head, encode_bucket_head);
  check<ManifestRecord>(bytes, 0x464d5248, decode_manifest, encode_manifest);
  check<LocationsRecord>(bytes, 0x434c5248, decode_locations, encode_locations);
  return 0;
}
