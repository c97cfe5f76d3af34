#include "meta/journal/journal.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/fault_point.h"
#include "runtime/when_all.h"
#include "stripe/placement_policy.h"

namespace headrace {

namespace {
constexpr Nanos kAppendPatience = seconds(60);
constexpr Nanos kWidenAgain = seconds(5);
constexpr Nanos kRecordPatience = seconds(10);
constexpr size_t kMostUntrimmed = 256;
constexpr int kTailAttempts = 4;
constexpr const char* kBringBack =
    ": bring back one of its targets, or the namespace as it was published last, from its bucket, with `headrace "
    "rehydrate`";

Position before(Position p) {
  return Position(p.value() - 1);
}
Position after(Position p) {
  return Position(p.value() + 1);
}
bool has(const std::vector<TargetId>& list, TargetId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}
}  // namespace

Journal::Journal(Env env, TargetPort& targets, Coordinator& coordinator, Options options)
    : env_(env), targets_(targets), coordinator_(coordinator), options_(options) {}

CallOptions Journal::call_options(Nanos timeout) const {
  CallOptions options;
  options.timeout = timeout;
  options.partition = options_.partition;
  options.partition_epoch = record_.epoch;
  return options;
}

Task<Result<void>> Journal::put_record(PartitionRecord next) {
  std::string key = partition_key(options_.partition.value());
  std::string value = encode_durable(next);
  const std::string whose = "partition " + std::to_string(options_.partition.value()) + " record";
  const Nanos deadline = env_.clock.now() + kRecordPatience;
  bool maybe = false;  // an attempt may have been written, or may be yet
  for (;;) {
    Result<uint64_t> version = co_await coordinator_.put(key, value, version_);
    if (!version.ok() && (version.code() != Code::kConflict || maybe)) {
      Result<CoordRecord> there = co_await coordinator_.get(key);
      if (there.ok() && there->value == value) {
        version = there->version;
      } else if (!there.ok() || (there->version == version_ && version.error().retry() == Retry::kOutcomeUnknown)) {
        // Going on as if it were not there would acknowledge what the record does not name.
        maybe = true;
        if (env_.clock.now() >= deadline)
          co_return Error(Code::kConflict, whose + ": whether it was written is unknown: " + version.error().message());
        co_await env_.clock.sleep(milliseconds(200));
        continue;
      } else if (there->version != version_) {
        version = Error(Code::kConflict, "it changed under its leader");
      }
    }
    if (!version.ok()) co_return std::move(version).error().within(whose);
    version_ = *version;
    break;
  }
  record_ = std::move(next);
  co_return {};
}

Task<Result<std::vector<JournalRecord>>> Journal::take_over() {
  std::string key = partition_key(options_.partition.value());
  HR_CO_TRY(CoordRecord there, co_await coordinator_.get(key));
  if (there.version == 0) co_return Error(Code::kNotFound, key + " is not in the coordinator");
  HR_CO_TRY(record_, decode_durable<PartitionRecord>(there.value));
  version_ = there.version;
  PartitionRecord mine = record_;
  mine.leader = options_.self;
  mine.epoch = PartitionEpoch(record_.epoch.value() + 1);
  HR_CO_TRY(co_await put_record(mine));

  std::set<TargetId> all;
  for (const RunRecord& run : record_.runs) all.insert(run.copies.begin(), run.copies.end());
  for (const TargetInfo& target : targets_.view().map().targets)
    if (target.state == TargetState::kLive || target.state == TargetState::kDraining) all.insert(target.id);
  std::vector<TargetId> order(all.begin(), all.end());
  std::vector<Task<Result<JournalSealReply>>> calls;
  for (TargetId target : order) calls.push_back(targets_.call(JournalSeal{target}, call_options(seconds(10))));
  std::vector<Result<JournalSealReply>> replies = co_await when_all(std::move(calls));
  std::vector<Sealed> sealed;
  for (size_t i = 0; i < order.size(); ++i) {
    if (replies[i].ok()) sealed.push_back({order[i], replies[i]->runs});
    if (replies[i].code() == Code::kDeposed) co_return std::move(replies[i]).error();
  }
  co_await forget_unnamed(sealed);
  HR_CO_TRY(std::vector<JournalRecord> tail, co_await read_tail(std::move(sealed)));

  Position end = tail.empty() ? record_.checkpoint_at : tail.back().position;
  RunId predecessor = record_.runs.empty() ? RunId() : record_.runs.back().run;
  std::vector<TargetId> failed;
  RunRecord run;
  for (int attempt = 1;; ++attempt) {
    HR_CO_TRY(run, co_await open_run(after(record_.checkpoint_at), predecessor, failed));
    Result<void> written = co_await write_tail(run, tail, failed);
    if (written.ok()) break;
    if (written.code() == Code::kDeposed || attempt == kTailAttempts) co_return std::move(written).error();
    forget_later(run);
  }
  PartitionRecord next = record_;
  std::vector<RunRecord> dead = next.runs;
  next.runs = {run};
  next.sealed_end = end;
  HR_CO_TRY(co_await put_record(std::move(next)));
  co_await trim(std::move(dead), Position(0));
  co_return tail;
}

Task<Result<void>> Journal::write_tail(RunRecord run, const std::vector<JournalRecord>& tail,
                                       std::vector<TargetId>& failed) {
  bytes_ = 0;
  for (size_t i = 0; i < tail.size();) {
    std::string batch;
    Position first = tail[i].position;
    Position last = first;
    for (; i < tail.size() && batch.size() < options_.batch_bytes; ++i) {
      append_record(tail[i], batch);
      last = tail[i].position;
    }
    bytes_ += batch.size();
    HR_CO_TRY(co_await append_to(run, Buffer::copy_of(bytes_of(batch)), first, last, failed));
  }
  co_return {};
}

Task<Result<std::vector<JournalRecord>>> Journal::read_tail(std::vector<Sealed> sealed) {
  std::vector<JournalRecord> tail;
  Position next = after(record_.checkpoint_at);
  Position acknowledged;
  std::vector<RunRecord> runs = record_.runs;
  for (size_t i = 0; i < runs.size(); ++i) {
    // A run ends where its record says, or where the next one begins: nothing behind that was ever acknowledged in it.
    Position end = runs[i].end;
    if (i + 1 < runs.size()) end = before(runs[i + 1].first);
    if (end && end < next) continue;
    runs[i].end = end;
    HR_CO_TRY(co_await read_run(runs[i], sealed, next, acknowledged, tail));
    if (end && next <= end)
      co_return Error(Code::kCorrupt, "journal run " + hex(runs[i].run.value()) + " ends at " +
                                          std::to_string(next.value() - 1) + " but was acknowledged up to " +
                                          std::to_string(end.value()) + ": bring back one of its targets");
  }
  if (next <= acknowledged)
    co_return Error(Code::kCorrupt, "journal record " + std::to_string(next.value()) +
                                        " was acknowledged but no copy of it can be read" + kBringBack);
  co_return tail;
}

// What an answering copy sealed and cannot be read now may have been acknowledged. A read that may answer another time
// ends the start; where a copy says that it is damaged, or lacks what comes next, the others say whether all had it.
Task<Result<void>> Journal::read_run(RunRecord run, const std::vector<Sealed>& sealed, Position& next,
                                     Position& acknowledged, std::vector<JournalRecord>& out) {
  const std::string name = "journal run " + hex(run.run.value());
  std::vector<Copy> copies;
  for (TargetId target : run.copies)
    for (const Sealed& s : sealed)
      if (s.target == target)
        for (const RunSummary& r : s.runs) {
          if (r.run != run.run) continue;
          // Appends follow one another: what a valid batch lies behind was acknowledged, unreadable or not.
          const bool damaged = r.damaged && !(run.end && r.last >= run.end);
          if (damaged) acknowledged = std::max(acknowledged, after(r.last));
          copies.push_back({target, r.first, run.end ? std::min(r.last, run.end) : r.last, damaged, {}});
        }
  if (copies.empty())
    co_return Error(Code::kUnavailable,
                    "no copy of " + name + " answers: start the nodes of its targets, or bring one target back");
  // Each copy goes on where the ones before it ended: the result is the longest prefix over all.
  for (bool again = true; again;) {
    again = false;
    for (Copy& copy : copies) {
      const Position from = next;
      copy.failed = co_await read_copy(run, copy, next, acknowledged, out);
      again = again || next > from;
    }
    again = again && std::ranges::any_of(copies, [&](const Copy& copy) { return next <= copy.last; });
  }
  bool all = true;
  for (Copy& copy : copies) {
    if (next <= copy.last && copy.failed.code() != Code::kCorrupt)
      co_return Error(Code::kUnavailable, name + " cannot be read from position " + std::to_string(next.value()) +
                                              ": " + copy.failed.error().message());
    all = all && (copy.damaged || next <= copy.last);
  }
  if (!all) co_return {};
  for (Copy& copy : copies)
    if (next <= copy.last)
      co_return Error(Code::kCorrupt, "journal record " + std::to_string(next.value()) +
                                          " may have been acknowledged but no copy of it can be read (" +
                                          copy.failed.error().message() + ")" + kBringBack);
  co_return {};
}

// Up to where the copy was sealed.
Task<Result<void>> Journal::read_copy(RunRecord run, Copy copy, Position& next, Position& acknowledged,
                                      std::vector<JournalRecord>& out) {
  const std::string name = "run " + hex(run.run.value()) + " of target " + hex(copy.target.value());
  while (next <= copy.last) {
    if (copy.first > next) co_return Error(Code::kCorrupt, name + " begins at " + std::to_string(copy.first.value()));
    HR_CO_TRY(JournalReadReply reply, co_await targets_.call(JournalRead{copy.target, run.run, next,
                                                                         static_cast<uint32_t>(options_.batch_bytes)},
                                                             call_options(seconds(10))));
    const Position from = next;
    for (const JournalBatch& batch : reply.batches) {
      Result<std::vector<JournalRecord>> records = decode_records(batch.bytes.view(), options_.partition);
      if (!records.ok()) break;
      for (JournalRecord& record : *records) {
        acknowledged = std::max(acknowledged, record.acknowledged);
        if (record.position != next || next > copy.last) continue;
        out.push_back(std::move(record));
        next = after(next);
      }
    }
    if (next == from) co_return Error(Code::kCorrupt, name + " has no valid record there");
  }
  co_return {};
}

Task<Result<RunRecord>> Journal::open_run(Position first, RunId predecessor, std::vector<TargetId> avoid) {
  Error last(Code::kUnavailable, "no targets");
  for (int attempt = 0; attempt < 4; ++attempt) {
    const ClusterMap& map = targets_.view().map();
    Result<std::vector<TargetId>> copies = choose_copies(map, options_.copies, env_.random, avoid);
    if ((!copies.ok() || copies->size() < options_.copies) && avoid.size() >= options_.copies) {
      // More fail than may be lost: the few that are left would hold alone what they acknowledge. All of a whole run,
      // then, or none.
      avoid.clear();
      copies = choose_copies(map, options_.copies, env_.random);
    }
    // When those that are up have all refused, why they did says more than that none is left.
    if (!copies.ok())
      co_return attempt == 0 ? std::move(copies).error() : std::move(last).within("opening a journal run");
    RunRecord run;
    // Of this partition alone: a target holds runs of many by their id.
    constexpr uint64_t kLow24 = 0xff'ffff;
    run.run = RunId(uint64_t{options_.partition.value()} << 48 | (record_.epoch.value() & kLow24) << 24 |
                    (next_run_++ & kLow24));
    run.first = first;
    run.copies = *copies;
    JournalAbout about;
    about.name_space = targets_.view().map().name_space;
    about.namespace_epoch = targets_.view().map().namespace_epoch;
    about.partition = options_.partition;
    about.first_slot = record_.first_slot;
    about.last_slot = record_.last_slot;
    about.epoch = record_.epoch;
    about.run = run.run;
    about.predecessor = predecessor;
    about.first = first;
    about.copies = run.copies;
    std::vector<Task<Result<Empty>>> calls;
    for (TargetId target : run.copies)
      calls.push_back(
          targets_.call(JournalOpen{target, run.run, first, encode_durable(about)}, call_options(seconds(10))));
    std::vector<Result<Empty>> replies = co_await when_all(std::move(calls));
    bool all = true;
    for (size_t i = 0; i < replies.size(); ++i) {
      if (replies[i].ok()) continue;
      if (replies[i].code() == Code::kDeposed) co_return std::move(replies[i]).error();
      all = false;
      last = std::move(replies[i]).error();
      avoid.push_back(run.copies[i]);
    }
    if (all) {
      if (run.copies.size() < options_.copies) degraded_ = true;
      co_return run;
    }
  }
  co_return std::move(last).within("opening a journal run");
}

Task<Result<void>> Journal::append_to(RunRecord run, Buffer batch, Position first, Position last,
                                      std::vector<TargetId>& failed) {
  std::vector<Task<Result<Empty>>> calls;
  for (TargetId target : run.copies)
    calls.push_back(
        targets_.call(JournalAppend{target, run.run, first, last, batch}, call_options(options_.append_timeout)));
  std::vector<Result<Empty>> replies = co_await when_all(std::move(calls));
  std::optional<Error> error;
  for (size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].ok()) continue;
    if (replies[i].code() == Code::kDeposed) co_return std::move(replies[i]).error();
    failed.push_back(run.copies[i]);
    error = std::move(replies[i]).error();
  }
  bool enough = mutant("ack_one_copy_less") && failed.size() < 2;
  if (error && !enough) co_return std::move(*error).within("journal append");
  co_return {};
}

