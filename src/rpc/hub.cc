#include "rpc/hub.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "runtime/counting.h"

namespace headrace {

namespace {

std::string type_text(MessageType type) {
  return "message " + std::to_string(static_cast<unsigned>(type));
}

// These tell an outdated peer what is current, so it must be able to ask.
bool asks_what_is_current(MessageType type) {
  return type == MessageType::kGetMap || type == MessageType::kJoin || type == MessageType::kNodeStatus;
}

}  // namespace

Header Handlers::reply_header(const Header& asked, const Identity& identity) {
  return Header{.type = asked.type,
                .reply = true,
                .request = asked.request,
                .name_space = identity.name_space,
                .namespace_epoch = identity.namespace_epoch,
                .partition = asked.partition,
                .partition_epoch = asked.partition_epoch,
                .cut = identity.cut,
                .tenant = asked.tenant,
                .level = asked.level,
                .client = identity.client};
}

Hub::Hub(Env env, Identity& identity, Handlers& handlers) : env_(env), identity_(identity), handlers_(handlers) {}

Hub::~Hub() {
  // Whoever still holds a channel must not wait for what nobody receives any more.
  for (auto& [number, channel] : channels_) channel->broken_ = true;
}

Header Hub::request_header(MessageType type, const CallOptions& options, Nanos deadline) const {
  int64_t left_ms =
      std::clamp<int64_t>((deadline - env_.clock.now()).count / 1'000'000, 1, std::numeric_limits<uint32_t>::max());
  return Header{.type = type,
                .deadline_ms = static_cast<uint32_t>(left_ms),
                .name_space = identity_.name_space,
                .namespace_epoch = identity_.namespace_epoch,
                .partition = options.partition,
                .partition_epoch = options.partition_epoch,
                .cut = identity_.cut,
                .level = options.level,
                .client = identity_.client,
                .capability = options.capability};
}

void Hub::see_cut(const Header& header) {
  if (identity_.name_space && header.name_space != identity_.name_space) return;
  identity_.cut = std::max(identity_.cut, header.cut);
}

Result<void> Hub::acceptable(const Header& header) const {
  bool ours = header.name_space && header.name_space == identity_.name_space;
  if (ours && header.namespace_epoch && header.namespace_epoch < identity_.namespace_epoch &&
      !asks_what_is_current(header.type))
    return Error(Code::kStale, "sent in namespace epoch " + std::to_string(header.namespace_epoch.value()) +
                                   ", which " + std::to_string(identity_.namespace_epoch.value()) +
                                   " has replaced: mount again");
  return {};
}

Error Hub::no_answer(const std::string& peer, MessageType type, Nanos timeout) const {
  return Error(Code::kTimeout, "no answer from " + peer + " to " + type_text(type) + " within " +
                                   std::to_string(timeout.count / 1'000'000) + " ms");
}

Error Hub::no_handler(MessageType type) const {
  return Error(Code::kNotSupported, type_text(type) + " is not served here");
}

// ---- serving ----

Task<Result<Address>> Hub::serve(Address address) {
  if (closed_) co_return Error(Code::kCancelled, "shutting down");
  auto listener = co_await env_.net.listen(address);
  if (!listener.ok()) co_return std::move(listener).error().within("listen on " + address);
  if (closed_) co_return Error(Code::kCancelled, "shutting down");
  Address real = (*listener)->address();
  own_.insert(std::move(address));
  own_.insert(real);
  listeners_.push_back(*std::move(listener));
  scope_.spawn(accept_from(*listeners_.back()));
  co_return real;
}

Task<void> Hub::accept_from(Listener& listener) {
  while (!closed_) {
    auto connection = co_await listener.accept();
    if (closed_) co_return;
    if (!connection.ok()) {
      if (connection.code() == Code::kCancelled) co_return;
      co_await env_.clock.sleep(milliseconds(100));  // out of descriptors, usually: others have to end first
      continue;
    }
    if (channels_.size() >= kMaxChannels) continue;  // dropping it breaks the connection
    (void)open({}, *std::move(connection));
  }
}

std::shared_ptr<Channel> Hub::open(Address address, std::unique_ptr<Connection> connection) {
  auto channel = std::make_shared<Channel>(next_channel_++, std::move(address), std::move(connection));
  channels_.emplace(channel->number(), channel);
  scope_.spawn(receive_from(channel));
  return channel;
}

Task<void> Hub::receive_from(std::shared_ptr<Channel> channel) {
  std::string why;
  while (true) {
    Result<Frame> frame = co_await channel->connection_->receive();
    if (!frame.ok()) {
      why = frame.error().message();
      break;
    }
    Result<void> taken = take(channel, *std::move(frame));
    if (!taken.ok()) {
      why = taken.error().message();
      break;
    }
  }
  channel->close();
  channel->fail_all(Error(Code::kDisconnected, "connection to " + channel->peer() + " broke: " + why));
  channels_.erase(channel->number());
  auto peer = peers_.find(channel->address_);
  if (peer != peers_.end() && peer->second.channel == channel) {
    peer->second.channel.reset();
    if (peer->second.dial == nullptr) peers_.erase(peer);
  }
}

Result<void> Hub::take(const std::shared_ptr<Channel>& channel, Frame frame) {
  HR_TRY(Head head, decode_head(frame.head.view()));
  if (!head.header.reply) {
    take_request(channel, head, std::move(frame));
    return {};
  }
  PendingCall* call = channel->pending(head.header.request);
  if (head.unsupported) {
    if (call != nullptr && !call->done()) call->fail(unsupported_protocol(head.header));
    return {};
  }
  see_cut(head.header);
  if (call != nullptr && !call->done()) call->answer(std::move(frame), head.body);
  return {};
}

void Hub::take_request(const std::shared_ptr<Channel>& channel, Head head, Frame frame) {
  const Header& header = head.header;
  std::optional<Error> refusal;
  const Handlers::Entry* entry = nullptr;
  if (head.unsupported) {
    refusal = unsupported_protocol(header);
  } else {
    see_cut(header);
    entry = handlers_.find(header.type);
    if (entry == nullptr) {
      refusal = no_handler(header.type);
    } else if (const size_t most = most_in_progress(header.type); in_progress(*channel, header.type) >= most) {
      refusal =
          Error(Code::kUnavailable, "over " + std::to_string(most) + " such calls in progress on this connection");
    } else if (Result<void> ok = acceptable(header); !ok.ok()) {
      refusal = std::move(ok).error();
    }
  }
  if (!refusal) {
    scope_.spawn(handle(channel, *entry, std::move(head), std::move(frame)));
    return;
  }
  Result<void> sent = send(channel, error_frame(Handlers::reply_header(header, identity_), *refusal));
  if (!sent.ok()) channel->close();  // a peer that asks and never reads
}

size_t& Hub::in_progress(Channel& channel, MessageType type) {
  return waits_for_storage(type) ? channel.waiting_for_storage_ : channel.handling_;
}

size_t Hub::most_in_progress(MessageType type) {
  if (waits_for_storage(type)) return kMaxStorageHandlers;
  // Whatever else is stuck: a peer that is heard of has not gone away.
  return type == MessageType::kSessionRenew ? kMaxInFlight + kMaxInFlight / 4 : kMaxInFlight;
}

Task<void> Hub::handle(std::shared_ptr<Channel> channel, const Handlers::Entry& entry, Head head, Frame frame) {
  Counting handling(in_progress(*channel, head.header.type));
  Frame reply = co_await entry.serve(std::move(frame), head.body, CallInfo{head.header, channel}, identity_);
  if (channel->broken()) co_return;
  Result<void> sent = co_await channel->connection_->send(std::move(reply));
  if (!sent.ok()) channel->close();
}

// ---- calling ----

std::shared_ptr<Channel> Hub::ready_channel(const Address& address) const {
  auto peer = peers_.find(address);
  if (peer == peers_.end() || peer->second.channel == nullptr) return nullptr;
  const std::shared_ptr<Channel>& channel = peer->second.channel;
  return channel->broken() || !channel->has_slot() ? nullptr : channel;
}

Task<Result<std::shared_ptr<Channel>>> Hub::reach(Address address, Nanos deadline) {
  if (closed_) co_return Error(Code::kCancelled, "shutting down");
  Peer& peer = peers_[address];
  std::shared_ptr<Channel> channel = peer.channel;
  if (channel == nullptr || channel->broken()) {
    std::shared_ptr<Dial> dialing = peer.dial;
    if (dialing == nullptr) {
      dialing = std::make_shared<Dial>();
      peer.dial = dialing;
      scope_.spawn(dial(address, dialing));
    }
    if (!dialing->done()) co_await ListWait(dialing->waiting, env_.clock, deadline);
    if (!dialing->done())
      co_return Error(Code::kUnavailable, "connect to " + address + ": no connection before the deadline");
    if (dialing->error) co_return *dialing->error;
    channel = dialing->channel;
  }
  if (channel->broken() || !channel->has_slot()) HR_CO_TRY(co_await wait_for_slot(channel, deadline));
  co_return channel;
}

Task<Result<void>> Hub::wait_for_slot(std::shared_ptr<Channel> channel, Nanos deadline) {
  while (true) {
    if (closed_) co_return Error(Code::kCancelled, "shutting down");
    if (channel->broken()) co_return Error(Code::kUnavailable, "connection to " + channel->peer() + " is closed");
    if (channel->has_slot()) co_return Result<void>();
    bool woken = co_await ListWait(channel->full_, env_.clock, deadline);
    if (!woken)
      co_return Error(Code::kUnavailable,
                      channel->peer() + ": " + std::to_string(kMaxInFlight) + " calls in flight until the deadline");
  }
}

Error Hub::no_turn(const Channel& channel) {
  if (channel.broken()) return Error(Code::kUnavailable, "connection to " + channel.peer() + " is closed");
  return Error(Code::kUnavailable, channel.peer() + ": " + std::to_string(kMaxStorageCalls) +
                                       " calls for storage in flight until the deadline");
}

Task<void> Hub::dial(Address address, std::shared_ptr<Dial> dial) {
  Result<std::unique_ptr<Connection>> connection = co_await env_.net.connect(address);
  Peer& peer = peers_[address];
  peer.dial.reset();
  if (closed_) {
    dial->error = Error(Code::kCancelled, "shutting down");
  } else if (connection.ok()) {
    peer.channel = open(address, *std::move(connection));
    dial->channel = peer.channel;
  } else {
    dial->error = Error(Code::kUnavailable, "connect to " + address + ": " + connection.error().message());
  }
  if (peer.channel == nullptr) peers_.erase(address);
  Scheduler::current().wake_all(dial->waiting);
}

Result<void> Hub::send(const std::shared_ptr<Channel>& channel, Frame frame) {
  HR_TRY(fits(frame));
  if (channel->sending_ >= 2 * kMaxInFlight)
    return Error(Code::kUnavailable,
                 channel->peer() + " does not read: " + std::to_string(channel->sending_) + " messages are waiting");
  // A child of its own, so that a caller's deadline counts while the connection has no room.
  if (!scope_.spawn(send_now(channel, std::move(frame)))) return Error(Code::kCancelled, "shutting down");
  return {};
}

Task<void> Hub::send_now(std::shared_ptr<Channel> channel, Frame frame) {
  Counting sending(channel->sending_);
  Result<void> sent = co_await channel->connection_->send(std::move(frame));
  if (!sent.ok()) channel->close();
}

Task<void> Hub::close() {
  closed_ = true;
  for (auto& listener : listeners_) listener->close();
  for (auto& [number, channel] : channels_) channel->close();
  co_await scope_.join();
}

}  // namespace headrace
