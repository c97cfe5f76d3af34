// EmbeddedCoordinator: the Coordinator of a cluster of one machine: all records in one file, STATE/coord.
//
// Every put writes the whole file anew beside the old one, flushes it, renames it into place and syncs the directory: a
// power loss leaves either version whole. (Two alternating slots in one file would be a little cheaper, but a slot that
// went bad later could not be told from a torn write, and an older epoch would come back in silence.) Puts that
// arrive meanwhile share the next write. get() shows only what is durable. A write that fails before the rename
// changes nothing; one that fails in or after it leaves open which version a restart will find, so from then on
// everything is refused (kIo) until a restart reads what is there.
// Owner: the node. Leases live in memory: they begin anew with the process, as the only node does.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "coord/coordinator.h"
#include "coord/table.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

class EmbeddedCoordinator final : public Coordinator {
 public:
  EmbeddedCoordinator(Env env, std::string path) : env_(env), path_(std::move(path)) {}

  // First. An absent file is an empty coordinator: found() is false then (a node that has targets knows better). kCorrupt
  // and kUnsupportedFormat name the mend.
  [[nodiscard]] Task<Result<void>> load();
  [[nodiscard]] bool found() const { return found_; }

  [[nodiscard]] Task<Result<CoordRecord>> get(std::string key) override;
  [[nodiscard]] Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) override;
  [[nodiscard]] Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string prefix) override;
  [[nodiscard]] Task<Result<uint64_t>> changed_since(uint64_t revision) override;
  [[nodiscard]] Task<Result<void>> renew_lease(std::string holder, uint64_t incarnation) override;
  [[nodiscard]] Task<Result<bool>> lease_alive(std::string holder) override;

  // Waits for writes in progress; then every operation is kCancelled, and waits for changes end.
  [[nodiscard]] Task<void> close();
  [[nodiscard]] uint64_t writes() const { return writes_; }  // of the file, since load()

 private:
  static constexpr size_t kMaxBytes = 16 * kMiB;  // of all records

  struct Group {  // puts that one write makes durable
    std::optional<Result<void>> result;
    WaitList waiting;
  };
  [[nodiscard]] Result<void> usable() const;
  [[nodiscard]] Task<void> write_groups();
  [[nodiscard]] Task<Result<void>> write_beside(std::string bytes);
  [[nodiscard]] Task<Result<void>> take_place();

  Env env_;
  std::string path_;
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