Task<Result<void>> Journal::append(std::string batch, Position first, Position last) {
  Buffer bytes = Buffer::adopt(std::move(batch));
  bytes_ += bytes.size();
  Nanos deadline = env_.clock.now() + kAppendPatience;
  Nanos pause = milliseconds(20);
  if (may_widen() && env_.clock.now() >= widen_at_) {
    // Opened while targets were away: a full run takes over as soon as one is to be had.
    widen_at_ = env_.clock.now() + kWidenAgain;
    Result<void> wider = co_await close_and_reopen(first, {});
    if (wider.code() == Code::kDeposed || wider.code() == Code::kConflict)
      co_return Error(Code::kDeposed, wider.error().message());
  }
  for (;;) {
    std::vector<TargetId> failed;
    Result<void> done = co_await append_to(record_.runs.back(), bytes, first, last, failed);
    if (done.ok() || done.code() == Code::kDeposed) co_return done;
    if (env_.clock.now() > deadline) co_return std::move(done).error();
    Result<void> reopened = co_await close_and_reopen(first, std::move(failed));
    if (reopened.code() == Code::kDeposed || reopened.code() == Code::kConflict)
      co_return Error(Code::kDeposed, reopened.error().message());
    if (!reopened.ok()) {
      co_await env_.clock.sleep(pause);
      pause = std::min(pause * 2, seconds(2));
    }
  }
}

