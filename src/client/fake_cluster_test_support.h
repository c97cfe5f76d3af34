// FakeCluster: one simulated node that answers a client's messages from maps in memory: partitions
// without journal, targets without disks. It is strict where clients could cheat: commits need the
// write grant and a reservation, tickets take effect once, grants conflict and are recalled,
// replies may be overtaken by recalls (random delays). What a real node keeps on disk is in
// FakeDurable, which survives the node's process.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/posix_acl.h"
#include "client/client.h"
#include "client/extent_cache.h"
#include "proto/messages.h"
#include "runtime/sim/world.h"

namespace headrace {

struct FakeInode {
  Attributes attributes;
  ExtentCache extents;
  std::map<std::string, std::string> xattrs;
  std::string target;
  std::map<std::string, std::pair<uint64_t, FileId>> names;  // directories: name → cookie, file
  std::set<SessionId> kept;
};

struct FakeDurable {
  uint64_t partitions = 2;
  uint64_t version = 1;
  uint64_t epoch = 1;
  uint64_t next_file = 2;
  uint64_t next_cookie = 3;
  uint64_t next_segment = 1;
  uint64_t next_staged = 1;
  uint64_t next_session = 1;
  uint64_t next_grant = 1;
  std::map<FileId, FakeInode> inodes;
  std::map<SegmentId, Location> segments;
  std::map<SegmentId, std::string> bucket;
  std::map<uint64_t, Buffer> staged;
  std::map<std::pair<SegmentId, uint8_t>, FragmentWrite> fragments;
  std::map<SessionId, std::pair<ClientId, PartitionId>> sessions;
  std::map<std::pair<SessionId, uint64_t>, std::string> results;
  std::map<std::pair<SessionId, uint64_t>, int> effects;  // times that a ticket ran
  std::map<uint64_t, SessionId> file_ids;                 // reserved: local part → whose

  FakeDurable() {
    FakeInode root;
    root.attributes.id = kRootFile;
    root.attributes.generation = 1;
    root.attributes.type = FileType::kDirectory;
    root.attributes.mode = 0755;
    root.attributes.links = 2;
    root.attributes.parent = kRootFile;
    inodes[kRootFile] = root;
  }
  [[nodiscard]] ClusterMap map(const Address& address) const {
    ClusterMap map;
    map.version = version;
    map.cluster = ClusterId(1);
    map.name_space = NamespaceId(7);
    map.namespace_epoch = NamespaceEpoch(1);
    map.protection = {2, 1};
    map.nodes.push_back({NodeId(1), address, true});
    for (uint64_t t = 1; t <= 4; ++t)
      map.targets.push_back({.id = TargetId(t),
                             .node = NodeId(1),
                             .number = static_cast<uint32_t>(t),
                             .domain = "z/r/t" + std::to_string(t),
                             .capacity = kGiB});
    const uint64_t width = 65'536 / partitions;
    for (uint64_t p = 0; p < partitions; ++p)
      map.partitions.push_back({PartitionId(static_cast<uint16_t>(p + 1)), static_cast<uint16_t>(p * width),
                                static_cast<uint16_t>((p + 1) * width - 1), NodeId(1), PartitionEpoch(epoch)});
    return map;
  }
};

class FakeNode final : public Process {
 public:
  struct Faults {
    bool no_space = false;
    bool read_only = false;
    bool closing = false;
    bool forget_sessions = false;  // a new process knows no session
    bool hold_claims = false;      // SessionOpen with claims is not answered
    uint64_t fail_fragment_writes = 0;
    uint64_t fail_commits = 0;
    uint64_t fail_set_attributes = 0;
    uint64_t refuse_commits = 0;  // kStale of each file, after those
    bool hold_changes = false;    // ChangeNames is not answered
    bool hold_commits = false;    // nor is Commit
    bool hold_locks = false;      // nor is Lock, but to unlock
    uint64_t fail_unlocks = 0;
    uint64_t fail_forgets = 0;
    uint64_t lose_fragment_index = 255;
  };

  FakeNode(Env& env, Address address, FakeDurable& disk, Faults& faults)
      : env_(env), address_(std::move(address)), disk_(disk), faults_(faults), hub_(env, identity_, handlers_) {
    identity_.name_space = NamespaceId(7);
    identity_.namespace_epoch = NamespaceEpoch(1);
    for (const auto& [id, who] : disk_.sessions) {
      if (faults_.forget_sessions) continue;
      Standing standing;
      standing.lease_end = env_.clock.now() + kLease;
      sessions_[id] = standing;
    }
    if (faults_.forget_sessions) disk_.sessions.clear();
    handlers_.on<GetMap>([this](GetMap r, CallInfo) { return get_map(r); });
    handlers_.on<SessionOpen>([this](SessionOpen r, CallInfo i) { return session_open(std::move(r), std::move(i)); });
    handlers_.on<SessionRenew>([this](SessionRenew r, CallInfo i) { return session_renew(r, std::move(i)); });
    handlers_.on<SessionClose>([this](SessionClose r, CallInfo) { return session_close(r); });
    handlers_.on<GrantAcquire>([this](GrantAcquire r, CallInfo i) { return grant_acquire(r, std::move(i)); });
    handlers_.on<GrantRelease>([this](GrantRelease r, CallInfo) { return grant_release(r); });
    handlers_.on<Lookup>([this](Lookup r, CallInfo i) { return lookup(std::move(r), std::move(i)); });
    handlers_.on<ReserveFiles>([this](ReserveFiles r, CallInfo i) { return reserve_files(r, std::move(i)); });
    handlers_.on<GetAttributes>([this](GetAttributes r, CallInfo i) { return get_attributes(r, std::move(i)); });
    handlers_.on<ReadDirectory>([this](ReadDirectory r, CallInfo) { return read_directory(r); });
    handlers_.on<GetXattr>([this](GetXattr r, CallInfo) { return get_xattr(std::move(r)); });
    handlers_.on<ListXattr>([this](ListXattr r, CallInfo) { return list_xattr(r); });
    handlers_.on<Reserve>([this](Reserve r, CallInfo i) { return reserve(r, std::move(i)); });
    handlers_.on<GetExtents>([this](GetExtents r, CallInfo i) { return get_extents(r, std::move(i)); });
    handlers_.on<Locate>([this](Locate r, CallInfo) { return locate(r); });
    handlers_.on<Statistics>([this](Statistics, CallInfo) { return statistics(); });
    handlers_.on<ColdRead>([this](ColdRead r, CallInfo) { return cold_read(std::move(r)); });
    handlers_.on<FragmentWrite>([this](FragmentWrite r, CallInfo) { return fragment_write(std::move(r)); });
    handlers_.on<FragmentRead>([this](FragmentRead r, CallInfo) { return fragment_read(r); });
    mutation<SetAttributes>(&FakeNode::set_attributes);
    mutation<Make>(&FakeNode::make);
    mutation<Unlink>(&FakeNode::unlink);
    mutation<Rename>(&FakeNode::rename);
    mutation<Link>(&FakeNode::link);
    mutation<SetXattr>(&FakeNode::set_xattr);
    mutation<RemoveXattr>(&FakeNode::remove_xattr);
    mutation<OpenKept>(&FakeNode::open_kept);
    mutation<Forget>(&FakeNode::forget);
    mutation<Lock>(&FakeNode::lock);
    mutation<ChangeNames>(&FakeNode::change_names);
    mutation<Commit>(&FakeNode::commit);
    mutation<Stage>(&FakeNode::stage);
    mutation<Punch>(&FakeNode::punch);
    mutation<CopyRange>(&FakeNode::copy_range);
  }

