#include "runtime/uring/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>

#include "base/checksum.h"
#include "runtime/uring/errors.h"
#include "runtime/uring/frame_header.h"
#include "runtime/uring/net.h"
#include "runtime/uring/reactor.h"

namespace headrace {

namespace {

constexpr size_t kStage = 64 * kKiB;
constexpr size_t kMinRoom = 16 * kKiB;    // below it a read would take too little at a time
constexpr size_t kCopiedHead = 4 * kKiB;  // up to here copying is cheaper than another iovec
constexpr size_t kCopiedPayload = 1 * kKiB;
constexpr size_t kMaxPieces = 512;
constexpr size_t kMaxBatch = 4 * kMiB;

}  // namespace

// What one system call sends. Small pieces lie one after another in `stage`, so that a run of small
// frames is one iovec; the rest is referred to.
struct SocketConnection::Batch {
  Buffer stage = Buffer::allocate(kStage);
  size_t used = 0;       // of stage
  size_t run_begin = 0;  // start of the run that is not yet an iovec
  std::vector<iovec> pieces;
  std::vector<Buffer> references;
  msghdr message{};
  std::shared_ptr<const Descriptor> socket;
  size_t total = 0;
  size_t owed = 0;  // of queued_bytes_, whatever its headers take

  void clear() {
    used = run_begin = total = owed = 0;
    pieces.clear();
    references.clear();
  }
  [[nodiscard]] bool full() const {
    return used + kMaxFrameHeader + kCopiedHead + kCopiedPayload > kStage || pieces.size() + 4 > kMaxPieces ||
           total >= kMaxBatch;
  }
  void copy(ByteView bytes) {
    if (bytes.empty()) return;
    std::memcpy(stage.data() + used, bytes.data(), bytes.size());
    used += bytes.size();
    total += bytes.size();
  }
  void end_run() {
    if (used > run_begin) pieces.push_back({stage.data() + run_begin, used - run_begin});
    run_begin = used;
  }
  void refer(Buffer buffer) {
    end_run();
    pieces.push_back({buffer.data(), buffer.size()});
    total += buffer.size();
    references.push_back(std::move(buffer));
  }
  void add(Frame frame, bool checksum) {
    FrameHeader header{static_cast<uint32_t>(frame.head.size()), static_cast<uint32_t>(frame.payload.size()), {}};
    if (checksum) header.head_crc = crc32c(frame.head.view());
    owed += kMaxFrameHeader + frame.head.size() + frame.payload.size();
    encode_frame_header(header, stage.data() + used);
    used += header.size();
    total += header.size();
    if (frame.head.size() <= kCopiedHead) {
      copy(frame.head.view());
    } else {
      refer(std::move(frame.head));
    }
    if (frame.payload.size() <= kCopiedPayload) {
      copy(frame.payload.view());
    } else {
      refer(std::move(frame.payload));
    }
  }
  // Drops the first `sent` bytes, after a send that the kernel cut short.
  void advance(size_t sent) {
    size_t first = 0;
    while (sent > 0) {
      iovec& piece = pieces[first];
      size_t step = std::min(sent, piece.iov_len);
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + step;
      piece.iov_len -= step;
      sent -= step;
      if (piece.iov_len == 0) ++first;
    }
    pieces.erase(pieces.begin(), pieces.begin() + static_cast<ptrdiff_t>(first));
  }
};

// Ends the connection when the frame of a receive() is destroyed before its end.
class SocketConnection::Receiving {
 public:
  explicit Receiving(SocketConnection& connection) : connection_(connection) {
    HR_ASSERT(!connection.receiving_);
    connection.receiving_ = true;
  }
  Receiving(const Receiving&) = delete;
  Receiving& operator=(const Receiving&) = delete;
  ~Receiving() {
    connection_.receiving_ = false;
    if (!finished_) connection_.close();
  }
  void finished() { finished_ = true; }

