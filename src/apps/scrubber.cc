#include "apps/scrubber.h"

#include <algorithm>

namespace headrace {

namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr Nanos kLookAgain = seconds(60);  // at the wall clock, which may be set

}  // namespace

void ScrubTotals::add(const ScrubProgress& p) {
  fragments += p.fragments;
  bytes += p.bytes;
  damaged += p.damaged;
  missing += p.missing;
  stripes += p.stripes;
  parity_wrong += p.parity_wrong;
}

Scrubber::Scrubber(Context context, ScrubberOptions options)
    : context_(std::move(context)),
      options_(options),
      worker_(context_.env, context_.work, context_.fragments, context_.found, options_.work) {}

void Scrubber::start() {
  scope_.spawn(run());
  scope_.spawn(save_loop());
}

Task<void> Scrubber::stop() {
  scope_.cancel();
  worker_.cancel();
  wanted_.set();
  co_await scope_.join();
  if (loaded_) co_await save();
}

std::vector<TargetInfo> Scrubber::mine() const {
  std::vector<TargetInfo> out;
  for (const TargetInfo& info : context_.work.map().targets)
    if (info.node == context_.self && info.state == TargetState::kLive && context_.targets.find(info.id) != nullptr)
      out.push_back(info);
  std::ranges::sort(out, {}, &TargetInfo::number);
  return out;
}

uint64_t Scrubber::used(TargetId id) const {
  std::shared_ptr<Target> target = context_.targets.find(id);
  return target == nullptr ? 0 : target->status().used;
}

Result<uint64_t> Scrubber::ask(std::optional<uint32_t> number) {
  bool any = false;
  std::string there;
  for (const TargetInfo& info : mine()) {
    there += (there.empty() ? "t" : ", t") + std::to_string(info.number);
    if (number && info.number != *number) continue;
    asked_.insert(info.id);
    any = true;
  }
  if (!any)
    return Error(Code::kInvalid, (number ? "there is no live target t" + std::to_string(*number)
                                         : std::string("there is no live target")) +
                                     " to scrub" + (there.empty() ? "" : ": this node has " + there));
  asked_all_ |= !number;
  ++run_;
  if (!at_asked_) worker_.cancel();  // the pass; an asked run comes to these when it is through
  wanted_.set();
  return run_;
}

ScrubStatus Scrubber::status() const {
  ScrubStatus out;
  out.running = busy_;
  out.asked = at_asked_;
  out.targets = targets_;
  out.targets_done = targets_done_;
  out.here = here_;
  out.ever = ever_;
  if (busy_) {
    out.target = worker_.progress().target;
    out.here.add(worker_.progress());
    out.ever.add(worker_.progress());
    const double elapsed = (context_.env.clock.now() - began_).seconds();
    if (elapsed > 0) out.bytes_per_s = static_cast<double>(out.here.bytes) / elapsed;
    if (out.bytes_per_s > 0 && bytes_total_ > out.here.bytes)
      out.eta_s = static_cast<double>(bytes_total_ - out.here.bytes) / out.bytes_per_s;
  }
  out.bytes_total = bytes_total_;
  out.passes = passes_;
  out.began_s = record_.began / kSecond;
  out.ended_s = record_.ended / kSecond;
  out.next_s = record_.began == 0 ? 0 : (record_.began + static_cast<uint64_t>(options_.pass.count)) / kSecond;
  out.run = run_;
  out.run_ended = run_ended_;
  out.last_error = busy_ && !worker_.progress().last_error.empty() ? worker_.progress().last_error : last_error_;
  return out;
}

void Scrubber::begin_of(uint64_t bytes_total, uint64_t targets) {
  here_ = {};
  began_ = context_.env.clock.now();
  bytes_total_ = bytes_total;
  targets_ = targets;
  targets_done_ = 0;
}

// Of the pass, which the worker is at.
void Scrubber::note_place() {
  record_.target = worker_.progress().target;
  record_.at = worker_.progress().at;
  record_.unasked = worker_.progress().unasked;
}

Task<void> Scrubber::save() {
  if (busy_ && !at_asked_) note_place();
  Result<void> saved = co_await context_.save(encode_durable(record_));
  if (!saved.ok()) last_error_ = "storing how far scrub is: " + saved.error().text();
}

Task<void> Scrubber::save_loop() {
  for (;;) {
    bool slept = co_await scope_.token().sleep(context_.env.clock, options_.save);
    if (!slept) co_return;
    if (busy_ && !at_asked_) co_await save();
  }
}

