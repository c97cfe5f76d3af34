// Net: whole frames between processes. Framing, coalescing and sockets are the back end's business.
//
// A connection delivers frames in order or breaks; after a break nothing says which of the last frames
// arrived. Addresses: "unix:/path", "tcp:host:port" (port 0 when listening: the kernel picks), "sim:name".
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "runtime/task.h"

namespace headrace {

using Address = std::string;

// Head is a small encoded message; payload is bulk bytes that are neither copied nor looked at on the way.
struct Frame {
  Buffer head;     // ≤ kMaxHead
  Buffer payload;  // ≤ kMaxPayload; arrives kBlock-aligned
};
inline constexpr size_t kMaxHead = 8 * kMiB;
inline constexpr size_t kMaxPayload = 32 * kMiB;

class Connection {
 public:
  virtual ~Connection() = default;
  // Returns when the frame is queued to the kernel in order; waits while too much is queued. Any number at once.
  [[nodiscard]] virtual Task<Result<void>> send(Frame frame) = 0;
  // One receiver. kDisconnected at the end.
  [[nodiscard]] virtual Task<Result<Frame>> receive() = 0;
  virtual void close() = 0;                            // wakes both sides; idempotent
  [[nodiscard]] virtual std::string peer() const = 0;  // for logs
};

class Listener {
 public:
  virtual ~Listener() = default;
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Connection>>> accept() = 0;  // kCancelled after close()
  virtual void close() = 0;
  [[nodiscard]] virtual Address address() const = 0;  // with the real port
};

class Net {
 public:
  virtual ~Net() = default;
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Connection>>> connect(Address address) = 0;
  [[nodiscard]] virtual Task<Result<std::unique_ptr<Listener>>> listen(Address address) = 0;
};

}  // namespace headrace
