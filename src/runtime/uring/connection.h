// SocketConnection: one stream socket that carries frames. net.h tells how it behaves.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/net.h"
#include "runtime/scope.h"
#include "runtime/uring/operation.h"

namespace headrace {

class SocketConnection final : public Connection {
 public:
  SocketConnection(Reactor& reactor, std::shared_ptr<const Descriptor> socket, std::string peer);
  ~SocketConnection() override;

  [[nodiscard]] Task<Result<void>> send(Frame frame) override;
  [[nodiscard]] Task<Result<Frame>> receive() override;
  void close() override;
  [[nodiscard]] std::string peer() const override { return peer_; }

 private:
  struct Batch;
  class Receiving;

  Task<void> write_queue();
  void gather(Batch& batch);
  void fail(Error error);
  [[nodiscard]] Error ended() const;

  Task<Result<size_t>> fill(Buffer direct);
  Task<Result<void>> fill_rest(Buffer into, size_t done);
  size_t drain(Buffer& into);
  void make_room(size_t need);
  [[nodiscard]] bool header_is_there() const;
  [[nodiscard]] size_t unread() const { return end_ - begin_; }
  [[nodiscard]] Buffer take(size_t size);

  Reactor& reactor_;
  std::shared_ptr<const Descriptor> socket_;
  std::string peer_;
  bool closed_ = false;
  std::optional<Error> failure_;

  // Sending. The batch is the kernel's while a request is in flight.
  std::deque<Frame> queue_;
  uint64_t queued_bytes_ = 0;  // in the queue and in the batch
  std::shared_ptr<Batch> batch_;
  WaitList senders_;
  WaitList writer_;

  // Receiving: [begin_, end_) of stage_ has been read and not yet handed on.
  Buffer stage_;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool receiving_ = false;
  bool likely_empty_ = true;  // the last read took all there was
  bool checksums_ = true;     // the peer knows them: until it sends a frame without

  Scope scope_;
};

}  // namespace headrace
