// One partition over a target, a coordinator and a store in memory, in a simulated world. For tests of operations.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "meta/file_extents.h"
#include "meta/ops/cuts.h"
#include "meta/ops/data.h"
#include "meta/ops/names.h"
#include "meta/ops/sessions.h"
#include "meta/ops/steps.h"
#include "meta/ops/work.h"
#include "meta/row_check.h"
#include "meta/store/memory/memory_store.h"
#include "runtime/sim/world.h"

namespace headrace {

class MapCoordinator final : public Coordinator {
 public:
  Task<Result<CoordRecord>> get(std::string key) override {
    if (failing_gets > 0) {
      --failing_gets;
      co_return Error(Code::kIo, "injected");
    }
    co_return records[key];
  }
  Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) override {
    ++puts_under_way;
    if (clock != nullptr) co_await clock->sleep(pause);
    --puts_under_way;
    if (refused_puts > 0) {
      --refused_puts;
      co_return Error(Code::kNoSpace, "injected");
    }
    CoordRecord& record = records[key];
    if (record.version != expected) co_return Error(Code::kConflict, "another version");
    record = {std::move(value), expected + 1};
    if (lost_puts > 0) {
      --lost_puts;
      co_return Error(Code::kIo, "injected, after it was written");
    }
    co_return record.version;
  }
  Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string) override {
    co_return Error(Code::kNotSupported, "list");
  }
  Task<Result<uint64_t>> changed_since(uint64_t) override { co_return Error(Code::kNotSupported, "changed_since"); }
  Task<Result<void>> renew_lease(std::string, uint64_t) override { co_return {}; }
  Task<Result<bool>> lease_alive(std::string) override { co_return true; }
  std::map<std::string, CoordRecord> records;
  Clock* clock = nullptr;  // with `pause`: a put takes so long
  Nanos pause{};
  int puts_under_way = 0;
  uint64_t refused_puts = 0;  // so many fail from now on, and change nothing
  uint64_t lost_puts = 0;     // or are written and fail all the same
  uint64_t failing_gets = 0;
};

// Journals and fragments of all targets, in memory; whatever was answered is durable.
struct MemoryTargets final : FragmentPort {
  explicit MemoryTargets(Handlers& handlers) {
    handlers.on<JournalSeal>([this](JournalSeal, CallInfo) { return seal(); });
    handlers.on<JournalOpen>([this](JournalOpen r, CallInfo) { return open(std::move(r)); });
    handlers.on<JournalAppend>([this](JournalAppend r, CallInfo) { return append(std::move(r)); });
    handlers.on<JournalRead>([this](JournalRead r, CallInfo) { return read_journal(std::move(r)); });
    handlers.on<JournalTrim>([this](JournalTrim r, CallInfo) { return trim(std::move(r)); });
    handlers.on<FragmentFree>([this](FragmentFree r, CallInfo) { return free(std::move(r)); });
  }
  struct Run {
    Position first;
    std::vector<JournalBatch> batches;
  };
  std::map<RunId, Run> runs;
  std::map<FragmentName, FragmentWrite> fragments;
  uint64_t freed = 0;
  uint64_t appends = 0;
  uint64_t failing_appends = 0;  // so many fail from now on
  uint64_t failing_reads = 0;    // of journals, with `read_fails`
  Code read_fails = Code::kTimeout;
  uint64_t last_append = UINT64_MAX;  // nothing is taken behind it
  std::set<TargetId> full;            // they take nothing
  std::set<TargetId> keeping;         // they free nothing

