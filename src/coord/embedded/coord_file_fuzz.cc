// FUZZES: coord_file
#include "coord/embedded/coord_file.h"

#include "base/checksum.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: this file is one function
  ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  (void)decode_coord_file(bytes).ok();
  // The same bytes behind a valid head, so that what lies under the checksum is reached.
  Writer writer;
  writer(uint32_t{0x31435248}, static_cast<uint32_t>(size), crc32c(bytes));
  writer.raw(data, size);
  Result<CoordTable> table = decode_coord_file(bytes_of(writer.bytes()));
  if (!table.ok()) return 0;
  Result<CoordTable> again = decode_coord_file(bytes_of(encode_coord_file(*table)));
  HR_ASSERT(again.ok() && encode(*again) == encode(*table));
  return 0;
}