 private:
  SocketConnection& connection_;
  bool finished_ = false;
};

SocketConnection::SocketConnection(Reactor& reactor, std::shared_ptr<const Descriptor> socket, std::string peer)
    : reactor_(reactor),
      socket_(std::move(socket)),
      peer_(std::move(peer)),
      batch_(std::make_shared<Batch>()),
      stage_(Buffer::allocate(kStage)) {
  batch_->socket = socket_;
  scope_.spawn(write_queue());
}

SocketConnection::~SocketConnection() = default;

Error SocketConnection::ended() const {
  if (failure_.has_value()) return *failure_;
  return {Code::kDisconnected, peer_ + ": the connection is closed"};
}

void SocketConnection::fail(Error error) {
  if (!failure_.has_value()) failure_ = std::move(error);
  closed_ = true;
  queue_.clear();
  queued_bytes_ = 0;
  ::shutdown(socket_->fd(), SHUT_RDWR);
  Scheduler::current().wake_all(senders_);
  Scheduler::current().wake_all(writer_);
}

void SocketConnection::close() {
  if (closed_) return;
  closed_ = true;
  // Wakes the receiver. The writer ends the other direction when the queue is empty.
  ::shutdown(socket_->fd(), SHUT_RD);
  Scheduler::current().wake_all(senders_);
  Scheduler::current().wake_all(writer_);
}

// --- Sending ---

Task<Result<void>> SocketConnection::send(Frame frame) {
  if (frame.head.size() > kMaxHead || frame.payload.size() > kMaxPayload)
    co_return Error(Code::kTooLarge, "a frame of " + std::to_string(frame.head.size()) + " + " +
                                         std::to_string(frame.payload.size()) + " bytes");
  if (queued_bytes_ >= kMaxQueued || !senders_.empty()) {
    do {
      if (closed_) break;
      co_await ListWait(senders_);
    } while (queued_bytes_ >= kMaxQueued);
  }
  if (closed_) co_return ended();
  queued_bytes_ += kMaxFrameHeader + frame.head.size() + frame.payload.size();
  queue_.push_back(std::move(frame));
  if (!writer_.empty()) Scheduler::current().wake_one(writer_);
  co_return Result<void>();
}

void SocketConnection::gather(Batch& batch) {
  batch.clear();
  while (!queue_.empty() && !batch.full()) {
    batch.add(std::move(queue_.front()), checksums_);
    queue_.pop_front();
  }
  batch.end_run();
}

Task<void> SocketConnection::write_queue() {
  for (;;) {
    while (queue_.empty() && !closed_) co_await ListWait(writer_);
    if (queue_.empty()) break;
    gather(*batch_);
    size_t left = batch_->total;
    while (left > 0) {
      int sent = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
        batch_->message = {};
        batch_->message.msg_iov = batch_->pieces.data();
        batch_->message.msg_iovlen = batch_->pieces.size();
        io_uring_prep_sendmsg(sqe, socket_->fd(), &batch_->message, MSG_NOSIGNAL | MSG_WAITALL);
        operation.owner = batch_;
      });
      if (sent == -EINTR || sent == -EAGAIN) continue;
      if (sent <= 0) {
        fail(Error(Code::kDisconnected, errno_error(-sent, "send to " + peer_).message()));
        co_return;
      }
      left -= static_cast<size_t>(sent);
      if (left > 0) batch_->advance(static_cast<size_t>(sent));
    }
    // fail() has reset the count if it came meanwhile; then nothing is owed.
    queued_bytes_ -= std::min<uint64_t>(queued_bytes_, batch_->owed);
    batch_->clear();
    if (queued_bytes_ < kMaxQueued && !senders_.empty()) Scheduler::current().wake_all(senders_);
  }
  ::shutdown(socket_->fd(), SHUT_WR);
}

// --- Receiving ---

// At least `need` bytes from begin_ on fit, and there is room worth a read. Handed-out slices of
// the stage stay as they are: it is written over only where nobody else refers to it.
void SocketConnection::make_room(size_t need) {
  HR_ASSERT(need <= kStage);
  if (unread() == 0 && stage_.unique()) begin_ = end_ = 0;
  if (begin_ + need <= kStage && end_ + kMinRoom <= kStage) return;
  if (stage_.unique()) {
    std::memmove(stage_.data(), stage_.data() + begin_, unread());
  } else {
    Buffer fresh = Buffer::allocate(kStage);
    std::memcpy(fresh.data(), stage_.data() + begin_, unread());
    stage_ = std::move(fresh);
  }
  end_ = unread();
  begin_ = 0;
}