  Task<void> run() override {
    auto served = co_await hub_.serve(address_);
    HR_ASSERT(served.ok());
    scope_.spawn(leases());
    Event never;
    co_await never.wait();
  }

  struct Counts {
    uint64_t get_attributes = 0, lookups = 0, extents = 0, commits = 0, commit_files = 0, stages = 0, recalls = 0,
             reserves = 0, fragment_reads = 0, cold_reads = 0, evictions = 0, locates = 0, acquires = 0, makes = 0,
             changes = 0, change_messages = 0, touches = 0;
  };
  Counts counts;
  Nanos slow{};  // up to so long before and after each operation

  // Asks all clients to leave.
  Task<void> close_all() {
    faults_.closing = true;
    for (SessionId id : session_ids()) {
      std::shared_ptr<Channel> channel = sessions_[id].channel;
      if (channel) (void)co_await hub_.call(channel, Closing{.session = id});
    }
  }
  [[nodiscard]] size_t grants() const {
    size_t n = 0;
    for (const auto& [file, holders] : grants_) n += holders.size();
    return n;
  }
  [[nodiscard]] size_t sessions() const { return sessions_.size(); }
  [[nodiscard]] size_t reserved() const {
    size_t n = 0;
    for (const auto& [id, session] : sessions_) n += session.reserved.size();
    return n;
  }
  Task<void> evict(SessionId id) {
    ++counts.evictions;
    sessions_.erase(id);
    disk_.sessions.erase(id);
    drop_grants(id);
    co_return;
  }
  [[nodiscard]] std::vector<SessionId> session_ids() const {
    std::vector<SessionId> out;
    for (const auto& [id, s] : sessions_) out.push_back(id);
    return out;
  }
  static constexpr Nanos kLease = seconds(10);

 private:
  struct Standing {
    std::shared_ptr<Channel> channel;
    Nanos lease_end{};
    std::set<SegmentId> reserved;
    uint64_t answered = 0;  // tickets below are the client's no more
    bool claimed = false;
  };
  struct Holder {
    SessionId session;
    Grant grant;
  };

  Task<void> pause() {
    if (slow.count > 0)
      co_await env_.clock.sleep(Nanos{static_cast<int64_t>(env_.random.below(static_cast<uint64_t>(slow.count)))});
  }
  Task<void> leases() {
    for (;;) {
      co_await env_.clock.sleep(milliseconds(500));
      for (SessionId id : session_ids())
        if (sessions_[id].lease_end < env_.clock.now()) co_await evict(id);
    }
  }
  Result<void> touch(SessionId id, const CallInfo& info) {
    auto it = sessions_.find(id);
    if (it == sessions_.end()) return Error(Code::kStale, "no such session");
    it->second.lease_end = env_.clock.now() + kLease;
    if (info.channel) it->second.channel = info.channel;
    return {};
  }
  template <class Req>
  void mutation(Task<Result<typename Req::Reply>> (FakeNode::*run)(Req)) {
    handlers_.on<Req>([this, run](Req r, CallInfo i) { return mutate<Req>(std::move(r), std::move(i), run); });
  }
  template <class Req>
  Task<Result<typename Req::Reply>> mutate(Req request, CallInfo info,
                                           Task<Result<typename Req::Reply>> (FakeNode::*run)(Req)) {
    co_await pause();
    HR_CO_TRY(touch(request.ticket.session, info));
    if (faults_.read_only) co_return Error(Code::kReadOnly, "read-only");
    std::pair<SessionId, uint64_t> key{request.ticket.session, request.ticket.sequence};
    while (running_.contains(key)) co_await env_.clock.sleep(milliseconds(1));
    auto saved = disk_.results.find(key);
    if (saved != disk_.results.end()) co_return decode<typename Req::Reply>(saved->second);
    HR_ASSERT(request.ticket.sequence >= request.ticket.lowest_unanswered);
    uint64_t& answered = sessions_[request.ticket.session].answered;
    answered = std::max(answered, request.ticket.lowest_unanswered);
    running_.insert(key);
    Result<typename Req::Reply> reply = co_await (this->*run)(std::move(request));
    running_.erase(key);
    if (reply.ok()) {
      disk_.results[key] = encode(*reply);
      ++disk_.effects[key];
    }
    co_await pause();
    co_return reply;
  }

