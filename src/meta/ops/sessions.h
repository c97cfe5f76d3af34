// Sessions and grants as clients ask for them. See meta/sessions.h, meta/grants.h.
#pragma once

#include "meta/partition.h"

namespace headrace {

[[nodiscard]] Task<Result<SessionOpenReply>> handle(Partition& partition, SessionOpen request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, SessionRenew request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, SessionClose request, CallInfo info);
[[nodiscard]] Task<Result<GrantAcquireReply>> handle(Partition& partition, GrantAcquire request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, GrantRelease request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, OpenKept request, CallInfo info);
[[nodiscard]] Task<Result<Empty>> handle(Partition& partition, Forget request, CallInfo info);

// Gives `session` a grant on the file when the transaction commits, if nothing is in the way then; what was given is in
// *out. For grants that come along with another reply: nobody is recalled for them.
void give_at_commit(Transaction& txn, FileId file, GrantKind kind, std::shared_ptr<std::optional<Grant>> out);

}  // namespace headrace
