// Hub: all calls of one process. It serves its own addresses, keeps one channel per peer, and answers calls to itself
// without encoding them.
//
// A handler is `Task<Result<Req::Reply>>(Req, CallInfo)`; it runs in a Scope of the hub and is never cancelled by its
// caller. At most kMaxInFlight calls per channel and direction, kMaxStorageCalls of them for a disk or a bucket:
// further callers wait. Handlers may outlive their callers, so they are bounded too, and what is above is answered
// kUnavailable: those that wait for a disk or a bucket apart from the others, and a session is renewed whatever is
// stuck. A call ends at its deadline with kTimeout (outcome unknown), with kDisconnected when the connection breaks
// after sending, with kUnavailable before. Retrying is the caller's business. Every frame carries, and every hub
// remembers, the highest cut seen. Requests of an older namespace epoch than ours are answered kStale here (those that
// ask what is current excepted). Both ends of a channel may call: a partition recalls a grant through the channel that
// its client opened. Frames of callers and handlers may be destroyed in any order: each side holds what both share.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/header.h"
#include "rpc/channel.h"
#include "rpc/handlers.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

inline constexpr const char* kSelfAddress = "self";  // the process itself, served or not

struct CallOptions {
  Nanos timeout = seconds(10);
  PartitionId partition;
  PartitionEpoch partition_epoch;
  ServiceLevel level = ServiceLevel::kForeground;
  Capability capability;
};

class Hub {
 public:
  // identity and handlers outlive the hub. Register handlers before serve().
  Hub(Env env, Identity& identity, Handlers& handlers);
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;
  ~Hub();

  // Listens and serves until close(). The returned address has the real port. Any number of times.
  [[nodiscard]] Task<Result<Address>> serve(Address address);

  // To the process at `address` (an own served address: a direct call).
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Address address, Req request, CallOptions options = {});
  // Back over a channel, e.g. Recall. kUnavailable once it is broken.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(std::shared_ptr<Channel> channel, Req request,
                                                       CallOptions options = {});

  // Stops serving, breaks all channels (pending calls end kDisconnected, new ones kCancelled), joins: whatever the
  // handlers wait for must end by itself or have been told to.
  [[nodiscard]] Task<void> close();
  [[nodiscard]] bool closed() const { return closed_; }

  [[nodiscard]] Identity& identity() { return identity_; }
  [[nodiscard]] bool is_own(const Address& address) const { return address == kSelfAddress || own_.contains(address); }
  void add_own(Address address) { own_.insert(std::move(address)); }  // an address others know this process by
  [[nodiscard]] size_t channels() const { return channels_.size(); }

 private:
  static constexpr size_t kMaxChannels = 16'384;
  static constexpr size_t kMaxLocalCalls = 64 * 1024;

  struct Dial {
    std::shared_ptr<Channel> channel;
    std::optional<Error> error;
    WaitList waiting;
    [[nodiscard]] bool done() const { return channel != nullptr || error.has_value(); }
  };
  struct Peer {
    std::shared_ptr<Channel> channel;
    std::shared_ptr<Dial> dial;  // in progress
  };
  template <class Reply>
  struct LocalCall {  // what the caller and the handler of a direct call share
    std::optional<Result<Reply>> result;
    WaitList waiting;
  };

  [[nodiscard]] Header request_header(MessageType type, const CallOptions& options, Nanos deadline) const;
  void see_cut(const Header& header);
  [[nodiscard]] Result<void> acceptable(const Header& header) const;

  // A channel with a free slot, without waiting; null where one has to wait.
  [[nodiscard]] std::shared_ptr<Channel> ready_channel(const Address& address) const;
  [[nodiscard]] Task<Result<std::shared_ptr<Channel>>> reach(Address address, Nanos deadline);
  [[nodiscard]] Task<Result<void>> wait_for_slot(std::shared_ptr<Channel> channel, Nanos deadline);
  [[nodiscard]] static Error no_turn(const Channel& channel);
  [[nodiscard]] Task<void> dial(Address address, std::shared_ptr<Dial> dial);
  [[nodiscard]] Task<void> accept_from(Listener& listener);
  [[nodiscard]] std::shared_ptr<Channel> open(Address address, std::unique_ptr<Connection> connection);
  [[nodiscard]] Task<void> receive_from(std::shared_ptr<Channel> channel);
  [[nodiscard]] Result<void> take(const std::shared_ptr<Channel>& channel, Frame frame);
  void take_request(const std::shared_ptr<Channel>& channel, Head head, Frame frame);
  [[nodiscard]] static size_t& in_progress(Channel& channel, MessageType type);
  [[nodiscard]] static size_t most_in_progress(MessageType type);
  [[nodiscard]] Task<void> handle(std::shared_ptr<Channel> channel, const Handlers::Entry& entry, Head head,
                                  Frame frame);
  [[nodiscard]] Result<void> send(const std::shared_ptr<Channel>& channel, Frame frame);
  [[nodiscard]] Task<void> send_now(std::shared_ptr<Channel> channel, Frame frame);

  [[nodiscard]] Error no_answer(const std::string& peer, MessageType type, Nanos timeout) const;
  [[nodiscard]] Error no_handler(MessageType type) const;
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call_self(Req request, CallOptions options, Nanos deadline);
  template <class Req>
  [[nodiscard]] Task<void> handle_self(const Handlers::TypedEntry<Req>& entry, Req request, Header header,
                                       std::shared_ptr<LocalCall<typename Req::Reply>> call);
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> exchange(std::shared_ptr<Channel> channel, Req request,
                                                           CallOptions options, Nanos deadline);

  Env env_;
  Identity& identity_;
  Handlers& handlers_;
  bool closed_ = false;
  uint64_t next_channel_ = 1;
  size_t local_calls_ = 0;
  std::set<Address> own_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::map<Address, Peer> peers_;
  std::map<uint64_t, std::shared_ptr<Channel>> channels_;  // all that are alive, by number
  Scope scope_;
};

