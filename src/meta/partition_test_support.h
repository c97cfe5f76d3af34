// One partition over a target, a coordinator and a store in memory, in a simulated world. For tests of operations.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "meta/file_extents.h"
#include "meta/ops/cuts.h"
#include "meta/ops/data.h"
#include "meta/ops/names.h"
#include "meta/ops/sessions.h"
#include "meta/ops/steps.h"
#include "meta/ops/work.h"
#include "meta/store/memory/memory_store.h"
#include "runtime/sim/world.h"

namespace headrace {

class MapCoordinator final : public Coordinator {
 public:
  Task<Result<CoordRecord>> get(std::string key) override { co_return records[key]; }
  Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) override {
    CoordRecord& record = records[key];
    if (record.version != expected) co_return Error(Code::kConflict, "another version");
    record = {std::move(value), expected + 1};
    co_return record.version;
  }
  Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string) override {
    co_return Error(Code::kNotSupported, "list");
  }
  Task<Result<uint64_t>> changed_since(uint64_t) override { co_return Error(Code::kNotSupported, "changed_since"); }
  Task<Result<void>> renew_lease(std::string, uint64_t) override { co_return {}; }
  Task<Result<bool>> lease_alive(std::string) override { co_return true; }
  std::map<std::string, CoordRecord> records;
};

// Journals and fragments of all targets, in memory; whatever was answered is durable.
struct MemoryTargets final : FragmentPort {
  explicit MemoryTargets(Handlers& handlers) {
    handlers.on<JournalSeal>([this](JournalSeal, CallInfo) { return seal(); });
    handlers.on<JournalOpen>([this](JournalOpen r, CallInfo) { return open(std::move(r)); });
    handlers.on<JournalAppend>([this](JournalAppend r, CallInfo) { return append(std::move(r)); });
    handlers.on<JournalRead>([this](JournalRead r, CallInfo) { return read_journal(std::move(r)); });
    handlers.on<JournalTrim>([](JournalTrim, CallInfo) { return nothing(); });
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

  static Task<Result<Empty>> nothing() { co_return Empty{}; }
  Task<Result<JournalSealReply>> seal() {
    JournalSealReply reply;
    for (auto& [id, run] : runs) {
      Position last = run.batches.empty() ? Position(run.first.value() - 1) : run.batches.back().last;
      reply.runs.push_back({id, run.first, last, false, ""});
    }
    co_return reply;
  }
  Task<Result<Empty>> open(JournalOpen request) {
    runs[request.run].first = request.first;
    co_return Empty{};
  }
  Task<Result<Empty>> append(JournalAppend request) {
    ++appends;
    runs[request.run].batches.push_back({request.first, request.last, Buffer::copy_of(request.payload.view())});
    co_return Empty{};
  }
  Task<Result<JournalReadReply>> read_journal(JournalRead request) {
    JournalReadReply reply;
    for (const JournalBatch& batch : runs[request.run].batches)
      if (batch.last >= request.from) reply.batches.push_back({batch.first, batch.last, Buffer::copy_of(batch.bytes.view())});
    co_return reply;
  }
  Task<Result<Empty>> free(FragmentFree request) {
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
    reply.payload = it->second.payload.slice(request.offset, request.length);
    for (uint64_t i = 0; i < request.length / 4096; ++i) reply.crcs.push_back(it->second.crcs[request.offset / 4096 + i]);
    co_return reply;
  }
};

struct OnePartition {
  static constexpr TargetId kTarget{77};

