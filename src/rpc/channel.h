// Channel: one connection with the calls that are in flight on it. PendingCall: one of them, in its caller's frame.
//
// Both ends may call; replies find their call by Header.request, whose low 10 bits are the call's slot. A slot is taken
// and given back with the PendingCall, so a late reply to a call whose caller gave up finds nobody and is dropped.
// Lifecycle: made by the Hub (dialled or accepted), shared with handlers (who may keep it to call back), broken once
// and for ever when the connection ends. It may outlive the Hub, and is then broken.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rpc/head.h"
#include "runtime/scheduler.h"
#include "runtime/timers.h"

namespace headrace {

inline constexpr size_t kMaxInFlight = 1024;  // calls per channel and direction

// These wait for a disk or a bucket, which may hang: they must not keep others from being served.
constexpr bool waits_for_storage(MessageType type) {
  return type == MessageType::kFragmentRead || type == MessageType::kFragmentWrite || type == MessageType::kColdRead;
}
inline constexpr size_t kMaxStorageHandlers = kMaxInFlight / 2;  // for them; others beyond are refused
// Calls of this kind that are in flight. Fewer than that: the peer counts those that were given up, and those whose
// replies are on their way, as well.
inline constexpr size_t kMaxStorageCalls = kMaxStorageHandlers / 4 * 3;

class PendingCall;
class StorageTurn;

class Channel {
 public:
  Channel(uint64_t number, Address address, std::unique_ptr<Connection> connection)
      : number_(number), address_(std::move(address)), peer_(connection->peer()), connection_(std::move(connection)) {}

  [[nodiscard]] bool broken() const { return broken_; }
  [[nodiscard]] const std::string& peer() const { return peer_; }  // for logs
  [[nodiscard]] uint64_t number() const { return number_; }        // unique within its hub
  [[nodiscard]] size_t calls_in_flight() const { return slots_.size() - free_.size(); }

 private:
  friend class Hub;
  friend class PendingCall;
  friend class StorageTurn;

  [[nodiscard]] bool has_slot() const { return !free_.empty() || slots_.size() < kMaxInFlight; }
  [[nodiscard]] PendingCall* pending(uint64_t request) const;
  void close();                     // the receiver then notices the end
  void fail_all(const Error& why);  // marks it broken; every caller is woken

  const uint64_t number_;
  const Address address_;  // dialled; empty: accepted
  const std::string peer_;
  std::unique_ptr<Connection> connection_;
  bool broken_ = false;
  size_t handling_ = 0;             // requests of the peer that handlers are working on
  size_t waiting_for_storage_ = 0;  // others of them
  size_t sending_ = 0;              // frames not yet taken by the connection
  uint64_t calls_ = 0;
  std::vector<PendingCall*> slots_;
  std::vector<uint16_t> free_;
  WaitList full_;  // callers without a slot
  size_t storage_turns_ = 0;
  WaitList storage_line_;
};

class PendingCall {
 public:
  explicit PendingCall(std::shared_ptr<Channel> channel);  // which has a slot
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;
  ~PendingCall();

  [[nodiscard]] uint64_t request() const { return request_; }
  [[nodiscard]] bool done() const { return error_.has_value() || answered_; }
  [[nodiscard]] WaitList& waiting() { return waiting_; }
  [[nodiscard]] std::optional<Error>& error() { return error_; }
  [[nodiscard]] Frame& frame() { return frame_; }
  [[nodiscard]] size_t body() const { return body_; }

  void answer(Frame frame, size_t body);
  void fail(Error error);

 private:
  std::shared_ptr<Channel> channel_;
  uint64_t request_;
  bool answered_ = false;
  Frame frame_;
  size_t body_ = 0;
  std::optional<Error> error_;
  WaitList waiting_;
};

// co_await turn: one of the kMaxStorageCalls, in the order of asking; false where the deadline came first, or the
// channel broke. Had until its destruction, which passes it on to the first in line: nobody overtakes.
class StorageTurn final : private Waiter, private TimerNode {
 public:
  StorageTurn(std::shared_ptr<Channel> channel, Clock& clock, Nanos deadline)
      : channel_(std::move(channel)), clock_(clock), deadline_(deadline) {}
  ~StorageTurn();
  [[nodiscard]] bool await_ready();
  void await_suspend(std::coroutine_handle<> h);
  bool await_resume();

 private:
  void fire() override;

  std::shared_ptr<Channel> channel_;
  Clock& clock_;
  const Nanos deadline_;
  bool had_ = false;
};

}  // namespace headrace
