#include "meta/ops/sessions.h"

#include "meta/ops/data.h"
#include "meta/ops/steps.h"

namespace headrace {

namespace {

struct AcquireOp {
  using Reply = GrantAcquireReply;
  GrantAcquire request;
  Task<Result<GrantAcquireReply>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    HR_CO_TRY(co_await (request.kind == GrantKind::kWrite ? txn.exclude(request.file) : txn.share(request.file)));
    // Its own grant may be on its way back just now: what is given then would be lost with it.
    co_await partition.grants().settled(request.session, request.file);
    HR_CO_TRY(InodeRow row, co_await inode_of(txn, request.file));
    GrantAcquireReply reply;
    reply.attributes = row.attributes;
    if (row.attributes.type == FileType::kDirectory) reply.entries = row.entries;
    reply.no_xattrs = row.xattrs == 0;
    co_return reply;
  }
};

struct KeepOp {
  using Reply = Empty;
  OpenKept request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<Empty>> run(Transaction& txn) {
    HR_CO_TRY(InodeRow row, co_await inode_of(txn, request.file));
    HR_CO_TRY(co_await check_removal(txn, row.attributes));
    txn.put(kept_key(request.file, request.ticket.session), "");
    co_return Empty{};
  }
};

struct ForgetOp {
  using Reply = Empty;
  Forget request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<Empty>> run(Transaction& txn) {
    for (FileId file : request.files) txn.erase(kept_key(file, request.ticket.session));
    txn.on_commit([&p = txn.partition()] { p.reap_soon(); });
    co_return Empty{};
  }
};

}  // namespace

void give_at_commit(Transaction& txn, FileId file, GrantKind kind, std::shared_ptr<std::optional<Grant>> out) {
  // The next leader must know of whoever holds one: it waits for those it knows before it gives another.
  txn.lists_session();
  txn.on_commit([&txn, file, kind, out] {
    Partition& partition = txn.partition();
    Grants& grants = partition.grants();
    SessionId session = txn.session();
    const Session* listed = partition.sessions().find(session);
    if (partition.closing() || listed == nullptr || !listed->journaled) return;
    if (grants.conflict(file, session, kind) || grants.being_recalled(session, file)) return;
    *out = grants.give(session, file, kind);
  });
}

Task<Result<SessionOpenReply>> handle(Partition& partition, SessionOpen request, CallInfo info) {
  if (!partition.serving()) co_return Error(Code::kNotLeader, partition.state());
  if (partition.closing()) co_return Error(Code::kUnavailable, "the namespace is being spun down");
  SessionOpenReply reply;
  if (request.again) {
    HR_CO_TRY(Session * session, co_await partition.session(request.again, info));
    if (session->client != request.client) co_return Error(Code::kStale, "the session belongs to another client");
    // A late duplicate of a claim that was taken must not compare its old list with what the session holds now.
    if (session->claimed) {
      reply.session = session->id;
      co_return reply;
    }
    for (const Grant& grant : request.claims) {
      if (partition.grants().claim(session->id, grant)) continue;
      co_await partition.evict(request.again, "claimed a grant that another client holds");
      co_return Error(Code::kStale, "a grant of the session was given to another client");
    }
    partition.claim_made(*session);
    reply.session = session->id;
    co_return reply;
  }
  Session& session = partition.sessions().add(SessionId(partition.context().env.random.nonzero()), request.client);
  session.lease_end = partition.context().env.clock.now() + partition.context().options.lease;
  if (info.channel) session.channel = info.channel;
  reply.session = session.id;
  co_return reply;
}

Task<Result<Empty>> handle(Partition& partition, SessionRenew request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.session, info));
  co_return Empty{};
}

Task<Result<Empty>> handle(Partition& partition, SessionClose request, CallInfo) {
  co_await partition.evict(request.session, "");
  co_return Empty{};
}

Task<Result<GrantAcquireReply>> handle(Partition& partition, GrantAcquire request, CallInfo info) {
  for (;;) {
    HR_CO_TRY(co_await partition.session(request.session, info));
    HR_CO_TRY(partition.may_mutate());
    if (partition.closing()) co_return Error(Code::kUnavailable, "the namespace is being spun down");
    Transaction txn(partition, request.session);
    AcquireOp op{request};
    Result<GrantAcquireReply> reply = co_await op.run(txn);
    if (!reply.ok() && partition.outdated(txn)) continue;
    if (!reply.ok()) co_return reply;
    auto given = std::make_shared<std::optional<Grant>>();
    give_at_commit(txn, request.file, request.kind, given);
    Position at;
    if (!partition.commit(txn, at)) continue;
    HR_CO_TRY(co_await partition.wait_durable(at));
    if (!given->has_value()) continue;  // the session ended, or a recall began meanwhile
    reply->grant = **given;
    co_return reply;
  }
}

Task<Result<Empty>> handle(Partition& partition, GrantRelease request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.session, info));
  for (GrantId grant : request.grants) partition.grants().release(request.session, grant);
  co_return Empty{};
}

Task<Result<Empty>> handle(Partition& partition, OpenKept request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(KeepOp{std::move(request)});
}

Task<Result<Empty>> handle(Partition& partition, Forget request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(ForgetOp{std::move(request)});
}

}  // namespace headrace
