// WriteThrough: what a File may be able to do beyond writing and flushing. Optional: who can use it asks once, when the
// file is open, and does without where it is not there.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/disk.h"

namespace headrace {

class WriteThrough {
 public:
  virtual ~WriteThrough() = default;
  // Null where the file has none of this.
  [[nodiscard]] static WriteThrough* of(File& file) { return dynamic_cast<WriteThrough*>(&file); }

  // A write that is durable when it returns ok, at the price of one request (O_DSYNC). Of other writes it says nothing;
  // it fails as a write or a flush does.
  [[nodiscard]] virtual Task<Result<void>> write_through(uint64_t offset, std::vector<Buffer> pieces) = 0;
  // From now on a write to [offset, offset + size) does not fail for want of space; what was never written there reads
  // as zeros. Extends the file, durably with the next flush. kNotSupported where the file system cannot.
  [[nodiscard]] virtual Task<Result<void>> reserve(uint64_t offset, uint64_t size) = 0;
};

}  // namespace headrace
