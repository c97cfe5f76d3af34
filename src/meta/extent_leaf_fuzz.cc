// FUZZES: extent_leaf
#include <cstdlib>

#include "meta/extents.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (uint64_t span : {kWholeLeaf, kPartLeaf}) {
    auto leaf = decode_leaf(5 * kWholeLeaf, span, bytes);
    if (!leaf.ok()) continue;
    // What is accepted is exactly what would be written.
    std::string again =
        leaf->parts != 0 ? encode_split_leaf(leaf->parts) : encode_leaf(5 * kWholeLeaf, span, leaf->pieces);
    if (again != bytes) std::abort();
    if (leaf->parts == 0) (void)ExtentMap(5 * kWholeLeaf, span, leaf->pieces).slice(5 * kWholeLeaf, span, ~uint64_t{0});
  }
  return 0;
}
