// ClientHandover: what a client leaves to another that goes on in its place, usually in the next process.
//
// It goes on under the same sessions: with their locks, the files that the partitions keep open for them, and tickets
// that were never used. Grants stay behind, with all that was known under them: they are given back before.
// Nested structs are frozen (base/codec.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace headrace {

struct ClientHandover {
  struct Session {
    PartitionId partition;
    SessionId id;
    uint64_t next_sequence = 1;
    std::vector<SegmentId> abandoned;  // reserved, never to be committed: the partition is yet to be told
    void fields(this auto& self, auto& v) { v(self.partition, self.id, self.next_sequence, self.abandoned); }
  };
  struct Locker {  // who has, or may have, advisory locks on a file
    FileId file;
    uint64_t owner = 0;
    bool whole = false;
    void fields(this auto& self, auto& v) { v(self.file, self.owner, self.whole); }
  };
  struct Lost {  // what the next syncs of the file are to report; of no file: the next of everything
    FileId file;
    Code code = Code::kIo;
    std::string message;
    void fields(this auto& self, auto& v) { v(self.file, self.code, self.message); }
  };

  ClientId client;
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  std::vector<Session> sessions;
  std::vector<FileId> open;     // kept by their partitions
  std::vector<FileId> unnamed;  // of those: made without a name and given none yet
  std::vector<Locker> lockers;
  std::vector<Lost> lost;
  void fields(this auto& self, auto& v) {
    v(self.client, self.name_space, self.namespace_epoch, self.sessions, self.open, self.unnamed, self.lockers,
      self.lost);
  }
};

}  // namespace headrace
