// FUZZES: coord_file
#include "coord/embedded/coord_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto table = headrace::decode_coord_file(std::as_bytes(std::span(data, size)));
  (void)table.ok();
  return 0;
}