  Task<Result<Empty>> trim(JournalTrim request) {
    for (RunId run : request.forget) runs.erase(run);
    co_return Empty{};
  }
  Task<Result<JournalSealReply>> seal() {
    JournalSealReply reply;
    for (auto& [id, run] : runs) {
      Position last = run.batches.empty() ? Position(run.first.value() - 1) : run.batches.back().last;
      reply.runs.push_back({id, run.first, last, false, ""});
    }
    co_return reply;
  }
  Task<Result<Empty>> open(JournalOpen request) {
    if (full.contains(request.target) || appends >= last_append) co_return Error(Code::kNoSpace, "injected");
    runs[request.run].first = request.first;
    co_return Empty{};
  }
  Task<Result<Empty>> append(JournalAppend request) {
    if (full.contains(request.target) || appends >= last_append) co_return Error(Code::kNoSpace, "injected");
    if (failing_appends > 0) {
      --failing_appends;
      co_return Error(Code::kIo, "injected");
    }
    ++appends;
    runs[request.run].batches.push_back({request.first, request.last, Buffer::copy_of(request.payload.view())});
    co_return Empty{};
  }
  Task<Result<JournalReadReply>> read_journal(JournalRead request) {
    JournalReadReply reply;
    if (failing_reads > 0) {
      --failing_reads;
      co_return Error(read_fails, "injected");
    }
    if (request.from < runs[request.run].first) co_return Error(Code::kNotFound, "trimmed");
    for (const JournalBatch& batch : runs[request.run].batches)
      if (batch.last >= request.from)
        reply.batches.push_back({batch.first, batch.last, Buffer::copy_of(batch.bytes.view())});
    co_return reply;
  }
  Task<Result<Empty>> free(FragmentFree request) {
    if (keeping.contains(request.target)) co_return Error(Code::kTimeout, "injected");
    for (const FragmentName& name : request.fragments) {
      ++freed;
      fragments.erase(name);
    }
    co_return Empty{};
  }
  Task<Result<void>> write(FragmentWrite request, Capability) override {
    FragmentName name{request.segment, request.index};
    fragments[name] = std::move(request);
    co_return {};
  }
  Task<Result<FragmentReadReply>> read(FragmentRead request, Capability) override {
    auto it = fragments.find({request.segment, request.index});
    if (it == fragments.end()) co_return Error(Code::kNoFragment, "not here");
    FragmentReadReply reply;
    reply.segment_length = it->second.segment_length;
    reply.protection = it->second.protection;
    reply.payload = it->second.payload.slice(request.offset, request.length);
    for (uint64_t i = 0; i < request.length / 4096; ++i)
      reply.crcs.push_back(it->second.crcs[request.offset / 4096 + i]);
    co_return reply;
  }
};

// Stores whose disk errs.
struct FaultyStores final : StoreFactory {
  explicit FaultyStores(StoreFactory& under) : under_(under) {}
  uint64_t flipped_reads = 0;  // of checkpoints' files: so many from now on have a bit flipped
  bool damaged = false;        // a checkpoint says so
  std::map<Table, uint64_t> failing_scans;

  Task<Result<std::unique_ptr<Store>>> create(std::string name) override {
    HR_CO_TRY(std::unique_ptr<Store> store, co_await under_.create(std::move(name)));
    co_return std::unique_ptr<Store>(std::make_unique<Faulty>(*this, std::move(store)));
  }
  Task<Result<std::unique_ptr<Store>>> import(std::string name, StoreFiles files, FetchFile fetch) override {
    HR_CO_TRY(std::unique_ptr<Store> store,
              co_await under_.import(std::move(name), std::move(files), std::move(fetch)));
    co_return std::unique_ptr<Store>(std::make_unique<Faulty>(*this, std::move(store)));
  }

 private:
  struct Faulty final : Store {
    Faulty(FaultyStores& faults, std::unique_ptr<Store> under) : faults_(faults), under_(std::move(under)) {}
    Found get_now(const Key& key, RowValue& value) override { return under_->get_now(key, value); }
    Task<Result<std::optional<RowValue>>> get(Key key) override { return under_->get(std::move(key)); }
    Task<Result<StoreRows>> scan(Key from, Key to, size_t limit) override {
      uint64_t& failing = faults_.failing_scans[from.size() > 2 ? static_cast<Table>(from[2]) : Table{}];
      if (failing > 0) {
        --failing;
        co_return Error(Code::kIo, "injected");
      }
      co_return co_await under_->scan(std::move(from), std::move(to), limit);
    }
    Task<Result<void>> apply(std::vector<RowChange> changes, Position at) override {
      return under_->apply(std::move(changes), at);
    }
    Position applied() const override { return under_->applied(); }
    Task<Result<StoreFiles>> checkpoint(uint64_t tag) override {
      if (faults_.damaged) co_return Error(Code::kCorrupt, "injected");
      co_return co_await under_->checkpoint(tag);
    }
    Task<Result<Buffer>> read_file(uint64_t tag, std::string name, uint64_t offset, uint64_t length) override {
      HR_CO_TRY(Buffer read, co_await under_->read_file(tag, std::move(name), offset, length));
      if (faults_.flipped_reads == 0) co_return read;
      --faults_.flipped_reads;
      Buffer flipped = Buffer::copy_of(read.view());
      flipped.data()[flipped.size() / 2] ^= std::byte{1};
      co_return flipped;
    }
    Task<Result<void>> release(uint64_t tag) override { return under_->release(tag); }

    FaultyStores& faults_;
    std::unique_ptr<Store> under_;
  };
  StoreFactory& under_;
};

