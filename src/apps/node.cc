#include "apps/node.h"

#include <algorithm>
#include <charconv>

#include "hot/target_place.h"
#include "meta/ops/names.h"
#include "meta/ops/two_phase.h"
#include "runtime/when_all.h"
#include "stripe/placement_policy.h"
#include "tier/put_back.h"

namespace headrace {

namespace {

constexpr const char* kFormingKey = "forming";  // there while bootstrap() is under way
constexpr uint32_t kMaxTargets = 64;
constexpr uint32_t kSlots = 65'536;
constexpr uint64_t kFullPercent = 96;
constexpr uint64_t kOpensAtOnce = 8;           // of targets, each with its whole log in memory
constexpr Nanos kBucketPatience = seconds(5);  // of a start, with a bucket that does not answer

std::string target_directory(const std::string& state, uint32_t number) {
  return state + "/targets/t" + std::to_string(number);
}

Task<Result<std::unique_ptr<Target>>> open_target(Semaphore* at_once, Result<void> held, Env env, std::string directory,
                                                  TargetExpected expected, TargetOptions options) {
  HR_CO_TRY(std::move(held));
  co_await at_once->acquire();
  const Semaphore::Held one(*at_once);
  co_return co_await Target::open(env, std::move(directory), expected, options);
}

Task<Result<void>> clear_place(Env env, std::string directory, PlaceClaim claim) {
  HR_CO_TRY(TargetPlace place, co_await target_place(env, directory));
  if (place.in_place)
    HR_CO_TRY(co_await erase_place(env, directory, place, claim));
  else
    HR_CO_TRY(co_await check_place(env, directory, place, claim));
  Result<void> removed = co_await env.disk.remove(directory + "/target.dat");
  if (!removed.ok() && removed.code() != Code::kNotFound) co_return removed;
  co_return Result<void>();
}

// The cluster that an interrupted bootstrap() was to make: its targets are this one's. 0: there was none.
ClusterId forming_cluster(const std::string& record) {
  uint64_t value = 0;
  const char* end = record.data() + record.size();
  if (record.size() == 16 && std::from_chars(record.data(), end, value, 16).ptr == end) return ClusterId(value);
  return {};
}

}  // namespace

Result<void> Node::check(const BootstrapOptions& options) {
  if (options.targets < options.protection.parity + 1u || options.targets < 1)
    return Error(Code::kInvalid, to_string(options.protection) + " needs at least " +
                                     std::to_string(options.protection.parity + 1) + " targets, there are " +
                                     std::to_string(options.targets) +
                                     ": add targets (--targets), or choose less parity (--protection)");
  if (options.targets > kMaxTargets)
    return Error(Code::kInvalid, std::to_string(options.targets) + " targets are too many for one node: at most " +
                                     std::to_string(kMaxTargets));
  if (options.target_capacity < kMinTargetCapacity)
    return Error(Code::kInvalid, "a target of " + std::to_string(options.target_capacity) +
                                     " bytes is too small: at least " + std::to_string(kMinTargetCapacity / kMiB) +
                                     " MiB are needed (--capacity-mib)");
  return {};
}

Task<Result<void>> Node::check_unused(Env env, Coordinator& coordinator, std::string state) {
  HR_CO_TRY(CoordRecord forming, co_await coordinator.get(kFormingKey));
  if (forming.version != 0) co_return Result<void>();  // they are of a bootstrap() that was interrupted
  Result<std::vector<std::string>> names = co_await env.disk.list(state + "/targets");
  if (!names.ok()) co_return Result<void>();
  for (const std::string& name : *names) {
    const std::string place = state + "/targets/" + name;
    HR_CO_TRY(TargetPlace at, co_await target_place(env, place));
    Result<std::unique_ptr<File>> file = co_await env.disk.open(at.path, {.direct = at.in_place});
    if (file.ok())
      co_return Error(
          Code::kInvalid,
          place + " holds a target, but the coordinator's file is gone, and its copies beside the targets too: put " +
              state +
              "/coord back from a copy, or from the cluster's other targets with `headrace recover` into an empty "
              "--state (what was tiered can be had from the bucket there)");
  }
  co_return Result<void>();
}

namespace {

Task<Result<void>> make_target(Env env, std::string directory, std::string device, const ClusterMap& map,
                               const TargetInfo& info, const BootstrapOptions& options) {
  TargetFormat format;
  format.id = info.id;
  format.cluster = map.cluster;
  format.name_space = map.name_space;
  format.capacity = info.capacity;
  format.number = info.number;
  HR_CO_TRY(co_await env.disk.make_directories(directory));
  if (!device.empty()) HR_CO_TRY(co_await set_target_place(env, directory, std::move(device)));
  HR_CO_TRY(co_await clear_place(env, directory, {format.cluster, format.number, options.force}));
  Result<std::unique_ptr<Target>> target = co_await Target::format(env, directory, format, options.target_options);
  if (target.code() == Code::kNoSpace || target.code() == Code::kTooLarge)
    co_return Error(target.code(),
                    target.error().message() +
                        ": free some space, or choose another --state, a smaller --capacity-mib or fewer --targets");
  if (!target.ok()) co_return std::move(target).error();
  co_await (*target)->close();
  co_return Result<void>();
}

// The disk is broken or gone. Everything else is for the operator to mend.
bool may_be_left_out(Code code) {
  switch (code) {
    case Code::kExists:
    case Code::kInvalid:
    case Code::kNoSpace:
    case Code::kTooLarge:
    case Code::kAccess:
    case Code::kNotPermitted:
    case Code::kUnsupportedFormat:
    case Code::kBusy:
      return false;
    default:
      return true;
  }
}

Result<void> enough_targets(size_t usable, const ClusterMap& map, const std::string& broken) {
  const size_t needed = map.protection.parity + size_t{1};
  if (usable >= needed) return {};
  return Error(Code::kUnavailable, to_string(map.protection) + " needs at least " + std::to_string(needed) +
                                       " targets, and only " + std::to_string(usable) + " can be used (" + broken +
                                       "): put working disks there, or write their paths into STATE/targets/tN/device; "
                                       "or bring the namespace up elsewhere with `headrace rehydrate`");
}

}  // namespace

Task<Result<void>> Node::bootstrap(Env env, Coordinator& coordinator, BootstrapOptions options) {
  HR_ASSERT(options.partitions > 0 && options.target_capacity > 0);
  HR_CO_TRY(check(options));
  HR_CO_TRY(CoordRecord there, co_await coordinator.get(kMapKey));
  if (!there.value.empty()) co_return Error(Code::kExists, options.state + " holds a cluster already");
  HR_CO_TRY(CoordRecord forming, co_await coordinator.get(kFormingKey));
  HR_CO_TRY(co_await env.disk.make_directories(options.state + "/targets"));
  HR_CO_TRY(co_await env.disk.sync_directory(options.state));
  HR_CO_TRY(co_await check_unused(env, coordinator, options.state));

  ClusterMap map;
  map.version = 1;
  map.cluster = forming_cluster(forming.value);
  if (!map.cluster) map.cluster = ClusterId(env.random.nonzero());
  map.name_space = NamespaceId((env.random.nonzero() & 0xffff'ffff'ffff) | 1);
  map.namespace_epoch = NamespaceEpoch(1);
  if (options.attached) {
    const HeadRecord& head = options.attached->head.record;
    map.cluster = head.cluster;
    map.name_space = head.name_space;
    map.namespace_epoch = head.epoch;
  }
  if (forming_cluster(forming.value) != map.cluster)
    HR_CO_TRY(co_await coordinator.put(kFormingKey, hex(map.cluster.value()), forming.version));
  map.protection = options.protection;
  map.nodes.push_back({options.self, options.address, true});
  std::string broken;
  for (uint32_t i = 0; i < options.targets; ++i) {
    const uint32_t number = options.numbers.empty() ? i : options.numbers.at(i);
    TargetInfo info;
    info.id = TargetId(env.random.nonzero());
    info.node = options.self;
    info.number = number;
    info.domain = "local/local/local/t" + std::to_string(number);
    info.capacity = options.target_capacity;
    const BootstrapOptions::Device device =
        options.devices.empty() ? BootstrapOptions::Device() : options.devices.at(i);
    if (device.capacity > 0) info.capacity = device.capacity;
    Result<void> made;
    if (options.without && options.without->contains(number))
      made = Error(Code::kIo, options.without->at(number));
    else
      made = co_await make_target(env, target_directory(options.state, number), device.path, map, info, options);
    if (!made.ok()) {
      if (!options.without || !may_be_left_out(made.code())) co_return std::move(made).error();
      info.state = TargetState::kLost;
      broken += (broken.empty() ? "" : "; ") + made.error().message();
      if (options.on_event)
        options.on_event(
            {true, "target_left_out", {{"target", "t" + std::to_string(number)}, {"why", made.error().text()}}});
    }
    map.targets.push_back(std::move(info));
  }
  HR_CO_TRY(enough_targets(static_cast<size_t>(std::ranges::count(map.targets, TargetState::kLive, &TargetInfo::state)),
                           map, broken));
  HR_CO_TRY(co_await env.disk.sync_directory(options.state + "/targets"));
  std::vector<PartitionRecord> records;
  if (options.attached) {
    // Positions and epochs go on behind the manifest's: what an earlier owner journaled is never mistaken for ours.
    for (const PartitionManifest& partition : options.attached->manifest.partitions) {
      PartitionRecord record;
      record.id = partition.id;
      record.first_slot = partition.first_slot;
      record.last_slot = partition.last_slot;
      record.epoch = partition.epoch;
      record.checkpoint_at = partition.at;
      records.push_back(std::move(record));
    }
    HR_CO_TRY(CoordRecord origin, co_await coordinator.get(kOriginKey));
    HR_CO_TRY(co_await coordinator.put(kOriginKey, encode_durable(options.attached->head.record), origin.version));
  } else {
    uint32_t share = kSlots / options.partitions;
    for (uint32_t i = 0; i < options.partitions; ++i) {
      PartitionRecord record;
      record.id = PartitionId(static_cast<uint16_t>(i));
      record.first_slot = static_cast<uint16_t>(i * share);
      record.last_slot = static_cast<uint16_t>(i + 1 == options.partitions ? kSlots - 1 : (i + 1) * share - 1);
      records.push_back(std::move(record));
    }
  }
  for (const PartitionRecord& record : records) {
    map.partitions.push_back({record.id, record.first_slot, record.last_slot, NodeId(), PartitionEpoch()});
    std::string key = partition_key(record.id.value());
    HR_CO_TRY(CoordRecord old, co_await coordinator.get(key));
    HR_CO_TRY(co_await coordinator.put(key, encode_durable(record), old.version));
  }
  std::string secret;
  for (int i = 0; i < 4; ++i) {
    uint64_t word = env.random.secret();
    secret.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  HR_CO_TRY(CoordRecord old_secret, co_await coordinator.get(kSecretKey));
  HR_CO_TRY(co_await coordinator.put(kSecretKey, secret, old_secret.version));
  HR_CO_TRY(co_await coordinator.put(kMapKey, encode_durable(map), there.version));
  co_return {};
}

namespace {

// Whether what is here was released, so that the namespace is to be had from the bucket alone.
Task<Result<bool>> was_released(Env env, Coordinator& coordinator, ObjectStore& bucket, const std::string& state) {
  HR_CO_TRY(std::optional<ReleaseRecord> release, co_await release_record(coordinator));
  if (!release) co_return false;
  BucketHead head(env, bucket);
  Result<HeadVersion> there = co_await head.read();
  if (!there.ok())
    co_return std::move(there).error().within(
        state + " was spun down, or was about to be: its bucket must be read before it can serve again");
  HR_CO_TRY(OwnerRecord owner, co_await owner_record(env, coordinator, bucket.url()));
  const HeadRecord& record = there->record;
  if (record.owner == owner.owner) co_return record.state == HeadState::kReleased;
  if (!release->confirmed) co_return false;  // start() says who has it; what is here may be all there is of some of it
  if (record.state == HeadState::kReleased) co_return true;
  co_return Error(Code::kBusy, state +
                                   " was spun down, and another cluster has the namespace since: " + describe(record) +
                                   ". Spin it down there; or take it over, in a new directory: headrace rehydrate '" +
                                   bucket.url() + "' --take-over --state DIR");
}

// Which targets of `before` are not made anew, and why. An error where something else lies in a target's place, or too
// few are left.
Task<Result<std::map<uint32_t, std::string>>> look_at_places(Env env, const ResumeFromBucket& options,
                                                             const ClusterMap& before) {
  std::map<uint32_t, std::string> out;
  std::vector<uint32_t> lost_before;
  size_t usable = 0;
  for (const TargetInfo& target : before.targets) {
    if (leaves(target.state)) continue;
    const std::string directory = target_directory(options.state, target.number);
    Result<void> fit = options.guards != nullptr ? options.guards->hold(directory) : Result<void>();
    if (fit.ok()) {
      Result<TargetPlace> place = co_await target_place(env, directory);
      fit = place.ok() ? co_await check_place(env, directory, *place, {before.cluster, target.number, options.force})
                       : Result<void>(place.error());
    }
    const bool lost = target.state == TargetState::kLost;
    if (!fit.ok() && !lost && !may_be_left_out(fit.code())) co_return std::move(fit).error();
    if (!fit.ok())
      out[target.number] = fit.error().message();
    else if (lost)
      lost_before.push_back(target.number);
    else
      ++usable;
  }
  // A disk that failed once is used where it must be.
  for (uint32_t number : lost_before) {
    if (enough_targets(usable, before, "").ok())
      out[number] = "target t" + std::to_string(number) + " was lost already: `headrace target replace` makes it anew";
    else
      ++usable;
  }
  std::string broken;
  for (const auto& [number, why] : out) broken += (broken.empty() ? "" : "; ") + why;
  HR_CO_TRY(enough_targets(usable, before, broken));
  co_return out;
}

}  // namespace

Task<Result<std::optional<HeadVersion>>> Node::resume(Env env, Coordinator& coordinator, ObjectStore& bucket,
                                                      ResumeFromBucket options) {
  HR_CO_TRY(CoordRecord resuming, co_await coordinator.get(kResumeKey));
  HR_CO_TRY(CoordRecord current, co_await coordinator.get(kMapKey));
  if (resuming.value.empty()) {
    if (current.value.empty()) co_return std::optional<HeadVersion>();
    HR_CO_TRY(bool released, co_await was_released(env, coordinator, bucket, options.state));
    if (!released) co_return std::optional<HeadVersion>();
    HR_CO_TRY(resuming.version, co_await coordinator.put(kResumeKey, current.value, resuming.version));
    resuming.value = current.value;
  }
  HR_CO_TRY(ClusterMap before, decode_durable<ClusterMap>(resuming.value));
  // Before the bucket is told that this cluster has it.
  HR_CO_TRY(auto without, co_await look_at_places(env, options, before));
  AttachOptions attach_options;
  attach_options.cluster = before.cluster;
  attach_options.description = options.description;
  attach_options.probe = false;  // it was, when this cluster was made
  HR_CO_TRY(Attached attached, co_await attach(env, coordinator, bucket, attach_options));
  HeadVersion held = attached.head;
  bool formed = false;
  if (!current.value.empty()) {
    HR_CO_TRY(ClusterMap map, decode_durable<ClusterMap>(current.value));
    formed = map.namespace_epoch == held.record.epoch;
  }
  if (!formed) {
    // From here on there is no cluster here but the one to be: what the targets hold is of an epoch that is over.
    HR_CO_TRY(co_await coordinator.put(kMapKey, "", current.version));
    BootstrapOptions bootstrap_options;
    bootstrap_options.self = options.self;
    bootstrap_options.state = options.state;
    bootstrap_options.address = options.address;
    bootstrap_options.target_options = options.target_options;
    bootstrap_options.protection = before.protection;
    bootstrap_options.force = options.force;
    bootstrap_options.without = std::move(without);
    bootstrap_options.on_event = options.on_event;
    // Where they are stays, and each keeps its size; those that were to go are gone.
    for (const TargetInfo& target : before.targets) {
      if (leaves(target.state)) continue;
      bootstrap_options.numbers.push_back(target.number);
      bootstrap_options.devices.push_back({"", target.capacity});
      bootstrap_options.target_capacity = std::max(bootstrap_options.target_capacity, target.capacity);
    }
    bootstrap_options.targets = static_cast<uint32_t>(bootstrap_options.numbers.size());
    bootstrap_options.attached = std::move(attached);
    HR_CO_TRY(co_await bootstrap(env, coordinator, std::move(bootstrap_options)));
  }
  HR_CO_TRY(co_await put_release_record(coordinator, std::nullopt));
  HR_CO_TRY(co_await coordinator.put(kResumeKey, "", resuming.version));
  co_return std::optional<HeadVersion>(std::move(held));
}

Node::Node(Env env, Coordinator& coordinator, StoreFactory& stores, ObjectStore& bucket, NodeOptions options)
    : env_(env),
      coordinator_(coordinator),
      stores_(stores),
      options_(std::move(options)),
      targets_(env),
      service_(handlers_, identity_),
      hub_(env, identity_, handlers_),
      follower_(env, coordinator, view_),
      target_port_(hub_, view_),
      partition_port_(env, hub_, view_),
      fragments_(target_port_),
      segments_(env, fragments_),
      bucket_(bucket),
      pieces_(options_.cache_bytes),
      tier_(TierContext{env, bucket, coordinator, partition_port_, target_port_, pieces_, identity_,
                        [this](std::string winner) { lost(winner); }, [this] { return usage(); }},
            options_.tier),
      keeper_(
          TargetKeeper::Context{
              env, targets_, target_port_, partition_port_, service_, options_.self, options_.state, options_.targets,
              [this](std::function<bool(ClusterMap&)> change) { return change_map(std::move(change)); },
              [this] {
                std::vector<Damage> found = segments_.take_damage();
                for (const Damage& damage : tier_.take_damage()) found.push_back(damage);
                return found;
              },
              options_.on_event, [this] { return load_scrub(); },
              [this](std::string record) { return save_scrub(std::move(record)); }, options_.guards},
          options_.keeper) {
  targets_.register_handlers(handlers_);
  tier_.register_handlers(handlers_);
  handlers_.on<GetMap>([this](GetMap request, CallInfo) { return get_map(request); });
  handlers_.on<Report>([this](Report report, CallInfo info) { return take_report(report, std::move(info)); });
}

Node::~Node() = default;

Task<Result<GetMapReply>> Node::get_map(GetMap) {
  GetMapReply reply;
  reply.map = encode_durable(view_.map());
  // Clients that only have to wait are not told: theirs is a pause, as in a restart.
  reply.read_only = !why_read_only_.empty() && !only_waits_;
  if (reply.read_only) reply.why = why_read_only_;
  co_return reply;
}

namespace {
void add(Report& sum, const Report& report) {
  sum.degraded_reads += report.degraded_reads;
  sum.bytes_read += report.bytes_read;
  sum.bytes_written += report.bytes_written;
}
}  // namespace

Task<Result<Empty>> Node::take_report(Report report, CallInfo info) {
  constexpr size_t kMaxClients = 10'000;
  if (reports_.size() >= kMaxClients && !reports_.contains(info.header.client)) {
    add(ended_, reports_.begin()->second);
    reports_.erase(reports_.begin());
  }
  if (report.damage.size() > Report::kMaxDamage)
    co_return Error(Code::kInvalid, "at most 256 damaged fragments in one report");
  keeper_.report(report.damage);
  report.damage.clear();
  Report& last = reports_[info.header.client];
  // Another process goes on in the client's place, and counts from the start.
  if (report.degraded_reads < last.degraded_reads || report.bytes_read < last.bytes_read ||
      report.bytes_written < last.bytes_written)
    add(ended_, last);
  last = std::move(report);
  co_return Empty{};
}

Report Node::reported() const {
  Report sum = ended_;
  for (const auto& [client, report] : reports_) add(sum, report);
  const SegmentIoCounters& own = segments_.counters();
  add(sum, Report{own.degraded_reads, own.bytes_read, own.bytes_written, {}});
  return sum;
}

// Another cluster owns the namespace: nothing is changed any more, at once.
void Node::lost(const std::string& winner) {
  winner_ = winner;
  refuse_changes("the namespace is owned by another cluster: " + winner, Code::kReadOnly);
  tell({true, "taken_over", {{"owner", winner}}});
}

// "" takes them again.
void Node::refuse_changes(std::string why, Code code) {
  why_read_only_ = why;
  only_waits_ = !why.empty() && code != Code::kReadOnly;
  service_.set_read_only(why, code);
}

HotUsage Node::usage() const {
  HotUsage usage;
  uint64_t there = options_.disk_room ? options_.disk_room() : 0;
  uint64_t journals = 0;
  for (const auto& [id, status] : targets_.statuses()) {
    usage.used += status.used;
    usage.capacity += status.capacity;
    std::shared_ptr<Target> target = targets_.find(id);
    if (target == nullptr) continue;
    there += target->prewritten();
    journals += target->kept_for_journals();
  }
  // On a full disk the hot tier is what is there of it.
  if (options_.disk_room && there < usage.capacity)
    usage.capacity = std::max(there - std::min(there, journals), kBlock);
  // What writers may fill any moment; where there are many of them, it is not all filled at once.
  uint64_t reserved = 0;
  for (const auto& [id, partition] : service_.all()) reserved += partition->sessions().unwritten_reservations();
  usage.reserved = std::min(reserved * on_targets(kMaxSegment), usage.capacity / 2);
  return usage;
}

uint64_t Node::full_at(const HotUsage& now) {
  return now.capacity / 100 * kFullPercent;
}

bool Node::look_if_full(const HotUsage& now) {
  full_ = now.capacity != 0 && now.claimed() > full_at(now);
  return full_;
}

Result<uint32_t> Node::admit(bool crowded) {
  constexpr uint64_t kMany = 64;
  HotUsage now = usage();
  const bool full = look_if_full(now);
  if (now.capacity == 0) return static_cast<uint32_t>(kMany);
  if (crowded || full) return tier_.make_room();
  // The nearer it is to full, the fewer at once: what is reserved cannot be refused any more.
  uint64_t share = on_targets(kMaxSegment) * 2 * std::max<size_t>(1, service_.all().size());
  return static_cast<uint32_t>(std::clamp<uint64_t>((full_at(now) - now.claimed()) / share, 1, kMany));
}

// Bytes of fragments of a segment of that length.
uint64_t Node::on_targets(uint64_t length) const {
  const Protection& protection = view_.map().protection;
  return length / std::max<uint64_t>(1, protection.data) * protection.width();
}

// What partitions without a checkpoint of their own start from, when this cluster began on a bucket's manifest.
Task<Result<std::map<PartitionId, Partition::Origin>>> Node::origins() {
  std::map<PartitionId, Partition::Origin> out;
  HR_CO_TRY(CoordRecord origin, co_await coordinator_.get(kOriginKey));
  if (origin.value.empty()) co_return out;
  HR_CO_TRY(HeadRecord head, decode_durable<HeadRecord>(origin.value));
  HR_CO_TRY(ManifestRecord manifest, co_await read_manifest(env_, bucket_, head));
  for (const PartitionManifest& partition : manifest.partitions) {
    Partition::Origin from;
    from.files.import = partition.store_import;
    for (const ManifestFile& file : partition.files) from.files.files.push_back(file.file);
    from.fetch = fetch_from_bucket(env_, bucket_, partition);
    HR_CO_TRY(from.locations, co_await read_locations(env_, bucket_, manifest, partition.id));
    out[partition.id] = std::move(from);
  }
  co_return out;
}

Task<Result<ClusterMap>> Node::load_map() {
  HR_CO_TRY(CoordRecord record, co_await coordinator_.get(kMapKey));
  if (record.value.empty()) co_return Error(Code::kNotFound, "there is no cluster here yet");
  map_version_ = record.version;
  co_return decode_durable<ClusterMap>(record.value);
}

Task<Result<void>> Node::put_map(ClusterMap map) {
  ++map.version;
  HR_CO_TRY(map_version_, co_await coordinator_.put(kMapKey, encode_durable(map), map_version_));
  view_.update(std::move(map));
  co_return {};
}

Task<Result<void>> Node::change_map(std::function<bool(ClusterMap&)> change) {
  Mutex::Guard guard = co_await map_changes_.lock();
  ClusterMap map = view_.map();
  if (!change(map)) co_return Result<void>();
  co_return co_await put_map(std::move(map));
}

Task<Result<void>> Node::open_targets(ClusterMap& map) {
  HR_CO_TRY(CoordRecord seen, co_await coordinator_.get(kGenerationsKey));
  if (seen.version != 0) {
    HR_CO_TRY(GenerationsRecord record, decode_durable<GenerationsRecord>(seen.value));
    for (const TargetGeneration& one : record.targets) generations_[one.target] = one.generation;
  }
  struct Place {
    TargetInfo* info = nullptr;
    bool never_there = false;
  };
  std::vector<Place> places;
  std::vector<Task<Result<std::unique_ptr<Target>>>> opens;
  Semaphore at_once(kOpensAtOnce);
  for (TargetInfo& info : map.targets) {
    if (info.node != options_.self || info.state == TargetState::kRetired) continue;
    TargetExpected expected;
    expected.id = info.id;
    expected.cluster = map.cluster;
    expected.number = info.number;
    auto seen_generation = generations_.find(info.id);
    if (seen_generation != generations_.end()) expected.generation = seen_generation->second;
    std::string directory = target_directory(options_.state, info.number);
    // One that was lost before anything was on it: whatever is there instead, nothing is missing.
    const bool never_there = info.state == TargetState::kLost && seen_generation == generations_.end();
    Result<void> held = options_.guards != nullptr ? options_.guards->hold(directory) : Result<void>();
    if (!held.ok() && info.state != TargetState::kLost) co_return std::move(held).error().within(directory);
    places.emplace_back(&info, never_there);
    opens.push_back(open_target(&at_once, std::move(held), env_, directory, expected, options_.targets));
  }
  // Side by side: one whose device does not answer holds up no other.
  std::vector<Result<std::unique_ptr<Target>>> opened = co_await when_all(std::move(opens));
  for (size_t i = 0; i < places.size(); ++i) {
    TargetInfo& info = *places[i].info;
    Result<std::unique_ptr<Target>> target = std::move(opened[i]);
    if (target.ok()) {
      if (leaves(info.state))
        (*target)->take_no_more();
      else
        info.state = TargetState::kLive;
      if ((*target)->fenced()) info.state = when_lost(info.state);
      HR_CO_TRY(targets_.add(*std::move(target)));
      continue;
    }
    // Another cluster's or a newer format is a mistake to be mended before anything is served.
    if (!places[i].never_there && (target.code() == Code::kInvalid || target.code() == Code::kUnsupportedFormat))
      co_return std::move(target).error().within(target_directory(options_.state, info.number));
    targets_.add_failed(info.id, info.number, target.error().text());
    info.state = when_lost(info.state);
  }
  co_return {};
}

// Durable on the targets already: what is noted is never above what they hold.
Task<Result<void>> Node::note_generations() {
  GenerationsRecord record;
  std::map<TargetId, uint64_t> now;
  for (const TargetInfo& info : view_.map().targets) {
    if (std::shared_ptr<Target> target = targets_.find(info.id); target != nullptr)
      now[info.id] = target->generation();
    else if (auto at = generations_.find(info.id); at != generations_.end())
      now[info.id] = at->second;
  }
  if (now == generations_) co_return Result<void>();
  for (const auto& [id, generation] : now) record.targets.push_back({id, generation});
  HR_CO_TRY(CoordRecord old, co_await coordinator_.get(kGenerationsKey));
  HR_CO_TRY(co_await coordinator_.put(kGenerationsKey, encode_durable(record), old.version));
  generations_ = std::move(now);
  co_return Result<void>();
}

Task<Result<std::string>> Node::load_scrub() {
  HR_CO_TRY(CoordRecord record, co_await coordinator_.get(kScrubKey));
  co_return std::move(record.value);
}

Task<Result<void>> Node::save_scrub(std::string record) {
  HR_CO_TRY(CoordRecord old, co_await coordinator_.get(kScrubKey));
  HR_CO_TRY(co_await coordinator_.put(kScrubKey, std::move(record), old.version));
  co_return Result<void>();
}

Task<Result<void>> Node::start(std::optional<HeadVersion> held) {
  HR_CO_TRY(ClusterMap map, co_await load_map());
  HR_CO_TRY(CoordRecord secret, co_await coordinator_.get(kSecretKey));
  if (secret.value.size() != secret_.size())
    co_return Error(Code::kCorrupt, "the namespace's secret is missing from the coordinator");
  std::copy(secret.value.begin(), secret.value.end(), secret_.begin());
  targets_.set_secret(secret_);
  identity_.name_space = map.name_space;
  identity_.namespace_epoch = map.namespace_epoch;
  Nanos began = env_.clock.now();
  HR_CO_TRY(co_await open_targets(map));
  for (const TargetInfo& info : map.targets) {
    if (info.state != TargetState::kLost) continue;
    tell({true,
          "target_lost",
          {{"target", "t" + std::to_string(info.number)},
           {"id", to_string(info.id)},
           {"why", targets_.why_out(info.id).value_or("it is not on this node")}}});
  }
  times_.targets = (env_.clock.now() - began).seconds();
  HR_CO_TRY(address_, co_await hub_.serve(options_.listen));
  for (NodeInfo& node : map.nodes)
    if (node.id == options_.self) node.address = address_;
  HR_CO_TRY(co_await put_map(std::move(map)));
  HR_CO_TRY(co_await note_generations());
  began = env_.clock.now();
  HR_CO_TRY(co_await lead_partitions());
  times_.partitions = (env_.clock.now() - began).seconds();
  follower_.start();
  began = env_.clock.now();
  HR_CO_TRY(co_await begin_tiering(std::move(held)));
  times_.bucket = (env_.clock.now() - began).seconds();
  keeper_.start();
  scope_.spawn(watch_loop());
  co_return {};
}

namespace {
// Whether asking the bucket again, later or with other credentials, may tell who owns the namespace.
bool may_be_confirmed(Code code) {
  switch (code) {
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kDisconnected:
    case Code::kDenied:
    case Code::kNotFound:  // the bucket itself: its head is created where only that is missing
    case Code::kIo:
    case Code::kNoSpace:
    case Code::kConflict:
      return true;
    default:
      return false;
  }
}
}  // namespace

Task<Result<void>> Node::begin_tiering(std::optional<HeadVersion> held) {
  if (held) {
    HR_CO_TRY(co_await tier_.start(std::move(held)));
    service_.open();
    co_return Result<void>();
  }
  refuse_changes("the bucket has not confirmed yet that this cluster owns the namespace", Code::kUnavailable);
  service_.open();
  auto first = std::make_shared<Once<Result<void>>>();
  confirming_ = std::make_unique<Scope>();
  confirming_->spawn(confirm_ownership(first));
  // A bucket that does not answer must not keep anybody from what is hot.
  std::optional<Result<void>> tiering = co_await first->wait_until(env_.clock, env_.clock.now() + kBucketPatience);
  // A deposed node still answers reads, and says who won.
  if (!tiering || tiering->ok() || tiering->code() == Code::kDeposed || may_be_confirmed(tiering->code())) {
    if (only_waits_) confirming_->spawn(lose_patience());
    co_return Result<void>();
  }
  co_return std::move(*tiering).error().within("bucket");
}

// Until the bucket answers: at first whoever wants to write waits, then it is told that it cannot.
Task<void> Node::confirm_ownership(std::shared_ptr<Once<Result<void>>> first) {
  Nanos began = env_.clock.now();
  Nanos pause = milliseconds(500);
  bool told = false;
  for (;;) {
    Result<void> tiering = co_await tier_.start();
    if (tiering.ok()) {
      refuse_changes("", Code::kReadOnly);
      for (;;) {
        Result<void> open = co_await tier_.undo_interrupted_spin_down();
        if (open.ok() || !winner_.empty()) break;
        tell({true, "still_closed", {{"why", open.error().text()}}});
        co_await env_.clock.sleep(pause);
        pause = std::min(pause * 2, seconds(10));
      }
      if (told) tell({false, "owner_confirmed", {{"after_s", std::to_string((env_.clock.now() - began).seconds())}}});
    } else if (tiering.code() != Code::kDeposed) {  // otherwise lost() has said so
      bool final = !may_be_confirmed(tiering.code());
      bool patient = !final && env_.clock.now() - began < options_.unconfirmed_patience;
      refuse_changes("the bucket has not confirmed that this cluster owns the namespace: " + tiering.error().message(),
                     patient ? Code::kUnavailable : Code::kReadOnly);
      if (!told || final) tell({true, "owner_unconfirmed", {{"why", tiering.error().text()}}});
      told = true;
    }
    bool over = tiering.ok() || !may_be_confirmed(tiering.code());
    if (!first->is_set()) first->set(std::move(tiering));
    if (over) co_return;
    co_await env_.clock.sleep(pause);
    pause = std::min(pause * 2, seconds(10));
  }
}

// Meanwhile whoever looks is told what the bucket does, not only when a whole round of asking it has failed.
Task<void> Node::lose_patience() {
  const Nanos until = env_.clock.now() + options_.unconfirmed_patience;
  while (only_waits_ && env_.clock.now() < until) {
    std::string trouble = bucket_.trouble();
    if (!trouble.empty())
      refuse_changes("the bucket has not confirmed yet that this cluster owns the namespace: " + trouble,
                     Code::kUnavailable);
    co_await env_.clock.sleep(seconds(1));
  }
  if (only_waits_) refuse_changes(why_read_only_, Code::kReadOnly);
}

// On a full disk journals have what is kept for them and no more: they are trimmed long before they would be elsewhere.
void Node::relieve_journals() {
  constexpr uint64_t kShortJournal = kMiB;
  if (!look_if_full(usage())) return;
  for (const auto& [id, partition] : service_.all())
    if (partition->serving() && partition->journal().bytes_since_checkpoint() > kShortJournal)
      partition->checkpoint_soon();
}

// Trouble of the partitions' background work, into the log when it changes.
void Node::watch_partitions() {
  for (const auto& [id, partition] : service_.all()) {
    std::string trouble = partition->serving() ? partition->last_error() : partition->state();
    if (std::string& told = told_[id]; trouble != told) {
      told = trouble;
      if (!trouble.empty())
        tell({true, "partition_trouble", {{"partition", std::to_string(id.value())}, {"why", trouble}}});
    }
    if (!partition->serving() && options_.on_partition_failed)
      options_.on_partition_failed("partition " + std::to_string(id.value()) + ": " + trouble);
  }
}

Task<void> Node::watch_loop() {
  uint64_t evicted = 0;
  std::string upload_error, publish_error, evict_error;
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, seconds(2));
    if (!slept) co_return;
    watch_partitions();
    relieve_journals();
    Result<void> noted = co_await note_generations();
    (void)noted.ok();  // tried again
    TierStatus tier = tier_.status();
    if (tier.evict.bytes != evicted) {
      tell(
          {false,
           "evicted",
           {{"bytes", std::to_string(tier.evict.bytes - evicted)}, {"segments", std::to_string(tier.evict.segments)}}});
      evicted = tier.evict.bytes;
    }
    auto changed = [&](std::string& told, const std::string& now, const char* what) {
      if (told == now) return;
      told = now;
      if (!now.empty()) tell({true, what, {{"why", now}}});
    };
    changed(upload_error, tier.upload.last_error, "upload_failed");
    changed(publish_error, tier.publish.last_error, "publish_failed");
    changed(evict_error, tier.evict.last_error, "evict_failed");
  }
}

