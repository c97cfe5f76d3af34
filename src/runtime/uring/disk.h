// The real Disk: data through io_uring, names through the blocking pool.
//
// Files are made with mode 0600, directories with 0777 less the umask. A `direct` file that its
// file system cannot open with O_DIRECT (tmpfs) is buffered instead; alignment is checked either
// way, so that what works here works everywhere.
#pragma once

#include <memory>

#include "runtime/blocking.h"
#include "runtime/disk.h"

namespace headrace {

class Reactor;

// Both outlive the disk and its files.
[[nodiscard]] std::unique_ptr<Disk> make_disk(Reactor& reactor, Blocking& blocking);

}  // namespace headrace
