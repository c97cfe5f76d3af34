#include "runtime/uring/net.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>

#include "runtime/uring/address.h"
#include "runtime/uring/connection.h"
#include "runtime/uring/errors.h"
#include "runtime/uring/reactor.h"

namespace headrace {

namespace {

constexpr Nanos kConnectTimeout = seconds(5);
constexpr int kBacklog = 1024;
constexpr int kUnixBuffer = 1 << 20;
constexpr int kUnixConnectAttempts = 200;  // a full backlog, 5 ms apart

using DescriptorRef = std::shared_ptr<const Descriptor>;

void set(int fd, int level, int option, int value) {
  (void)setsockopt(fd, level, option, &value, sizeof value);  // each only improves something
}

void tune(int fd, const SocketAddress& peer) {
  if (peer.family() == AF_UNIX) {
    set(fd, SOL_SOCKET, SO_SNDBUF, kUnixBuffer);
    set(fd, SOL_SOCKET, SO_SNDBUFFORCE, kUnixBuffer);
    return;
  }
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  // A pacing default such as bbr costs much on links that never drop.
  constexpr char kCubic[] = "cubic";
  if (is_near(peer)) (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kCubic, sizeof kCubic - 1);
}

SocketAddress name_of(int fd, int (*query)(int, sockaddr*, socklen_t*)) {
  SocketAddress out;
  out.size = sizeof out.storage;
  if (query(fd, out.raw(), &out.size) != 0) out = {};
  return out;
}

Result<DescriptorRef> open_socket(int family) {
  int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno_error(errno, "open a socket");
  return DescriptorRef(std::make_shared<Descriptor>(fd));
}

// 0 or an errno, without waiting.
int connect_now(int fd, const SocketAddress& to) {
  int flags = fcntl(fd, F_GETFL);
  (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  int failure = ::connect(fd, to.raw(), to.size) == 0 ? 0 : errno;
  (void)fcntl(fd, F_SETFL, flags);
  return failure;
}

class SocketListener final : public Listener {
 public:
  SocketListener(Reactor& reactor, DescriptorRef socket, Address address)
      : reactor_(reactor), socket_(std::move(socket)), address_(std::move(address)) {
    struct stat info{};
    if (!path().empty() && ::lstat(path().c_str(), &info) == 0) {
      device_ = info.st_dev;
      inode_ = info.st_ino;
    }
  }
  ~SocketListener() override { close(); }

  Task<Result<std::unique_ptr<Connection>>> accept() override {
    for (;;) {
      if (closed_) co_return Error(Code::kCancelled, address_ + ": the listener is closed");
      int fd = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
        io_uring_prep_accept(sqe, socket_->fd(), nullptr, nullptr, SOCK_CLOEXEC);
        operation.result_is_descriptor = true;
        operation.owner = socket_;
      });
      if (fd >= 0) {
        auto socket = std::make_shared<const Descriptor>(fd);
        SocketAddress peer = name_of(fd, getpeername);
        tune(fd, peer);
        co_return std::unique_ptr<Connection>(
            std::make_unique<SocketConnection>(reactor_, std::move(socket), describe(fd, peer)));
      }
      if (closed_) continue;
      // The peer gave up while it was queued: the next one may be fine.
      if (fd == -ECONNABORTED || fd == -EINTR || fd == -EAGAIN) continue;
      co_return errno_error(-fd, "accept on " + address_);
    }
  }

  void close() override {
    if (closed_) return;
    closed_ = true;
    ::shutdown(socket_->fd(), SHUT_RDWR);  // ends an accept that waits
    struct stat info{};
    // Only our own: another process may have taken the path since.
    if (inode_ != 0 && ::lstat(path().c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_)
      ::unlink(path().c_str());
  }

  [[nodiscard]] Address address() const override { return address_; }

 private:
  [[nodiscard]] std::string path() const { return address_.starts_with("unix:") ? address_.substr(5) : std::string(); }
  [[nodiscard]] std::string describe(int fd, const SocketAddress& peer) const {
    if (peer.family() != AF_UNIX) return to_address(peer);
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return "unix:";
    return "unix:pid-" + std::to_string(credentials.pid);
  }

  Reactor& reactor_;
  DescriptorRef socket_;
  Address address_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  bool closed_ = false;
};

class SocketNet final : public Net {
 public:
  SocketNet(Reactor& reactor, Blocking& blocking) : reactor_(reactor), blocking_(blocking) {}

