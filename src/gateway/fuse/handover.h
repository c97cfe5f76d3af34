// MountHandover: what the process that serves a mount leaves to the one that goes on serving it, besides the descriptor
// of /dev/fuse. docs/formats/mount-handover.md has its bytes.
//
// The kernel's inode numbers are the files' ids, so they mean the same to any process. What the kernel has of each
// (lookups), what it has open, and what was agreed with it when it was mounted is known to its server alone: that is
// here, with what the client hands over. Nested structs are frozen (base/codec.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/codec.h"
#include "base/ids.h"
#include "base/result.h"
#include "client/handover.h"

namespace headrace {

struct FuseHandover {
  struct Node {
    FileId id;
    uint64_t lookups = 0;
    bool pages = false;     // the kernel may hold pages of it
    bool outdated = false;  // and has not yet dropped what it should have: to be told again
    void fields(this auto& self, auto& v) { v(self.id, self.lookups, self.pages, self.outdated); }
  };
  enum Mode : uint8_t { kRead = 1, kWrite = 2, kAppend = 4, kDirect = 8, kSync = 16 };
  struct Open {
    uint64_t handle = 0;  // the kernel's name for it
    FileId file;
    uint8_t mode = 0;                   // of Mode
    std::vector<uint64_t> lock_owners;  // whose fcntl locks end with its last close
    void fields(this auto& self, auto& v) { v(self.handle, self.file, self.mode, self.lock_owners); }
  };
  struct Waiter {  // a request for a lock that somebody else holds
    uint64_t unique = 0;
    FileId file;
    uint64_t handle = 0;
    uint64_t owner = 0;
    uint64_t start = 0;
    uint64_t end = 0;  // the last byte, as in FUSE
    uint32_t type = 0;
    uint32_t pid = 0;
    uint32_t flags = 0;  // FUSE_LK_…
    void fields(this auto& self, auto& v) {
      v(self.unique, self.file, self.handle, self.owner, self.start, self.end, self.type, self.pid, self.flags);
    }
  };

  uint64_t agreed = 0;  // INIT's flags
  uint32_t minor = 0;
  uint32_t max_write = 0;
  uint64_t next_handle = 1;
  std::vector<Node> nodes;
  std::vector<Open> open;
  std::vector<Waiter> waiters;
  std::vector<uint64_t> told;  // of open: who was told of all that was lost of the file
  void fields(this auto& self, auto& v) {
    v(self.agreed, self.minor, self.max_write, self.next_handle, self.nodes, self.open, self.waiters);
    v.tail(self.told);
  }
};

struct MountHandover {
  static constexpr uint8_t kFormat = 1;
  std::string directory;
  uint64_t dirty_limit = 0;
  uint64_t read_cache = 0;
  bool access_times = true;
  ClientHandover client;
  FuseHandover session;
};

[[nodiscard]] std::string encode_mount_handover(const MountHandover& handover);
// kUnsupportedFormat: of a newer version. kCorrupt: none, or damaged.
// DECODER: mount_handover
[[nodiscard]] Result<MountHandover> decode_mount_handover(std::string_view bytes);

}  // namespace headrace
