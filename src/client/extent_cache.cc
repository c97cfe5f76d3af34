#include "client/extent_cache.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <utility>

namespace headrace {

Extent cut_extent(const Extent& extent, uint64_t begin, uint64_t end) {
  const uint64_t from = std::max(begin, extent.offset);
  const uint64_t to = std::min(end, extent.offset + extent.length);
  HR_ASSERT(from < to);
  Extent out = extent;
  out.offset = from;
  out.length = to - from;
  if (extent.kind != ExtentKind::kHole) out.segment_offset += from - extent.offset;
  return out;
}

void ExtentCache::forget(uint64_t begin, uint64_t end) {
  cut(begin, end);
  forget_unnamed();
}

void ExtentCache::cut(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  auto at = extents_.upper_bound(begin);
  if (at != extents_.begin()) --at;
  while (at != extents_.end() && at->first < end) {
    const Extent old = at->second;
    const uint64_t old_end = old.offset + old.length;
    if (old_end <= begin) {
      ++at;
      continue;
    }
    at = extents_.erase(at);
    if (old.offset < begin) extents_.emplace(old.offset, cut_extent(old, old.offset, begin));
    if (old_end > end) at = extents_.emplace(end, cut_extent(old, end, old_end)).first;
  }
}

void ExtentCache::replace(Extent extent) {
  if (extent.length == 0) return;
  cut(extent.offset, extent.length > ~uint64_t{0} - extent.offset ? ~uint64_t{0} : extent.offset + extent.length);
  extents_.emplace(extent.offset, extent);
}

void ExtentCache::clear() {
  extents_.clear();
  staged_.clear();
}

void ExtentCache::put_staged(uint64_t staged, Buffer bytes) {
  staged_.insert_or_assign(staged, std::move(bytes));
  forget_unnamed();
}

// Seldom enough that it costs each piece little.
void ExtentCache::forget_unnamed() {
  constexpr size_t kSpare = 8;
  if (staged_.size() <= 2 * extents_.size() + kSpare) return;
  std::unordered_set<uint64_t> named;
  for (const auto& [offset, extent] : extents_) named.insert(extent.staged);
  std::erase_if(staged_, [&](const auto& item) { return !named.contains(item.first); });
}

const Buffer* ExtentCache::staged(uint64_t id) const {
  auto found = staged_.find(id);
  return found == staged_.end() ? nullptr : &found->second;
}

uint64_t ExtentCache::hole_end(uint64_t at) const {
  auto found = extents_.upper_bound(at);
  if (found == extents_.begin()) return at;
  const Extent& extent = std::prev(found)->second;
  return extent.kind == ExtentKind::kHole ? std::max(at, extent.offset + extent.length) : at;
}

std::optional<std::vector<Extent>> ExtentCache::cover(uint64_t begin, uint64_t end, uint64_t* missing) const {
  std::vector<Extent> out;
  auto at = extents_.upper_bound(begin);
  if (at != extents_.begin()) --at;
  uint64_t next = begin;
  for (; next < end && at != extents_.end(); ++at) {
    const uint64_t extent_end = at->first + at->second.length;
    if (extent_end <= next) continue;
    if (at->first > next) break;
    out.push_back(cut_extent(at->second, next, end));
    next = extent_end;
  }
  if (next < end) {
    if (missing != nullptr) *missing = next;
    return std::nullopt;
  }
  return out;
}

}  // namespace headrace