  Task<Result<std::unique_ptr<Connection>>> connect(Address address) override {
    HR_CO_TRY(std::vector<SocketAddress> candidates, co_await look_up(address, false));
    Error last(Code::kUnavailable, "connect to " + address);
    for (const SocketAddress& candidate : candidates) {
      Result<DescriptorRef> socket = open_socket(candidate.family());
      if (!socket.ok()) co_return std::move(socket).error();
      tune((*socket)->fd(), candidate);
      int failure;
      if (candidate.family() == AF_UNIX) {
        failure = co_await connect_unix(*socket, candidate);
      } else {
        failure = co_await connect_tcp(*socket, candidate);
      }
      if (failure == 0) {
        co_return std::unique_ptr<Connection>(
            std::make_unique<SocketConnection>(reactor_, *std::move(socket), address));
      }
      // Whatever the reason, nothing was sent. A missing socket file is a server that is not there.
      last = errno_error(failure, "connect to " + address);
      Code code = last.code();
      if (code != Code::kAccess && code != Code::kNotPermitted) code = Code::kUnavailable;
      last = Error(code, last.message());
    }
    co_return last;
  }

  Task<Result<std::unique_ptr<Listener>>> listen(Address address) override {
    HR_CO_TRY(std::vector<SocketAddress> candidates, co_await look_up(address, true));
    const SocketAddress& local = candidates.front();
    HR_CO_TRY(DescriptorRef socket, open_socket(local.family()));
    if (local.family() == AF_UNIX) {
      // Bound with these permissions from the first moment.
      (void)fchmod(socket->fd(), 0600);
      HR_CO_TRY(remove_stale(local, address));
    } else {
      set(socket->fd(), SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (::bind(socket->fd(), local.raw(), local.size) != 0) co_return errno_error(errno, "listen on " + address);
    if (::listen(socket->fd(), kBacklog) != 0) co_return errno_error(errno, "listen on " + address);
    Address bound = to_address(name_of(socket->fd(), getsockname));
    co_return std::unique_ptr<Listener>(
        std::make_unique<SocketListener>(reactor_, std::move(socket), std::move(bound)));
  }

 private:
  Task<Result<std::vector<SocketAddress>>> look_up(Address address, bool to_listen) {
    if (address.starts_with("unix:")) co_return resolve(address, to_listen);
    co_return co_await blocking_.run([address, to_listen] { return resolve(address, to_listen); });
  }

  Task<int> connect_tcp(DescriptorRef socket, SocketAddress to) {
    int result = co_await reactor_.submit_with_timeout(kConnectTimeout, [&](io_uring_sqe* sqe, Operation& operation) {
      operation.address = to.storage;
      operation.owner = socket;
      io_uring_prep_connect(sqe, socket->fd(), reinterpret_cast<const sockaddr*>(&operation.address), to.size);
    });
    co_return result == -ECANCELED ? ETIMEDOUT : -result;
  }

  Task<int> connect_unix(DescriptorRef socket, SocketAddress to) {
    int failure = EAGAIN;
    for (int i = 0; i < kUnixConnectAttempts; ++i) {
      failure = connect_now(socket->fd(), to);
      if (failure != EAGAIN) break;
      co_await reactor_.sleep(milliseconds(5));
    }
    co_return failure;
  }

  // Removes what a server that died left at the path.
  static Result<void> remove_stale(const SocketAddress& at, const Address& address) {
    std::string path = address.substr(5);
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) return {};
    if (!S_ISSOCK(info.st_mode))
      return Error(Code::kExists, "listen on " + address + ": the path is taken by another file");
    HR_TRY(DescriptorRef probe, open_socket(AF_UNIX));
    int failure = connect_now(probe->fd(), at);
    if (failure == ECONNREFUSED) {
      if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error(errno, "remove the dead socket " + path);
      return {};
    }
    if (failure == ENOENT) return {};
    return Error(Code::kBusy, "listen on " + address + ": another process listens there");
  }

  Reactor& reactor_;
  Blocking& blocking_;
};

}  // namespace

std::unique_ptr<Net> make_net(Reactor& reactor, Blocking& blocking) {
  return std::make_unique<SocketNet>(reactor, blocking);
}

}  // namespace headrace
