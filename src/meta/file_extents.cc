#include "meta/file_extents.h"

#include <algorithm>
#include <set>

#include "meta/segments.h"

namespace headrace {

Task<Result<void>> FileExtents::gather(uint64_t offset, uint64_t length) {
  for (;;) {
    std::vector<Leaf> missing = leaves_.missing(offset, length);
    if (missing.empty()) co_return {};
    for (Leaf leaf : missing) {
      HR_CO_TRY(std::optional<RowValue> row, co_await txn_.get(leaf_key(file_, leaf)));
      HR_CO_TRY(leaves_.load(leaf, row ? std::optional<std::string_view>(*row) : std::nullopt));
    }
  }
}

Task<Result<void>> FileExtents::replace(uint64_t offset, uint64_t length, std::vector<Extent> pieces) {
  HR_CO_TRY(co_await gather(offset, length));
  delta_.add(leaves_.replace(offset, length, pieces));
  co_return {};
}

Task<Result<void>> FileExtents::repoint(Extent from, SegmentId to, uint64_t to_offset) {
  HR_CO_TRY(co_await gather(from.offset, from.length));
  delta_.add(leaves_.repoint(from, to, to_offset));
  co_return {};
}

Task<Result<std::vector<Extent>>> FileExtents::slice(uint64_t offset, uint64_t length, uint64_t file_size) {
  if (offset >= file_size) co_return std::vector<Extent>();
  length = std::min(length, file_size - offset);
  HR_CO_TRY(co_await gather(offset, length));
  co_return leaves_.slice(offset, length, file_size);
}

Task<Result<uint64_t>> FileExtents::next_leaf(uint64_t from, uint64_t to) {
  if (from >= to) co_return to;
  HR_CO_TRY(auto rows,
            co_await txn_.scan(leaf_key(file_, whole_leaf_at(from)), leaf_key(file_, part_leaf_at(to - 1)) + '\0', 1));
  if (rows.empty()) co_return to;
  co_return std::clamp(leaf_of(rows.front().first).base(), from, to);
}

Task<Result<bool>> FileExtents::remove(uint64_t from, uint64_t to) {
  to = std::min(to, kMaxFileSize);
  if (from >= to) co_return true;
  // Only leaves that are there are looked at: a file may be a hole of exabytes.
  Key first = leaf_key(file_, whole_leaf_at(from));
  Key last = leaf_key(file_, part_leaf_at(to - 1));
  HR_CO_TRY(auto rows, co_await txn_.scan(first, last + '\0', kRemoveLeaves + 1));
  std::set<uint64_t> wholes;
  for (const auto& [key, value] : rows) wholes.insert(leaf_of(key).index);
  std::set<SegmentId> segments;
  std::set<uint64_t> staged;
  for (uint64_t index : wholes) {
    uint64_t end = std::min(to, (index + 1) * kWholeLeaf);
    for (uint64_t at = std::max(from, index * kWholeLeaf); at < end;) {
      uint64_t next = std::min(end, round_down(at, kPartLeaf) + kPartLeaf);
      HR_CO_TRY(co_await gather(at, next - at));
      for (const Extent& piece : leaves_.slice(at, next - at, kMaxFileSize)) {
        if (piece.kind == ExtentKind::kSegment) segments.insert(piece.segment);
        if (piece.kind == ExtentKind::kStaged) staged.insert(piece.staged);
        if (segments.size() + staged.size() <= kRemoveSources) continue;
        delta_.add(leaves_.replace(at, piece.offset - at, {}));
        co_return false;
      }
      delta_.add(leaves_.replace(at, next - at, {}));
      at = next;
    }
  }
  co_return rows.size() <= kRemoveLeaves;
}

Task<Result<ExtentDelta>> FileExtents::write() {
  for (auto& [leaf, value] : leaves_.changes()) {
    if (value) {
      txn_.put(leaf_key(file_, leaf), *std::move(value));
    } else {
      txn_.erase(leaf_key(file_, leaf));
    }
  }
  HR_CO_TRY(co_await charge_staged(txn_, file_.slot(), delta_));
  co_return std::exchange(delta_, {});
}

}  // namespace headrace
