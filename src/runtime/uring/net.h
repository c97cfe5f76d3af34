// The real Net: frames over TCP and Unix stream sockets. docs/formats/wire.md specifies the bytes.
//
// send() returns when the frame is in the connection's queue (at most kMaxQueued bytes, above which
// senders wait). One writer per connection takes all that is queued into one system call, small
// pieces copied together, large ones by reference. close() lets what is queued go out, then ends
// the stream; destroying a connection drops what the kernel has not got. A receive() that is
// destroyed while it waits ends the connection: how far the stream was read is then unknown.
#pragma once

#include <memory>

#include "runtime/blocking.h"
#include "runtime/net.h"

namespace headrace {

class Reactor;

inline constexpr uint64_t kMaxQueued = 64 * kMiB;

// Both outlive the net, its listeners and connections. A Unix socket is made with mode 0600,
// replaces a dead one at its path, and is removed when its listener closes.
[[nodiscard]] std::unique_ptr<Net> make_net(Reactor& reactor, Blocking& blocking);

}  // namespace headrace
