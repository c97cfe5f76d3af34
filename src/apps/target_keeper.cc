#include "apps/target_keeper.h"

#include <algorithm>

#include "hot/rescue.h"
#include "hot/target_format.h"
#include "hot/target_place.h"
#include "stripe/fragment.h"
#include "stripe/placement_policy.h"

namespace headrace {

namespace {

// One record in the partition's journal: a copy of its run that is lost shows, and the run ends.
struct TouchOp {
  using Reply = Empty;
  Task<Result<Empty>> run(Transaction& txn) {
    txn.put(partition_row_key(txn.partition().first_slot(), "claims"), "");
    co_return Empty{};
  }
};

bool live(const ClusterMap& map, TargetId id) {
  const TargetInfo* info = map.target(id);
  return info != nullptr && info->state == TargetState::kLive;
}

std::string name_of(const TargetInfo& info) {
  return "t" + std::to_string(info.number);
}

}  // namespace

std::string_view to_string(TargetRebuild::Step step) {
  switch (step) {
    case TargetRebuild::Step::kNone:
      return "none";
    case TargetRebuild::Step::kWaiting:
      return "waiting";
    case TargetRebuild::Step::kRunning:
      return "running";
    case TargetRebuild::Step::kDone:
      return "done";
  }
  return "none";
}

TargetKeeper::TargetKeeper(Context context, TargetKeeperOptions options)
    : context_(std::move(context)),
      env_(context_.env),
      options_(options),
      fragments_(context_.target_port, ServiceLevel::kBackground),
      io_(env_, fragments_),
      work_(context_.partition_port, context_.target_port),
      rebuild_(env_, work_, fragments_, io_, options_.rebuild),
      orphans_(work_, options_.orphans),
      scrubber_(Scrubber::Context{env_, context_.targets, work_, fragments_, context_.self,
                                  [this](Damage damage, bool misfit) { return found_by_scrub(damage, misfit); },
                                  context_.load_scrub, context_.save_scrub,
                                  [this](std::string name, bool trouble, const ScrubTotals& of) {
                                    tell({trouble,
                                          std::move(name),
                                          {{"fragments", std::to_string(of.fragments)},
                                           {"bytes", std::to_string(of.bytes)},
                                           {"damaged", std::to_string(of.damaged)},
                                           {"missing", std::to_string(of.missing)},
                                           {"stripes", std::to_string(of.stripes)},
                                           {"parity_wrong", std::to_string(of.parity_wrong)}}});
                                  }},
                options_.scrub) {}

void TargetKeeper::start() {
  looked_at_devices_ = env_.clock.now();
  // What was lost before this start waits for nobody's sign.
  for (const TargetInfo& info : map().targets)
    if (info.state != TargetState::kLive) rebuild_wanted_.set();
  scope_.spawn(tend());
  scope_.spawn(rebuild_loop());
  scope_.spawn(sweep_loop());
  scrubber_.start();
}

Task<void> TargetKeeper::stop() {
  rebuild_.cancel();
  rebuild_wanted_.set();
  scope_.cancel();
  co_await scrubber_.stop();
  co_await scope_.join();
}

std::string TargetKeeper::directory(uint32_t number) const {
  return context_.state + "/targets/t" + std::to_string(number);
}

void TargetKeeper::report(const std::vector<Damage>& damage) {
  for (const Damage& one : damage) {
    if (damage_.size() >= kMaxDamage) return;
    if (one.segment.name_space() == map().name_space && live(map(), one.target)) damage_.insert(one);
  }
}

// Waits for room: what scrub finds is never dropped.
Task<void> TargetKeeper::found_by_scrub(Damage damage, bool misfit) {
  while (damage_.size() >= kMaxDamage / 2) {
    bool slept = co_await scope_.token().sleep(env_.clock, options_.look);
    if (!slept) co_return;
  }
  report(std::vector<Damage>(1, damage));
  if (misfit && damage_.contains(damage)) misfits_.insert(damage);
}

TargetRebuild TargetKeeper::rebuild_of(TargetId target) const {
  auto at = known_.find(target);
  if (at == known_.end()) return {};
  TargetRebuild out = at->second.about;
  if (out.step == TargetRebuild::Step::kRunning) out.progress = rebuild_.progress();
  return out;
}

KeeperCounters TargetKeeper::counters() const {
  KeeperCounters out = counters_;
  out.damage_waiting = damage_.size() + (repairing_ ? 1 : 0);
  RebuildProgress now = rebuild_.progress();
  if (now.running) {
    out.segments_rebuilt += now.segments_done;
    out.bytes_rebuilt += now.bytes;
  }
  return out;
}

// ---- lost targets and damage ----

Task<void> TargetKeeper::tend() {
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, options_.look);
    if (!slept) co_return;
    report(context_.found());
    report(io_.take_damage());
    note_used();
    // Damage may be the first sign that a whole target is gone: nothing is repaired onto such a one.
    bool due = env_.clock.now() - looked_at_devices_ >= options_.superblocks;
    co_await look(due || !damage_.empty());
    co_await repair_some();
  }
}

