// SimPages: sparse bytes in shared 4 KiB pages (a missing page is zeros). SimInode: one file as a
// device has it: what programs see (current), what survives a power loss (durable), and the changes
// in between, in order.
//
// Invariants
//  1. current = durable + every unflushed change, except after tear(), when a file's loss has been
//  decided.
//  2. make_durable(mark) makes exactly the changes up to the mark durable, in order.
//  3. tear() keeps of each change all, none, or a random subset of its 512-byte sectors; of one made sure, all.
// Owner: SimDisk's directory and open files share an inode.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <unordered_map>

#include "base/bytes.h"
#include "runtime/random.h"

namespace headrace {

inline constexpr uint64_t kSector = 512;

class SimPages {
 public:
  void write(uint64_t offset, ByteView bytes);
  void read(uint64_t offset, ByteSpan into) const;  // zeros where nothing was written
  void truncate(uint64_t size);                     // zeros from there on

 private:
  using Page = std::array<std::byte, kBlock>;
  // Never iterated in an order that matters.
  std::unordered_map<uint64_t, std::shared_ptr<Page>> pages_;
};

class SimInode {
 public:
  explicit SimInode(uint64_t number) : number_(number) {}

  [[nodiscard]] uint64_t number() const { return number_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t unflushed() const { return changes_.size(); }
  // Lost under its users' hands: every operation fails from now on.
  [[nodiscard]] bool dead() const { return dead_; }
  void kill() { dead_ = true; }

  [[nodiscard]] size_t read(uint64_t offset, ByteSpan into) const;  // how many bytes there were
  void write(uint64_t offset, ByteView bytes);
  // The write of a program that died or a device that failed: a random part of its sectors.
  void write_some(uint64_t offset, ByteView bytes, Random& random);
  void resize(uint64_t size);

  [[nodiscard]] uint64_t mark() const { return next_change_ - 1; }  // of the newest change
  void make_durable(uint64_t mark);
  void make_sure(uint64_t first, uint64_t last);  // these changes, and no others, will survive
  void tear(Random& random);        // decides what of the unflushed becomes durable; programs see no difference
  void lose_power(Random& random);  // tear(), and programs see what is left

  // A range that cannot be read until it is written again.
  void damage_sector(uint64_t sector) { bad_sectors_.insert(sector); }
  [[nodiscard]] bool readable(uint64_t offset, uint64_t size) const;
  // Changes bytes at rest, current and durable alike.
  void flip(uint64_t offset, std::byte bits);
  // Replaces everything by `other`'s current contents, durably.
  void assign(const SimInode& other);

 private:
  struct Change {
    uint64_t number;
    uint64_t offset;  // or the new size
    Buffer bytes;
    bool resize;
    bool sure = false;  // survives a power loss, whatever becomes of those around it
  };
  void keep(const Change& change);
  void keep_range(uint64_t offset, ByteView bytes);
  void add(Change change);

  uint64_t number_;
  SimPages current_;
  SimPages durable_;
  uint64_t size_ = 0;
  uint64_t durable_size_ = 0;
  uint64_t next_change_ = 1;
  uint64_t unflushed_bytes_ = 0;
  std::deque<Change> changes_;
  std::set<uint64_t> bad_sectors_;
  bool dead_ = false;
};

}  // namespace headrace
