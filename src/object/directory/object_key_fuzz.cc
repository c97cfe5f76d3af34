// FUZZES: object_key
#include <cstdint>

#include "object/directory/directory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto key = headrace::object_key({reinterpret_cast<const char*>(data), size});
  (void)key.has_value();
  return 0;
}
