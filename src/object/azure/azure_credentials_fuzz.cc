// FUZZES: azure_token_json
// FUZZES: azure_connection_string
#include <cstdint>

#include "object/azure/azure_credentials.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)headrace::parse_azure_token(text, headrace::seconds(1'800'000'000)).ok();
  (void)headrace::parse_azure_connection(text).ok();
  return 0;
}
