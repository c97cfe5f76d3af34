#include "meta/grants.h"

#include <algorithm>
#include <utility>

#include "base/fault_point.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {
bool conflicts(GrantKind held, GrantKind asked) {
  return held == GrantKind::kWrite || (asked == GrantKind::kWrite && held != GrantKind::kNone);
}
}  // namespace

Grant Grants::give(SessionId session, FileId file, GrantKind kind) {
  std::vector<Holder>& holders = files_[file];
  for (Holder& holder : holders) {
    if (holder.session != session) continue;
    if (kind > holder.grant.kind && std::exchange(holder.lowered, false)) {
      std::map<GrantId, FileId>& mine = sessions_[session];
      mine.erase(holder.grant.id);
      holder.grant.id = GrantId(env_.random.nonzero());
      mine[holder.grant.id] = file;
    }
    holder.grant.kind = std::max(holder.grant.kind, kind);
    return holder.grant;
  }
  Grant grant{file, kind, GrantId(env_.random.nonzero())};
  holders.push_back({session, grant});
  sessions_[session][grant.id] = file;
  ++count_;
  return grant;
}

void Grants::give_as(SessionId session, Grant grant) {
  std::vector<Holder>& holders = files_[grant.file];
  for (const Holder& holder : holders)
    if (holder.session == session) return;  // claimed again before it was made
  holders.push_back({session, grant});
  sessions_[session][grant.id] = grant.file;
  ++count_;
}

bool Grants::claim(SessionId session, Grant grant) {
  if (conflict(grant.file, session, grant.kind)) return false;
  std::vector<Holder>& holders = files_[grant.file];
  for (Holder& holder : holders)
    if (holder.session == session) return holder.grant.id == grant.id;
  holders.push_back({session, grant});
  sessions_[session][grant.id] = grant.file;
  ++count_;
  return true;
}

bool Grants::conflict(FileId file, SessionId asking, GrantKind kind) const {
  auto it = files_.find(file);
  if (it == files_.end()) return false;
  for (const Holder& holder : it->second)
    if (holder.session != asking && conflicts(holder.grant.kind, kind)) return true;
  return false;
}

Task<void> Grants::clear(FileId file, SessionId asking, GrantKind kind) {
  while (conflict(file, asking, kind)) {
    std::vector<Holder> holders = files_[file];
    Scope scope;
    for (const Holder& holder : holders) {
      if (holder.session == asking || !conflicts(holder.grant.kind, kind)) continue;
      GrantKind keep = kind == GrantKind::kRead ? GrantKind::kRead : GrantKind::kNone;
      scope.spawn(recall_one(holder.session, holder.grant, keep));
    }
    co_await scope.join();
  }
}

Task<void> Grants::recall_one(SessionId session, Grant grant, GrantKind keep) {
  auto it = recalling_.find(grant.id);
  if (it != recalling_.end()) {
    std::shared_ptr<Recalling> running = it->second;
    co_await running->done.wait();
    co_return;
  }
  auto mine = std::make_shared<Recalling>();
  recalling_[grant.id] = mine;
  struct Ran {  // also when the frame is destroyed: whoever waits for it asks again
    std::map<GrantId, std::shared_ptr<Recalling>>& recalling;
    GrantId id;
    std::shared_ptr<Recalling> mine;
    ~Ran() {
      recalling.erase(id);
      if (Scheduler::present()) mine->done.set();
    }
  };
  {
    const Ran ran{recalling_, grant.id, mine};
    if (!mutant("recall_not_awaited")) co_await recall_(session, grant, keep);
  }
  // The answer ended the grant down to `keep`.
  auto file = files_.find(grant.file);
  if (file != files_.end()) {
    for (Holder& holder : file->second)
      if (holder.session == session && holder.grant.id == grant.id) {
        holder.lowered = holder.lowered || keep < holder.grant.kind;
        holder.grant.kind = std::min(holder.grant.kind, keep);
      }
    if (keep == GrantKind::kNone) release(session, grant.id);
  }
}

bool Grants::being_recalled(SessionId session, FileId file) const {
  const Grant* grant = held(session, file);
  return grant != nullptr && recalling_.contains(grant->id);
}

Task<void> Grants::settled(SessionId session, FileId file) {
  while (being_recalled(session, file)) {
    std::shared_ptr<Recalling> running = recalling_[held(session, file)->id];
    co_await running->done.wait();
  }
}

const Grant* Grants::held(SessionId session, FileId file) const {
  auto it = files_.find(file);
  if (it == files_.end()) return nullptr;
  for (const Holder& holder : it->second)
    if (holder.session == session) return &holder.grant;
  return nullptr;
}

void Grants::release(SessionId session, GrantId grant) {
  auto mine = sessions_.find(session);
  if (mine == sessions_.end()) return;
  auto at = mine->second.find(grant);
  if (at == mine->second.end()) return;
  FileId file = at->second;
  mine->second.erase(at);
  if (mine->second.empty()) sessions_.erase(mine);
  std::erase_if(files_[file], [&](const Holder& h) { return h.session == session && h.grant.id == grant; });
  --count_;
  erase_if_empty(file);
}

void Grants::drop_session(SessionId session) {
  auto mine = sessions_.find(session);
  if (mine == sessions_.end()) return;
  std::map<GrantId, FileId> grants = std::move(mine->second);
  sessions_.erase(mine);
  for (const auto& [id, file] : grants) {
    std::erase_if(files_[file], [&](const Holder& h) { return h.session == session; });
    --count_;
    erase_if_empty(file);
  }
}

std::vector<FileId> Grants::written() const {
  std::vector<FileId> out;
  for (const auto& [file, holders] : files_)
    if (std::any_of(holders.begin(), holders.end(), [](const Holder& h) { return h.grant.kind == GrantKind::kWrite; }))
      out.push_back(file);
  std::sort(out.begin(), out.end());
  return out;
}

void Grants::erase_if_empty(FileId file) {
  auto it = files_.find(file);
  if (it != files_.end() && it->second.empty()) files_.erase(it);
}

}  // namespace headrace
