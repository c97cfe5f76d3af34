// LockWaits: who waits for whom at one partition for fcntl's locks, and whether one more wait would close a cycle.
//
// As in Linux (posix_locks_deadlock in fs/locks.c) whoever would close the cycle is refused, each process's wait counts
// for all its threads, and flock's locks are no part of it. An owner waits for all that are in its way. Left out is
// what may end by itself:
// - A wait counts as it was looked at last. When a lock of its file ends it is forgotten until it is looked at again.
// - Owners may be open files (F_OFD_SETLKW), which a FUSE kernel does not tell apart: any process or thread that shares
//   one may unlock. It must be one where its lock was taken by another process than now waits, or where a process
//   waits for itself.
// Pure. Owner: Partition.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "meta/rows.h"

namespace headrace {

class LockWaits {
 public:
  // The request waits for the owners of `in_way`, none of which is its own; a ticket waits once. False: nothing is
  // noted, for one of them waits for its owner already, or for another that does.
  [[nodiscard]] bool add(const Lock& request, const std::vector<HeldLock>& in_way);
  void remove(const Lock& request) { waits_.erase(key_of(request)); }
  // A lock of it ended.
  void forget(FileId file);
  void clear() { waits_.clear(); }
  [[nodiscard]] size_t size() const { return waits_.size(); }

 private:
  struct Owner {
    SessionId session;
    uint32_t pid = 0;
    uint64_t number = 0;
    auto operator<=>(const Owner&) const = default;
  };
  using Key = std::pair<Owner, uint64_t>;  // with the ticket's number
  struct Wait {
    FileId file;
    std::vector<Owner> in_way;
  };
  static Key key_of(const Lock& request) {
    return {{request.ticket.session, request.lock.pid, request.lock.owner}, request.ticket.sequence};
  }
  [[nodiscard]] bool closes_cycle(const Owner& last, std::vector<Owner> in_way) const;

  std::map<Key, Wait> waits_;
};

}  // namespace headrace
