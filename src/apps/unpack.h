// Unpacker: `headrace unpack`: the files of a bucket's current manifest into a directory, with no cluster.
//
// head → manifest → store files → rows → packed objects, all read only: an owner goes on meanwhile, and what it deletes
// it has kept for the horizon. Every byte is verified; a file of which some byte cannot be verified is lost, named, and
// left out, and the others go on. A store file that does not verify loses what its partition's slots hold. A
// destination that cannot be written, or a bucket that does not answer, ends it. Owner: the command line. One core;
// run() once.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "hot/piece_cache.h"
#include "meta/rows.h"
#include "meta/store/store_reader.h"
#include "object/object_store.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "tier/cold_reader.h"
#include "tier/head.h"

namespace headrace {

struct UnpackOptions {
  std::string destination;  // made where it is absent; otherwise an empty directory
  uint32_t files = 48;      // at once
  uint32_t walks = 8;       // directories at once
  uint32_t reads = 24;      // of ≤ 4 MiB at once
  uint64_t cache_bytes = 256 * kMiB;
};

struct UnpackProgress {
  HeadRecord head;           // whose manifest it is
  uint64_t files_total = 0;  // as the manifest counts: names of every kind, apart from further hard links
  uint64_t bytes_total = 0;  // logical
  uint64_t files = 0;        // done: inodes of every kind
  uint64_t links = 0;        // further names of files
  uint64_t bytes = 0;        // of data, written
  uint64_t lost = 0;
  uint64_t not_applied = 0;       // owners, modes, times and xattrs that the destination did not take
  std::string first_not_applied;  // path and why
};

class Unpacker {
 public:
  // All outlive this. `stores` has a directory of its own. `on_loss`: each file (or directory, with all that is in it)
  // that could not be restored, at once.
  Unpacker(Env env, ObjectStore& bucket, StoreFactory& stores, UnpackOptions options,
           std::function<void(const std::string& path, const std::string& why)> on_loss);
  ~Unpacker();

  // Everything that verifies is at the destination and synced on return. An error: what ended it; what is there then is
  // incomplete.
  [[nodiscard]] Task<Result<void>> run();
  [[nodiscard]] const UnpackProgress& progress() const { return progress_; }

 private:
  struct Partition;
  struct HardLink;
  class OutFile;
  using Rows = StoreReader::Rows;
  struct Page {
    Rows rows;
    std::optional<Key> next;  // there may be more from here on
  };
  [[nodiscard]] Task<Result<void>> open_partitions(const ManifestRecord& manifest);
  [[nodiscard]] Task<Result<void>> settle_transactions();
  [[nodiscard]] Result<Partition*> partition_of(Slot slot);
  [[nodiscard]] Task<Result<std::optional<RowValue>>> get(Key key);
  [[nodiscard]] Task<Result<Page>> scan(Key from, Key to);
  [[nodiscard]] Task<Result<InodeRow>> inode_of(FileId file);
  [[nodiscard]] Task<Result<std::vector<std::pair<std::string, std::string>>>> xattrs_of(InodeRow inode);
  [[nodiscard]] Task<Result<Location>> location_of(SegmentId segment);

  [[nodiscard]] Task<Result<void>> walk_into(FileId directory, std::string path);
  Task<void> walk(FileId directory, std::string path, bool release);
  Task<void> restore(FileId file, std::string path);
  [[nodiscard]] Task<Result<void>> restore_inode(InodeRow inode, std::string path);
  [[nodiscard]] Task<Result<void>> restore_data(InodeRow inode, std::string path);
  [[nodiscard]] Task<Result<Buffer>> read_piece(Slot slot, Extent piece);
  Task<void> copy_part(Slot slot, Extent part, std::shared_ptr<OutFile> out,
                       std::shared_ptr<std::optional<Error>> failed);
  [[nodiscard]] Task<Result<void>> apply_attributes(InodeRow inode, std::string path);
  void lose(const std::string& path, const Error& why);
  void note_not_applied(const std::string& path, const std::string& why);

  Env env_;
  ObjectStore& bucket_;
  StoreFactory& stores_;
  UnpackOptions options_;
  std::function<void(const std::string&, const std::string&)> on_loss_;
  UnpackProgress progress_;
  std::vector<std::unique_ptr<Partition>> partitions_;  // by first slot
  std::unordered_set<uint64_t> walked_;                 // directories
  std::unordered_map<uint64_t, std::shared_ptr<HardLink>> links_;
  std::optional<Error> fatal_;
  MemoryPieceCache pieces_;
  ColdReader cold_;
  Semaphore files_;
  Semaphore walks_;
  Semaphore reads_;
};

}  // namespace headrace