Task<Result<void>> Journal::close_and_reopen(Position first, std::vector<TargetId> failed) {
  HR_CO_TRY(RunRecord run, co_await open_run(first, record_.runs.back().run, std::move(failed)));
  const Mutex::Guard alone = co_await recording_.lock();
  PartitionRecord next = record_;
  RunRecord old = next.runs.back();
  const bool empty = old.first == first;  // nothing in it was ever acknowledged
  if (empty)
    next.runs.pop_back();
  else
    next.runs.back().end = before(first);
  next.runs.push_back(run);
  Result<void> named = co_await put_record(std::move(next));
  // Of the two, the one that no record names goes. Where it is not known which, nothing is recorded, or forgotten, any
  // more: the next put finds another record than it expects.
  if (!named.ok())
    forget_later(std::move(run));
  else if (empty)
    forget_later(std::move(old));
  if (!named.ok()) co_return named;
  degraded_ = true;
  co_return {};
}

void Journal::forget_later(RunRecord run) {
  if (untrimmed_.size() < kMostUntrimmed) untrimmed_.push_back(std::move(run));
}

// Runs of this partition that the record does not name: of leaders that ended between opening one and naming it, or
// naming another and forgetting it.
Task<void> Journal::forget_unnamed(const std::vector<Sealed>& sealed) {
  std::vector<Task<Result<Empty>>> calls;
  for (const Sealed& there : sealed) {
    JournalTrim request;
    request.target = there.target;
    for (const RunSummary& run : there.runs) {
      const bool named = std::ranges::any_of(record_.runs, [&](const RunRecord& r) { return r.run == run.run; });
      if (!named) request.forget.push_back(run.run);
    }
    if (!request.forget.empty()) calls.push_back(targets_.call(std::move(request), call_options(seconds(10))));
  }
  (void)co_await when_all(std::move(calls));  // refused or unanswered: the next leader's
}

