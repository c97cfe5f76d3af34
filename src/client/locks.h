// Locks: the advisory locks of this client's programs, as asked for at the files' partitions.
//
// The partition decides; here is only noted which owner has (or may have) any on a file, so that the
// close of a file that was never locked, which is nearly every one, asks nobody. A lock ends with
// the session that it was taken under: what was noted under a lost one is void. An unlocking that
// failed while its session lives is asked for again, until its owner locks the file anew.
#pragma once

#include <map>
#include <optional>
#include <tuple>

#include "client/change_log.h"
#include "client/files.h"
#include "client/sessions.h"
#include "proto/meta.h"

namespace headrace {

class Locks {
 public:
  Locks(ClientSessions& sessions, FileTable& files, ChangeLog& changes)
      : sessions_(sessions), files_(files), changes_(changes) {}

  // See FileSystem.
  [[nodiscard]] Task<Result<bool>> lock(FileId file, FileLock lock, Nanos wait);
  [[nodiscard]] Task<Result<std::optional<FileLock>>> find(FileId file, FileLock lock);
  [[nodiscard]] Task<Result<void>> unlock_all(FileId file, uint64_t owner, bool whole);
  // What failed, once more; and what is noted under lost sessions goes.
  [[nodiscard]] Task<void> unlock_late();
  [[nodiscard]] size_t late() const { return late_.size(); }
  [[nodiscard]] size_t size() const { return held_.size(); }
  [[nodiscard]] std::vector<ClientHandover::Locker> hand_over() const;
  // Of a predecessor, whose session it was.
  void go_on(const ClientHandover::Locker& locker, ClientSessionRef session);

 private:
  using Key = std::tuple<FileId, uint64_t, bool>;
  [[nodiscard]] Task<Result<void>> unlock(Key key, ClientSessionRef session);

  ClientSessions& sessions_;
  FileTable& files_;
  ChangeLog& changes_;
  std::map<Key, ClientSessionRef> held_;  // the session that it was last asked for under
  std::map<Key, ClientSessionRef> late_;  // to be unlocked
  std::optional<Key> unlocking_;          // of them, now: who locks it anew waits
  WaitList unlocked_;
};

}  // namespace headrace
