// SimDisk: a machine's file system in memory, with the ways in which real ones lose data.
//
// Contents outlive a crash of the process; a power loss keeps of what was not flushed a part that
// the seed chooses: of writes a subset of their sectors, of made, removed and renamed names a
// prefix or a subset. Names are durable after sync_directory only (which covers the directory's
// ancestors too). An operation whose awaiter is destroyed may have happened, in part, or not at
// all.
//
// Fault points (world-wide by FaultPlan, per disk by DiskOptions; both restricted by
// DiskOptions::eligible):
//   disk.read_fails disk.write_fails disk.flush_fails   kIo; a failed write may have happened in
//   part, and
//                         after a failed flush no later one makes up for it
//   disk.flush_lies       acknowledges, makes nothing durable (a later honest flush does)
//   disk.lost_write       acknowledges, writes nothing
//   disk.misdirected      acknowledges, writes to another block of the same file
//   disk.bit_flip         one bit of what a read returns
//   disk.latent_sector    a sector just written cannot be read (kIo) until it is written again
//   disk.torn disk.in_flight   counted: unflushed changes at a power loss; writes in flight at a
//   crash
// Owner: Machine. Concurrency: the world's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/disk.h"
#include "runtime/sim/core.h"
#include "runtime/sim/image.h"

namespace headrace {

struct DiskOptions {
  Nanos read_latency = microseconds(80);
  Nanos write_latency = microseconds(30);
  Nanos flush_latency = microseconds(400);
  Nanos name_latency = microseconds(50);  // open, remove, rename, list
  Nanos per_mib = microseconds(500);
  double slow_factor = 1;  // multiplies all of them, of the files that `slow` names; empty: of all
  std::function<bool(const std::string& path)> slow;
  Nanos longest = seconds(14);    // that one of them takes: a device that stood still goes on
  uint64_t capacity = 64 * kGiB;  // sum of file sizes; beyond it kNoSpace

  double read_fails = 0;
  double write_fails = 0;
  double flush_fails = 0;
  double flush_lies = 0;
  double lost_write = 0;
  double misdirected = 0;
  double bit_flip = 0;
  double latent_sector = 0;
  // Files that faults may touch, by path; empty: all. So a test can keep damage to P targets of D +
  // P.
  std::function<bool(const std::string& path)> eligible;
  // A write has arrived at a file, and nobody has flushed it yet. So a test can end things just there.
  std::function<void(const std::string& path, uint64_t offset)> on_write;
};

// The contents of a disk at one moment. Cheap: pages are shared.
class DiskSnapshot {
 private:
  friend class SimDisk;
  std::map<std::string, std::shared_ptr<SimInode>> files_;
  std::set<std::string> directories_;
};

class SimDisk final : public Disk {
 public:
  SimDisk(SimCore& core, std::string machine, DiskOptions options);
  ~SimDisk() override;

  [[nodiscard]] Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override;
  [[nodiscard]] Task<Result<void>> remove(std::string path) override;
  [[nodiscard]] Task<Result<void>> rename(std::string from, std::string to) override;
  [[nodiscard]] Task<Result<void>> sync_directory(std::string path) override;
  [[nodiscard]] Task<Result<void>> make_directories(std::string path) override;
  [[nodiscard]] Task<Result<std::vector<std::string>>> list(std::string path) override;
  [[nodiscard]] Task<Result<uint64_t>> free_bytes(std::string path) override;

  // Takes effect at once; may be changed while a world runs.
  DiskOptions options;

  // For tests; at once and free of simulated time. Paths as given to open().
  [[nodiscard]] bool exists(const std::string& path) const;
  [[nodiscard]] std::vector<std::string> paths() const;             // of all files, sorted
  [[nodiscard]] uint64_t file_size(const std::string& path) const;  // 0 where absent
  [[nodiscard]] Buffer contents(const std::string& path) const;
  [[nodiscard]] uint64_t unflushed(const std::string& path) const;  // changes that a power loss may undo
  [[nodiscard]] bool flip(const std::string& path, uint64_t offset, std::byte bits = std::byte{1});  // at rest
  [[nodiscard]] bool damage(const std::string& path,
                            uint64_t offset);  // its sector is unreadable until rewritten
  // Durably gone; open files answer kIo for ever. A directory's path takes everything below it.
  // False: absent.
  bool erase(const std::string& path);
  void wipe();
  [[nodiscard]] DiskSnapshot snapshot() const;  // of what programs see now
  void restore(const DiskSnapshot& snapshot);   // durably; open files answer kIo
  [[nodiscard]] uint64_t used_bytes() const;

  void lose_power();  // Machine::crash calls it, after the process is gone

 private:
  friend class SimFile;
  using Files = std::map<std::string, std::shared_ptr<SimInode>>;
  enum class Op : uint8_t { kRead, kWrite, kFlush, kName };
  struct NameChange {
    enum Kind : uint8_t { kLink, kUnlink, kRename, kMakeDirectory } kind;
    std::string path;
    std::string to;
    std::shared_ptr<SimInode> inode;  // kLink
  };
  struct Tree {
    Files files;
    std::set<std::string> directories;
    [[nodiscard]] bool has_directory(const std::string& path) const;
    void add_ancestors(const std::string& path);
    void apply(const NameChange& change);
  };
  struct Points {
    FaultPoint &read_fails, &write_fails, &flush_fails, &flush_lies, &lost_write, &misdirected, &bit_flip,
        &latent_sector, &torn, &in_flight;
  };

  [[nodiscard]] bool fault(FaultPoint& point, double own, const std::string& path);
  [[nodiscard]] Clock::Sleep work(Op op, uint64_t bytes, const std::string& path = {});
  void change(NameChange change);
  void make_names_durable(const std::string& directory);
  void kill_all();
  [[nodiscard]] SimInode* find(const std::string& path) const;

  SimCore& core_;
  std::string machine_;
  Points points_;
  uint64_t next_inode_ = 1;
  uint64_t operations_ = 0;
  Tree now_;
  Tree durable_;
  std::vector<NameChange> pending_;
};

}  // namespace headrace
