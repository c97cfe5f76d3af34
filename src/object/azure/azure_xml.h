// The XML of the Blob service: what replies say, and the body of Put Block List. Everything read here
// comes from outside; every decoder is bounded by the size of its input and says kCorrupt for what it
// cannot read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace headrace {

struct AzureError {
  std::string code;     // "BlobNotFound"
  std::string message;  // the service's words, first line
  std::string detail;   // AuthenticationErrorDetail
};
// Nothing when the body is not an error document.
// DECODER: azure_error
[[nodiscard]] std::optional<AzureError> parse_azure_error(std::string_view xml);

struct AzureListing {
  struct Entry {
    std::string name;
    uint64_t size = 0;
    std::string etag;
  };
  std::vector<Entry> entries;
  std::string marker;  // empty: the last piece
};
// Of List Blobs.
// DECODER: azure_listing
[[nodiscard]] Result<AzureListing> parse_azure_listing(std::string_view xml);

[[nodiscard]] std::string azure_block_list(const std::vector<std::string>& ids);

}  // namespace headrace