// For whoever chooses targets by the room that they have.
void TargetKeeper::note_used() {
  for (const auto& [id, status] : context_.targets.statuses())
    context_.partition_port.view().note_used(id, status.used);
}

Task<void> TargetKeeper::look(bool at_devices) {
  if (at_devices) looked_at_devices_ = env_.clock.now();
  const std::vector<TargetInfo> all = map().targets;
  std::vector<TargetInfo> serving;
  for (const TargetInfo& info : all) {
    if (info.node != context_.self || !serves(info.state)) continue;
    // The map does not say so yet: it is new, or could not be stored.
    if (std::optional<std::string> why = context_.targets.why_out(info.id))
      co_await lose(info, *std::move(why));
    else if (context_.targets.find(info.id) != nullptr)
      serving.push_back(info);
  }
  if (!at_devices) co_return;
  std::vector<TargetInfo> gone = co_await gone_from_devices(std::move(serving));
  if (gone.empty()) co_return;
  bool slept = co_await scope_.token().sleep(env_.clock, milliseconds(200));  // a superblock may be under way
  if (!slept) co_return;
  gone = co_await gone_from_devices(std::move(gone));
  for (const TargetInfo& info : gone) {
    const TargetInfo* now = map().target(info.id);
    std::shared_ptr<Target> target = context_.targets.find(info.id);
    if (now == nullptr || !serves(now->state) || target == nullptr) continue;
    // What is in memory would not survive a restart: no service from here on.
    std::string why = "target " + name_of(info) + " is lost: its superblocks are gone from " + directory(info.number) +
                      "/target.dat (emptied or overwritten); run `headrace target replace " + name_of(info) +
                      "`: what it held is rebuilt from the others";
    context_.targets.remove(info.id);
    context_.targets.add_failed(info.id, info.number, why);
    scope_.spawn(close_one(std::move(target)));
    co_await lose(info, why);
  }
}

Task<void> TargetKeeper::close_one(std::shared_ptr<Target> target) {
  co_await target->close();
}

Task<std::vector<TargetInfo>> TargetKeeper::gone_from_devices(std::vector<TargetInfo> targets) {
  auto looked = std::make_shared<Looked>();
  for (const TargetInfo& info : targets)
    if (looking_.insert(info.id).second) looked->waiting.insert(info.id);
  for (const TargetInfo& info : targets)
    if (looked->waiting.contains(info.id)) looks_.spawn(look_at_device(info, looked));
  if (!looked->waiting.empty()) (void)co_await looked->all.wait_until(env_.clock, env_.clock.now() + options_.answers);
  std::erase_if(targets, [&looked](const TargetInfo& info) { return !looked->gone.contains(info.id); });
  co_return targets;
}

Task<void> TargetKeeper::look_at_device(TargetInfo info, std::shared_ptr<Looked> looked) {
  const bool there = co_await on_device(info);
  looking_.erase(info.id);
  looked->waiting.erase(info.id);
  if (!there) looked->gone.insert(info.id);
  if (looked->waiting.empty()) looked->all.set();
}

