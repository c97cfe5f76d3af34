// FUZZES: bucket_url
#include <cstdint>

#include "object/bucket_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto url = headrace::parse_bucket_url({reinterpret_cast<const char*>(data), size});
  (void)url.ok();
  return 0;
}
