// FUZZES: aws_profile_file
// FUZZES: credentials_json
#include <cstdint>

#include "object/s3/credentials.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)headrace::parse_profile_file(text).size();
  (void)headrace::parse_credentials_json(text).ok();
  return 0;
}
