// FUZZES: store_import, rocksdb_file_import
#include <cstdlib>

#include "meta/store/store_import.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto set = decode_store_import(bytes);
  if (set.ok() && !bytes.starts_with(encode_durable(*set))) std::abort();
  auto file = decode_rocksdb_file_import(bytes);
  if (file.ok() && !bytes.starts_with(encode_durable(*file))) std::abort();
  return 0;
}
