#include "client/dirty_map.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace headrace {

namespace {
template <class Piece>
uint64_t memory_of(const Piece& piece) {
  return std::max<uint64_t>(piece.room.size(), round_up(piece.bytes.size(), kBlock));
}
}  // namespace

void DirtyMap::count(const Piece& piece) {
  all_.bytes += piece.bytes.size();
  all_.memory += memory_of(piece);
  if (piece.flush != 0) return;
  free_.bytes += piece.bytes.size();
  free_.memory += memory_of(piece);
}

void DirtyMap::discount(const Piece& piece) {
  all_.bytes -= piece.bytes.size();
  all_.memory -= memory_of(piece);
  if (piece.flush != 0) return;
  free_.bytes -= piece.bytes.size();
  free_.memory -= memory_of(piece);
}

void DirtyMap::insert(uint64_t offset, Piece piece) {
  count(piece);
  bool inserted = pieces_.emplace(offset, std::move(piece)).second;
  HR_ASSERT(inserted);
}

DirtyMap::Pieces::iterator DirtyMap::erase(Pieces::iterator piece) {
  discount(piece->second);
  return pieces_.erase(piece);
}

void DirtyMap::mark(Piece& piece, uint64_t flush) {
  discount(piece);
  piece.flush = flush;
  piece.room = Buffer();
  count(piece);
}

// Cuts a piece in two at `at`, strictly inside; returns the second.
DirtyMap::Pieces::iterator DirtyMap::split(Pieces::iterator piece, uint64_t at) {
  const uint64_t head = at - piece->first;
  HR_ASSERT(head > 0 && head < piece->second.bytes.size());
  discount(piece->second);
  Piece tail;
  tail.bytes = piece->second.bytes.slice(head, piece->second.bytes.size() - head);
  tail.flush = piece->second.flush;
  piece->second.bytes = piece->second.bytes.slice(0, head);
  piece->second.room = Buffer();
  count(piece->second);
  count(tail);
  return pieces_.emplace(at, std::move(tail)).first;
}

void DirtyMap::carve(uint64_t begin, uint64_t end) {
  auto at = pieces_.upper_bound(begin);
  if (at != pieces_.begin()) {
    auto before = std::prev(at);
    if (before->first < begin && begin < before->first + before->second.bytes.size()) {
      at = split(before, begin);
    } else if (before->first == begin) {
      at = before;
    }
  }
  while (at != pieces_.end() && at->first < end) {
    if (at->first + at->second.bytes.size() > end) split(at, end);
    at = erase(at);
  }
}

void DirtyMap::write(uint64_t offset, Buffer bytes) {
  if (bytes.empty()) return;
  carve(offset, offset + bytes.size());
  if (bytes.size() >= kKeepFrom) {
    insert(offset, Piece{.bytes = std::move(bytes)});
    return;
  }
  ByteView rest = bytes.view();
  uint64_t capacity = kBlock;
  auto next = pieces_.lower_bound(offset);
  if (next != pieces_.begin()) {
    auto& [start, piece] = *std::prev(next);
    if (start + piece.bytes.size() == offset && piece.flush == 0 && !piece.room.empty()) {
      const uint64_t used = piece.bytes.size();
      const uint64_t more = std::min<uint64_t>(rest.size(), piece.room.size() - used);
      if (more > 0) {
        std::memcpy(piece.room.data() + used, rest.data(), more);
        discount(piece);
        piece.bytes = piece.room.slice(0, used + more);
        count(piece);
        offset += more;
        rest = rest.subspan(more);
      }
      capacity = std::min(kMaxRoom, piece.room.size() * 2);
    }
  }
  if (rest.empty()) return;
  Buffer room = Buffer::allocate(std::max(capacity, round_up(rest.size(), kBlock)));
  std::memcpy(room.data(), rest.data(), rest.size());
  Buffer used = room.slice(0, rest.size());
  insert(offset, Piece{.bytes = std::move(used), .room = std::move(room)});
}

std::vector<DirtyPiece> DirtyMap::take(uint64_t flush, uint64_t max_bytes, uint64_t max_pieces) {
  HR_ASSERT(flush != 0);
  std::vector<DirtyPiece> out;
  for (auto at = pieces_.begin(); at != pieces_.end() && max_bytes > 0 && out.size() < max_pieces; ++at) {
    if (at->second.flush != 0) continue;
    if (at->second.bytes.size() > max_bytes) split(at, at->first + max_bytes);
    mark(at->second, flush);
    max_bytes -= at->second.bytes.size();
    out.push_back({at->first, at->second.bytes});
  }
  return out;
}

std::vector<DirtyPiece> DirtyMap::take_runs(uint64_t flush, uint64_t unit, uint64_t max_bytes) {
  HR_ASSERT(flush != 0 && unit > 0);
  std::vector<DirtyPiece> out;
  auto at = pieces_.begin();
  while (at != pieces_.end() && max_bytes >= unit) {
    if (at->second.flush != 0) {
      ++at;
      continue;
    }
    const uint64_t begin = at->first;
    uint64_t end = begin;
    auto stop = at;
    while (stop != pieces_.end() && stop->second.flush == 0 && stop->first == end) {
      end += stop->second.bytes.size();
      ++stop;
    }
    const uint64_t length = std::min(round_down(end - begin, unit), round_down(max_bytes, unit));
    for (uint64_t taken = 0; taken < length; ++at) {
      if (taken + at->second.bytes.size() > length) split(at, at->first + (length - taken));
      mark(at->second, flush);
      taken += at->second.bytes.size();
      out.push_back({at->first, at->second.bytes});
    }
    max_bytes -= length;
    at = stop;
  }
  return out;
}

void DirtyMap::finished(uint64_t flush) {
  HR_ASSERT(flush != 0);
  for (auto at = pieces_.begin(); at != pieces_.end();) {
    at = at->second.flush == flush ? erase(at) : std::next(at);
  }
}

void DirtyMap::put_back(uint64_t flush) {
  HR_ASSERT(flush != 0);
  for (auto& [offset, piece] : pieces_) {
    if (piece.flush == flush) mark(piece, 0);
  }
}

std::vector<DirtyPiece> DirtyMap::view(uint64_t begin, uint64_t end) const {
  std::vector<DirtyPiece> out;
  auto at = pieces_.upper_bound(begin);
  if (at != pieces_.begin()) --at;
  for (; at != pieces_.end() && at->first < end; ++at) {
    const uint64_t from = std::max(begin, at->first);
    const uint64_t to = std::min(end, at->first + at->second.bytes.size());
    if (from < to) out.push_back({from, at->second.bytes.slice(from - at->first, to - from)});
  }
  return out;
}

std::optional<uint64_t> DirtyMap::next(uint64_t at) const {
  auto found = pieces_.upper_bound(at);
  if (found != pieces_.begin()) {
    const auto& [start, piece] = *std::prev(found);
    if (at - start < piece.bytes.size()) return at;
  }
  return found == pieces_.end() ? std::nullopt : std::optional(found->first);
}

void DirtyMap::clear() {
  pieces_.clear();
  all_ = {};
  free_ = {};
}

}  // namespace headrace
