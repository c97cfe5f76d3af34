// Grants: who may cache or change what without asking. In memory; after a leader change clients claim theirs again.
//
// Per file: any number of read grants, or one write grant (whose session may hold nothing else on it). Recalls of one
// grant are merged. A session that does not answer keeps its grants until its lease has run out, then is evicted:
// whoever waits gets on.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "proto/meta.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

class Grants {
 public:
  // Asks the holder to give a grant back (down to `keep`); returns when it did or was evicted.
  using RecallCall = std::function<Task<void>(SessionId session, Grant grant, GrantKind keep)>;
  Grants(Env env, RecallCall recall) : env_(env), recall_(std::move(recall)) {}

  // Gives a grant, raising one that the session holds: under a new id where a recall had lowered it. Caller made sure
  // that there is no conflict.
  Grant give(SessionId session, FileId file, GrantKind kind);
  // The same under the id that the client chose: a file that it made under a directory write grant.
  void give_as(SessionId session, Grant grant);
  // Gives what a session had before a leader change, id included; false when it conflicts.
  [[nodiscard]] bool claim(SessionId session, Grant grant);
  [[nodiscard]] bool conflict(FileId file, SessionId asking, GrantKind kind) const;
  // Recalls what conflicts and waits for it, newly given ones too.
  [[nodiscard]] Task<void> clear(FileId file, SessionId asking, GrantKind kind);
  // The session was asked to give its grant on the file back and has not answered yet: nothing may be given to it on
  // it.
  [[nodiscard]] bool being_recalled(SessionId session, FileId file) const;
  [[nodiscard]] Task<void> settled(SessionId session, FileId file);
  [[nodiscard]] const Grant* held(SessionId session, FileId file) const;
  void release(SessionId session, GrantId grant);
  void drop_session(SessionId session);
  [[nodiscard]] std::vector<FileId> written() const;  // files that someone holds a write grant on
  [[nodiscard]] size_t count() const { return count_; }

 private:
  struct Holder {
    SessionId session;
    Grant grant;
    bool lowered = false;  // by a recall: what was sent under more is void
  };
  struct Recalling {
    Event done;
  };
  Task<void> recall_one(SessionId session, Grant grant, GrantKind keep);
  void erase_if_empty(FileId file);

  Env env_;
  RecallCall recall_;
  std::unordered_map<FileId, std::vector<Holder>> files_;
  std::unordered_map<SessionId, std::map<GrantId, FileId>> sessions_;
  std::map<GrantId, std::shared_ptr<Recalling>> recalling_;
  size_t count_ = 0;
};

}  // namespace headrace
