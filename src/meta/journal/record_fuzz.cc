// FUZZES: journal_records
#include "meta/journal/record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto records = headrace::decode_records(std::as_bytes(std::span(data, size)), headrace::PartitionId(1));
  (void)records.ok();
  return 0;
}