// Whether a run on more targets, or off one that is to go, can be had.
bool Journal::may_widen() const {
  size_t now = record_.runs.empty() ? options_.copies : record_.runs.back().copies.size();
  size_t live = 0;
  if (!record_.runs.empty())
    for (TargetId copy : record_.runs.back().copies) {
      const TargetInfo* info = targets_.view().map().target(copy);
      if (info != nullptr && info->state == TargetState::kDraining) return true;
    }
  for (const TargetInfo& target : targets_.view().map().targets) live += target.state == TargetState::kLive ? 1 : 0;
  return now < options_.copies && live > now;
}

Task<Result<void>> Journal::checkpointed(CheckpointPointer pointer) {
  std::vector<RunRecord> dead;
  {
    const Mutex::Guard alone = co_await recording_.lock();
    PartitionRecord next = record_;
    next.checkpoint = pointer.segment;
    next.checkpoint_length = pointer.length;
    next.checkpoint_copies = pointer.copies;
    next.checkpoint_at = pointer.at;
    dead = untrimmed_;
    while (next.runs.size() > 1 && next.runs.front().end && next.runs.front().end <= pointer.at) {
      dead.push_back(next.runs.front());
      next.runs.erase(next.runs.begin());
    }
    HR_CO_TRY(co_await put_record(std::move(next)));
    untrimmed_.clear();
  }
  if (record_.runs.size() == 1 && record_.runs.back().copies.size() >= options_.copies) degraded_ = false;
  bytes_ = 0;
  co_await trim(std::move(dead), after(pointer.at));
  co_return {};
}

Task<void> Journal::trim(std::vector<RunRecord> dead, Position below) {
  std::set<TargetId> all;
  for (const RunRecord& run : dead) all.insert(run.copies.begin(), run.copies.end());
  const RunRecord current = record_.runs.back();
  all.insert(current.copies.begin(), current.copies.end());
  for (TargetId target : all) {
    JournalTrim request;
    request.target = target;
    for (const RunRecord& run : dead)
      if (has(run.copies, target)) request.forget.push_back(run.run);
    if (below.value() > 0 && has(current.copies, target)) {
      request.run = current.run;
      request.below = below;
    }
    if (request.forget.empty() && !request.run) continue;
    Result<Empty> done = co_await targets_.call(request, call_options(seconds(5)));
    if (done.ok()) continue;
    // The target is away: what it keeps is forgotten at a later checkpoint, by run id.
    for (const RunRecord& run : dead)
      if (has(run.copies, target)) {
        RunRecord left = run;
        left.copies = {target};
        forget_later(std::move(left));
      }
  }
}

}  // namespace headrace
