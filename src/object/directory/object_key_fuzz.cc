// FUZZES: object_key
#include <cstdint>
#include <string>

#include "object/directory/directory_store.h"

// A path names one key and a key one path, and neither leaves the directory.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto key = headrace::object_key(text)) {
    const auto path = headrace::object_path(*key);
    HR_ASSERT(path.ok() && *path == text);
  }
  if (const auto path = headrace::object_path(text); path.ok()) {
    HR_ASSERT(headrace::object_key(*path) == text);
    HR_ASSERT(!path->starts_with('/') && !path->starts_with(".headrace"));
    const std::string framed = "/" + *path + "/";
    HR_ASSERT(framed.find("/../") == std::string::npos && framed.find("/./") == std::string::npos);
    HR_ASSERT(framed.find("//") == std::string::npos);
  }
  return 0;
}