  // ---- grants ----
  static bool conflicts(GrantKind held, GrantKind asked) {
    return held == GrantKind::kWrite || (asked == GrantKind::kWrite && held != GrantKind::kNone);
  }
  bool conflict(FileId file, SessionId asking, GrantKind kind) const {
    auto it = grants_.find(file);
    if (it == grants_.end()) return false;
    for (const Holder& h : it->second)
      if (h.session != asking && conflicts(h.grant.kind, kind)) return true;
    return false;
  }
  void drop_grants(SessionId id) {
    for (auto& [file, holders] : grants_) std::erase_if(holders, [&](const Holder& h) { return h.session == id; });
  }
  void end(FileId file, GrantId id, GrantKind keep) {
    for (Holder& h : grants_[file])
      if (h.grant.id == id) h.grant.kind = std::min(h.grant.kind, keep);
    std::erase_if(grants_[file], [](const Holder& h) { return h.grant.kind == GrantKind::kNone; });
  }
  // A new leader gives nothing that conflicts with what others may still claim.
  Task<void> wait_claims() {
    for (;;) {
      bool all = true;
      for (const auto& [id, s] : sessions_) all &= s.claimed;
      if (all) co_return;
      co_await env_.clock.sleep(milliseconds(5));
    }
  }
  Task<void> clear(FileId file, SessionId asking, GrantKind kind) {
    co_await wait_claims();
    while (conflict(file, asking, kind)) {
      Holder victim;
      for (const Holder& h : grants_[file])
        if (h.session != asking && conflicts(h.grant.kind, kind)) victim = h;
      if (recalling_.contains(victim.grant.id)) {
        co_await env_.clock.sleep(milliseconds(1));
        continue;
      }
      recalling_.insert(victim.grant.id);
      const GrantKind keep = kind == GrantKind::kRead ? GrantKind::kRead : GrantKind::kNone;
      ++counts.recalls;
      auto at = sessions_.find(victim.session);
      Result<Empty> answer = Error(Code::kUnavailable, "");
      if (at != sessions_.end() && at->second.channel) {
        std::shared_ptr<Channel> channel = at->second.channel;
        answer = co_await hub_.call(channel, Recall{.session = victim.session, .grant = victim.grant, .keep = keep},
                                    {.timeout = seconds(60)});
      }
      recalling_.erase(victim.grant.id);
      if (answer.ok()) {
        end(file, victim.grant.id, keep);
      } else {
        co_await env_.clock.sleep(milliseconds(20));
      }
    }
  }
  std::optional<Grant> give(SessionId session, FileId file, GrantKind kind) {
    if (!sessions_.contains(session) || faults_.closing || kind == GrantKind::kNone || conflict(file, session, kind))
      return std::nullopt;
    for (Holder& h : grants_[file]) {
      if (h.session != session) continue;
      if (recalling_.contains(h.grant.id)) return std::nullopt;
      h.grant.kind = std::max(h.grant.kind, kind);
      return h.grant;
    }
    Grant grant{file, kind, GrantId(disk_.next_grant++)};
    grants_[file].push_back({session, grant});
    return grant;
  }
  const Grant* held(SessionId session, FileId file) const {
    auto it = grants_.find(file);
    if (it == grants_.end()) return nullptr;
    for (const Holder& h : it->second)
      if (h.session == session) return &h.grant;
    return nullptr;
  }
  bool same_partition(FileId a, FileId b) const {
    const uint64_t width = 65'536 / disk_.partitions;
    return a.slot().value() / width == b.slot().value() / width;
  }
  FakeInode* inode(FileId id) {
    auto it = disk_.inodes.find(id);
    return it == disk_.inodes.end() ? nullptr : &it->second;
  }
  int64_t wall() { return env_.clock.wall().count; }
  void touched(FakeInode& i, bool data) {
    i.attributes.ctime = std::max(i.attributes.ctime + 1, wall());
    if (data) i.attributes.mtime = std::max(i.attributes.mtime + 1, wall());
    ++i.attributes.change;
  }
  static Error none() { return Error(Code::kNotFound, "no such file"); }

  // ---- sessions ----
  Task<Result<GetMapReply>> get_map(GetMap r) {
    GetMapReply reply;
    if (r.newer_than < disk_.version) reply.map = encode_durable(disk_.map(address_));
    reply.read_only = faults_.read_only;
    reply.why = "taken over";
    co_return reply;
  }
  Task<Result<SessionOpenReply>> session_open(SessionOpen r, CallInfo info) {
    co_await pause();
    SessionOpenReply reply;
    if (r.again) {
      while (faults_.hold_claims) co_await env_.clock.sleep(milliseconds(10));
      HR_CO_TRY(touch(r.again, info));
      for (const Grant& claim : r.claims) {
        if (conflict(claim.file, r.again, claim.kind)) co_return Error(Code::kStale, "a claim conflicts");
        const Grant* has = held(r.again, claim.file);
        if (has == nullptr) grants_[claim.file].push_back({r.again, claim});
        if (has != nullptr && has->id != claim.id) co_return Error(Code::kStale, "claimed another grant");
      }
      reply.session = r.again;
    } else {
      reply.session = SessionId(disk_.next_session++);
      disk_.sessions[reply.session] = {r.client, info.header.partition};
      sessions_[reply.session] = {info.channel, env_.clock.now() + kLease};
    }
    sessions_[reply.session].claimed = true;
    reply.lease_ms = static_cast<uint32_t>(kLease.count / 1'000'000);
    co_return reply;
  }
  Task<Result<Empty>> session_renew(SessionRenew r, CallInfo info) {
    HR_CO_TRY(touch(r.session, info));
    co_return Empty{};
  }
  Task<Result<Empty>> session_close(SessionClose r) {
    sessions_.erase(r.session);
    disk_.sessions.erase(r.session);
    drop_grants(r.session);
    co_return Empty{};
  }
  Task<Result<GrantAcquireReply>> grant_acquire(GrantAcquire r, CallInfo info) {
    ++counts.acquires;
    co_await pause();
    for (;;) {
      HR_CO_TRY(touch(r.session, info));
      if (faults_.closing) co_return Error(Code::kUnavailable, "closing");
      co_await clear(r.file, r.session, r.kind);
      FakeInode* i = inode(r.file);
      if (i == nullptr) co_return none();
      std::optional<Grant> grant = give(r.session, r.file, r.kind);
      if (!grant) {
        co_await env_.clock.sleep(milliseconds(1));
        continue;
      }
      GrantAcquireReply reply{*grant, i->attributes};
      if (i->attributes.type == FileType::kDirectory) reply.entries = i->names.size();
      reply.no_xattrs = i->xattrs.empty();
      co_await pause();
      co_return reply;
    }
  }
  Task<Result<Empty>> grant_release(GrantRelease r) {
    co_await pause();
    for (auto& [file, holders] : grants_)
      std::erase_if(holders, [&](const Holder& h) {
        return h.session == r.session && std::find(r.grants.begin(), r.grants.end(), h.grant.id) != r.grants.end();
      });
    co_return Empty{};
  }