Task<bool> TargetKeeper::on_device(TargetInfo info) {
  Result<TargetPlace> place = co_await target_place(env_, directory(info.number));
  if (!place.ok()) co_return place.code() != Code::kNotFound&& place.code() != Code::kInvalid;
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(place->path, {.direct = true});
  if (!file.ok()) co_return file.code() != Code::kNotFound;  // an error of the device shows in reads and writes
  for (uint64_t offset : kSuperblockOffsets) {
    Buffer bytes = Buffer::zeroed(kSuperblockBytes);
    Result<size_t> got = co_await (*file)->read(offset, bytes);
    if (!got.ok()) co_return true;
    Result<Superblock> found = decode_superblock(bytes.view().first(std::min(*got, bytes.size())));
    if (found.ok() && found->target == info.id) co_return true;
  }
  co_return false;
}

Task<void> TargetKeeper::lose(TargetInfo info, std::string why) {
  TargetId id = info.id;
  Result<void> changed = co_await context_.change_map([id](ClusterMap& map) {
    for (TargetInfo& target : map.targets) {
      if (target.id != id || !serves(target.state)) continue;
      target.state = when_lost(target.state);
      return true;
    }
    return false;
  });
  if (!changed.ok()) {
    counters_.last_error = changed.error().text();
    co_return;
  }
  ++counters_.targets_lost;
  tell({true, "target_lost", {{"target", name_of(info)}, {"id", to_string(id)}, {"why", why}}});
  std::erase_if(damage_, [id](const Damage& damage) { return damage.target == id; });
  std::erase_if(misfits_, [id](const Damage& damage) { return damage.target == id; });
  known_[id].about.step = TargetRebuild::Step::kWaiting;
  protect_wanted_ = true;
  rebuild_wanted_.set();
}

// Whether the fragment can be read where it should be: a report may be old, or made up.
Task<bool> TargetKeeper::verifies(Damage damage) {
  Result<Location> location = co_await work_.locate(damage.segment);
  if (!location.ok()) co_return location.code() == Code::kNotFound;
  const Placement placement = location->placement;
  if (damage.index >= placement.targets.size() || placement.targets[damage.index] != damage.target) co_return true;
  FragmentRead request;
  request.target = damage.target;
  request.segment = damage.segment;
  request.index = damage.index;
  request.length = fragment_size(location->length, placement.protection.data);
  Result<FragmentReadReply> reply = co_await fragments_.read(request, Capability{});
  co_return reply.ok() && reply->payload.size() == request.length && reply->segment_length == location->length;
}

Task<void> TargetKeeper::repair_some() {
  uint64_t before = counters_.repaired;
  std::string error;
  for (size_t i = 0; i < kRepairsAtOnce && !damage_.empty(); ++i) {
    if (scope_.token().cancelled()) co_return;
    Damage damage = *damage_.begin();
    damage_.erase(damage_.begin());
    const bool misfit = misfits_.erase(damage) > 0;
    if (!live(map(), damage.target)) continue;
    repairing_ = true;
    bool whole = false;
    if (!misfit) whole = co_await verifies(damage);
    Result<void> repaired;
    if (!whole) repaired = co_await rebuild_.repair(damage);
    repairing_ = false;
    if (whole) continue;
    if (repaired.ok()) {
      ++counters_.repaired;
    } else {
      ++counters_.repair_failed;  // the next read that meets it reports it again
      error = counters_.last_error = repaired.error().text();
    }
  }
  if (counters_.repaired > before || !error.empty())
    tell({!error.empty(),
          "fragments_repaired",
          {{"count", std::to_string(counters_.repaired - before)}, {"error", error}}});
}

// ---- rebuild ----

