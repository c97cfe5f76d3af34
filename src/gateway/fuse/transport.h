// Transport: how requests come from the kernel and answers go back. The session knows no more of
// the kernel than this.
//
// Lifecycle: receive() until it fails, with kCancelled once unmounted or aborted; destroying a
// suspended receive() ends it too. Answers may be given in any order, from the session's core
// alone. Owner: whoever mounted; it outlives the session.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/bytes.h"
#include "runtime/blocking.h"
#include "runtime/task.h"

namespace headrace {

class Transport {
 public:
  virtual ~Transport() = default;
  // One whole request; one receiver. The bytes stay as they are until the next receive(); a WRITE's
  // for as long as the Buffer is held, and there the data (behind kFuseWriteHead) is
  // kBlock-aligned.
  [[nodiscard]] virtual Task<Result<Buffer>> receive() = 0;
  // error: 0 or a positive errno, then without bytes. Bytes are copied before it returns; it never
  // waits. kNotFound: nobody waits for this answer any more (whoever asked is gone).
  [[nodiscard]] virtual Result<void> reply(uint64_t unique, int error, ByteView head, std::span<const Buffer> bulk) = 0;
  // Unasked: FUSE_NOTIFY_…, one for each body. Returns when the kernel has acted, which may be only
  // after requests that it holds were answered: never await it where such an answer depends on it.
  // One of attributes alone (INVAL_INODE with a negative offset) waits for no request, nor behind others.
  // False: the kernel does not know one of them. It needs no action, unless an answer that tells of it is on its way.
  [[nodiscard]] virtual Task<bool> notify(int code, std::vector<std::string> bodies) = 0;
};

// Through a descriptor of /dev/fuse (O_NONBLOCK) that the caller owns and keeps open.
//
// Reads and writes of the device never wait, except those of notifications: they run on
// `notifiers`, a pool of their own, because one that waits for a lock which a request holds must
// not keep others from that request's answer. Each that waits takes a thread of it. Those that wait for nothing run
// on `quick`, so that they need not wait for one.
class DevFuseTransport final : public Transport {
 public:
  using Poll = std::function<Task<int>(int fd, unsigned events)>;  // Reactor::poll
  DevFuseTransport(int fd, Poll poll, Blocking& notifiers, Blocking& quick);

  [[nodiscard]] Task<Result<Buffer>> receive() override;
  [[nodiscard]] Result<void> reply(uint64_t unique, int error, ByteView head, std::span<const Buffer> bulk) override;
  [[nodiscard]] Task<bool> notify(int code, std::vector<std::string> bodies) override;

 private:
  // Too long to copy: the request keeps the receive buffer, and another is allocated.
  static constexpr size_t kHandOver = 32 * kKiB;
  [[nodiscard]] Buffer hand_out(size_t size);

  int fd_;
  Poll poll_;
  Blocking& notifiers_;
  Blocking& quick_;
  Buffer receive_;  // requests are read to kFuseWriteHead before its second block
};

}  // namespace headrace