Task<Result<Node::Pending>> Node::pending_upload() {
  Pending out;
  const std::vector<PartitionInfo> partitions = view_.map().partitions;
  for (const PartitionInfo& info : partitions) {
    Uploadable request;
    request.limit = 4096;
    for (;;) {
      HR_CO_TRY(SegmentsReply page, co_await partition_port_.call(info.id, request));
      for (const Location& location : page.segments) {
        ++out.segments;
        out.bytes += location.length;
      }
      if (!page.more || page.segments.empty()) break;
      request.after = page.segments.back().segment;
    }
  }
  co_return out;
}

namespace {
// Which object of the bucket a damaged or missing store file is, and what helps.
Task<std::string> from_object(Env env, Coordinator* coordinator, ObjectStore* bucket, Error error) {
  if (error.code() != Code::kCorrupt && error.code() != Code::kNotFound) co_return std::string();
  std::string hint = put_back_hint(error.code());
  Result<CoordRecord> origin = co_await coordinator->get(kOriginKey);
  if (!origin.ok()) co_return hint;
  Result<HeadRecord> head = decode_durable<HeadRecord>(origin->value);
  if (!head.ok()) co_return hint;
  Result<ManifestRecord> manifest = co_await read_manifest(env, *bucket, *head);
  if (!manifest.ok()) co_return hint;
  for (const PartitionManifest& partition : manifest->partitions)
    for (const ManifestFile& file : partition.files)
      if (error.message().find(file.file.name) != std::string::npos)
        co_return " (" + bucket->url() + ": " + file.key + ")" + hint;
  co_return hint;
}
}  // namespace

