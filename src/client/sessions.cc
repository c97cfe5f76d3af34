#include "client/sessions.h"

#include <algorithm>
#include <utility>

namespace headrace {

void ClientSession::end_grant(GrantId grant, GrantKind keep) {
  if (requests.empty()) {
    ended.clear();
    return;
  }
  // What no request is older than any more: looked for when that may have changed, and not at each of thousands.
  if (ended_before != *requests.begin()) {
    ended_before = *requests.begin();
    std::erase_if(ended, [&](const auto& item) { return item.second.before <= ended_before; });
  }
  auto [at, fresh] = ended.try_emplace(grant, Ended{keep, next_request});
  if (!fresh) at->second = Ended{std::min(at->second.keep, keep), next_request};
}

GrantKind ClientSession::still(const Grant& grant, uint64_t number) const {
  if (claims_under_way() || number < first_since_claims) return GrantKind::kNone;
  auto found = ended.find(grant.id);
  if (found == ended.end() || number >= found->second.before) return grant.kind;
  return std::min(grant.kind, found->second.keep);
}

Sequence::Sequence(ClientSessionRef session) : session_(std::move(session)), number_(session_->next_sequence++) {
  session_->unanswered.insert(number_);
}

Sequence::~Sequence() {
  session_->unanswered.erase(number_);
  if (Scheduler::present()) session_->free_tickets.release();
}

Ticket Sequence::ticket() const {
  return {session_->id, number_, *session_->unanswered.begin()};
}

GrantRequest::GrantRequest(ClientSessionRef session) : session_(std::move(session)), number_(session_->next_request++) {
  session_->requests.insert(number_);
}

GrantRequest::~GrantRequest() {
  session_->requests.erase(number_);
}

void ClientSessions::start() {
  scope_.spawn(watch_leaders());
}

PartitionEpoch ClientSessions::epoch_of(PartitionId partition) const {
  const PartitionInfo* info = port_.view().map().partition(partition);
  return info == nullptr ? PartitionEpoch() : info->epoch;
}

Error ClientSessions::ended(const ClientSession& session) const {
  return Error(Code::kIo, "the session with partition " + std::to_string(session.partition.value()) +
                              " ended (this client was not heard of for longer than its lease): "
                              "whether the operation took "
                              "effect is unknown");
}

Task<Result<ClientSessionRef>> ClientSessions::of(Slot slot) {
  const Nanos deadline = env_.clock.now() + kPatience;
  for (;;) {
    const ClusterMap& map = port_.view().map();
    const PartitionInfo* info = map.partition_of(slot);
    if (info == nullptr) {
      port_.view().want_refresh();
      bool newer = co_await port_.view().wait_newer(env_.clock, map.version, deadline);
      if (!newer) co_return Error(Code::kUnavailable, "no partition has slot " + std::to_string(slot.value()));
      continue;
    }
    const PartitionId partition = info->id;
    auto found = sessions_.find(partition);
    if (found == sessions_.end()) co_return co_await open(partition);
    ClientSessionRef session = found->second;
    if (alive(*session)) co_return session;
    // Silent for longer than a lease (a suspended machine): whether it still stands is asked before
    // it is used.
    co_await renew(session);
    if (!session->lost) co_return session;
  }
}

std::vector<ClientSessionRef> ClientSessions::all() const {
  std::vector<ClientSessionRef> out;
  for (const auto& [partition, session] : sessions_) out.push_back(session);
  return out;
}

Task<Result<ClientSessionRef>> ClientSessions::open(PartitionId partition) {
  std::shared_ptr<Mutex>& slot = opening_[partition];
  if (slot == nullptr) slot = std::make_shared<Mutex>();
  std::shared_ptr<Mutex> mutex = slot;
  Mutex::Guard guard = co_await mutex->lock();
  auto found = sessions_.find(partition);
  if (found != sessions_.end()) co_return found->second;
  SessionOpen request;
  request.client = client_;
  const PartitionEpoch epoch = epoch_of(partition);
  const Nanos sent = env_.clock.now();
  Result<SessionOpenReply> reply = co_await port_.call(partition, request, {.timeout = kPatience});
  if (!reply.ok()) co_return std::move(reply).error().within("open a session");
  auto session = std::make_shared<ClientSession>();
  session->partition = partition;
  session->id = reply->session;
  session->lease = milliseconds(reply->lease_ms);
  session->valid_until = sent + session->lease;
  session->epoch = epoch;
  sessions_[partition] = session;
  scope_.spawn(keep_alive(session));
  co_return session;
}

Task<Result<void>> ClientSessions::go_on(ClientHandover::Session from) {
  SessionOpen request;
  request.client = client_;
  request.again = from.id;
  const PartitionEpoch epoch = epoch_of(from.partition);
  const Nanos sent = env_.clock.now();
  Result<SessionOpenReply> reply = co_await port_.call(from.partition, request, {.timeout = kGoOnPatience});
  if (reply.ok() && reply->session != from.id) reply = Error(Code::kStale, "it has ended");
  if (!reply.ok())
    co_return std::move(reply).error().within("the session with partition " + std::to_string(from.partition.value()));
  auto session = std::make_shared<ClientSession>();
  session->partition = from.partition;
  session->id = from.id;
  session->lease = milliseconds(reply->lease_ms);
  session->valid_until = sent + session->lease;
  session->epoch = epoch;
  session->next_sequence = from.next_sequence;
  session->abandoned = std::move(from.abandoned);
  sessions_[session->partition] = session;
  scope_.spawn(keep_alive(session));
  co_return Result<void>();
}

Task<void> ClientSessions::keep_alive(ClientSessionRef session) {
  while (!session->lost) {
    const bool renewed = session->valid_until - env_.clock.now() > session->lease / 2;
    bool on = co_await scope_.token().sleep(env_.clock, renewed ? session->lease / 3 : session->lease / 20);
    if (!on || session->lost) co_return;
    co_await renew(session);
    if (!session->lost && !alive(*session) && !session->expired) {
      session->expired = true;
      on_expired(session);
    }
  }
}

Task<void> ClientSessions::renew(ClientSessionRef session) {
  if (session->epoch != epoch_of(session->partition)) {
    (void)co_await reopen(session);
    co_return;
  }
  SessionRenew request;
  request.session = session->id;
  const Nanos sent = env_.clock.now();
  Result<Empty> reply = co_await port_.call(session->partition, request, {.timeout = session->lease / 3});
  if (reply.ok()) {
    session->valid_until = std::max(session->valid_until, sent + session->lease);
    session->expired = false;
  } else if (reply.code() == Code::kStale && !session->lost) {
    (void)co_await reopen(session);
  }
}

Task<bool> ClientSessions::reopen(ClientSessionRef session) {
  if (session->lost) co_return false;
  const uint64_t seen = session->reopened;
  Mutex::Guard guard = co_await session->reopening.lock();
  if (session->lost) co_return false;
  if (session->reopened != seen) co_return true;
  SessionOpen request;
  request.client = client_;
  request.again = session->id;
  request.claims = claims(*session);
  const PartitionEpoch epoch = epoch_of(session->partition);
  const Nanos sent = env_.clock.now();
  Result<SessionOpenReply> reply =
      co_await port_.call(session->partition, std::move(request), {.timeout = seconds(20)});
  if (session->lost) co_return false;
  if (reply.code() == Code::kStale || (reply.ok() && reply->session != session->id)) {
    lose(session);
    co_return false;
  }
  if (reply.ok()) {
    session->valid_until = std::max(session->valid_until, sent + session->lease);
    session->expired = false;
    session->epoch = epoch;
    session->first_since_claims = session->next_request;
    session->abandon_reservations();  // a new leader may know nothing of them
    ++session->reopened;
  }
  co_return true;
}

Task<void> ClientSessions::reopen_in_background(ClientSessionRef session) {
  (void)co_await reopen(session);
}

Task<void> ClientSessions::watch_leaders() {
  while (!scope_.token().cancelled()) {
    const uint64_t version = port_.view().map().version;
    for (const ClientSessionRef& session : all()) {
      if (session->epoch != epoch_of(session->partition) && !session->reopening.locked()) {
        scope_.spawn(reopen_in_background(session));
      }
    }
    (void)co_await port_.view().wait_newer(env_.clock, version, env_.clock.now() + seconds(1));
  }
}

void ClientSessions::lose(const ClientSessionRef& session) {
  session->lost = true;
  auto found = sessions_.find(session->partition);
  if (found != sessions_.end() && found->second == session) sessions_.erase(found);
  on_lost(session);
}

Task<void> ClientSessions::close_all() {
  std::vector<ClientSessionRef> sessions = all();
  sessions_.clear();
  for (const ClientSessionRef& session : sessions) {
    SessionClose request;
    request.session = session->id;
    session->lost = true;
    (void)co_await port_.call(session->partition, request, {.timeout = seconds(5)});
  }
}

}  // namespace headrace