  // ---- looking ----
  Task<Result<EntryReply>> lookup(Lookup r, CallInfo info) {
    ++counts.lookups;
    co_await pause();
    HR_CO_TRY(touch(r.session, info));
    co_await clear(r.parent, r.session, GrantKind::kRead);
    FakeInode* d = inode(r.parent);
    if (d == nullptr) co_return none();
    auto it = d->names.find(r.name);
    EntryReply reply;
    if (it == d->names.end()) {
      // A negative answer may be cached too, under a grant that was given before.
      co_await pause();
      co_return none();
    }
    FileId child = it->second.second;
    reply.directory_grant = give(r.session, r.parent, GrantKind::kRead);
    reply.attributes.id = child;
    reply.attributes.type = inode(child)->attributes.type;
    if (same_partition(child, r.parent) && !conflict(child, r.session, GrantKind::kRead)) {
      reply.attributes = inode(child)->attributes;
      reply.no_xattrs = inode(child)->xattrs.empty();
      reply.file_grant = give(r.session, child, GrantKind::kRead);
    }
    co_await pause();
    co_return reply;
  }
  Task<Result<EntryReply>> get_attributes(GetAttributes r, CallInfo info) {
    ++counts.get_attributes;
    co_await pause();
    HR_CO_TRY(touch(r.session, info));
    co_await clear(r.file, r.session, GrantKind::kRead);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    EntryReply reply;
    reply.attributes = i->attributes;
    reply.no_xattrs = i->xattrs.empty();
    reply.file_grant = give(r.session, r.file, r.want);
    co_await pause();
    co_return reply;
  }
  Task<Result<ReadDirectoryReply>> read_directory(ReadDirectory r) {
    co_await clear(r.directory, r.session, GrantKind::kRead);
    FakeInode* d = inode(r.directory);
    if (d == nullptr) co_return none();
    std::map<uint64_t, std::pair<std::string, FileId>> by_cookie;
    for (const auto& [name, entry] : d->names)
      if (entry.first > r.after) by_cookie[entry.first] = {name, entry.second};
    ReadDirectoryReply reply;
    reply.end = true;
    for (const auto& [cookie, entry] : by_cookie) {
      if (reply.entries.size() == r.limit) {
        reply.end = false;
        break;
      }
      DirectoryEntry e;
      e.name = entry.first;
      e.id = entry.second;
      e.type = inode(e.id)->attributes.type;
      e.cookie = cookie;
      if (r.plus && same_partition(e.id, r.directory)) e.attributes = inode(e.id)->attributes;
      reply.entries.push_back(std::move(e));
    }
    co_return reply;
  }
  Task<Result<TextReply>> get_xattr(GetXattr r) {
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    if (r.name.empty()) co_return TextReply{i->target};
    auto it = i->xattrs.find(r.name);
    if (it == i->xattrs.end()) co_return Error(Code::kNoAttribute, "no such attribute");
    co_return TextReply{it->second};
  }
  Task<Result<ListXattrReply>> list_xattr(ListXattr r) {
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    ListXattrReply reply;
    for (const auto& [name, value] : i->xattrs) reply.names.push_back(name);
    co_return reply;
  }
  Task<Result<StatisticsReply>> statistics() {
    StatisticsReply reply;
    reply.files = disk_.inodes.size();
    co_return reply;
  }