Task<Result<void>> Node::lead_partitions() {
  PartitionContext context{
      env_,
      hub_,
      view_,
      target_port_,
      partition_port_,
      coordinator_,
      stores_,
      segments_,
      secret_,
      options_.self,
      options_.partitions,
      [this](bool crowded) { return admit(crowded); },
      [this] { return full_; },
      [this](PartitionId id, const std::string& who) {
        tell({true, "client_evicted", {{"partition", std::to_string(id.value())}, {"client", who}}});
      }};
  HR_CO_TRY(auto from, co_await origins());
  bool rehydrated = !from.empty();
  std::vector<std::shared_ptr<Partition>> started;
  std::vector<Task<Result<void>>> starts;
  for (const PartitionInfo& info : view_.map().partitions) {
    started.push_back(std::make_shared<Partition>(context, info.id));
    auto origin = from.find(info.id);
    starts.push_back(origin == from.end() ? started.back()->start()
                                          : started.back()->start_from(std::move(origin->second)));
  }
  std::vector<Result<void>> results = co_await when_all(std::move(starts));
  ClusterMap map = view_.map();
  for (size_t i = 0; i < started.size(); ++i) {
    if (!results[i].ok()) {
      Error error = std::move(results[i]).error();
      if (rehydrated) {
        std::string hint = co_await from_object(env_, &coordinator_, &bucket_, error);
        error = Error(error.code(), error.message() + hint);
      }
      co_return std::move(error).within("partition " + std::to_string(started[i]->id().value()));
    }
    service_.add(started[i]);
    for (PartitionInfo& info : map.partitions) {
      if (info.id != started[i]->id()) continue;
      info.leader = options_.self;
      info.epoch = started[i]->status().epoch;
    }
  }
  HR_CO_TRY(co_await put_map(std::move(map)));
  if (rehydrated) scope_.spawn(forget_origin());
  // The root may be held by a prepared transaction that another partition has to decide.
  for (const std::shared_ptr<Partition>& partition : started) partition->scope().spawn(resolve_loop(*partition));
  for (const std::shared_ptr<Partition>& partition : started) {
    HR_CO_TRY(co_await make_root(*partition));
  }
  co_return {};
}

