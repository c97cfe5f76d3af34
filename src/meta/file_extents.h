// FileExtents: one file's extents within a transaction: leaves are gathered as ranges are touched, changed in memory,
// and put back by write(). Owner: the operation's frame; the transaction outlives it.
#pragma once

#include "meta/extents.h"
#include "meta/transaction.h"

namespace headrace {

class FileExtents {
 public:
  FileExtents(Transaction& txn, FileId file) : txn_(txn), file_(file) {}

  // Ranges end at most at kMaxFileSize. Each leaf in a range costs a read: callers bound it.
  [[nodiscard]] Task<Result<void>> replace(uint64_t offset, uint64_t length, std::vector<Extent> pieces);
  [[nodiscard]] Task<Result<void>> repoint(Extent from, SegmentId to, uint64_t to_offset);
  [[nodiscard]] Task<Result<std::vector<Extent>>> slice(uint64_t offset, uint64_t length, uint64_t file_size);
  // Where the first leaf in [from, to) begins that is there; `to` where none is: a hole until then, however far.
  [[nodiscard]] Task<Result<uint64_t>> next_leaf(uint64_t from, uint64_t to);
  // Takes what is in [from, to), front first, as far as it fits one transaction (kRemoveRows rows, holes cost nothing).
  // True when all is gone.
  [[nodiscard]] Task<Result<bool>> remove(uint64_t from, uint64_t to);

  // Puts the changed leaves and charges staged rows. Returns the change, for charge_segments() and the file's bytes.
  [[nodiscard]] Task<Result<ExtentDelta>> write();

  static constexpr size_t kRemoveSources = 150;  // segments and staged rows that lose a piece: 2 rows each
  static constexpr size_t kRemoveLeaves = 64;

 private:
  [[nodiscard]] Task<Result<void>> gather(uint64_t offset, uint64_t length);

  Transaction& txn_;
  FileId file_;
  FileLeaves leaves_;
  ExtentDelta delta_;
};

}  // namespace headrace
