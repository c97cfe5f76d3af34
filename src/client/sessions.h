// ClientSessions: this client's standing with each partition: sessions, tickets, leases, and what
// grants are in order.
//
// A session is opened at the first need and renewed every third of its lease. It is over when the
// partition says kStale to a re-opening that claims all its grants (`again`): then on_lost is told,
// once, and a new session begins with nothing. Between a leader change and the re-opening the new
// leader may say kStale to single calls: mutate() and the write-back re-open first and only then
// believe it.
//
// Order of grants: replies and recalls travel independently, so a reply may bring a grant that was
// recalled, or released, while it was under way. Every request that may bring grants has a number
// (GrantRequest); the end of a grant is remembered, down to what was kept, until all requests sent
// before that end are answered.
//
// Claims name every grant that is held until a leader has taken them, however often they are sent: no grant comes, or
// goes, while they are under way. What a leader gave before, and is answered only after its successor took the claims,
// the successor knows nothing of: such answers bring no grant either.
//
// Tickets: sequence numbers from 1, never used twice; at most kMaxInFlight unanswered.
// Owner: Client. ClientSession is shared: frames that hold one touch nothing else when they are
// destroyed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/handover.h"
#include "coord/ports.h"
#include "proto/meta.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

struct ClientSession {
  static constexpr uint64_t kMaxMutations = 1024;

  PartitionId partition;
  SessionId id;
  Nanos lease{};
  Nanos valid_until{};   // own clock; measured from when the renewal was sent
  PartitionEpoch epoch;  // of the leader that it was last opened or re-opened with
  bool lost = false;
  bool expired = false;  // the lease ran out here before it was renewed
  Mutex reopening;
  uint64_t reopened = 0;

  Semaphore free_tickets{kMaxMutations};
  uint64_t next_sequence = 1;
  std::set<uint64_t> unanswered;

  uint64_t next_request = 1;
  uint64_t first_since_claims = 1;  // request
  std::set<uint64_t> requests;      // in flight, that may bring grants
  struct Ended {
    GrantKind keep;
    uint64_t before;  // holds for requests numbered below
  };
  std::map<GrantId, Ended> ended;
  uint64_t ended_before = 0;  // the oldest request when those that were done with went

  // FileIds' local parts that this client may give to what it makes.
  uint64_t next_file = 0;
  uint64_t end_file = 0;
  uint64_t generation = 0;  // of what is made with them
  uint32_t reserve_files_next = 256;
  Mutex reserving_files;

  std::vector<Reservation> reservations;
  std::vector<SegmentId> abandoned;  // reserved, never to be committed: the partition is told when it is next asked
  uint32_t written = 0;              // segments on the targets whose commit is yet to be answered
  uint32_t reserve_next = 1;         // how many to ask for next time
  Mutex reserving;

  void abandon_reservations() {
    for (const Reservation& one : reservations) abandoned.push_back(one.segment);
    reservations.clear();
  }

  // Remembers that the grant ended (down to keep) for every request now in flight.
  void end_grant(GrantId grant, GrantKind keep);
  [[nodiscard]] bool claims_under_way() const { return reopening.locked(); }
  // What is left of a grant that request `number` brought.
  [[nodiscard]] GrantKind still(const Grant& grant, uint64_t number) const;
};
using ClientSessionRef = std::shared_ptr<ClientSession>;

// kStale answers in a row under grants that we believe in. Each new leader refuses what was under way to the last one,
// so often as they change: they count by leader.
class Refusals {
 public:
  // One more. True: this leader has refused so often that it is believed.
  [[nodiscard]] bool too_often(PartitionEpoch leader) {
    if (std::exchange(leader_, leader) != leader) count_ = 0;
    return ++count_ > kMost;
  }
  void forget() { count_ = 0; }

 private:
  static constexpr uint32_t kMost = 3;
  uint32_t count_ = 0;
  PartitionEpoch leader_;
};

// One mutation's sequence number, for as long as its answer is awaited.
class Sequence {
 public:
  explicit Sequence(ClientSessionRef session);  // a free ticket was acquired
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();
  [[nodiscard]] Ticket ticket() const;

 private:
  ClientSessionRef session_;
  uint64_t number_;
};

class GrantRequest {
 public:
  explicit GrantRequest(ClientSessionRef session);
  GrantRequest(const GrantRequest&) = delete;
  GrantRequest& operator=(const GrantRequest&) = delete;
  ~GrantRequest();
  [[nodiscard]] const ClientSessionRef& session() const { return session_; }
  [[nodiscard]] uint64_t number() const { return number_; }

