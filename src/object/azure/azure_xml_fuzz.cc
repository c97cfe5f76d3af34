// FUZZES: azure_error
// FUZZES: azure_listing
#include <cstdint>

#include "object/azure/azure_xml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)headrace::parse_azure_error(text).has_value();
  (void)headrace::parse_azure_listing(text).ok();
  return 0;
}
