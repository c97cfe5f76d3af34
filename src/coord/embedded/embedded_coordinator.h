// EmbeddedCoordinator: the Coordinator of a cluster of one machine: all records in one file, STATE/coord, and a copy of
// it beside every target, STATE/targets/tN/coord; of a target on a device of its own, on that device as well.
//
// Every put writes the whole file anew beside the old one, flushes it, renames it into place and syncs the directory: a
// power loss leaves either version whole. (Two alternating slots in one file would be a little cheaper, but a slot that
// went bad later could not be told from a torn write, and an older epoch would come back in silence.) Puts that
// arrive meanwhile share the next write. get() shows only what is durable. A write that fails before the rename
// changes nothing; one that fails in or after it leaves open which version a restart will find, so from then on
// everything is refused (kIo) until a restart reads what is there.
//
// A put is acknowledged when the file is durable and every copy that can be written is: a copy is never newer than what
// the file has been, and a disk that takes no copy stops nothing. load() takes the newest of the file and its copies,
// as far as their disks answer, and puts the file right from it: a damaged or missing file, or an old one put back, is
// mended by any copy. Owner: the node. Leases live in memory: they begin anew with the process, as the only node does.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "coord/coordinator.h"
#include "coord/table.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

// The copies that lie on the device of a target, by the target's directory.
class DeviceCopies {
 public:
  virtual ~DeviceCopies() = default;
  struct Copy {
    std::string path;
    Result<CoordTable> table;
  };
  [[nodiscard]] virtual Task<std::vector<Copy>> read(std::string directory) = 0;
  // A coordinator's file, durable on return. kNotFound: the target is on no device of its own.
  [[nodiscard]] virtual Task<Result<void>> write(std::string directory, std::string bytes) = 0;
};

class EmbeddedCoordinator final : public Coordinator {
 public:
  // `copies`: a directory, in each of whose directories a copy is kept; empty: none. `devices` may be null.
  EmbeddedCoordinator(Env env, std::string path, std::string copies = {}, DeviceCopies* devices = nullptr)
      : env_(env), path_(std::move(path)), copies_(std::move(copies)), devices_(devices) {}

  // First. An absent file without copies is an empty coordinator: found() is false then (a node that has targets knows
  // better). kCorrupt and kUnsupportedFormat name the mend.
  [[nodiscard]] Task<Result<void>> load();
  [[nodiscard]] bool found() const { return found_; }
  // What load() had to mend, and from where; empty: nothing.
  [[nodiscard]] const std::string& mended() const { return mended_; }

  [[nodiscard]] Task<Result<CoordRecord>> get(std::string key) override;
  [[nodiscard]] Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) override;
  [[nodiscard]] Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string prefix) override;
  [[nodiscard]] Task<Result<uint64_t>> changed_since(uint64_t revision) override;
  [[nodiscard]] Task<Result<void>> renew_lease(std::string holder, uint64_t incarnation) override;
  [[nodiscard]] Task<Result<bool>> lease_alive(std::string holder) override;

  // Waits for writes in progress, not for disks that take no copy; then all is kCancelled, waits for changes end.
  [[nodiscard]] Task<void> close();
  [[nodiscard]] uint64_t writes() const { return writes_; }                    // of the file, since load()
  [[nodiscard]] size_t copies() const { return copied_; }                      // that hold the newest revision
  [[nodiscard]] const std::string& copy_error() const { return copy_error_; }  // of the last write; empty: none

 private:
  static constexpr Nanos kCopyPatience = seconds(2);
  static constexpr Nanos kReadPatience = seconds(15);

  struct Group {  // puts that one write makes durable
    std::optional<Result<void>> result;
    WaitList waiting;
  };
  [[nodiscard]] Result<void> usable() const;
  [[nodiscard]] Task<void> write_groups();
  [[nodiscard]] Task<std::vector<std::string>> copy_directories();
  // Of one directory; nothing: its disk does not answer.
  [[nodiscard]] Task<std::optional<std::vector<DeviceCopies::Copy>>> read_copies(std::string directory);
  [[nodiscard]] Task<std::vector<DeviceCopies::Copy>> read_copies_in(std::string directory);
  [[nodiscard]] Task<Result<void>> write_file(std::string path, std::string bytes);
  [[nodiscard]] Task<Result<void>> take_place(std::string path);
  struct CopyRound {  // the copies of one write
    size_t under_way = 0;
    size_t written = 0;
    std::string error;
    WaitList waiting;
  };
  Task<void> write_copy(std::string directory, std::string bytes, std::shared_ptr<CopyRound> round);
  [[nodiscard]] Task<Result<void>> write_copy_in(std::string directory, std::string bytes);
  Task<void> write_copies(std::string bytes);

  Env env_;
  std::string path_;
  std::string copies_;
  DeviceCopies* devices_;
  std::string mended_;
  size_t copied_ = 0;
  std::string copy_error_;
  std::set<std::string> copying_;  // directories
  bool loaded_ = false;
  bool found_ = false;
  bool writing_ = false;
  uint64_t writes_ = 0;
  std::optional<Error> broken_;
  CoordTable durable_;
  CoordTable staged_;            // durable_ and what is being written
  std::shared_ptr<Group> next_;  // gathers puts for the write after the present one
  Leases leases_;
  WaitList changed_;
  Scope scope_;
};

}  // namespace headrace
