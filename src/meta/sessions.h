// Sessions: the standing of clients with one partition. Durable as rows from the first grant or mutation on; their
// leases, channels and in-flight mutations are in memory.
//
// Exactly once: a mutation's result row is in the same record as its change; the same ticket again gets that result,
// waits for the one that is running, or runs (when the first never took effect). Results below the client's
// lowest unanswered sequence are forgotten with the next change of the session; what still comes with such a sequence
// is a late duplicate of an answered mutation, and refused.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "meta/keys.h"
#include "proto/meta.h"
#include "rpc/hub.h"
#include "runtime/env.h"
#include "runtime/sync.h"

namespace headrace {

struct Session {
  SessionId id;
  ClientId client;
  std::weak_ptr<Channel> channel;  // the client's last connection, for recalls
  Nanos lease_end{};
  bool claimed = true;              // false after a leader change until the client came back
  bool journaled = false;           // from its first grant or mutation on
  Position journaled_at;            // nothing of it is answered before that is durable
  std::map<uint64_t, Key> results;  // sequence → its result row
  uint64_t answered = 0;            // mutations below this sequence were answered
  // What others were answered that changed nothing (an error, a lock that is not to be had): a late duplicate might,
  // by now.
  std::map<uint64_t, ResultRow> unchanged;
  std::map<uint64_t, std::shared_ptr<Event>> running;
  std::set<FileId> kept;  // files it has open
  std::map<SegmentId, Placement> reserved;
  uint32_t written = 0;  // of those, as the client last said: filled on the targets, not yet committed
};

class Sessions {
 public:
  [[nodiscard]] Session* find(SessionId id) {
    auto it = sessions_.find(id);
    return it == sessions_.end() ? nullptr : it->second.get();
  }
  Session& add(SessionId id, ClientId client) {
    auto session = std::make_unique<Session>();
    session->id = id;
    session->client = client;
    Session& added = *session;
    sessions_[id] = std::move(session);
    return added;
  }
  void remove(SessionId id) { sessions_.erase(id); }
  [[nodiscard]] size_t size() const { return sessions_.size(); }
  [[nodiscard]] std::vector<SessionId> ids() const {
    std::vector<SessionId> out;
    for (const auto& [id, session] : sessions_) out.push_back(id);
    std::sort(out.begin(), out.end());
    return out;
  }
  // Is a segment reserved to anyone?
  [[nodiscard]] bool reserved(const SegmentId& segment) const {
    for (const auto& [id, session] : sessions_)
      if (session->reserved.contains(segment)) return true;
    return for_work_.contains(segment);
  }
  // Segments that nodes' workers fill, until they are recorded or `until` (which outlasts any such work) has passed.
  // `by` tells one node from another (its channel, none within this process): each has at most one worker at a segment,
  // whose second request is the first one's repetition.
  void reserve_for_work(const SegmentId& segment, Nanos until, const void* by) {
    Work& work = for_work_[segment];
    work.until = until;
    work.by.insert(by);
  }
  // A worker gives up. What another has as well stays that one's.
  void abandon_work(const SegmentId& segment, const void* by) {
    auto at = for_work_.find(segment);
    if (at != for_work_.end() && at->second.by.erase(by) > 0 && at->second.by.empty()) for_work_.erase(at);
  }
  [[nodiscard]] bool reserved_for_work(const SegmentId& segment) const { return for_work_.contains(segment); }
  // A dropped segment whose fragments are being freed: until every target has said so it gets no new ones, or they
  // would be freed as well. False: it is being freed already.
  [[nodiscard]] bool freeing(const SegmentId& segment) { return freeing_.emplace(segment, Nanos{INT64_MAX}).second; }
  void freed(const SegmentId& segment) { freeing_.erase(segment); }
  void maybe_freeing(const SegmentId& segment, Nanos until) { freeing_[segment] = until; }  // no request outlasts that
  [[nodiscard]] bool is_freeing(const SegmentId& segment) const { return freeing_.contains(segment); }
  // What is past its time.
  void forget_old(Nanos now) {
    std::erase_if(for_work_, [now](const auto& item) { return item.second.until < now; });
    std::erase_if(freeing_, [now](const auto& item) { return item.second < now; });
  }
  void work_done(const SegmentId& segment) { for_work_.erase(segment); }
  [[nodiscard]] size_t work_reserved() const { return for_work_.size(); }
  [[nodiscard]] size_t reservations() const {
    size_t n = for_work_.size();
    for (const auto& [id, session] : sessions_) n += session->reserved.size();
    return n;
  }
  // Reserved, and as far as is known not yet on the targets.
  [[nodiscard]] size_t unwritten_reservations() const {
    size_t n = for_work_.size();
    for (const auto& [id, session] : sessions_)
      n += session->reserved.size() - std::min<size_t>(session->written, session->reserved.size());
    return n;
  }

 private:
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  struct Work {
    Nanos until{};
    std::set<const void*> by;
  };
  std::map<SegmentId, Work> for_work_;
  std::map<SegmentId, Nanos> freeing_;
};

}  // namespace headrace
