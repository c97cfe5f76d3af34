#include "apps/handover_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace headrace {

namespace {

constexpr size_t kMaxText = 4096;
constexpr size_t kMaxDescriptors = 2;
constexpr size_t kMaxRecord = kGiB;

std::string socket_path(const std::string& state, int pid) {
  return state + "/handover/" + std::to_string(pid) + ".sock";
}

Error failed(const char* doing) {
  return Error(Code::kIo, std::string("handing over: ") + doing + ": " + std::strerror(errno));
}

// The path of a Unix socket is short, that of a state directory may be long: it is named below a descriptor of its
// folder.
struct Named {
  DescriptorRef folder;
  sockaddr_un name{};
};
Result<Named> named(const std::string& path) {
  const size_t slash = path.rfind('/');
  const int fd = ::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed(path.c_str());
  Named out{.folder = std::make_shared<Descriptor>(fd)};
  const std::string text = "/proc/self/fd/" + std::to_string(fd) + path.substr(slash);
  HR_ASSERT(text.size() < sizeof out.name.sun_path);
  out.name.sun_family = AF_UNIX;
  std::memcpy(out.name.sun_path, text.c_str(), text.size() + 1);
  return out;
}

Result<DescriptorRef> new_socket() {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return failed("socket");
  return std::make_shared<Descriptor>(fd);
}

const sockaddr* address_of(const sockaddr_un& name) {
  return reinterpret_cast<const sockaddr*>(&name);
}

// The pid at the other end; 0 for one of another user, whom nothing is given to, nor taken from.
int trusted_peer(int fd) {
  ucred who{};
  socklen_t size = sizeof who;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return 0;
  return who.uid == 0 || who.uid == ::geteuid() ? who.pid : 0;
}

}  // namespace

Result<HandoverChannel> HandoverChannel::connect(Reactor& reactor, const std::string& state, int pid) {
  const std::string path = socket_path(state, pid);
  const Error too_old(Code::kNotSupported, "the process that serves it (pid " + std::to_string(pid) +
                                               ") is of a version that cannot hand over: unmount, and mount again");
  if (::access(path.c_str(), F_OK) != 0) return too_old;
  HR_TRY(Named to, named(path));
  HR_TRY(DescriptorRef socket, new_socket());
  if (::connect(socket->fd(), address_of(to.name), sizeof to.name) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) return too_old;
    return failed(path.c_str());
  }
  const int peer = trusted_peer(socket->fd());
  if (peer == 0) return Error(Code::kNotPermitted, path + " is another user's");
  return HandoverChannel(reactor, std::move(socket), peer);
}

void HandoverChannel::send(const std::string& text, const std::vector<int>& descriptors) const {
  HR_ASSERT(descriptors.size() <= kMaxDescriptors);
  std::string cut = text.substr(0, kMaxText);
  iovec piece{cut.data(), cut.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(head), descriptors.data(), descriptors.size() * sizeof(int));
  }
  while (::sendmsg(socket_->fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR) {
  }
}

Task<Result<HandoverChannel::Message>> HandoverChannel::receive(Nanos timeout) const {
  const int fd = socket_->fd();
  const int polled = co_await reactor_->submit_with_timeout(
      timeout, [&](io_uring_sqe* sqe, Operation&) { io_uring_prep_poll_add(sqe, fd, POLLIN); });
  if (polled < 0) co_return Error(Code::kTimeout, "the other process does not answer");
  char text[kMaxText];
  iovec piece{text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  Message out;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); got >= 0 && head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= head->cmsg_len; at += sizeof(int)) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(head) + at, sizeof passed);
      out.descriptors.push_back(std::make_shared<Descriptor>(passed));
    }
  }
  if (got <= 0) co_return Error(Code::kDisconnected, "the other process has ended: see its log");
  out.text.assign(text, static_cast<size_t>(got));
  if (out.text.starts_with("no: ")) co_return Error(Code::kUnavailable, out.text.substr(4));
  co_return out;
}

Result<std::unique_ptr<HandoverListener>> HandoverListener::open(Reactor& reactor, const std::string& state) {
  std::string path = socket_path(state, ::getpid());
  std::error_code error;
  std::filesystem::create_directories(state + "/handover", error);
  HR_TRY(Named at, named(path));
  HR_TRY(DescriptorRef socket, new_socket());
  ::unlink(path.c_str());  // of a dead process with our pid
  if (::bind(socket->fd(), address_of(at.name), sizeof at.name) != 0 || ::chmod(path.c_str(), 0600) != 0 ||
      ::listen(socket->fd(), 4) != 0)
    return failed(path.c_str());
  return std::unique_ptr<HandoverListener>(new HandoverListener(reactor, std::move(path), std::move(socket)));
}

HandoverListener::~HandoverListener() {
  ::unlink(path_.c_str());
}

Task<HandoverChannel> HandoverListener::accept() {
  for (;;) {
    (void)co_await reactor_.poll(socket_->fd(), POLLIN);
    const int fd = ::accept4(socket_->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno != EAGAIN && errno != EINTR) co_await reactor_.env().clock.sleep(seconds(1));
      continue;
    }
    auto socket = std::make_shared<Descriptor>(fd);
    const int peer = trusted_peer(fd);
    if (peer != 0) co_return HandoverChannel(reactor_, std::move(socket), peer);
  }
}

Result<DescriptorRef> memory_file(const std::string& bytes) {
  const int fd = ::memfd_create("headrace-handover", MFD_CLOEXEC);
  if (fd < 0) return failed("memfd_create");
  auto out = std::make_shared<Descriptor>(fd);
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t put = ::write(fd, bytes.data() + at, bytes.size() - at);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed("write");
    at += static_cast<size_t>(put);
  }
  return out;
}

Result<std::string> read_memory_file(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0 || status.st_size < 0 || static_cast<size_t>(status.st_size) > kMaxRecord)
    return Error(Code::kCorrupt, "handing over: the record is none");
  std::string out(static_cast<size_t>(status.st_size), '\0');
  for (size_t at = 0; at < out.size();) {
    const ssize_t got = ::pread(fd, out.data() + at, out.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return failed("read");
    at += static_cast<size_t>(got);
  }
  return out;
}

}  // namespace headrace