Task<void> TargetKeeper::rebuild_loop() {
  for (;;) {
    (void)co_await rebuild_wanted_.wait_until(env_.clock, env_.clock.now() + options_.again);
    rebuild_wanted_.reset();
    if (scope_.token().cancelled()) co_return;
    if (protect_wanted_) {
      protect_wanted_ = false;
      Result<void> done = co_await protect();
      if (done.ok()) {
        short_runs_.clear();
      } else {
        protect_wanted_ = true;
        counters_.last_error = done.error().text();
      }
    }
    const std::vector<TargetInfo> all = map().targets;
    for (const TargetInfo& info : all) {
      if (scope_.token().cancelled()) co_return;
      if (info.state == TargetState::kLive) {
        known_.erase(info.id);
        continue;
      }
      const bool serves = co_await rescue_one(info);
      if (!serves && !scope_.token().cancelled()) co_await rebuild_one(info);
    }
  }
}

Task<bool> TargetKeeper::rescue_one(TargetInfo info) {
  if (info.node != context_.self || info.state != TargetState::kLost) co_return false;
  std::shared_ptr<Target> target = context_.targets.find(info.id);
  if (target == nullptr) co_return false;
  if (adopted_.contains(info.id) && !target->fenced()) {
    Mutex::Guard guard = co_await replacing_.lock();
    if (context_.targets.find(info.id) != target) co_return false;
    co_return co_await serves_again(info);
  }
  if (!target->scannable()) co_return false;
  known_[info.id].about.step = TargetRebuild::Step::kRunning;
  tell({false,
        "target_scanned",
        {{"target", name_of(info)}, {"id", to_string(info.id)}, {"why", target->status().reason}}});
  auto wanted = [this, target, id = info.id] {
    const TargetInfo* now = map().target(id);
    return !scope_.token().cancelled() && context_.targets.find(id) == target && now != nullptr &&
           now->state == TargetState::kLost;
  };
  Result<Rescued> found = co_await find_claimed(target, work_, wanted);
  if (!found.ok()) co_return not_rescued(info, found.error());
  // replace() and remove() wait from here on, and not for the scan: one that they came before is not wanted any more.
  Mutex::Guard guard = co_await replacing_.lock();
  if (!wanted()) co_return false;
  Result<void> adopted = co_await target->adopt(std::move(found->confirmed), std::move(found->promises));
  if (!adopted.ok()) co_return not_rescued(info, adopted.error());
  adopted_.insert(info.id);
  tell({false,
        "target_rescued",
        {{"target", name_of(info)},
         {"id", to_string(info.id)},
         {"candidates", std::to_string(found->report.candidates)},
         {"fragments", std::to_string(found->report.kept)},
         {"bytes", std::to_string(found->report.kept_bytes)}}});
  co_return co_await serves_again(info);
}

// Rebuilding from the others needs no answer of this target.
bool TargetKeeper::not_rescued(const TargetInfo& info, const Error& why) {
  if (why.code() == Code::kCancelled) return false;
  counters_.last_error = "target " + name_of(info) + ": " + why.text();
  tell({true, "target_not_rescued", {{"target", name_of(info)}, {"why", why.text()}}});
  return false;
}

// It holds again what its homes claim: now the map may say so.
Task<bool> TargetKeeper::serves_again(TargetInfo info) {
  Result<void> changed = co_await context_.change_map([id = info.id](ClusterMap& map) {
    for (TargetInfo& one : map.targets) {
      if (one.id != id || one.state != TargetState::kLost) continue;
      one.state = TargetState::kLive;
      return true;
    }
    return false;
  });
  if (!changed.ok()) {
    counters_.last_error = changed.error().text();
    co_return false;
  }
  adopted_.erase(info.id);
  ++counters_.rescued;
  known_.erase(info.id);
  for (const auto& [partition_id, partition] : context_.partitions.all())
    for (const RunRecord& run : partition->journal().record().runs)
      if (std::ranges::find(run.copies, info.id) != run.copies.end()) short_runs_.insert(run.run);
  if (!short_runs_.empty()) protect_wanted_ = true;
  rebuild_wanted_.set();
  // What the scan did not find, its homes miss: that is what scrub looks for first.
  (void)scrubber_.ask(info.number);
  co_return true;
}

