// FUZZES: bucket_url
#include <cstdint>

#include "object/bucket_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto url = headrace::parse_bucket_url({reinterpret_cast<const char*>(data), size});
  if (url.ok()) {
    const auto again = headrace::parse_bucket_url(url->text());
    HR_ASSERT(again.ok() && *again == *url);
  }
  return 0;
}