// When each partition has a checkpoint of its own to start from.
Task<void> Node::forget_origin() {
  for (;;) {
    bool all = true;
    for (const auto& [id, partition] : service_.all()) all &= partition->has_checkpoint();
    if (all) {
      Result<CoordRecord> origin = co_await coordinator_.get(kOriginKey);
      if (origin.ok() && (co_await coordinator_.put(kOriginKey, "", origin->version)).ok()) co_return;
    }
    bool slept = co_await scope_.token().sleep(env_.clock, seconds(1));
    if (!slept) co_return;
  }
}

Task<Result<Cut>> Node::push() {
  {
    std::vector<std::shared_ptr<Partition>> partitions;
    for (const auto& [id, partition] : service_.all()) partitions.push_back(partition);
    Scope scope;
    for (const auto& partition : partitions) scope.spawn(partition->flush_clients());
    co_await scope.join();
  }
  HR_CO_TRY(co_await tier_.push());
  co_return co_await tier_.publish();
}

Task<void> Node::stop() {
  confirming_.reset();  // where it stands: a bucket that does not answer must not hold up the end
  scope_.cancel();
  co_await scope_.join();
  co_await keeper_.stop();
  follower_.stop();
  co_await tier_.stop();
  co_await hub_.close();
  for (const auto& [id, partition] : service_.all()) co_await partition->stop();
  co_await targets_.close();
}

}  // namespace headrace