  // ---- changing ----
  Task<Result<EntryReply>> set_attributes(SetAttributes r) {
    if (faults_.fail_set_attributes > 0) {
      --faults_.fail_set_attributes;
      co_return Error(Code::kInvalid, "injected");
    }
    const SessionId session = r.ticket.session;
    co_await clear(r.file, session, GrantKind::kWrite);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    Attributes& a = i->attributes;
    if (r.mask & kSetMode) {
      a.mode = r.mode;
      if (auto acl = acl_of(*i, kAccessAcl)) {
        acl->set_mode(a.mode);
        i->xattrs[std::string(kAccessAcl)] = acl->encode();
      }
    }
    if (r.mask & kSetUid) a.uid = r.uid;
    if (r.mask & kSetGid) a.gid = r.gid;
    if (r.mask & kSetSize) {
      resize(*i, r.size);
      touched(*i, true);
    }
    if (r.mask & kSetMtime) a.mtime = r.mtime == INT64_MIN ? wall() : r.mtime;
    touched(*i, false);
    EntryReply reply;
    reply.attributes = a;
    reply.file_grant = give(session, r.file, GrantKind::kRead);
    co_return reply;
  }
  static std::optional<PosixAcl> acl_of(const FakeInode& i, std::string_view name) {
    auto at = i.xattrs.find(std::string(name));
    return at == i.xattrs.end() ? std::nullopt : *PosixAcl::decode(at->second);
  }
  void resize(FakeInode& i, uint64_t size) {
    const uint64_t old = i.attributes.size;
    if (size > old) i.extents.replace({.offset = old, .length = size - old});
    if (size < old) i.extents.forget(size, ~uint64_t{0});
    i.attributes.size = size;
  }
  Task<Result<EntryReply>> make(Make r) {
    ++counts.makes;
    const SessionId session = r.ticket.session;
    co_await clear(r.parent, session, GrantKind::kWrite);
    FakeInode* d = inode(r.parent);
    if (d == nullptr) co_return none();
    if (d->names.contains(r.name)) co_return Error(Code::kExists, "exists");
    const uint64_t number = disk_.next_file++;
    const uint64_t width = 65'536 / disk_.partitions;
    Slot slot = r.type == FileType::kDirectory ? Slot(static_cast<uint16_t>((number % disk_.partitions) * width))
                                               : r.parent.slot();
    FileId id(slot, number);
    FakeInode fresh;
    Attributes& a = fresh.attributes;
    a.id = id;
    a.generation = 1;
    a.type = r.type;
    a.mode = r.mode;
    a.uid = r.uid;
    a.gid = r.gid;
    a.rdev = r.rdev;
    a.links = r.type == FileType::kDirectory ? 2 : 1;
    a.atime = a.mtime = a.ctime = a.btime = wall();
    if (r.type == FileType::kDirectory) a.parent = r.parent;
    if (r.type == FileType::kSymlink) a.size = r.target.size();
    fresh.target = r.target;
    auto acl = acl_of(*d, kDefaultAcl);
    if (acl && r.type != FileType::kSymlink) {
      if (r.type == FileType::kDirectory) fresh.xattrs[std::string(kDefaultAcl)] = acl->encode();
      acl->limit(r.mode | r.masked);
      a.mode = acl->in_mode(r.mode);
      fresh.xattrs[std::string(kAccessAcl)] = acl->encode();
    }
    if (r.keep_open) fresh.kept.insert(session);
    d->names[r.name] = {disk_.next_cookie++, id};
    touched(*d, true);
    EntryReply reply;
    reply.attributes = a;
    reply.no_xattrs = fresh.xattrs.empty();
    disk_.inodes[id] = std::move(fresh);
    reply.directory_grant = give(session, r.parent, r.want_directory_write ? GrantKind::kWrite : GrantKind::kRead);
    if (r.want_directory_write) {
      reply.directory = inode(r.parent)->attributes;
      reply.entries = inode(r.parent)->names.size();
      reply.directory_no_xattrs = inode(r.parent)->xattrs.empty();
    }
    if (same_partition(id, r.parent))
      reply.file_grant = give(session, id, r.want_write_grant ? GrantKind::kWrite : GrantKind::kRead);
    co_return reply;
  }
  Task<Result<ReserveFilesReply>> reserve_files(ReserveFiles r, CallInfo info) {
    co_await pause();
    HR_CO_TRY(touch(r.session, info));
    ReserveFilesReply reply{disk_.next_file, r.count, 1};
    for (uint32_t i = 0; i < r.count; ++i) disk_.file_ids[disk_.next_file++] = r.session;
    co_return reply;
  }
  bool writes(SessionId session, FileId file, GrantId grant) const {
    const Grant* has = held(session, file);
    return has != nullptr && has->kind == GrantKind::kWrite && has->id == grant;
  }
  // A client that answered before us must have known: nothing may be refused.
  Task<Result<ChangeNamesReply>> change_names(ChangeNames r) {
    while (faults_.hold_changes) co_await env_.clock.sleep(milliseconds(5));
    const SessionId session = r.ticket.session;
    if (r.ticket.sequence < sessions_[session].answered) co_return Error(Code::kStale, "its client has given it up");
    std::map<FileId, GrantId> made;
    auto changes = [&](FileId file, GrantId grant) {
      return made.contains(file) ? made[file] == grant : writes(session, file, grant);
    };
    for (const NameChange& c : r.changes) {
      bool fine = c.kind == NameChangeKind::kSetAttributes || writes(session, c.directory, c.directory_grant);
      if (c.kind == NameChangeKind::kMake) {
        fine = fine && !conflict(c.file, session, GrantKind::kWrite);
        made[c.file] = c.file_grant;
      } else if (c.kind != NameChangeKind::kTouch) {
        fine = fine && changes(c.file, c.file_grant);
        if (c.replaced) fine = fine && changes(c.replaced, c.replaced_grant);
      }
      if (!fine) co_return Error(Code::kStale, "a write grant has ended");
    }
    ++counts.change_messages;
    HR_ASSERT(r.changes.size() <= ChangeNames::kMaxChanges);
    ChangeNamesReply reply;
    for (const NameChange& c : r.changes) {
      change_name(session, c);
      reply.codes.push_back(0);
    }
    co_return reply;
  }
  void at(FakeInode& i, int64_t time, bool contents) {
    i.attributes.ctime = std::max(i.attributes.ctime, time);
    if (contents) i.attributes.mtime = std::max(i.attributes.mtime, time);
    ++i.attributes.change;
  }
  void change_name(SessionId session, const NameChange& c) {
    ++counts.changes;
    FakeInode* d = c.directory ? inode(c.directory) : nullptr;
    HR_ASSERT(!c.directory || d != nullptr);
    if (d != nullptr) at(*d, c.time, true);
    switch (c.kind) {
      case NameChangeKind::kMake: {
        HR_ASSERT(!d->names.contains(c.name) && inode(c.file) == nullptr);
        HR_ASSERT(c.type == FileType::kSymlink || !acl_of(*d, kDefaultAcl));
        HR_ASSERT(c.file.slot() == c.directory.slot() && disk_.file_ids[c.file.local()] == session);
        disk_.file_ids.erase(c.file.local());
        FakeInode fresh;
        Attributes& a = fresh.attributes;
        a.id = c.file;
        a.generation = 1;
        a.type = c.type;
        a.mode = c.mode;
        a.uid = c.uid;
        a.gid = c.gid;
        a.rdev = c.rdev;
        a.links = 1;
        a.size = c.target.size();
        a.atime = c.atime;
        a.mtime = c.mtime;
        a.ctime = c.ctime;
        a.btime = c.time;
        fresh.target = c.target;
        if (c.keep_open) fresh.kept.insert(session);
        d->names[c.name] = {disk_.next_cookie++, c.file};
        disk_.inodes[c.file] = std::move(fresh);
        const Grant* has = held(session, c.file);
        if (has == nullptr) grants_[c.file].push_back({session, {c.file, GrantKind::kWrite, c.file_grant}});
        break;
      }
      case NameChangeKind::kUnlink:
        HR_ASSERT(d->names.at(c.name).second == c.file);
        d->names.erase(c.name);
        at(*inode(c.file), c.time, false);
        (void)drop_link(c.file);
        break;
      case NameChangeKind::kSetAttributes: {
        FakeInode* i = inode(c.file);
        if (i == nullptr) break;  // removed since
        Attributes& a = i->attributes;
        HR_ASSERT(!(c.mask & kSetMode) || !acl_of(*i, kAccessAcl));
        if (c.mask & kSetMode) a.mode = c.mode;
        if (c.mask & kSetUid) a.uid = c.uid;
        if (c.mask & kSetGid) a.gid = c.gid;
        if (c.mask & kSetAtime) a.atime = c.atime;
        if (c.mask & kSetMtime) a.mtime = c.mtime;
        at(*i, c.mask & kSetCtime ? c.ctime : c.time, false);
        break;
      }
      case NameChangeKind::kTouch:
        ++counts.touches;
        break;
      case NameChangeKind::kRename: {
        HR_ASSERT(d->names.at(c.name).second == c.file);
        auto there = d->names.find(c.to_name);
        HR_ASSERT((there == d->names.end() ? FileId() : there->second.second) == c.replaced);
        d->names.erase(c.name);
        d->names[c.to_name] = {disk_.next_cookie++, c.file};
        at(*inode(c.file), c.time, false);
        if (c.replaced) (void)drop_link(c.replaced);
        break;
      }
      case NameChangeKind::kLink:
        HR_ASSERT(!d->names.contains(c.name));
        d->names[c.name] = {disk_.next_cookie++, c.file};
        ++inode(c.file)->attributes.links;
        at(*inode(c.file), c.time, false);
        break;
      case NameChangeKind::kNone:
        HR_ASSERT(false);
    }
  }
  void reap(FileId id) {
    FakeInode* i = inode(id);
    if (i != nullptr && i->attributes.links == 0 && i->kept.empty()) disk_.inodes.erase(id);
  }
  uint32_t drop_link(FileId id) {
    FakeInode* i = inode(id);
    i->attributes.links = i->attributes.type == FileType::kDirectory ? 0 : i->attributes.links - 1;
    touched(*i, false);
    const uint32_t left = i->attributes.links;
    reap(id);
    return left;
  }
  Task<Result<UnlinkReply>> unlink(Unlink r) {
    const SessionId session = r.ticket.session;
    for (;;) {
      co_await clear(r.parent, session, GrantKind::kWrite);
      FakeInode* d = inode(r.parent);
      if (d == nullptr) co_return none();
      auto it = d->names.find(r.name);
      if (it == d->names.end()) co_return none();
      FileId child = it->second.second;
      if (conflict(child, session, GrantKind::kWrite)) {
        co_await clear(child, session, GrantKind::kWrite);
        continue;
      }
      const bool is_directory = inode(child)->attributes.type == FileType::kDirectory;
      if (r.directory && !is_directory) co_return Error(Code::kNotDirectory, "not a directory");
      if (!r.directory && is_directory) co_return Error(Code::kIsDirectory, "a directory");
      if (is_directory && !inode(child)->names.empty()) co_return Error(Code::kNotEmpty, "not empty");
      d->names.erase(it);
      touched(*d, true);
      UnlinkReply reply;
      reply.file = child;
      reply.links = drop_link(child);
      co_return reply;
    }
  }
  Task<Result<UnlinkReply>> rename(Rename r) {
    const SessionId session = r.ticket.session;
    for (;;) {
      co_await clear(r.from_parent, session, GrantKind::kWrite);
      co_await clear(r.to_parent, session, GrantKind::kWrite);
      FakeInode* from = inode(r.from_parent);
      FakeInode* to = inode(r.to_parent);
      if (from == nullptr || to == nullptr) co_return none();
      auto it = from->names.find(r.from_name);
      if (it == from->names.end()) co_return none();
      FileId moved = it->second.second;
      auto there = to->names.find(r.to_name);
      if (there != to->names.end() && r.no_replace) co_return Error(Code::kExists, "exists");
      FileId replaced = there != to->names.end() ? there->second.second : FileId();
      bool wait = false;
      for (FileId f : {r.from_parent, r.to_parent, moved, replaced})
        if (f && conflict(f, session, GrantKind::kWrite)) {
          co_await clear(f, session, GrantKind::kWrite);
          wait = true;
          break;
        }
      if (wait) continue;
      UnlinkReply reply;
      if (replaced == moved && replaced) {
        reply.file = moved;
        reply.links = inode(moved)->attributes.links;
        co_return reply;
      }
      from->names.erase(it);
      to->names[r.to_name] = {disk_.next_cookie++, moved};
      touched(*from, true);
      touched(*to, true);
      touched(*inode(moved), false);
      if (replaced) {
        reply.file = replaced;
        reply.links = drop_link(replaced);
      }
      co_return reply;
    }
  }
  Task<Result<EntryReply>> link(Link r) {
    const SessionId session = r.ticket.session;
    co_await clear(r.file, session, GrantKind::kWrite);
    co_await clear(r.parent, session, GrantKind::kWrite);
    FakeInode* d = inode(r.parent);
    FakeInode* i = inode(r.file);
    if (d == nullptr || i == nullptr) co_return none();
    if (d->names.contains(r.name)) co_return Error(Code::kExists, "exists");
    d->names[r.name] = {disk_.next_cookie++, r.file};
    ++i->attributes.links;
    touched(*d, true);
    touched(*i, false);
    EntryReply reply;
    reply.attributes = i->attributes;
    co_return reply;
  }
  Task<Result<Empty>> set_xattr(SetXattr r) {
    co_await clear(r.file, r.ticket.session, GrantKind::kWrite);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    i->xattrs[r.name] = r.value;
    if (r.name == kAccessAcl) i->attributes.mode = acl_of(*i, kAccessAcl)->in_mode(i->attributes.mode);
    touched(*i, false);
    co_return Empty{};
  }
  Task<Result<Empty>> remove_xattr(RemoveXattr r) {
    co_await clear(r.file, r.ticket.session, GrantKind::kWrite);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    if (i->xattrs.erase(r.name) == 0) co_return Error(Code::kNoAttribute, "no such attribute");
    touched(*i, false);
    co_return Empty{};
  }
  Task<Result<Empty>> open_kept(OpenKept r) {
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    i->kept.insert(r.ticket.session);
    co_return Empty{};
  }
  Task<Result<LockReply>> lock(Lock r) {  // of whole files, exclusive
    const bool unlocks = r.lock.kind == LockKind::kUnlock;
    while (faults_.hold_locks && !unlocks) co_await env_.clock.sleep(milliseconds(5));
    if (unlocks && faults_.fail_unlocks > 0) {
      --faults_.fail_unlocks;
      co_return Error(Code::kInvalid, "injected");
    }
    std::set<std::pair<SessionId, uint64_t>>& holders = lockers_[r.file];
    std::erase_if(holders, [this](const auto& holder) { return !sessions_.contains(holder.first); });
    const std::pair<SessionId, uint64_t> who{r.ticket.session, r.lock.owner};
    if (unlocks) {
      holders.erase(who);
    } else if (!holders.empty() && !holders.contains(who)) {
      co_return LockReply{false};
    } else {
      holders.insert(who);
    }
    co_return LockReply{true};
  }
  Task<Result<Empty>> forget(Forget r) {
    if (faults_.fail_forgets > 0) {
      --faults_.fail_forgets;
      co_return Error(Code::kInvalid, "injected");
    }
    for (FileId id : r.files) {
      FakeInode* i = inode(id);
      if (i == nullptr) continue;
      i->kept.erase(r.ticket.session);
      reap(id);
    }
    co_return Empty{};
  }