struct OnePartition {
  static constexpr TargetId kTarget{77};

  // Slots behind last_slot are another partition's, whose messages a test answers with `handlers`.
  explicit OnePartition(uint64_t seed, uint32_t miss_percent = 0, PartitionOptions partition_options = {},
                        uint16_t last_slot = 65535)
      : world(seed),
        machine(world.add_machine("node")),
        env(machine.env()),
        hub(env, identity, handlers),
        targets(handlers),
        target_port(hub, view),
        partition_port(env, hub, view),
        segments(env, targets),
        stores(MemoryStoreLatency{.clock = &env.clock,
                                  .random = &env.random,
                                  .miss_percent = miss_percent,
                                  .checkpoint = &checkpoint_takes,
                                  .faults = &store_faults}),
        options(partition_options) {
    options.lease = seconds(100'000);  // nobody renews
    ClusterMap map;
    map.version = 1;
    map.name_space = NamespaceId(9);
    map.namespace_epoch = NamespaceEpoch(1);
    map.protection = {1, 0};
    map.nodes.push_back({NodeId(1), kSelfAddress, true});
    for (uint64_t i = 0; i < 3; ++i)
      map.targets.push_back({TargetId(kTarget.value() + i), NodeId(1), 0, "z/r/h", TargetState::kLive, kGiB, 0});
    map.partitions.push_back({PartitionId(0), 0, last_slot, NodeId(1), PartitionEpoch(1)});
    if (last_slot < 65535)
      map.partitions.push_back(
          {PartitionId(1), static_cast<uint16_t>(last_slot + 1), 65535, NodeId(1), PartitionEpoch(1)});
    identity.name_space = map.name_space;
    identity.namespace_epoch = map.namespace_epoch;
    view.update(map);
    PartitionRecord record;
    record.last_slot = last_slot;
    coordinator.records[partition_key(0)] = {encode_durable(record), 1};
    start();
    check(world.run(make_root(*partition)));
  }
  ~OnePartition() {
    (void)world.run_until(partition->stop());
    (void)world.run_until(hub.close());
  }

  void make_partition() {
    PartitionContext context{env,    hub,      view, target_port, partition_port, coordinator,
                             faulty, segments, {},   NodeId(1),   options};
    context.admit = [this](bool) { return admits; };
    partition = std::make_unique<Partition>(context, PartitionId(0));
  }
  void start(bool clients = true) {
    make_partition();
    check(world.run(partition->start()));
    if (clients) partition->clients_may_come();
  }
  // Another leader, from what is durable. Sessions are to be claimed by claim().
  void fail_over() {
    ASSERT_TRUE(world.run_until(partition->stop()));
    start();
  }
  // As re-hydrated from the cut, with those locations: nothing else of this cluster is left. start_again() begins.
  void rehydrate(Cut cut, std::vector<Location> locations) {
    TakeCutReply taken = must(ask(TakeCut{cut}));
    origin = {};
    origin.files.import = taken.store_import;
    origin.files.files = taken.files;
    auto bytes = std::make_shared<std::map<std::string, Buffer>>();
    for (const StoreFile& file : taken.files)
      (*bytes)[file.name] = must(world.run(partition->read_cut_file(cut, file.name, 0, file.size)));
    origin.fetch = [bytes](StoreFile file, uint64_t offset, uint64_t length) {
      return piece_of(bytes->at(file.name).slice(offset, length));
    };
    origin.locations = std::move(locations);
    ASSERT_TRUE(world.run_until(partition->stop()));
    targets.runs.clear();
    PartitionRecord record;
    record.last_slot = 65535;
    record.checkpoint_at = taken.at;
    coordinator.records[partition_key(0)] = {encode_durable(record), 1};
    ClusterMap map = view.map();
    ++map.version;
    map.namespace_epoch = identity.namespace_epoch = NamespaceEpoch(2);
    view.update(map);
  }
  static Task<Result<Buffer>> piece_of(Buffer bytes) { co_return bytes; }
  Result<void> start_again() {
    if (partition->serving()) HR_ASSERT(world.run_until(partition->stop()));
    make_partition();
    return world.run(partition->start_from(origin));
  }
  static void check(const Result<void>& result) {
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().text());
    HR_ASSERT(result.ok());
  }
  template <class T>
  static T must(Result<T> result) {
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().text());
    HR_ASSERT(result.ok());
    return *std::move(result);
  }
  template <class Req>
  Result<typename Req::Reply> ask(Req request) {
    return world.run(handle(*partition, std::move(request), CallInfo()));
  }
  // Asked in the partition's scope, while the test goes on; `code`, which outlives this, is set when it is answered.
  template <class Req>
  void begin(Req request, std::optional<Code>& code) {
    partition->scope().spawn(note_code(*partition, std::move(request), code));
  }
  template <class Req>
  static Task<void> note_code(Partition& asked, Req request, std::optional<Code>& code) {
    Result<typename Req::Reply> reply = co_await handle(asked, std::move(request), CallInfo());
    code = reply.code();
  }

  // ---- as a client ----
  struct User {
    SessionId session;
    uint64_t sequence = 1;
    std::map<FileId, Grant> grants;
    [[nodiscard]] Ticket next() {
      ++sequence;
      return Ticket{session, sequence - 1, sequence - 1};
    }
  };
  User user() {
    User out;
    out.session = must(ask(SessionOpen{ClientId(world.random().nonzero()), {}, {}})).session;
    return out;
  }
  void claim(User& user) {
    Session* session = partition->sessions().find(user.session);
    HR_ASSERT(session != nullptr);
    SessionOpen open{session->client, user.session, {}};
    for (const auto& [file, grant] : user.grants) open.claims.push_back(grant);
    must(ask(std::move(open)));
  }
  FileId create(User& user, const std::string& name) {
    Make make;
    make.ticket = user.next();
    make.parent = kRootFile;
    make.name = name;
    make.mode = 0644;
    EntryReply made = must(ask(make));
    FileId file = made.attributes.id;
    // Nobody answers recalls here: what came along would be in other users' way.
    if (made.directory_grant) must(ask(GrantRelease{user.session, {made.directory_grant->id}}));
    grant(user, file);
    return file;
  }
  void grant(User& user, FileId file) {
    user.grants[file] = must(ask(GrantAcquire{user.session, file, GrantKind::kWrite})).grant;
  }
  Reservation reserve(User& user) { return must(ask(Reserve{user.session, Slot(0), 1})).reservations.at(0); }
  Commit commit_of(User& user, FileId file, const Reservation& reservation, uint64_t length,
                   std::vector<Extent> extents) {
    Commit commit;
    commit.ticket = user.next();
    commit.segments.push_back({reservation.segment, length, reservation.placement});
    for (Extent& extent : extents) {
      extent.kind = ExtentKind::kSegment;
      extent.segment = reservation.segment;
    }
    commit.files.push_back({file, user.grants[file].id, std::move(extents), 0, 0});
    return commit;
  }
  // One new segment's first bytes at `offset`.
  Code write(User& user, FileId file, uint64_t offset, uint64_t length) {
    Reservation reservation = reserve(user);
    Result<CommitReply> reply = ask(commit_of(user, file, reservation, length, {{.offset = offset, .length = length}}));
    return reply.ok() ? static_cast<Code>(reply->codes.at(0)) : reply.code();
  }
  Result<Empty> stage(User& user, FileId file, uint64_t offset, std::string bytes) {
    return ask(Stage{user.next(), file, user.grants[file].id, {{offset, std::move(bytes)}}, 0, 0});
  }
  Result<Attributes> resize(User& user, FileId file, uint64_t size) {
    SetAttributes request;
    request.ticket = user.next();
    request.file = file;
    request.mask = kSetSize;
    request.size = size;
    Result<EntryReply> reply = ask(request);
    if (!reply.ok()) return std::move(reply).error();
    return reply->attributes;
  }
  Attributes stat(const User& user, FileId file) {
    return must(ask(GetAttributes{user.session, file, GrantKind::kNone})).attributes;
  }

  // ---- what must hold of all rows ----
  void check_rows() { EXPECT_EQ(must(world.run(headrace::check_rows(*partition))), std::vector<std::string>()); }
  // Until the reaper has nothing left.
  void settle() {
    partition->reap_soon();
    world.run_for(seconds(30));
  }

  Result<uint32_t> admits = 64u;  // of what is reserved for clients
  Nanos checkpoint_takes{};
  MemoryStoreFaults store_faults;
  World world;
  Machine& machine;
  Env& env;
  Identity identity;
  Handlers handlers;
  Hub hub;
  ClusterView view;
  MapCoordinator coordinator;
  MemoryTargets targets;
  TargetPort target_port;
  PartitionPort partition_port;
  SegmentIo segments;
  MemoryStoreFactory stores;
  FaultyStores faulty{stores};
  PartitionOptions options;
  Partition::Origin origin;  // of rehydrate()
  std::unique_ptr<Partition> partition;
};

}  // namespace headrace
