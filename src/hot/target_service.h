// TargetService: the targets of one node, and the messages of proto/target.h answered for them.
//
// A target that could not be opened is known here too: it answers kUnavailable and its status says
// why. Where a secret is set, a client's fragment reads and writes need a capability for the bytes
// that they touch; nodes need none. A target whose device stands still keeps few calls waiting: the others of a channel
// must not wait behind them. Owner: the node; outlives the hub whose handlers it registered.
// Concurrency: one core.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hot/target.h"
#include "proto/capability.h"
#include "rpc/handlers.h"

namespace headrace {

class TargetService {
 public:
  explicit TargetService(Env env) : env_(env) {}

  // kInvalid when a target of this id is here already: one of the two is a copy.
  [[nodiscard]] Result<void> add(std::unique_ptr<Target> target);
  void add_failed(TargetId id, uint32_t number, std::string reason);
  // Takes it out of service (it was replaced); calls in progress keep it until they end.
  void remove(TargetId id);
  void set_secret(const NamespaceSecret& secret) { verifier_.emplace(secret); }

  void register_handlers(Handlers& handlers);

  [[nodiscard]] std::shared_ptr<Target> find(TargetId id) const;
  [[nodiscard]] std::vector<std::shared_ptr<Target>> targets() const;
  // Why it serves nothing: it failed to open, or is fenced. Nothing where it serves, or is not known.
  [[nodiscard]] std::optional<std::string> why_out(TargetId id) const;
  // Of every target, those that failed included.
  [[nodiscard]] std::vector<std::pair<TargetId, TargetStatusReply>> statuses() const;
  [[nodiscard]] Task<void> close();  // all of them, at once

 private:
  struct Failed {
    uint32_t number = 0;
    std::string reason;
  };
  [[nodiscard]] Result<std::shared_ptr<Target>> serving(TargetId id) const;
  // kUnavailable where too many wait for it already.
  [[nodiscard]] Result<void> may_wait(const Target& target);
  [[nodiscard]] Result<void> allow(const CallInfo& call, SegmentId segment, uint64_t begin, uint64_t end, Right right);
  static Task<void> close_one(std::shared_ptr<Target> target);

  Task<Result<Empty>> fragment_write(FragmentWrite request, CallInfo call);
  Task<Result<FragmentReadReply>> fragment_read(FragmentRead request, CallInfo call);
  Task<Result<Empty>> fragment_free(FragmentFree request, CallInfo call);
  Task<Result<InventoryReply>> inventory(Inventory request, CallInfo call);
  Task<Result<TargetStatusReply>> status(TargetStatus request, CallInfo call);
  Task<Result<Empty>> journal_open(JournalOpen request, CallInfo call);
  Task<Result<Empty>> journal_append(JournalAppend request, CallInfo call);
  Task<Result<JournalSealReply>> journal_seal(JournalSeal request, CallInfo call);
  Task<Result<JournalReadReply>> journal_read(JournalRead request, CallInfo call);
  Task<Result<Empty>> journal_trim(JournalTrim request, CallInfo call);

  Env env_;
  std::optional<CapabilityVerifier> verifier_;
  std::map<TargetId, std::shared_ptr<Target>> targets_;
  std::map<TargetId, Failed> failed_;
  std::map<TargetId, size_t> waiting_;  // calls, by target; an entry stays
};

// The bytes of the segment that a range of one of its fragments tells something about; what a
// capability must cover.
[[nodiscard]] std::pair<uint64_t, uint64_t> segment_range(Protection protection, uint64_t segment_length, uint8_t index,
                                                          uint64_t offset, uint64_t length);

}  // namespace headrace