Task<Result<void>> Scrubber::scrub(TargetId id, FragmentName after, bool unasked) {
  std::shared_ptr<Target> target = context_.targets.find(id);
  if (target == nullptr) co_return Error(Code::kNotFound, "the target is gone");
  busy_ = true;
  Result<void> done = co_await worker_.scrub(std::move(target), after, unasked);
  busy_ = false;
  here_.add(worker_.progress());
  ever_.add(worker_.progress());
  if (!worker_.progress().last_error.empty()) last_error_ = worker_.progress().last_error;
  if (!done.ok() && done.code() != Code::kCancelled) {
    last_error_ = done.error().text();
    ++here_.failed;
    ++ever_.failed;
  }
  co_return done;
}

Task<void> Scrubber::run_asked() {
  at_asked_ = true;
  const bool all = std::exchange(asked_all_, false);
  const std::set<TargetId> targets = std::exchange(asked_, {});
  const uint64_t run = run_;
  const uint64_t wall_began = wall();
  uint64_t bytes = 0;
  for (TargetId id : targets) bytes += used(id);
  begin_of(bytes, targets.size());
  worker_.set_turn(turn(wall_began) + run);
  for (TargetId id : targets) {
    worker_.set_rate(options_.asked);
    (void)co_await scrub(id, {}, false);
    if (scope_.token().cancelled()) co_return;
    ++targets_done_;
  }
  context_.tell("scrubbed", here_.trouble(), here_);
  if (all) {
    ++passes_;
    record_ = {};
    record_.began = wall_began;
    record_.ended = std::max(wall(), wall_began);
    co_await save();
  }
  at_asked_ = false;
  run_ended_ = run;
}

Task<bool> Scrubber::step() {
  const std::vector<TargetInfo> all = mine();
  const uint64_t now = wall();
  record_.began = std::min(record_.began, now);  // the clock was set back
  const bool goes_on = record_.began > 0 && record_.ended < record_.began;
  if (!goes_on) {
    if (record_.began > 0 && now < record_.began + static_cast<uint64_t>(options_.pass.count)) co_return false;
    record_.began = now;
    record_.done.clear();
    record_.target = {};
    record_.at = {};
    co_await save();
    if (scope_.token().cancelled() || !asked_.empty()) co_return true;
  }
  worker_.set_turn(turn(record_.began));
  uint64_t left = 0;
  std::optional<TargetId> next;
  for (const TargetInfo& info : all) {
    if (std::ranges::find(record_.done, info.id) != record_.done.end()) continue;
    left += used(info.id);
    if (!next || info.id == record_.target) next = info.id;
  }
  if (targets_ == 0 || here_.fragments == 0) begin_of(left, all.size());
  targets_done_ = record_.done.size();
  if (!next) {
    ++passes_;
    record_.ended = now;
    record_.target = {};
    context_.tell("scrubbed", here_.trouble(), here_);
    co_await save();
    begin_of(0, 0);
    co_return true;
  }
  const uint64_t until = record_.began + static_cast<uint64_t>(options_.pass.count);
  const double time_left = until > now ? static_cast<double>(until - now) / 1e9 : 0;
  // A tenth of the time is kept for what grows meanwhile.
  const double needed = time_left > 0 ? static_cast<double>(left) / (time_left * 0.9) : 0;
  worker_.set_rate(std::max(options_.at_least, static_cast<uint64_t>(needed)));
  const bool resumed = record_.target == *next;
  Result<void> done = co_await scrub(*next, resumed ? record_.at : FragmentName(), resumed && record_.unasked);
  if (done.code() == Code::kCancelled) {
    note_place();
  } else {  // one that cannot be read to its end is lost soon, or the next pass's
    record_.done.push_back(*next);
    record_.target = {};
    record_.at = {};
  }
  co_await save();
  co_return true;
}

Task<void> Scrubber::run() {
  while (!loaded_) {
    Result<std::string> stored = co_await context_.load();
    if (stored.ok()) {
      loaded_ = true;
      Result<ScrubRecord> record =
          stored->empty() ? Result<ScrubRecord>(ScrubRecord{}) : decode_durable<ScrubRecord>(*stored);
      if (record.ok()) record_ = *std::move(record);  // otherwise a pass begins anew
      break;
    }
    last_error_ = stored.error().text();
    bool slept = co_await scope_.token().sleep(context_.env.clock, kLookAgain);
    if (!slept) co_return;
  }
  const Nanos first = context_.env.clock.now() + options_.first;
  for (;;) {
    if (scope_.token().cancelled()) co_return;
    wanted_.reset();
    if (!asked_.empty()) {
      co_await run_asked();
      begin_of(0, 0);
      continue;
    }
    const Nanos now = context_.env.clock.now();
    bool busy = false;
    if (now >= first) busy = co_await step();
    if (busy || !asked_.empty()) continue;
    const Nanos until = now < first ? first : now + std::min(kLookAgain, options_.pass);
    (void)co_await wanted_.wait_until(context_.env.clock, until);
  }
}

}  // namespace headrace
