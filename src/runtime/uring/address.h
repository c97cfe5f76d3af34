// Addresses of stream sockets: "unix:/path" and "tcp:host:port" to and from what the kernel takes.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "runtime/net.h"

namespace headrace {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
};

// May look a name up and then waits: call it off the core. At least one address, or kInvalid for
// what is no address, kUnavailable for a name that does not resolve. "tcp:*:0" is every interface,
// any port; an IPv6 address stands in brackets.
[[nodiscard]] Result<std::vector<SocketAddress>> resolve(const Address& address, bool to_listen);

[[nodiscard]] Address to_address(const SocketAddress& address);  // "unix:" for an unnamed socket
// Loopback, link-local and private ranges: peers a data centre's round trip away.
[[nodiscard]] bool is_near(const SocketAddress& address);

}  // namespace headrace