// One read: into `direct` first, what exceeds it into the stage. Returns how many bytes direct got.
Task<Result<size_t>> SocketConnection::fill(Buffer direct) {
  size_t room = kStage - end_;
  int got = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
    std::byte* tail = stage_.data() + end_;
    if (direct.empty()) {
      io_uring_prep_recv(sqe, socket_->fd(), tail, room, 0);
    } else {
      operation.pieces.push_back({direct.data(), direct.size()});
      if (room > 0) operation.pieces.push_back({tail, room});
      operation.buffers.push_back(direct);
      operation.message = {};
      operation.message.msg_iov = operation.pieces.data();
      operation.message.msg_iovlen = operation.pieces.size();
      io_uring_prep_recvmsg(sqe, socket_->fd(), &operation.message, 0);
    }
    if (likely_empty_) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    operation.buffers.push_back(stage_);
    operation.owner = socket_;
  });
  if (got == -EINTR || got == -EAGAIN) co_return size_t{0};
  if (got <= 0) {
    if (!closed_ && got == 0) failure_ = Error(Code::kDisconnected, peer_ + " closed the connection");
    if (!closed_ && got < 0)
      failure_ = Error(Code::kDisconnected, errno_error(-got, "receive from " + peer_).message());
    co_return ended();
  }
  auto bytes = static_cast<size_t>(got);
  likely_empty_ = bytes < direct.size() + room;
  size_t taken = std::min(bytes, direct.size());
  end_ += bytes - taken;
  co_return taken;
}

// A slice of the stage; it keeps all of it alive.
Buffer SocketConnection::take(size_t size) {
  Buffer out = size == 0 ? Buffer() : stage_.slice(begin_, size);
  begin_ += size;
  return out;
}

Task<Result<Frame>> SocketConnection::receive() {
  Receiving guard(*this);
  if (closed_) {
    guard.finished();
    co_return ended();
  }
  while (!header_is_there()) {
    make_room(kMaxFrameHeader);
    Result<size_t> filled = co_await fill({});
    if (!filled.ok()) co_return std::move(filled).error();
  }
  Result<FrameHeader> header = decode_frame_header(stage_.view().subspan(begin_, unread()));
  if (!header.ok()) {
    Error error = std::move(header).error().within(peer_);
    fail(error);
    co_return error;
  }
  begin_ += header->size();
  checksums_ = header->head_crc.has_value();

  Frame frame;
  if (header->head_size <= kStage / 2) {
    while (unread() < header->head_size) {
      make_room(header->head_size);
      Result<size_t> filled = co_await fill({});
      if (!filled.ok()) co_return std::move(filled).error();
    }
    frame.head = take(header->head_size);
  } else {
    frame.head = Buffer::allocate(header->head_size);
    size_t done = drain(frame.head);
    Result<void> filled = co_await fill_rest(frame.head, done);
    if (!filled.ok()) co_return std::move(filled).error();
  }
  if (header->head_crc && crc32c(frame.head.view()) != *header->head_crc) {
    const Error error(Code::kCorrupt, peer_ + ": the head of a frame fails its checksum");
    fail(error);
    co_return error;
  }
  if (header->payload_size > 0) {
    frame.payload = Buffer::allocate(header->payload_size);
    size_t done = drain(frame.payload);
    if (done < frame.payload.size()) {
      Result<void> filled = co_await fill_rest(frame.payload, done);
      if (!filled.ok()) co_return std::move(filled).error();
    }
  }
  guard.finished();
  co_return frame;
}

// Moves from the stage what it has of a buffer's contents; returns how much.
size_t SocketConnection::drain(Buffer& into) {
  size_t size = std::min(unread(), into.size());
  std::memcpy(into.data(), stage_.data() + begin_, size);
  begin_ += size;
  return size;
}

bool SocketConnection::header_is_there() const {
  if (unread() < kMinFrameHeader) return false;
  return unread() >= frame_header_size(stage_.view().subspan(begin_, unread()));
}

// Straight from the socket; the stage is empty.
Task<Result<void>> SocketConnection::fill_rest(Buffer into, size_t done) {
  while (done < into.size()) {
    make_room(0);
    HR_CO_TRY(size_t filled, co_await fill(into.slice(done, into.size() - done)));
    done += filled;
  }
  co_return Result<void>();
}

}  // namespace headrace
