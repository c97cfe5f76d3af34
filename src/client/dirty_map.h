// DirtyMap: the bytes of one file that were written here and are not committed yet.
//
// A piece is free (may still be taken) or taken by one flush, named by a number from 1. A newer
// write over a taken piece replaces those bytes in the map at once (reads see it) and is free
// itself; the flush goes on with the old bytes, which it holds. finished(flush) removes what is
// left of a flush's pieces, put_back(flush) frees them again: so a failed flush loses nothing and
// never brings back what was overwritten meanwhile.
//
// Invariants: pieces never overlap and are never empty. Bytes that were handed out are never
// changed in place. Writes below kKeepFrom are copied, and grow into each other, so that a small
// write does not pin a large request. Owner: FileState. No I/O, one core.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace headrace {

struct DirtyPiece {
  uint64_t offset = 0;  // in the file
  Buffer bytes;
};

class DirtyMap {
 public:
  static constexpr uint64_t kKeepFrom = 64 * kKiB;
  static constexpr uint64_t kMaxRoom = kMiB;

  void write(uint64_t offset, Buffer bytes);

  // Marks free pieces, ascending, as taken by `flush`, up to max_bytes (splitting a piece there)
  // and max_pieces.
  [[nodiscard]] std::vector<DirtyPiece> take(uint64_t flush, uint64_t max_bytes, uint64_t max_pieces);
  // The same, but only whole multiples of `unit` out of contiguous free runs of at least that
  // length.
  [[nodiscard]] std::vector<DirtyPiece> take_runs(uint64_t flush, uint64_t unit, uint64_t max_bytes);
  void finished(uint64_t flush);
  void put_back(uint64_t flush);

  // What overlaps [begin, end), ascending, cut to it.
  [[nodiscard]] std::vector<DirtyPiece> view(uint64_t begin, uint64_t end) const;
  [[nodiscard]] std::optional<uint64_t> next(uint64_t at) const;  // the first dirty byte there or behind

  [[nodiscard]] bool empty() const { return pieces_.empty(); }
  [[nodiscard]] uint64_t bytes() const { return all_.bytes; }  // taken and free
  [[nodiscard]] uint64_t free_bytes() const { return free_.bytes; }
  // What they hold: a block at least for each piece, however small it is.
  [[nodiscard]] uint64_t memory() const { return all_.memory; }
  [[nodiscard]] uint64_t free_memory() const { return free_.memory; }
  [[nodiscard]] size_t pieces() const { return pieces_.size(); }
  void clear();

 private:
  struct Piece {
    Buffer bytes;
    Buffer room;         // whole memory behind bytes, while its rest may still be filled; else empty
    uint64_t flush = 0;  // 0: free
  };
  using Pieces = std::map<uint64_t, Piece>;

  void carve(uint64_t begin, uint64_t end);
  Pieces::iterator split(Pieces::iterator piece, uint64_t at);
  void insert(uint64_t offset, Piece piece);
  Pieces::iterator erase(Pieces::iterator piece);
  void mark(Piece& piece, uint64_t flush);

  // Of a piece that is in the map: before and after each change.
  void count(const Piece& piece);
  void discount(const Piece& piece);

  struct Sums {
    uint64_t bytes = 0;
    uint64_t memory = 0;
  };
  Pieces pieces_;
  Sums all_;
  Sums free_;
};

}  // namespace headrace