  // ---- data ----
  Task<Result<ReserveReply>> reserve(Reserve r, CallInfo info) {
    ++counts.reserves;
    co_await pause();
    HR_CO_TRY(touch(r.session, info));
    if (faults_.no_space) co_return Error(Code::kNoSpace, "full");
    if (faults_.read_only) co_return Error(Code::kReadOnly, "read-only");
    for (const SegmentId& segment : r.abandoned) sessions_[r.session].reserved.erase(segment);
    ReserveReply reply;
    for (uint32_t n = 0; n < r.count; ++n) {
      Reservation one;
      one.segment = SegmentId(NamespaceId(7), r.slot, NamespaceEpoch(1), disk_.next_segment++);
      one.placement = {{2, 1}, {TargetId(1), TargetId(2), TargetId(3)}};
      one.spares = {TargetId(4)};
      one.capability.segment = one.segment;
      one.capability.expiry_s = static_cast<uint32_t>(wall() / 1'000'000'000 + 3600);
      sessions_[r.session].reserved.insert(one.segment);
      reply.reservations.push_back(one);
    }
    co_return reply;
  }
  Task<Result<CommitReply>> commit(Commit r) {
    while (faults_.hold_commits) co_await env_.clock.sleep(milliseconds(5));
    if (faults_.fail_commits > 0) {
      --faults_.fail_commits;
      co_return Error(Code::kInvalid, "injected");
    }
    if (faults_.refuse_commits > 0) {
      --faults_.refuse_commits;
      co_return CommitReply{.codes = std::vector<uint16_t>(r.files.size(), static_cast<uint16_t>(Code::kStale))};
    }
    ++counts.commits;
    const SessionId session = r.ticket.session;
    std::set<SegmentId> named;
    for (const CommitSegment& s : r.segments) {
      if (!sessions_[session].reserved.contains(s.segment)) continue;  // not to this session, or not any more
      HR_ASSERT(s.length > 0 && s.length <= kMaxSegment);
      for (uint8_t i = 0; i < 3; ++i) HR_ASSERT(disk_.fragments.contains({s.segment, i}));  // durable before
      named.insert(s.segment);
    }
    CommitReply reply;
    bool any = false;
    for (const CommitFile& f : r.files) {
      FakeInode* i = inode(f.file);
      const Grant* grant = held(session, f.file);
      Code code = Code::kOk;
      if (i == nullptr) {
        code = Code::kNotFound;
      } else if (grant == nullptr || grant->id != f.grant || grant->kind != GrantKind::kWrite) {
        code = Code::kStale;
      } else if (std::any_of(f.extents.begin(), f.extents.end(),
                             [&](const Extent& e) { return !named.contains(e.segment); })) {
        code = Code::kStale;
      } else {
        ++counts.commit_files;
        any = true;
        if (f.size > i->attributes.size) resize(*i, f.size);
        HR_ASSERT(f.size == i->attributes.size);  // a commit never shortens
        for (const Extent& e : f.extents) {
          HR_ASSERT(e.kind == ExtentKind::kSegment && e.offset + e.length <= f.size);
          i->extents.replace(e);
        }
        i->attributes.mtime = f.mtime;
        i->attributes.ctime = std::max(i->attributes.ctime, f.mtime);
      }
      reply.codes.push_back(static_cast<uint16_t>(code));
    }
    if (any) {
      for (const CommitSegment& s : r.segments) {
        if (!named.contains(s.segment)) continue;
        sessions_[session].reserved.erase(s.segment);
        Location location;
        location.segment = s.segment;
        location.length = s.length;
        location.bucket = NamespaceId(7);
        location.placement = s.placement;
        disk_.segments[s.segment] = location;
      }
    }
    co_return reply;
  }
  Task<Result<Empty>> stage(Stage r) {
    ++counts.stages;
    FakeInode* i = inode(r.file);
    const Grant* grant = held(r.ticket.session, r.file);
    if (i == nullptr) co_return none();
    if (grant == nullptr || grant->id != r.grant || grant->kind != GrantKind::kWrite)
      co_return Error(Code::kStale, "no grant");
    if (r.size > i->attributes.size) resize(*i, r.size);
    HR_ASSERT(r.size == i->attributes.size);
    uint64_t bytes = 0;
    for (const StagePiece& piece : r.pieces) {
      bytes += piece.bytes.size();
      const uint64_t id = disk_.next_staged++;
      disk_.staged[id] = Buffer::copy_of(bytes_of(piece.bytes));
      i->extents.replace(
          {.offset = piece.offset, .length = piece.bytes.size(), .kind = ExtentKind::kStaged, .staged = id});
    }
    HR_ASSERT(bytes <= 64 * kKiB);
    i->attributes.mtime = r.mtime;
    i->attributes.ctime = std::max(i->attributes.ctime, r.mtime);
    co_return Empty{};
  }
  Task<Result<Empty>> punch(Punch r) {
    co_await clear(r.file, r.ticket.session, GrantKind::kWrite);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    const uint64_t end = std::min(i->attributes.size, r.offset + r.length);
    if (r.offset < end) i->extents.replace({.offset = r.offset, .length = end - r.offset});
    touched(*i, true);
    co_return Empty{};
  }
  Task<Result<CopyRangeReply>> copy_range(CopyRange r) {
    co_await clear(r.source, r.ticket.session, GrantKind::kRead);
    co_await clear(r.file, r.ticket.session, GrantKind::kWrite);
    FakeInode* from = inode(r.source);
    FakeInode* to = inode(r.file);
    if (from == nullptr || to == nullptr) co_return none();
    const uint64_t end = std::min(from->attributes.size, r.source_offset + r.length);
    if (end <= r.source_offset) co_return CopyRangeReply{};
    auto cover = from->extents.cover(r.source_offset, end);
    HR_ASSERT(cover.has_value());
    for (Extent extent : *cover) {
      extent.offset = extent.offset - r.source_offset + r.offset;
      to->extents.replace(extent);
    }
    to->attributes.size = std::max(to->attributes.size, r.offset + (end - r.source_offset));
    touched(*to, true);
    co_return CopyRangeReply{end - r.source_offset};
  }
  Task<Result<GetExtentsReply>> get_extents(GetExtents r, CallInfo info) {
    ++counts.extents;
    co_await pause();
    HR_CO_TRY(touch(r.session, info));
    co_await clear(r.file, r.session, GrantKind::kRead);
    FakeInode* i = inode(r.file);
    if (i == nullptr) co_return none();
    GetExtentsReply reply;
    reply.size = i->attributes.size;
    if (r.offset < reply.size) {
      auto cover = i->extents.cover(r.offset, std::min(reply.size, r.offset + r.length));
      HR_ASSERT(cover.has_value());
      if (cover->size() == 1 && cover->front().kind == ExtentKind::kHole)
        cover->front().length = i->extents.hole_end(r.offset) - r.offset;
      std::set<SegmentId> seen;
      std::set<uint64_t> staged;
      for (const Extent& e : *cover) {
        reply.extents.push_back(e);
        if (e.kind == ExtentKind::kSegment && seen.insert(e.segment).second) {
          reply.locations.push_back(disk_.segments.at(e.segment));
          Capability c;
          c.segment = e.segment;
          c.expiry_s = static_cast<uint32_t>(wall() / 1'000'000'000 + 3600);
          reply.capabilities.push_back(c);
        }
        if (e.kind == ExtentKind::kStaged && staged.insert(e.staged).second)
          reply.staged.push_back({e.staged, disk_.staged.at(e.staged)});
      }
    }
    co_await pause();
    co_return reply;
  }
  Task<Result<LocateReply>> locate(Locate r) {
    ++counts.locates;
    auto it = disk_.segments.find(r.segment);
    if (it == disk_.segments.end()) co_return Error(Code::kNotFound, "dead segment");
    LocateReply reply;
    reply.location = it->second;
    reply.capability.expiry_s = static_cast<uint32_t>(wall() / 1'000'000'000 + 3600);
    co_return reply;
  }
  Task<Result<ColdReadReply>> cold_read(ColdRead r) {
    ++counts.cold_reads;
    auto it = disk_.bucket.find(r.location.segment);
    if (it == disk_.bucket.end() || r.offset + r.length > it->second.size())
      co_return Error(Code::kIo, "not in the bucket");
    ColdReadReply reply;
    reply.payload = Buffer::copy_of(bytes_of(it->second.substr(r.offset, r.length)));
    reply.crc = crc32c(reply.payload.view());
    co_return reply;
  }
  Task<Result<Empty>> fragment_write(FragmentWrite r) {
    co_await pause();
    if (faults_.fail_fragment_writes > 0) {
      --faults_.fail_fragment_writes;
      co_return Error(Code::kIo, "injected");
    }
    auto [it, fresh] = disk_.fragments.try_emplace({r.segment, r.index}, r);
    HR_ASSERT(fresh || it->second.crcs == r.crcs);  // an id is never used twice
    co_return Empty{};
  }
  Task<Result<FragmentReadReply>> fragment_read(FragmentRead r) {
    ++counts.fragment_reads;
    co_await pause();
    auto it = disk_.fragments.find({r.segment, r.index});
    if (it == disk_.fragments.end() || r.index == faults_.lose_fragment_index)
      co_return Error(Code::kNoFragment, "not here");
    FragmentReadReply reply;
    reply.segment_length = it->second.segment_length;
    HR_ASSERT(r.offset + r.length <= it->second.payload.size());
    reply.payload = it->second.payload.slice(r.offset, r.length);
    for (uint64_t b = r.offset / kBlock; b < (r.offset + r.length) / kBlock; ++b)
      reply.crcs.push_back(it->second.crcs[b]);
    co_return reply;
  }

  Env env_;
  Address address_;
  FakeDurable& disk_;
  Faults& faults_;
  Identity identity_;
  Handlers handlers_;
  std::map<SessionId, Standing> sessions_;
  std::map<FileId, std::vector<Holder>> grants_;
  std::set<GrantId> recalling_;
  std::map<FileId, std::set<std::pair<SessionId, uint64_t>>> lockers_;
  std::set<std::pair<SessionId, uint64_t>> running_;
  Hub hub_;
  Scope scope_;
};

// A machine that runs one Client.
struct ClientProcess final : Process {
  ClientProcess(Env& e, ClientOptions o) : env(e), options(std::move(o)) {}
  Task<void> run() override {
    Result<std::unique_ptr<Client>> started = co_await Client::start(env, options);
    HR_ASSERT(started.ok());
    client = *std::move(started);
    Event never;
    co_await never.wait();
  }
  Env env;
  ClientOptions options;
  std::unique_ptr<Client> client;
};

class FakeCluster {
 public:
  explicit FakeCluster(uint64_t seed, size_t clients = 1, ClientOptions options = {})
      : world(seed), node_machine(world.add_machine("node")) {
    start_node();
    for (size_t i = 0; i < clients; ++i) {
      Machine& machine = world.add_machine("client" + std::to_string(i));
      machines.push_back(&machine);
      start_client(i, options);
    }
  }
  void start_node() {
    node_machine.start(
        [this](Env& env) { return std::make_unique<FakeNode>(env, node_machine.address(), disk, faults); });
  }
  void restart_node() {
    node_machine.crash(CrashKind::kProcess);
    ++disk.epoch;
    ++disk.version;
    start_node();
  }
  void start_client(size_t i, ClientOptions options) {
    options.nodes = {node_machine.address()};
    machines[i]->start([options](Env& env) { return std::make_unique<ClientProcess>(env, options); });
    bool up = world.run_until([&] { return static_cast<ClientProcess*>(machines[i]->process())->client != nullptr; },
                              seconds(60));
    HR_ASSERT(up);
  }
  // As after a crash of the client's machine.
  void start_client_again(size_t i, ClientOptions options = {}) {
    machines[i]->crash(CrashKind::kPower);
    start_client(i, std::move(options));
  }
  [[nodiscard]] FakeNode& node() { return static_cast<FakeNode&>(*node_machine.process()); }
  [[nodiscard]] Client& client(size_t i = 0) { return *static_cast<ClientProcess*>(machines[i]->process())->client; }

  FakeDurable disk;
  FakeNode::Faults faults;
  World world;
  Machine& node_machine;
  std::vector<Machine*> machines;
};

}  // namespace headrace
