// Mount: a FUSE mount point of this machine, and the descriptor of /dev/fuse behind it.
//
// Owner: the mounting process. All calls are system calls that may wait; unmounting waits for
// requests that somebody must answer, so while a session serves the mount it has to run on another
// thread (Blocking). When the process dies the kernel ends the connection: callers get ENOTCONN;
// the next mount at that place clears it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace headrace {

struct MountOptions {
  std::string source = "headrace";  // shown in mount tables
  bool allow_other = true;          // users besides the one who mounts
  bool read_only = false;
  bool allow_suid = false;  // honour suid and sgid bits of programs
  bool allow_devices = false;
  bool access_times = true;  // false: shown as noatime; FuseSessionOptions has what makes it so
};

class Mount {
 public:
  // Mounts at `directory`, which must exist. A dead headrace mount there (of a process that was
  // killed) is cleared first. The error says the mend: not root, no /dev/fuse, no such directory,
  // another mount is there.
  [[nodiscard]] static Result<Mount> at(std::string directory, MountOptions options);

  // One that another process mounted, by its descriptor. kInvalid: it is none of /dev/fuse.
  [[nodiscard]] static Result<Mount> of(std::string directory, int fd);

  Mount(Mount&& other) noexcept;
  Mount& operator=(Mount&&) = delete;
  ~Mount();  // abort() unless unmounted, then closes the descriptor

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

  // kBusy while files are open or somebody works in it. Already unmounted is fine. Dirty pages of
  // mmaps are written.
  [[nodiscard]] Result<void> unmount();
  // Writes what mmaps have dirtied to the session.
  [[nodiscard]] Result<void> flush_pages();
  // Ends the connection at once, then unmounts: whoever still uses it gets ENOTCONN. Never waits
  // for answers.
  void abort();
  // It is another's now: only the descriptor is closed at the end.
  void leave() { mounted_ = false; }
  // How far the kernel reads ahead; once the session has answered INIT.
  [[nodiscard]] Result<void> set_read_ahead(uint32_t kib);

 private:
  Mount(std::string directory, int fd) : directory_(std::move(directory)), fd_(fd) {}
  std::string directory_;
  int fd_ = -1;
  std::atomic<bool> mounted_ = true;  // one thread may abort() while another unmounts
};

// For `headrace umount`, whichever process serves it. force: as abort().
[[nodiscard]] Result<void> unmount_directory(const std::string& directory, bool force);

// What is mounted at exactly this (absolute, resolved) directory, topmost; empty type: nothing.
// From /proc/self/mountinfo: asks no file system.
struct MountedAt {
  std::string type;
  std::string source;
  std::string device;  // "major:minor"
};
[[nodiscard]] MountedAt mounted_at(const std::string& directory);

}  // namespace headrace