  explicit OnePartition(uint64_t seed, uint32_t miss_percent = 0, PartitionOptions partition_options = {})
      : world(seed),
        machine(world.add_machine("node")),
        env(machine.env()),
        hub(env, identity, handlers),
        targets(handlers),
        target_port(hub, view),
        partition_port(env, hub, view),
        segments(env, targets),
        stores(MemoryStoreLatency{&env.clock, &env.random, miss_percent}),
        options(partition_options) {
    options.lease = seconds(100'000);  // nobody renews
    ClusterMap map;
    map.version = 1;
    map.name_space = NamespaceId(9);
    map.namespace_epoch = NamespaceEpoch(1);
    map.protection = {1, 0};
    map.nodes.push_back({NodeId(1), kSelfAddress, true});
    for (uint64_t i = 0; i < 3; ++i) map.targets.push_back({TargetId(kTarget.value() + i), NodeId(1), 0, "z/r/h", TargetState::kLive, kGiB, 0});
    map.partitions.push_back({PartitionId(0), 0, 65535, NodeId(1), PartitionEpoch(1)});
    identity.name_space = map.name_space;
    identity.namespace_epoch = map.namespace_epoch;
    view.update(map);
    PartitionRecord record;
    record.last_slot = 65535;
    coordinator.records[partition_key(0)] = {encode_durable(record), 1};
    start();
    check(world.run(make_root(*partition)));
  }
  ~OnePartition() { (void)world.run_until(partition->stop()); (void)world.run_until(hub.close()); }

  void start() {
    PartitionContext context{env, hub, view, target_port, partition_port, coordinator, stores, segments, {}, NodeId(1), options};
    partition = std::make_unique<Partition>(context, PartitionId(0));
    check(world.run(partition->start()));
  }
  // Another leader, from what is durable. Sessions are to be claimed by claim().
  void fail_over() {
    ASSERT_TRUE(world.run_until(partition->stop()));
    start();
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
  Result<typename Req::Reply> ask(Req request) { return world.run(handle(*partition, std::move(request), CallInfo())); }

  // ---- as a client ----
  struct User {
    SessionId session;
    uint64_t sequence = 1;
    std::map<FileId, Grant> grants;
    [[nodiscard]] Ticket next() { ++sequence; return Ticket{session, sequence - 1, sequence - 1}; }
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
  void grant(User& user, FileId file) { user.grants[file] = must(ask(GrantAcquire{user.session, file, GrantKind::kWrite})).grant; }
  Reservation reserve(User& user) { return must(ask(Reserve{user.session, Slot(0), 1})).reservations.at(0); }
  Commit commit_of(User& user, FileId file, const Reservation& reservation, uint64_t length, std::vector<Extent> extents) {
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
  Attributes stat(const User& user, FileId file) { return must(ask(GetAttributes{user.session, file, GrantKind::kNone})).attributes; }

  // ---- what must hold of all rows ----
  struct CheckOp {
    using Reply = std::vector<std::string>;  // what is wrong
    Task<Result<Reply>> run(Transaction& txn) {
      Reply wrong;
      auto same = [&wrong](const std::string& what, int64_t found, int64_t said) {
        if (found != said) wrong.push_back(what + ": " + std::to_string(found) + ", not " + std::to_string(said));
      };
      std::map<SegmentId, ExtentDelta::Change> segments;
      std::map<Key, int64_t> staged;
      std::map<FileId, int64_t> bytes;
      std::map<FileId, InodeRow> inodes;
      CountersDelta found;
      HR_CO_TRY(auto rows, co_await txn.scan("", Key(20, '\xff'), 10'000'000));
      std::map<Key, RowValue> by_key(rows.begin(), rows.end());
      for (const auto& [key, value] : rows) {
        if (static_cast<Table>(key[2]) == Table::kInode) {
          FileId file(slot_of(key), key_number(key, kKeyPrefix, 6));
          HR_CO_TRY(inodes[file], decode_durable<InodeRow>(value));
          ++found.inodes;
        }
        if (static_cast<Table>(key[2]) != Table::kExtent) continue;
        Leaf leaf = leaf_of(key);
        HR_CO_TRY(LeafValue decoded, decode_leaf(leaf.base(), leaf.span(), value));
        for (const Extent& piece : decoded.pieces) {
          FileId file(slot_of(key), key_number(key, kKeyPrefix, 6));
          bytes[file] += static_cast<int64_t>(piece.length);
          found.bytes += static_cast<int64_t>(piece.length);
          if (piece.kind == ExtentKind::kStaged) ++staged[staged_key(slot_of(key), piece.staged)];
          if (piece.kind != ExtentKind::kSegment) continue;
          segments[piece.segment].bytes += static_cast<int64_t>(piece.length);
          ++segments[piece.segment].pieces;
        }
      }
      for (const auto& [file, inode] : inodes) {
        same("bytes of " + to_string(file), bytes[file], static_cast<int64_t>(inode.attributes.bytes));
        bytes.erase(file);
      }
      NamespaceId ns(9);
      for (const auto& [key, value] : rows) {
        switch (static_cast<Table>(key[2])) {
          case Table::kSegment: {
            SegmentId id = segment_of(key, ns);
            HR_CO_TRY(SegmentRow row, decode_durable<SegmentRow>(value));
            same("live of " + to_string(id), segments[id].bytes, static_cast<int64_t>(row.live));
            same("referrers of " + to_string(id), segments[id].pieces, row.referrers);
            same("dead row of " + to_string(id), by_key.contains(segment_key(id, Table::kDead)), row.referrers == 0);
            same("death of " + to_string(id), row.death != kNever, row.referrers == 0);
            same("location of " + to_string(id), by_key.contains(segment_key(id, Table::kLocation)), true);
            segments.erase(id);
            ++found.segments;
            break;
          }
          case Table::kLocation: {
            HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(value));
            SegmentId id = segment_of(key, ns);
            same("segment row of " + to_string(id), by_key.contains(segment_key(id)), true);
            same("uploadable row of " + to_string(id), by_key.contains(segment_key(id, Table::kUploadable)), !row.object.object);
            for (TargetId target : row.placement.targets) same("target row of " + to_string(id), by_key.contains(on_target_key(id, target)), true);
            if (row.placement.hot()) found.hot_bytes += static_cast<int64_t>(row.length);
            if (row.object.object) found.bucket_bytes += static_cast<int64_t>(row.length);
            break;
          }
          case Table::kStaged: {
            HR_CO_TRY(StagedRow row, decode_durable<StagedRow>(value));
            same("staged referrers", row.referrers, staged[key]);
            same("staged row without referrers", row.referrers == 0, false);
            staged.erase(key);
            found.staged_bytes += static_cast<int64_t>(row.bytes.size());
            break;
          }
          case Table::kObject: {
            HR_CO_TRY(ObjectRow row, decode_durable<ObjectRow>(value));
            ++found.objects;
            found.object_bytes += static_cast<int64_t>(row.bytes);
            same("death of an object", row.death != kNever, row.live == 0);
            break;
          }
          default: break;
        }
      }
      for (const auto& [id, change] : segments) same("pieces without row of " + to_string(id), change.pieces, 0);
      for (const auto& [key, pieces] : staged) same("pieces without staged row", pieces, 0);
      const CountersDelta& sums = txn.partition().counters().sums;
      same("inodes", found.inodes, sums.inodes);
      same("bytes", found.bytes, sums.bytes);
      same("segments", found.segments, sums.segments);
      same("hot_bytes", found.hot_bytes, sums.hot_bytes);
      same("bucket_bytes", found.bucket_bytes, sums.bucket_bytes);
      same("objects", found.objects, sums.objects);
      same("object_bytes", found.object_bytes, sums.object_bytes);
      same("staged_bytes", found.staged_bytes, sums.staged_bytes);
      co_return wrong;
    }
  };
  void check_rows() { EXPECT_EQ(must(world.run(partition->read(CheckOp{}))), std::vector<std::string>()); }
  // Until the reaper has nothing left.
  void settle() {
    partition->reap_soon();
    world.run_for(seconds(30));
  }

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
  PartitionOptions options;
  std::unique_ptr<Partition> partition;
};

}  // namespace headrace