Task<void> TargetKeeper::rebuild_one(TargetInfo info) {
  known_[info.id].about.step = TargetRebuild::Step::kRunning;
  Nanos began = env_.clock.now();
  Result<void> done = co_await rebuild_.rebuild(info.id);
  RebuildProgress progress = rebuild_.progress();
  counters_.segments_rebuilt += progress.segments_done;
  counters_.bytes_rebuilt += progress.bytes;
  if (scope_.token().cancelled()) co_return;
  Known& known = known_[info.id];
  bool same_error = !done.ok() && known.about.last_error == done.error().message();
  known.about.last_error = done.ok() ? "" : done.error().message();
  known.about.step = done.ok() ? TargetRebuild::Step::kDone : TargetRebuild::Step::kWaiting;
  // The last pass that had anything to do is the one that is shown.
  if (progress.segments_total > 0 || !done.ok()) known.about.progress = progress;
  if (!done.ok()) {
    known.empty_since = {};
    counters_.last_error = known.about.last_error;
    if (!same_error) tell({true, "rebuild_waits", {{"target", name_of(info)}, {"why", known.about.last_error}}});
    co_return;
  }
  if (progress.segments_total > 0) {
    double took = (env_.clock.now() - began).seconds();
    tell({false,
          "rebuilt",
          {{"target", name_of(info)},
           {"segments", std::to_string(progress.segments_done)},
           {"bytes", std::to_string(progress.bytes)},
           {"seconds", std::to_string(took)}}});
    known.empty_since = {};
    co_return;
  }
  if (known.empty_since == Nanos{}) known.empty_since = env_.clock.now();
  // A client may still commit what it wrote there before the map changed: only a second look counts.
  if (leaves(info.state) && env_.clock.now() - known.empty_since >= options_.again && !named_by_partitions(info.id))
    co_await forget(info);
}

bool TargetKeeper::named_by_partitions(TargetId target) const {
  for (const auto& [id, partition] : context_.partitions.all()) {
    const PartitionRecord& record = partition->journal().record();
    if (!partition->checkpoint_whole()) return true;
    for (const RunRecord& run : record.runs)
      if (std::ranges::find(run.copies, target) != run.copies.end()) return true;
  }
  return false;
}

Task<void> TargetKeeper::forget(TargetInfo info) {
  TargetId id = info.id;
  Result<void> changed = co_await context_.change_map([id](ClusterMap& map) {
    return std::erase_if(map.targets, [id](const TargetInfo& t) { return t.id == id && leaves(t.state); }) > 0;
  });
  if (!changed.ok()) co_return;
  known_.erase(id);
  adopted_.erase(id);
  if (std::shared_ptr<Target> target = context_.targets.find(id); target != nullptr) {
    context_.targets.remove(id);
    co_await target->close();
  }
  const bool gone = std::ranges::none_of(
      map().targets, [&info](const TargetInfo& t) { return t.node == info.node && t.number == info.number; });
  if (gone && context_.guards != nullptr) context_.guards->release(directory(info.number));
  Result<void> removed = co_await env_.disk.remove(directory(info.number) + "/replaced-" + to_string(id) + ".dat");
  (void)removed.ok();  // absent, or left behind: nobody reads it
  tell({false, "target_forgotten", {{"target", name_of(info)}, {"id", to_string(id)}}});
}

// Journals and checkpoints in full copies again, as far as there are targets for them.
Task<Result<void>> TargetKeeper::protect() {
  std::vector<std::shared_ptr<Partition>> partitions;
  for (const auto& [id, partition] : context_.partitions.all()) partitions.push_back(partition);
  for (const std::shared_ptr<Partition>& partition : partitions) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      const PartitionRecord record = partition->journal().record();
      bool run_whole = !record.runs.empty() && !short_runs_.contains(record.runs.back().run) &&
                       std::ranges::all_of(record.runs.back().copies, [&](TargetId id) { return live(map(), id); });
      if (run_whole && partition->journal().fully_copied() && partition->checkpoint_whole()) break;
      if (attempt > 0) {
        bool slept = co_await scope_.token().sleep(env_.clock, milliseconds(200));
        if (!slept) co_return Error(Code::kCancelled, "the node stops");
      }
      HR_CO_TRY(co_await partition->change(TouchOp{}));
      HR_CO_TRY(co_await partition->checkpoint_now());
    }
  }
  co_return Result<void>();
}

