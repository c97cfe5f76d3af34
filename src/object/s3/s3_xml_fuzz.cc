// FUZZES: s3_error
// FUZZES: s3_listing
// FUZZES: s3_upload_id
// FUZZES: s3_completion
// FUZZES: s3_removal
#include <cstdint>

#include "object/s3/s3_xml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)headrace::parse_s3_error(text).has_value();
  (void)headrace::parse_s3_listing(text).ok();
  (void)headrace::parse_s3_upload_id(text).ok();
  (void)headrace::parse_s3_completion(text).ok();
  (void)headrace::parse_s3_removal(text).ok();
  return 0;
}
