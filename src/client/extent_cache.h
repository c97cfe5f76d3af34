// ExtentCache: what is known of where a file's committed bytes are. Holes are explicit, so that
// presence is knowledge.
//
// Valid only under a grant (or within one read). The packer may move bytes to another segment
// without a recall: an extent may therefore name a segment that is gone (Locate says kNotFound; the
// owner then clears and asks again), but never wrong bytes. Owner: FileState.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "proto/placement.h"

namespace headrace {

// The part of `extent` within [begin, end), which must overlap it.
[[nodiscard]] Extent cut_extent(const Extent& extent, uint64_t begin, uint64_t end);

class ExtentCache {
 public:
  // Replaces what is known of the extent's range.
  void replace(Extent extent);
  void forget(uint64_t begin, uint64_t end);
  void clear();
  // After the extents that name it: bytes that none names (any more) go when there are many.
  void put_staged(uint64_t staged, Buffer bytes);
  [[nodiscard]] const Buffer* staged(uint64_t id) const;
  [[nodiscard]] size_t staged_size() const { return staged_.size(); }

  // Extents that cover [begin, end) exactly, cut to it; nothing where some part is unknown (its
  // start in *missing).
  [[nodiscard]] std::optional<std::vector<Extent>> cover(uint64_t begin, uint64_t end,
                                                         uint64_t* missing = nullptr) const;
  // Where the hole that covers the byte at `at` ends; `at` where none is known to.
  [[nodiscard]] uint64_t hole_end(uint64_t at) const;
  [[nodiscard]] size_t size() const { return extents_.size(); }

 private:
  void cut(uint64_t begin, uint64_t end);
  void forget_unnamed();
  std::map<uint64_t, Extent> extents_;  // by offset
  std::unordered_map<uint64_t, Buffer> staged_;
};

}  // namespace headrace