Task<Result<TargetId>> TargetKeeper::replace(uint32_t number, bool force) {
  Mutex::Guard guard = co_await replacing_.lock();
  std::optional<TargetInfo> old;
  std::string there;
  for (const TargetInfo& info : map().targets) {
    if (info.node != context_.self || info.state == TargetState::kRetired) continue;
    there += (there.empty() ? "" : ", ") + name_of(info);
    if (info.number == number) old = info;
  }
  if (!old)
    co_return Error(Code::kInvalid, "there is no target t" + std::to_string(number) + ": this node has " + there);
  if (serves(old->state))
    co_return Error(Code::kInvalid, "target " + name_of(*old) +
                                        (leaves(old->state) ? " is being removed" : " is live") +
                                        ": only a lost target is replaced (`headrace target list` shows which are)");
  std::string place = directory(number);
  HR_CO_TRY(co_await env_.disk.make_directories(place));
  HR_CO_TRY(TargetPlace at, co_await target_place(env_, place));
  if (context_.guards != nullptr) HR_CO_TRY(context_.guards->hold(place));
  const PlaceClaim claim{map().cluster, number, force};
  const std::string mend =
      at.path + " cannot be used: put a working device there, or write another one's path into " + place + "/device";
  Result<void> mine = co_await check_place(env_, place, at, claim);
  if (mine.code() == Code::kExists) co_return std::move(mine).error();
  if (!mine.ok()) co_return std::move(mine).error().within(at.in_place ? mend : place);
  // Out of the way first, kept until all is rebuilt. Interrupted at any point from here on, the node starts with the
  // target lost, and replace() can be asked for again.
  std::shared_ptr<Target> running = context_.targets.find(old->id);
  context_.targets.remove(old->id);
  if (running != nullptr) co_await running->close();
  running.reset();
  if (at.in_place) {
    Result<void> erased = co_await erase_place(env_, place, at, claim);
    if (!erased.ok()) co_return std::move(erased).error().within(mend);
  } else {
    Result<void> moved = co_await env_.disk.rename(at.path, place + "/replaced-" + to_string(old->id) + ".dat");
    if (!moved.ok() && moved.code() != Code::kNotFound) co_return std::move(moved).error().within(place);
  }
  HR_CO_TRY(co_await env_.disk.sync_directory(place));
  TargetInfo fresh = *old;
  fresh.id = TargetId(env_.random.nonzero());
  fresh.state = TargetState::kLost;
  fresh.used = 0;
  HR_CO_TRY(co_await context_.change_map([old = old->id, fresh](ClusterMap& map) {
    for (TargetInfo& info : map.targets)
      if (info.id == old) info.state = TargetState::kRetired;
    map.targets.push_back(fresh);
    return true;
  }));
  context_.targets.add_failed(fresh.id, number, "it is being formatted");
  TargetFormat format;
  format.id = fresh.id;
  format.cluster = map().cluster;
  format.name_space = map().name_space;
  format.capacity = fresh.capacity;
  format.number = number;
  Result<std::unique_ptr<Target>> target = co_await Target::format(env_, place, format, context_.target_options);
  if (!target.ok()) {
    context_.targets.add_failed(fresh.id, number, target.error().text());
    co_return std::move(target).error().within("formatting " + place);
  }
  HR_CO_TRY(context_.targets.add(*std::move(target)));
  HR_CO_TRY(co_await context_.change_map([id = fresh.id](ClusterMap& map) {
    for (TargetInfo& info : map.targets)
      if (info.id == id) info.state = TargetState::kLive;
    return true;
  }));
  known_[old->id] = {};
  known_[old->id].about.step = TargetRebuild::Step::kWaiting;
  tell({false,
        "target_replaced",
        {{"target", name_of(fresh)}, {"id", to_string(fresh.id)}, {"replaces", to_string(old->id)}}});
  protect_wanted_ = true;
  rebuild_wanted_.set();
  co_return fresh.id;
}

