#include "apps/node.h"

#include <algorithm>

#include "meta/ops/names.h"
#include "meta/ops/two_phase.h"
#include "runtime/when_all.h"
#include "stripe/placement_policy.h"

namespace headrace {

namespace {

constexpr const char* kFormingKey = "forming";  // there while bootstrap() is under way
constexpr uint32_t kSlots = 65'536;

std::string target_directory(const std::string& state, uint32_t number) { return state + "/targets/t" + std::to_string(number); }

Task<Result<void>> remove_target(Env env, std::string directory) {
  Result<void> removed = co_await env.disk.remove(directory + "/target.dat");
  if (!removed.ok() && removed.code() != Code::kNotFound) co_return removed;
  co_return {};
}

}  // namespace

Task<Result<void>> Node::bootstrap(Env env, Coordinator& coordinator, BootstrapOptions options) {
  HR_ASSERT(options.partitions > 0 && options.target_capacity > 0);
  if (options.targets < options.protection.parity + 1u)
    co_return Error(Code::kInvalid, to_string(options.protection) + " needs at least " + std::to_string(options.protection.parity + 1) +
                                        " targets, there are " + std::to_string(options.targets) + ": add targets, or choose less parity");
  HR_CO_TRY(CoordRecord there, co_await coordinator.get(kMapKey));
  if (there.version != 0) co_return Error(Code::kExists, options.state + " holds a cluster already");
  HR_CO_TRY(CoordRecord forming, co_await coordinator.get(kFormingKey));
  HR_CO_TRY(co_await env.disk.make_directories(options.state + "/targets"));
  HR_CO_TRY(co_await env.disk.sync_directory(options.state));
  if (forming.version == 0) {
    for (uint32_t i = 0; i < options.targets; ++i) {
      Result<std::unique_ptr<File>> file = co_await env.disk.open(target_directory(options.state, i) + "/target.dat", {});
      if (file.ok())
        co_return Error(Code::kInvalid, target_directory(options.state, i) + " holds a target, but the coordinator's file is gone: put STATE/coord "
                                            "back from a copy, or choose an empty --state");
    }
    HR_CO_TRY(co_await coordinator.put(kFormingKey, "1", 0));
  }

  ClusterMap map;
  map.version = 1;
  map.cluster = ClusterId(env.random.nonzero());
  map.name_space = NamespaceId((env.random.nonzero() & 0xffff'ffff'ffff) | 1);
  map.namespace_epoch = NamespaceEpoch(1);
  if (options.attached) {
    const HeadRecord& head = options.attached->head.record;
    map.cluster = head.cluster;
    map.name_space = head.name_space;
    map.namespace_epoch = head.epoch;
  }
  map.protection = options.protection;
  map.nodes.push_back({options.self, options.address, true});
  for (uint32_t i = 0; i < options.targets; ++i) {
    TargetInfo info;
    info.id = TargetId(env.random.nonzero());
    info.node = options.self;
    info.number = i;
    info.domain = "local/local/local/t" + std::to_string(i);
    info.capacity = options.target_capacity;
    std::string directory = target_directory(options.state, i);
    HR_CO_TRY(co_await env.disk.make_directories(directory));
    HR_CO_TRY(co_await remove_target(env, directory));
    TargetFormat format;
    format.id = info.id;
    format.cluster = map.cluster;
    format.name_space = map.name_space;
    format.capacity = info.capacity;
    format.number = i;
    HR_CO_TRY(std::unique_ptr<Target> target, co_await Target::format(env, directory, format, options.target_options));
    co_await target->close();
    map.targets.push_back(std::move(info));
  }
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
    uint64_t word = env.random.next();
    secret.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  HR_CO_TRY(CoordRecord old_secret, co_await coordinator.get(kSecretKey));
  HR_CO_TRY(co_await coordinator.put(kSecretKey, secret, old_secret.version));
  HR_CO_TRY(co_await coordinator.put(kMapKey, encode_durable(map), 0));
  co_return {};
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
            options_.tier) {
  targets_.register_handlers(handlers_);
  tier_.register_handlers(handlers_);
  handlers_.on<GetMap>([this](GetMap request, CallInfo) { return get_map(request); });
  handlers_.on<Report>([this](Report report, CallInfo info) { return take_report(report, std::move(info)); });
}

Node::~Node() = default;

Task<Result<GetMapReply>> Node::get_map(GetMap) {
  GetMapReply reply;
  reply.map = encode_durable(view_.map());
  reply.read_only = !why_read_only_.empty();
  reply.why = why_read_only_;
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
  reports_[info.header.client] = report;
  co_return Empty{};
}

Report Node::reported() const {
  Report sum = ended_;
  for (const auto& [client, report] : reports_) add(sum, report);
  const SegmentIoCounters& own = segments_.counters();
  add(sum, Report{own.degraded_reads, own.bytes_read, own.bytes_written});
  return sum;
}

// Another cluster owns the namespace: nothing is changed any more, at once.
void Node::lost(const std::string& winner) {
  why_read_only_ = winner;
  service_.set_read_only("the namespace is owned by another cluster: " + winner);
}

HotUsage Node::usage() const {
  HotUsage usage;
  for (const auto& [id, status] : targets_.statuses()) {
    usage.used += status.used;
    usage.capacity += status.capacity;
  }
  return usage;
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
  if (record.version == 0) co_return Error(Code::kNotFound, "there is no cluster here yet");
  map_version_ = record.version;
  co_return decode_durable<ClusterMap>(record.value);
}

Task<Result<void>> Node::put_map(ClusterMap map) {
  ++map.version;
  HR_CO_TRY(map_version_, co_await coordinator_.put(kMapKey, encode_durable(map), map_version_));
  view_.update(std::move(map));
  co_return {};
}

Task<Result<void>> Node::open_targets(ClusterMap& map) {
  for (TargetInfo& info : map.targets) {
    if (info.node != options_.self || info.state == TargetState::kRetired) continue;
    TargetExpected expected;
    expected.id = info.id;
    expected.cluster = map.cluster;
    expected.number = info.number;
    std::string directory = target_directory(options_.state, info.number);
    Result<std::unique_ptr<Target>> target = co_await Target::open(env_, directory, expected, options_.targets);
    if (target.ok()) {
      bool fenced = (*target)->fenced();
      info.state = fenced ? TargetState::kLost : TargetState::kLive;
      HR_CO_TRY(targets_.add(*std::move(target)));
      continue;
    }
    // Another cluster's or a newer format is a mistake to be mended before anything is served.
    if (target.code() == Code::kInvalid || target.code() == Code::kUnsupportedFormat) co_return std::move(target).error().within(directory);
    targets_.add_failed(info.id, info.number, target.error().text());
    info.state = TargetState::kLost;
  }
  co_return {};
}

Task<Result<void>> Node::start(std::optional<HeadVersion> held) {
  HR_CO_TRY(ClusterMap map, co_await load_map());
  HR_CO_TRY(CoordRecord secret, co_await coordinator_.get(kSecretKey));
  if (secret.value.size() != secret_.size()) co_return Error(Code::kCorrupt, "the namespace's secret is missing from the coordinator");
  std::copy(secret.value.begin(), secret.value.end(), secret_.begin());
  targets_.set_secret(secret_);
  identity_.name_space = map.name_space;
  identity_.namespace_epoch = map.namespace_epoch;
  HR_CO_TRY(co_await open_targets(map));
  HR_CO_TRY(address_, co_await hub_.serve(options_.listen));
  for (NodeInfo& node : map.nodes)
    if (node.id == options_.self) node.address = address_;
  HR_CO_TRY(co_await put_map(std::move(map)));
  HR_CO_TRY(co_await lead_partitions());
  follower_.start();
  Result<void> tiering = co_await tier_.start(std::move(held));
  // A deposed node still answers reads, and says who won.
  if (!tiering.ok() && tiering.code() != Code::kDeposed) co_return std::move(tiering).error().within("bucket");
  co_return {};
}

Task<Result<void>> Node::lead_partitions() {
  PartitionContext context{env_, hub_, view_, target_port_, partition_port_, coordinator_, stores_, segments_, secret_, options_.self, options_.partitions};
  HR_CO_TRY(auto from, co_await origins());
  bool rehydrated = !from.empty();
  std::vector<std::shared_ptr<Partition>> started;
  std::vector<Task<Result<void>>> starts;
  for (const PartitionInfo& info : view_.map().partitions) {
    started.push_back(std::make_shared<Partition>(context, info.id));
    auto origin = from.find(info.id);
    starts.push_back(origin == from.end() ? started.back()->start() : started.back()->start_from(std::move(origin->second)));
  }
  std::vector<Result<void>> results = co_await when_all(std::move(starts));
  ClusterMap map = view_.map();
  for (size_t i = 0; i < started.size(); ++i) {
    if (!results[i].ok()) co_return std::move(results[i]).error().within("partition " + std::to_string(started[i]->id().value()));
    service_.add(started[i]);
    for (PartitionInfo& info : map.partitions) {
      if (info.id != started[i]->id()) continue;
      info.leader = options_.self;
      info.epoch = started[i]->status().epoch;
    }
  }
  HR_CO_TRY(co_await put_map(std::move(map)));
  if (rehydrated) {  // every partition has its own checkpoint now
    HR_CO_TRY(CoordRecord origin, co_await coordinator_.get(kOriginKey));
    HR_CO_TRY(co_await coordinator_.put(kOriginKey, "", origin.version));
  }
  for (const std::shared_ptr<Partition>& partition : started) {
    HR_CO_TRY(co_await make_root(*partition));
    partition->scope().spawn(resolve_loop(*partition));
  }
  co_return {};
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
  follower_.stop();
  co_await tier_.stop();
  co_await hub_.close();
  for (const auto& [id, partition] : service_.all()) co_await partition->stop();
  co_await targets_.close();
}

}  // namespace headrace
