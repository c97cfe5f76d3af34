// FUZZES: memory_store_file
#include <cstdlib>

#include "base/checksum.h"
#include "base/codec.h"
#include "meta/store/memory/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;
  (void)decode_memory_store_file({reinterpret_cast<const std::byte*>(data), size});
  // Again with a right head and checksum, which no mutation finds.
  Writer writer;
  writer(uint32_t{0x31534d48}, uint8_t{1});
  writer.raw(data, size);
  writer(crc32c(bytes_of(writer.bytes())));
  auto rows = decode_memory_store_file(bytes_of(writer.bytes()));
  if (rows.ok() && encode_memory_store_file(*rows) != writer.bytes()) std::abort();
  return 0;
}