 private:
  ClientSessionRef session_;
  uint64_t number_;
};

class ClientSessions {
 public:
  static constexpr Nanos kPatience = seconds(60);  // a node restart looks like a pause
  static constexpr Nanos kGoOnPatience = seconds(5);

  // All outlive this, the scope ends first.
  ClientSessions(Env env, PartitionPort& port, ClientId client, Scope& scope)
      : env_(env), port_(port), client_(client), scope_(scope) {}

  [[nodiscard]] ClientId client() const { return client_; }

  // Set before use. claims: all grants held under the session. on_lost: it is over, with everything
  // under it. on_expired: its lease ran out and may come back; what the kernel caches under it must
  // go meanwhile.
  std::function<std::vector<Grant>(const ClientSession&)> claims;
  std::function<void(ClientSessionRef)> on_lost;
  std::function<void(ClientSessionRef)> on_expired;

  // Follows leader changes; until the scope ends.
  void start();

  [[nodiscard]] Task<Result<ClientSessionRef>> of(Slot slot);
  [[nodiscard]] std::vector<ClientSessionRef> all() const;
  [[nodiscard]] bool alive(const ClientSession& session) const {
    return !session.lost && env_.clock.now() < session.valid_until;
  }
  // Takes over a session of this client's predecessor, which asks nothing under it any more. kStale: it has ended.
  [[nodiscard]] Task<Result<void>> go_on(ClientHandover::Session from);
  // Re-opens with claims. False: it is over (on_lost was told). True also when nobody answered.
  [[nodiscard]] Task<bool> reopen(ClientSessionRef session);
  [[nodiscard]] Task<void> close_all();

  // With a fresh ticket, exactly once. kIo when the session ended before the outcome was known.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> mutate(Slot slot, Req request) {
    HR_CO_TRY(ClientSessionRef session, co_await of(slot));
    co_return co_await mutate_under(std::move(session), std::move(request));
  }
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> mutate_under(ClientSessionRef session, Req request,
                                                               Nanos patience = kPatience);
  // Exactly as it is, by whoever leads, for at most kPatience; answers kStale under a new leader before claims.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(PartitionId partition, Req request) {
    return port_.call(partition, std::move(request), {.timeout = kPatience});
  }
  // Not a mutation, repeatable; request.session is set where there is one. One new session is
  // tried.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> ask_under(ClientSessionRef session, Req request,
                                                            Nanos patience = kPatience);

 private:
  [[nodiscard]] Task<Result<ClientSessionRef>> open(PartitionId partition);
  [[nodiscard]] Task<void> keep_alive(ClientSessionRef session);
  [[nodiscard]] Task<void> renew(ClientSessionRef session);
  [[nodiscard]] Task<void> reopen_in_background(ClientSessionRef session);
  [[nodiscard]] Task<void> watch_leaders();
  [[nodiscard]] PartitionEpoch epoch_of(PartitionId partition) const;
  [[nodiscard]] Error ended(const ClientSession& session) const;
  void lose(const ClientSessionRef& session);

  Env env_;
  PartitionPort& port_;
  ClientId client_;
  Scope& scope_;
  std::map<PartitionId, ClientSessionRef> sessions_;
  std::map<PartitionId, std::shared_ptr<Mutex>> opening_;
};

template <class Req>
Task<Result<typename Req::Reply>> ClientSessions::mutate_under(ClientSessionRef session, Req request, Nanos patience) {
  co_await session->free_tickets.acquire();
  Sequence sequence(session);
  request.ticket = sequence.ticket();
  for (int attempt = 0;; ++attempt) {
    Result<typename Req::Reply> reply = co_await port_.call(session->partition, request, {.timeout = patience});
    if (reply.code() != Code::kStale || attempt == 2) co_return reply;
    bool alive = co_await reopen(session);
    if (!alive) co_return ended(*session);
  }
}

template <class Req>
Task<Result<typename Req::Reply>> ClientSessions::ask_under(ClientSessionRef session, Req request, Nanos patience) {
  if constexpr (requires { request.session; }) request.session = session->id;
  for (int attempt = 0;; ++attempt) {
    Result<typename Req::Reply> reply = co_await port_.call(session->partition, request, {.timeout = patience});
    if (reply.code() != Code::kStale || attempt == 2) co_return reply;
    bool alive = co_await reopen(session);
    if (!alive) co_return reply;
  }
}

}  // namespace headrace