template <class Req>
Task<Result<typename Req::Reply>> Hub::call(Address address, Req request, CallOptions options) {
  Nanos deadline = env_.clock.now() + options.timeout;
  if (is_own(address)) co_return co_await call_self<Req>(std::move(request), options, deadline);
  std::shared_ptr<Channel> channel = ready_channel(address);
  if (channel == nullptr) {
    HR_CO_TRY(channel, co_await reach(std::move(address), deadline));
  }
  co_return co_await exchange<Req>(std::move(channel), std::move(request), options, deadline);
}

template <class Req>
Task<Result<typename Req::Reply>> Hub::call(std::shared_ptr<Channel> channel, Req request, CallOptions options) {
  Nanos deadline = env_.clock.now() + options.timeout;
  if (channel == nullptr) co_return co_await call_self<Req>(std::move(request), options, deadline);
  if (channel->broken() || !channel->has_slot()) {
    HR_CO_TRY(co_await wait_for_slot(channel, deadline));
  }
  co_return co_await exchange<Req>(std::move(channel), std::move(request), options, deadline);
}

template <class Req>
Task<Result<typename Req::Reply>> Hub::exchange(std::shared_ptr<Channel> channel, Req request, CallOptions options,
                                                Nanos deadline) {
  std::optional<StorageTurn> turn;
  if constexpr (waits_for_storage(Req::kType)) {
    const bool come = co_await turn.emplace(channel, env_.clock, deadline);
    if (!come) co_return no_turn(*channel);
    if (channel->broken() || !channel->has_slot()) HR_CO_TRY(co_await wait_for_slot(channel, deadline));
  }
  PendingCall pending(channel);
  Header header = request_header(Req::kType, options, deadline);
  header.request = pending.request();
  HR_CO_TRY(send(channel, request_frame(header, std::move(request))));
  if (!pending.done()) co_await ListWait(pending.waiting(), env_.clock, deadline);
  if (pending.error()) co_return *std::move(pending.error());
  if (!pending.done()) co_return no_answer(channel->peer(), Req::kType, options.timeout);
  co_return decode_reply<typename Req::Reply>(std::move(pending.frame()), pending.body());
}

template <class Req>
Task<Result<typename Req::Reply>> Hub::call_self(Req request, CallOptions options, Nanos deadline) {
  using Reply = typename Req::Reply;
  const Handlers::TypedEntry<Req>* entry = handlers_.find<Req>();
  if (entry == nullptr) co_return no_handler(Req::kType);
  Header header = request_header(Req::kType, options, deadline);
  HR_CO_TRY(acceptable(header));
  if (local_calls_ >= kMaxLocalCalls) co_return Error(Code::kUnavailable, "too many calls in progress");
  auto call = std::make_shared<LocalCall<Reply>>();
  if (!scope_.spawn(handle_self<Req>(*entry, std::move(request), header, call)))
    co_return Error(Code::kCancelled, "shutting down");
  if (!call->result) co_await ListWait(call->waiting, env_.clock, deadline);
  if (!call->result) co_return no_answer(kSelfAddress, Req::kType, options.timeout);
  co_return *std::move(call->result);
}

template <class Req>
Task<void> Hub::handle_self(const Handlers::TypedEntry<Req>& entry, Req request, Header header,
                            std::shared_ptr<LocalCall<typename Req::Reply>> call) {
  ++local_calls_;
  Result<typename Req::Reply> result = co_await entry.handler(std::move(request), CallInfo{.header = header});
  --local_calls_;
  call->result.emplace(std::move(result));
  Scheduler::current().wake_one(call->waiting);
}

}  // namespace headrace