Task<Result<void>> TargetKeeper::remove(uint32_t number) {
  Mutex::Guard guard = co_await replacing_.lock();
  std::optional<TargetInfo> old;
  std::string there;
  size_t left = 0;
  uint64_t free = 0;
  std::map<TargetId, TargetStatusReply> statuses;
  for (auto& [id, status] : context_.targets.statuses()) statuses[id] = status;
  for (const TargetInfo& info : map().targets) {
    if (info.node == context_.self && info.state != TargetState::kRetired) {
      there += (there.empty() ? "" : ", ") + name_of(info);
      if (info.number == number) {
        old = info;
        continue;
      }
    }
    if (info.state != TargetState::kLive) continue;
    ++left;
    const TargetStatusReply& status = statuses[info.id];
    free += status.capacity - std::min(status.capacity, status.used);
  }
  if (!old)
    co_return Error(Code::kInvalid, "there is no target t" + std::to_string(number) + ": this node has " + there);
  if (old->state == TargetState::kDraining) co_return Result<void>();
  const Protection& protection = map().protection;
  if (left < protection.width())
    co_return Error(Code::kInvalid,
                    "target " + name_of(*old) + " cannot be removed: " + to_string(protection) + " needs " +
                        std::to_string(protection.width()) + " targets, and " + std::to_string(left) +
                        " live ones would be left. Replace it in its place (`headrace target replace` puts a fresh one "
                        "there once it is lost), or bring the namespace up on fewer targets with less protection: "
                        "`headrace spin-down`, then `headrace rehydrate --targets N --protection D+P`");
  const uint64_t held = statuses[old->id].used;
  if (held > free / 100 * 96)
    co_return Error(Code::kNoSpace, "target " + name_of(*old) + " cannot be removed: it holds " +
                                        std::to_string(held / kMiB) + " MiB, and the others have room for " +
                                        std::to_string(free / kMiB) +
                                        " MiB. Delete files, or move some of them to the bucket alone (they are "
                                        "dropped from the hot tier as it fills)");
  const TargetState next = old->state == TargetState::kLive ? TargetState::kDraining : TargetState::kRetired;
  HR_CO_TRY(co_await context_.change_map([id = old->id, next](ClusterMap& map) {
    for (TargetInfo& info : map.targets)
      if (info.id == id) info.state = next;
    return true;
  }));
  if (std::shared_ptr<Target> target = context_.targets.find(old->id); target != nullptr) target->take_no_more();
  std::erase_if(damage_, [id = old->id](const Damage& damage) { return damage.target == id; });
  std::erase_if(misfits_, [id = old->id](const Damage& damage) { return damage.target == id; });
  known_[old->id] = {};
  known_[old->id].about.step = TargetRebuild::Step::kWaiting;
  tell({false, "target_draining", {{"target", name_of(*old)}, {"id", to_string(old->id)}}});
  protect_wanted_ = true;
  rebuild_wanted_.set();
  co_return Result<void>();
}

// ---- orphans ----

Task<void> TargetKeeper::sweep_loop() {
  Nanos pause = options_.first_sweep;
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, pause);
    if (!slept) co_return;
    pause = options_.sweep;
    const std::vector<TargetInfo> all = map().targets;
    for (const TargetInfo& info : all) {
      if (scope_.token().cancelled()) co_return;
      if (info.node != context_.self || info.state != TargetState::kLive) continue;
      Result<OrphanReport> swept = co_await orphans_.sweep(info.id, [this] { return !scope_.token().cancelled(); });
      if (!swept.ok()) {
        counters_.last_error = "sweeping " + name_of(info) + ": " + swept.error().text();
        continue;
      }
      ++counters_.sweeps;
      counters_.orphans_freed += swept->freed;
      counters_.orphan_bytes += swept->freed_bytes;
      if (swept->freed > 0)
        tell({false,
              "orphans_freed",
              {{"target", name_of(info)},
               {"fragments", std::to_string(swept->freed)},
               {"bytes", std::to_string(swept->freed_bytes)}}});
    }
  }
}

}  // namespace headrace
