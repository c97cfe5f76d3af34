#include "runtime/uring/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cerrno>

#include "runtime/uring/errors.h"

namespace headrace {

namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::string_view kTcp = "tcp:";

Result<std::vector<SocketAddress>> resolve_unix(std::string_view path) {
  SocketAddress out;
  sockaddr_un name{};
  if (path.empty()) return Error(Code::kInvalid, "unix: without a path");
  if (path.size() >= sizeof name.sun_path)
    return Error(Code::kNameTooLong, "the path of a Unix socket has at most " +
                                         std::to_string(sizeof name.sun_path - 1) + " bytes: '" + std::string(path) +
                                         "'; choose a shorter state directory");
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  std::memcpy(&out.storage, &name, sizeof name);
  out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return std::vector<SocketAddress>{out};
}

Result<std::vector<SocketAddress>> resolve_tcp(std::string_view rest, bool to_listen) {
  size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == rest.size())
    return Error(Code::kInvalid, "no port: write tcp:host:port");
  std::string host(rest.substr(0, colon));
  std::string port(rest.substr(colon + 1));
  if (port.find_first_not_of("0123456789") != std::string::npos || port.size() > 5 || std::stoul(port) > 65535)
    return Error(Code::kInvalid, "'" + port + "' is no port: write tcp:host:port");
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return Error(Code::kInvalid, "an IPv6 address stands in brackets: tcp:[::1]:7000");
  }
  if (host == "*") host.clear();
  if (host.empty() && !to_listen) return Error(Code::kInvalid, "no host: write tcp:host:port");

  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  int failure = getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  if (failure != 0) {
    return Error(Code::kUnavailable,
                 "look up host '" + host + "': " +
                     (failure == EAI_SYSTEM ? std::string(std::strerror(errno)) : std::string(gai_strerror(failure))));
  }
  std::vector<SocketAddress> out;
  for (addrinfo* at = found; at != nullptr; at = at->ai_next) {
    SocketAddress one;
    std::memcpy(&one.storage, at->ai_addr, at->ai_addrlen);
    one.size = at->ai_addrlen;
    out.push_back(one);
  }
  freeaddrinfo(found);
  if (out.empty()) return Error(Code::kUnavailable, "host '" + host + "' has no address");
  return out;
}

}  // namespace

Result<std::vector<SocketAddress>> resolve(const Address& address, bool to_listen) {
  std::string_view text(address);
  if (text.starts_with(kUnix)) return resolve_unix(text.substr(kUnix.size()));
  if (text.starts_with(kTcp)) return resolve_tcp(text.substr(kTcp.size()), to_listen);
  return Error(Code::kInvalid, "'" + address + "' is no address: write tcp:host:port or unix:/path");
}

Address to_address(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  switch (address.family()) {
    case AF_INET: {
      sockaddr_in in{};
      std::memcpy(&in, &address.storage, sizeof in);
      inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
      return "tcp:" + std::string(text) + ":" + std::to_string(ntohs(in.sin_port));
    }
    case AF_INET6: {
      sockaddr_in6 in{};
      std::memcpy(&in, &address.storage, sizeof in);
      inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
      return "tcp:[" + std::string(text) + "]:" + std::to_string(ntohs(in.sin6_port));
    }
    case AF_UNIX: {
      sockaddr_un un{};
      std::memcpy(&un, &address.storage, sizeof un);
      if (address.size <= offsetof(sockaddr_un, sun_path)) return "unix:";
      return "unix:" + std::string(un.sun_path, strnlen(un.sun_path, sizeof un.sun_path));
    }
    default:
      return "unknown:";
  }
}

bool is_near(const SocketAddress& address) {
  auto near_ipv4 = [](uint32_t ip) {
    return ip >> 24 == 127 || ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 || ip >> 16 == 0xa9fe;
  };
  if (address.family() == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &address.storage, sizeof in);
    return near_ipv4(ntohl(in.sin_addr.s_addr));
  }
  if (address.family() == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &address.storage, sizeof in);
    const uint8_t* bytes = in.sin6_addr.s6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
      uint32_t ip = 0;
      std::memcpy(&ip, bytes + 12, sizeof ip);
      return near_ipv4(ntohl(ip));
    }
    return IN6_IS_ADDR_LOOPBACK(&in.sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&in.sin6_addr) || (bytes[0] & 0xfe) == 0xfc;
  }
  return false;
}

}  // namespace headrace
