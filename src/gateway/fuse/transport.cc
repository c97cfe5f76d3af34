#include "gateway/fuse/transport.h"

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "gateway/fuse/protocol.h"

namespace headrace {

namespace {

constexpr size_t kReceiveOffset = kBlock - kFuseWriteHead;
constexpr size_t kReceiveSize = kFuseWriteHead + kFuseMaxWrite;
constexpr size_t kMaxPieces = 1024;  // of one writev

Error device_error(int error, const char* doing) {
  return Error(Code::kIo, std::string("fuse: ") + doing + ": " + std::strerror(error));
}

// It fails where there is nothing to drop, or the kernel is unmounted. False: the kernel does not know it.
bool write_notification(int fd, const std::string& message) {
  while (::write(fd, message.data(), message.size()) < 0) {
    if (errno != EINTR) return errno != ENOENT;
  }
  return true;
}

bool waits(int code, const std::vector<std::string>& bodies) {
  fuse_notify_inval_inode_out out{};
  if (code != FUSE_NOTIFY_INVAL_INODE) return true;
  return std::ranges::any_of(bodies, [&out](const std::string& body) {
    std::memcpy(&out, body.data(), sizeof out);
    return out.off >= 0;
  });
}

}  // namespace

DevFuseTransport::DevFuseTransport(int fd, Poll poll, Blocking& notifiers, Blocking& quick)
    : fd_(fd),
      poll_(std::move(poll)),
      notifiers_(notifiers),
      quick_(quick),
      receive_(Buffer::allocate(kReceiveOffset + kReceiveSize)) {}

Task<Result<Buffer>> DevFuseTransport::receive() {
  for (;;) {
    ssize_t got = ::read(fd_, receive_.data() + kReceiveOffset, kReceiveSize);
    if (got >= 0) co_return hand_out(static_cast<size_t>(got));
    switch (errno) {
      case EINTR:
      case ENOENT:  // the request was taken back before it reached us
        break;
      case EAGAIN: {
        int events = co_await poll_(fd_, POLLIN);
        if (events < 0) co_return device_error(-events, "poll");
        break;
      }
      case ENODEV:
        co_return Error(Code::kCancelled, "fuse: unmounted");
      case ECONNABORTED:
        co_return Error(Code::kCancelled, "fuse: the connection was aborted");
      default:
        co_return device_error(errno, "read");
    }
  }
}

Buffer DevFuseTransport::hand_out(size_t size) {
  Buffer request = receive_.slice(kReceiveOffset, size);
  uint32_t opcode = 0;
  if (size >= sizeof(fuse_in_header))
    std::memcpy(&opcode, request.data() + offsetof(fuse_in_header, opcode), sizeof opcode);
  if (opcode != FUSE_WRITE) return request;
  if (size >= kHandOver) {
    receive_ = Buffer::allocate(kReceiveOffset + kReceiveSize);
    return request;
  }
  Buffer copy = Buffer::allocate(kReceiveOffset + size).slice(kReceiveOffset, size);
  std::memcpy(copy.data(), request.data(), size);
  return copy;
}

Result<void> DevFuseTransport::reply(uint64_t unique, int error, ByteView head, std::span<const Buffer> bulk) {
  HR_ASSERT(error >= 0 && error < 512 && bulk.size() <= kMaxPieces - 2);
  iovec pieces[kMaxPieces];
  size_t count = 1;
  size_t size = sizeof(fuse_out_header);
  if (error == 0) {
    if (!head.empty()) pieces[count++] = {const_cast<std::byte*>(head.data()), head.size()};
    size += head.size();
    for (const Buffer& piece : bulk) {
      pieces[count++] = {const_cast<std::byte*>(piece.data()), piece.size()};
      size += piece.size();
    }
  }
  fuse_out_header out{.len = static_cast<uint32_t>(size), .error = -error, .unique = unique};
  pieces[0] = {&out, sizeof out};
  for (;;) {
    if (::writev(fd_, pieces, static_cast<int>(count)) >= 0) return {};
    if (errno == EINTR) continue;
    if (errno == ENOENT || errno == ENODEV) return Error(Code::kNotFound, "fuse: reply: nobody waits for it");
    return device_error(errno, "reply");
  }
}

Task<bool> DevFuseTransport::notify(int code, std::vector<std::string> bodies) {
  Blocking& pool = waits(code, bodies) ? notifiers_ : quick_;
  for (std::string& body : bodies) {
    fuse_out_header out{
        .len = static_cast<uint32_t>(sizeof(fuse_out_header) + body.size()), .error = code, .unique = 0};
    body.insert(0, reinterpret_cast<const char*>(&out), sizeof out);
  }
  // A descriptor of its own: the wait in the kernel may outlast this task, and a closed number is
  // soon another file.
  auto fd = std::shared_ptr<const int>(new int(::dup(fd_)), [](const int* owned) {
    if (*owned >= 0) ::close(*owned);
    delete owned;
  });
  bool known = co_await pool.run([fd = std::move(fd), messages = std::move(bodies)] {
    bool all = true;
    for (const std::string& message : messages) all = write_notification(*fd, message) && all;
    return all;
  });
  co_return known;
}

}  // namespace headrace
