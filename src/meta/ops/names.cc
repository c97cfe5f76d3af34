#include "meta/ops/names.h"

#include <sys/stat.h>

#include "base/file_time.h"
#include "meta/ops/acls.h"
#include "meta/ops/sessions.h"
#include "meta/ops/steps.h"
#include "meta/ops/two_phase.h"

namespace headrace {

namespace {

constexpr size_t kMaxSymlink = 4095;
constexpr size_t kMaxXattrName = 255;
constexpr size_t kMaxXattrValue = 64 * kKiB;
constexpr uint32_t kMaxEntries = 4096;  // of one ReadDirectory reply
constexpr int kMaxDepth = 4096;         // of the walk to the root

using GrantSlot = std::shared_ptr<std::optional<Grant>>;

// Where a new directory lives: by hash, so that work spreads. FNV-1a over parent and name.
Slot slot_for_directory(FileId parent, std::string_view name) {
  uint64_t h = 0xcbf29ce484222325 ^ parent.packed();
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  h ^= h >> 32;
  return Slot(static_cast<uint16_t>(h ^ (h >> 16)));
}

// No other client has changed names of the directory that are not here.
Task<Result<DentryRow>> entry_of(Transaction& txn, FileId parent, std::string name) {
  HR_CO_TRY(co_await txn.share(parent));
  HR_CO_TRY(InodeRow directory, co_await directory_inode(txn, parent));
  if (name.size() > 255) co_return Error(Code::kNameTooLong, "a name has at most 255 bytes");
  HR_CO_TRY(std::optional<DentryRow> dentry, co_await txn.row<DentryRow>(dentry_key(parent, name)));
  if (!dentry) co_return Error(Code::kNotFound, "no such name");
  co_return *dentry;
}

struct EntryOp {
  using Reply = EntryReply;
  GrantSlot file_grant = std::make_shared<std::optional<Grant>>();
  GrantSlot directory_grant = std::make_shared<std::optional<Grant>>();
};

// A read whose reply brings the grants that came with it.
template <class Op>
Task<Result<EntryReply>> read_entry(Partition& partition, SessionId session, Op op) {
  GrantSlot file = op.file_grant;
  GrantSlot directory = op.directory_grant;
  Result<EntryReply> reply = co_await partition.read_as(session, std::move(op));
  if (reply.ok()) {
    reply->file_grant = *file;
    reply->directory_grant = *directory;
  }
  co_return reply;
}

struct LookupOp : EntryOp {
  Lookup request;
  Task<Result<EntryReply>> run(Transaction& txn) {
    Result<DentryRow> dentry = co_await entry_of(txn, request.parent, request.name);
    // A negative answer may be cached under the directory's grant as well, but carries none: errors have no body.
    if (!dentry.ok()) co_return std::move(dentry).error();
    if (txn.session()) give_at_commit(txn, request.parent, GrantKind::kRead, directory_grant);
    EntryReply reply;
    if (!txn.partition().owns(dentry->file.slot())) {
      reply.attributes.id = dentry->file;
      reply.attributes.type = dentry->type;
      co_return reply;
    }
    HR_CO_TRY(co_await txn.share(dentry->file));
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, dentry->file));
    reply.attributes = inode.attributes;
    reply.no_xattrs = inode.xattrs == 0;
    if (txn.session()) give_at_commit(txn, dentry->file, GrantKind::kRead, file_grant);
    co_return reply;
  }
};

struct GetAttributesOp : EntryOp {
  GetAttributes request;
  Task<Result<EntryReply>> run(Transaction& txn) {
    HR_CO_TRY(co_await (request.want == GrantKind::kWrite ? txn.exclude(request.file) : txn.share(request.file)));
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    EntryReply reply;
    reply.attributes = inode.attributes;
    reply.no_xattrs = inode.xattrs == 0;
    if (txn.session() && request.want != GrantKind::kNone) give_at_commit(txn, request.file, request.want, file_grant);
    co_return reply;
  }
};

struct MakeOp {
  using Reply = EntryReply;
  Make request;
  GrantSlot grant = std::make_shared<std::optional<Grant>>();
  GrantSlot directory_grant = std::make_shared<std::optional<Grant>>();
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  Task<Result<EntryReply>> run(Transaction& txn) {
    if (request.unnamed) {
      if (!request.name.empty() || request.type != FileType::kFile || !request.keep_open)
        co_return Error(Code::kInvalid, "a file without a name is a plain file, and open");
    } else {
      HR_CO_TRY(check_name(request.name));
      // Nobody else holds any on it once the name is in.
      give_at_commit(txn, request.parent, request.want_directory_write ? GrantKind::kWrite : GrantKind::kRead,
                     directory_grant);
    }
    if (request.target.size() > kMaxSymlink)
      co_return Error(Code::kNameTooLong, "a symlink's target has at most 4095 bytes");
    HR_CO_TRY(InodeRow parent, co_await directory_inode(txn, request.parent));
    Attributes attributes;
    attributes.mode = request.mode & 07777;
    attributes.uid = request.uid;
    attributes.gid = request.gid;
    attributes.rdev = request.rdev;
    attributes.parent = request.parent;
    if ((parent.attributes.mode & S_ISGID) != 0) {
      attributes.gid = parent.attributes.gid;
      if (request.type == FileType::kDirectory) attributes.mode |= S_ISGID;
    }
    std::optional<PosixAcl> acl;
    if (request.type != FileType::kSymlink) {
      HR_CO_TRY(acl, co_await default_acl(txn, parent));
    }
    if (acl) attributes.mode |= request.masked & 0777;
    int64_t now = txn.now();
    attributes.atime = attributes.mtime = attributes.ctime = attributes.btime = now;
    Step insert;
    insert.kind = StepKind::kInsertEntry;
    insert.slot = request.parent.slot();
    insert.directory = request.parent;
    insert.name = request.name;
    insert.type = request.type;
    insert.now = now;
    EntryReply reply;
    if (request.type == FileType::kDirectory) {
      // The name is looked at before anything is prepared elsewhere: EEXIST is the common refusal.
      HR_CO_TRY(co_await txn.share(request.parent));
      HR_CO_TRY(std::optional<DentryRow> there, co_await txn.row<DentryRow>(dentry_key(request.parent, request.name)));
      if (there) co_return Error(Code::kExists, "the name exists");
      Step make;
      make.kind = StepKind::kMakeDirectory;
      make.slot = slot_for_directory(request.parent, request.name);
      make.attributes = attributes;
      if (acl) make.name = acl->encode();
      make.now = now;
      HR_CO_TRY(std::vector<Attributes> done, co_await run_steps(txn, {make, insert}));
      reply.attributes = done[0];
      reply.no_xattrs = !acl;
      HR_CO_TRY(co_await tell_directory(txn, reply));
      co_return reply;
    }
    InodeRow inode;
    inode.attributes = attributes;
    inode.attributes.id = txn.new_file(request.parent.slot());
    inode.attributes.parent = FileId();
    inode.attributes.type = request.type;
    inode.attributes.links = 1;
    inode.attributes.generation = txn.partition().counters().namespace_epoch.value();
    inode.symlink = request.target;
    if (request.type == FileType::kSymlink) inode.attributes.size = request.target.size();
    if (acl) inherit_acl(txn, inode, *std::move(acl));
    insert.file = inode.attributes.id;
    if (request.unnamed) {
      inode.attributes.links = 0;
      txn.put(orphan_key(inode.attributes.id), "");
    } else {
      HR_CO_TRY(co_await apply_step(txn, insert, Attributes{}));
    }
    txn.put_row(inode_key(inode.attributes.id), inode);
    ++txn.counters.inodes;
    if (request.keep_open) txn.put(kept_key(inode.attributes.id, request.ticket.session), "");
    if (request.want_write_grant) give_at_commit(txn, inode.attributes.id, GrantKind::kWrite, grant);
    reply.attributes = inode.attributes;
    reply.no_xattrs = inode.xattrs == 0;
    HR_CO_TRY(co_await tell_directory(txn, reply));
    co_return reply;
  }

  Task<Result<void>> tell_directory(Transaction& txn, EntryReply& reply) const {
    if (!request.want_directory_write) co_return {};
    HR_CO_TRY(InodeRow directory, co_await directory_inode(txn, request.parent));
    reply.directory = directory.attributes;
    reply.entries = directory.entries;
    reply.directory_no_xattrs = directory.xattrs == 0;
    co_return {};
  }
};

struct UnlinkOp {
  using Reply = UnlinkReply;
  Unlink request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<UnlinkReply>> run(Transaction& txn) {
    HR_CO_TRY(DentryRow dentry, co_await entry_of(txn, request.parent, request.name));
    bool directory = dentry.type == FileType::kDirectory;
    if (request.directory && !directory) co_return Error(Code::kNotDirectory, "not a directory");
    if (!request.directory && directory) co_return Error(Code::kIsDirectory, "is a directory");
    int64_t now = txn.now();
    Step inode;
    inode.kind = directory ? StepKind::kRemoveDirectory : StepKind::kLinkCount;
    inode.slot = dentry.file.slot();
    inode.file = dentry.file;
    inode.delta = -1;
    inode.now = now;
    Step remove;
    remove.kind = StepKind::kRemoveEntry;
    remove.slot = request.parent.slot();
    remove.directory = request.parent;
    remove.name = request.name;
    remove.expect = dentry.file;
    remove.now = now;
    HR_CO_TRY(std::vector<Attributes> done, co_await run_steps(txn, {inode, remove}));
    txn.on_commit([&p = txn.partition()] { p.reap_soon(); });
    co_return UnlinkReply{dentry.file, directory ? 0 : done[0].links};
  }
};

struct LinkOp {
  using Reply = EntryReply;
  Link request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<EntryReply>> run(Transaction& txn) {
    HR_CO_TRY(check_name(request.name));
    HR_CO_TRY(co_await txn.share(request.parent));
    HR_CO_TRY(std::optional<DentryRow> there, co_await txn.row<DentryRow>(dentry_key(request.parent, request.name)));
    if (there) co_return Error(Code::kExists, "the name exists");
    int64_t now = txn.now();
    Step count;
    count.kind = StepKind::kLinkCount;
    count.slot = request.file.slot();
    count.file = request.file;
    count.delta = 1;
    count.unnamed = request.unnamed;
    count.now = now;
    Step insert;
    insert.kind = StepKind::kInsertEntry;
    insert.slot = request.parent.slot();
    insert.directory = request.parent;
    insert.name = request.name;
    insert.now = now;  // file and type: those of the step before
    HR_CO_TRY(std::vector<Attributes> done, co_await run_steps(txn, {count, insert}));
    EntryReply reply;
    reply.attributes = done[0];
    co_return reply;
  }
};

struct RenameOp {
  using Reply = UnlinkReply;
  Rename request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  // The entry that the new name has now, wherever its directory lives.
  Task<Result<DentryRow>> target(Transaction& txn) {
    Partition& partition = txn.partition();
    if (partition.owns(request.to_parent.slot())) {
      Result<DentryRow> entry = co_await entry_of(txn, request.to_parent, request.to_name);
      co_return entry;
    }
    Lookup lookup;
    lookup.parent = request.to_parent;
    lookup.name = request.to_name;
    CallOptions options;
    options.timeout = seconds(10);
    HR_CO_TRY(EntryReply reply,
              co_await partition.context().partitions.call(request.to_parent.slot(), std::move(lookup), options));
    co_return DentryRow{reply.attributes.id, reply.attributes.type, 0};
  }

  // A directory must not move below itself. The rename lock makes the answer hold until this commits; before it is
  // held, a rename that is decided may not have reached the parents that it sets.
  Task<Result<void>> check_ancestry(Transaction& txn, FileId moved, FileId below) {
    Partition& partition = txn.partition();
    FileId at = below;
    for (int depth = 0; depth < kMaxDepth; ++depth) {
      if (at == moved) co_return Error(Code::kInvalid, "a directory cannot move below itself");
      if (at == kRootFile) co_return {};
      if (partition.owns(at.slot())) {
        HR_CO_TRY(InodeRow row, co_await directory_inode(txn, at));
        at = row.attributes.parent;
      } else {
        CallOptions options;
        options.timeout = seconds(10);
        HR_CO_TRY(ParentOfReply reply, co_await partition.context().partitions.call(at.slot(), ParentOf{at}, options));
        at = reply.parent;
      }
    }
    co_return Error(Code::kLoop, "the path to the root is too long");
  }

  // Each name is given the other's file, in one transaction; neither inode loses a link.
  Task<Result<UnlinkReply>> exchange(Transaction& txn, DentryRow a, DentryRow b) {
    int64_t now = txn.now();
    bool between = request.from_parent != request.to_parent;
    std::vector<Step> steps;
    auto add = [&steps, now](StepKind kind, FileId on) -> Step& {
      Step& s = steps.emplace_back();
      s.kind = kind;
      s.slot = on.slot();
      s.file = on;
      s.now = now;
      return s;
    };
    auto moves = [between](const DentryRow& entry) { return between && entry.type == FileType::kDirectory; };
    if (moves(a) || moves(b)) add(StepKind::kLockRename, kRootFile);
    add(moves(a) ? StepKind::kSetParent : StepKind::kLinkCount, a.file).directory = request.to_parent;
    add(moves(b) ? StepKind::kSetParent : StepKind::kLinkCount, b.file).directory = request.from_parent;
    auto put = [&add](FileId parent, const std::string& name, const DentryRow& now_there, const DentryRow& then) {
      Step& s = add(StepKind::kInsertEntry, then.file);
      s.slot = parent.slot();
      s.directory = parent;
      s.name = name;
      s.type = then.type;
      s.expect = now_there.file;
    };
    // As for rename: a subdirectory goes before it comes.
    const bool backwards = !between && b.type == FileType::kDirectory;
    if (backwards) put(request.to_parent, request.to_name, b, a);
    put(request.from_parent, request.from_name, a, b);
    if (!backwards) put(request.to_parent, request.to_name, b, a);
    HR_CO_TRY(std::vector<Attributes> done, co_await run_steps(txn, steps));
    if (moves(a)) {
      HR_CO_TRY(co_await check_ancestry(txn, a.file, request.to_parent));
    }
    if (moves(b)) {
      HR_CO_TRY(co_await check_ancestry(txn, b.file, request.from_parent));
    }
    co_return UnlinkReply{};
  }

  Task<Result<UnlinkReply>> run(Transaction& txn) {
    HR_CO_TRY(check_name(request.from_name));
    HR_CO_TRY(check_name(request.to_name));
    if (request.exchange && request.no_replace) co_return Error(Code::kInvalid, "to exchange is to replace both");
    HR_CO_TRY(DentryRow moved, co_await entry_of(txn, request.from_parent, request.from_name));
    Result<DentryRow> old = co_await target(txn);
    if (!old.ok() && old.code() != Code::kNotFound) {
      if (old.error().retry() != Retry::kFinal) co_return Error(Code::kBusy, old.error().message());
      co_return std::move(old).error();
    }
    if (old.ok() && request.no_replace) co_return Error(Code::kExists, "the new name exists");
    if (request.exchange && !old.ok()) co_return Error(Code::kNotFound, "there is nothing to change places with");
    if (old.ok() && old->file == moved.file) co_return UnlinkReply{};  // two names of one file: nothing to do
    if (request.exchange) co_return co_await exchange(txn, moved, *old);
    bool directory = moved.type == FileType::kDirectory;
    if (old.ok() && directory && old->type != FileType::kDirectory)
      co_return Error(Code::kNotDirectory, "the new name is no directory");
    if (old.ok() && !directory && old->type == FileType::kDirectory)
      co_return Error(Code::kIsDirectory, "the new name is a directory");

    int64_t now = txn.now();
    auto step = [now](StepKind kind, FileId on) {
      Step s;
      s.kind = kind;
      s.slot = on.slot();
      s.file = on;
      s.now = now;
      return s;
    };
    bool between = request.from_parent != request.to_parent;
    std::vector<Step> steps;
    if (directory && between) steps.push_back(step(StepKind::kLockRename, kRootFile));
    if (old.ok()) {
      Step gone =
          step(old->type == FileType::kDirectory ? StepKind::kRemoveDirectory : StepKind::kLinkCount, old->file);
      gone.delta = -1;
      steps.push_back(gone);
    }
    steps.push_back(directory && between ? step(StepKind::kSetParent, moved.file)
                                         : step(StepKind::kLinkCount, moved.file));
    steps.back().directory = request.to_parent;
    Step insert = step(StepKind::kInsertEntry, moved.file);
    insert.slot = request.to_parent.slot();
    insert.directory = request.to_parent;
    insert.name = request.to_name;
    insert.type = moved.type;
    if (old.ok()) insert.expect = old->file;
    Step remove = step(StepKind::kRemoveEntry, moved.file);
    remove.slot = request.from_parent.slot();
    remove.directory = request.from_parent;
    remove.name = request.from_name;
    remove.expect = moved.file;
    // Within one directory it goes before it comes: of subdirectories the directory may have all it can.
    steps.push_back(between ? insert : remove);
    steps.push_back(between ? remove : insert);
    HR_CO_TRY(std::vector<Attributes> done, co_await run_steps(txn, steps));
    if (directory && between) {
      HR_CO_TRY(co_await check_ancestry(txn, moved.file, request.to_parent));
    }
    txn.on_commit([&p = txn.partition()] { p.reap_soon(); });
    UnlinkReply reply;
    if (old.ok()) {
      reply.file = old->file;
      for (size_t i = 0; i < steps.size(); ++i)
        if (steps[i].kind == StepKind::kLinkCount && steps[i].file == old->file) reply.links = done[i].links;
    }
    co_return reply;
  }
};

struct ReadDirectoryOp {
  using Reply = ReadDirectoryReply;
  ReadDirectory request;
  Task<Result<ReadDirectoryReply>> run(Transaction& txn) {
    HR_CO_TRY(co_await txn.share(request.directory));
    HR_CO_TRY(InodeRow directory, co_await directory_inode(txn, request.directory));
    uint32_t limit = std::clamp<uint32_t>(request.limit, 1, kMaxEntries);
    Key from = cookie_key(request.directory, request.after + 1);
    Key to =
        prefix_end(KeyBuilder(request.directory.slot(), Table::kCookie).u48(request.directory.local()).u16(0).take());
    HR_CO_TRY(auto rows, co_await txn.scan(from, to, limit));
    ReadDirectoryReply reply;
    for (auto& [key, value] : rows) {
      HR_CO_TRY(CookieRow row, decode_durable<CookieRow>(value));
      DirectoryEntry entry;
      entry.name = std::move(row.name);
      entry.id = row.file;
      entry.type = row.type;
      entry.cookie = key_number(key, kKeyPrefix + 8, 8);
      // What somebody writes is asked for by itself: were it recalled here, two writers could keep a page from ever
      // being read whole.
      if (request.plus && txn.partition().owns(entry.id.slot()) && txn.may_share(entry.id)) {
        HR_CO_TRY(co_await txn.share(entry.id));
        HR_CO_TRY(std::optional<InodeRow> inode, co_await txn.row<InodeRow>(inode_key(entry.id)));
        if (inode) entry.attributes = inode->attributes;
      }
      reply.entries.push_back(std::move(entry));
    }
    reply.end = rows.size() < limit;
    reply.last = directory.next_cookie - 1;
    co_return reply;
  }
};

struct GetXattrOp {
  using Reply = TextReply;
  GetXattr request;
  Task<Result<TextReply>> run(Transaction& txn) {
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    if (request.name.empty()) {
      if (inode.attributes.type != FileType::kSymlink) co_return Error(Code::kInvalid, "not a symlink");
      co_return TextReply{inode.symlink};
    }
    if (inode.xattrs == 0) co_return Error(Code::kNoAttribute, "no such attribute");
    HR_CO_TRY(std::optional<RowValue> value, co_await txn.get(xattr_key(request.file, request.name)));
    if (!value) co_return Error(Code::kNoAttribute, "no such attribute");
    co_return TextReply{*std::move(value)};
  }
};

Task<Result<void>> touch_inode(Transaction& txn, InodeRow row) {
  HR_CO_TRY(co_await txn.exclude(row.attributes.id));
  row.attributes.ctime = moved_to(row.attributes.ctime, txn.now(), txn.now());
  ++row.attributes.change;
  txn.put_row(inode_key(row.attributes.id), row);
  co_return {};
}

struct SetXattrOp {
  using Reply = Empty;
  SetXattr request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<Empty>> run(Transaction& txn) {
    if (request.name.empty() || request.name.size() > kMaxXattrName)
      co_return Error(Code::kRange, "an attribute's name has 1 to 255 bytes");
    if (request.value.size() > kMaxXattrValue) co_return Error(Code::kTooLarge, "an attribute has at most 64 KiB");
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    if (is_acl(request.name)) {
      HR_CO_TRY(std::optional<InodeRow> changed, co_await set_acl(txn, std::move(inode), request));
      if (changed) HR_CO_TRY(co_await touch_inode(txn, *std::move(changed)));
      co_return Empty{};
    }
    Key key = xattr_key(request.file, request.name);
    HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(key));
    if (there && request.must_create) co_return Error(Code::kExists, "the attribute exists");
    if (!there && request.must_replace) co_return Error(Code::kNoAttribute, "no such attribute");
    if (!there) ++inode.xattrs;
    txn.put(std::move(key), request.value);
    HR_CO_TRY(co_await touch_inode(txn, std::move(inode)));
    co_return Empty{};
  }
};

struct RemoveXattrOp {
  using Reply = Empty;
  RemoveXattr request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }
  Task<Result<Empty>> run(Transaction& txn) {
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    if (is_acl(request.name)) {
      HR_CO_TRY(std::optional<InodeRow> changed, co_await remove_acl(txn, std::move(inode), request.name));
      if (changed) HR_CO_TRY(co_await touch_inode(txn, *std::move(changed)));
      co_return Empty{};
    }
    Key key = xattr_key(request.file, request.name);
    HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(key));
    if (!there) co_return Error(Code::kNoAttribute, "no such attribute");
    --inode.xattrs;
    txn.erase(std::move(key));
    HR_CO_TRY(co_await touch_inode(txn, std::move(inode)));
    co_return Empty{};
  }
};

struct ListXattrOp {
  using Reply = ListXattrReply;
  ListXattr request;
  Task<Result<ListXattrReply>> run(Transaction& txn) {
    HR_CO_TRY(InodeRow inode, co_await inode_of(txn, request.file));
    ListXattrReply reply;
    if (inode.xattrs == 0) co_return reply;
    Key from = xattr_key(request.file, "");
    HR_CO_TRY(auto rows, co_await txn.scan(from, prefix_end(from), inode.xattrs));
    for (auto& [key, value] : rows) reply.names.push_back(key.substr(from.size()));
    co_return reply;
  }
};

struct ParentOfOp {
  using Reply = ParentOfReply;
  ParentOf request;
  Task<Result<ParentOfReply>> run(Transaction& txn) {
    // The rename that asks may itself have locked this directory, and only the holder of the rename lock moves
    // directories.
    txn.look_beneath_locks();
    HR_CO_TRY(InodeRow row, co_await directory_inode(txn, request.directory));
    co_return ParentOfReply{row.attributes.parent};
  }
};

struct MakeRootOp {
  using Reply = Empty;
  Task<Result<Empty>> run(Transaction& txn) {
    HR_CO_TRY(std::optional<InodeRow> there, co_await txn.row<InodeRow>(inode_key(kRootFile)));
    if (there) co_return Empty{};
    InodeRow root;
    Attributes& a = root.attributes;
    a.id = kRootFile;
    a.type = FileType::kDirectory;
    a.mode = 0755;
    a.links = 2;
    a.parent = kRootFile;
    a.generation = txn.partition().counters().namespace_epoch.value();
    a.atime = a.mtime = a.ctime = a.btime = txn.now();
    txn.put_row(inode_key(kRootFile), root);
    ++txn.counters.inodes;
    co_return Empty{};
  }
};

}  // namespace

Task<Result<EntryReply>> handle(Partition& partition, Lookup request, CallInfo info) {
  if (request.session) {
    HR_CO_TRY(co_await partition.session(request.session, info));
  }
  LookupOp op;
  op.request = std::move(request);
  SessionId session = op.request.session;
  co_return co_await read_entry(partition, session, std::move(op));
}

Task<Result<EntryReply>> handle(Partition& partition, GetAttributes request, CallInfo info) {
  if (request.session) {
    HR_CO_TRY(co_await partition.session(request.session, info));
  }
  GetAttributesOp op;
  op.request = request;
  co_return co_await read_entry(partition, request.session, std::move(op));
}

Task<Result<EntryReply>> handle(Partition& partition, Make request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  MakeOp op{std::move(request)};
  GrantSlot grant = op.grant;
  GrantSlot directory_grant = op.directory_grant;
  Result<EntryReply> reply = co_await partition.mutate(std::move(op));
  if (reply.ok()) {
    reply->file_grant = *grant;
    reply->directory_grant = *directory_grant;
  }
  co_return reply;
}

Task<Result<UnlinkReply>> handle(Partition& partition, Unlink request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(UnlinkOp{std::move(request)});
}

Task<Result<UnlinkReply>> handle(Partition& partition, Rename request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(RenameOp{std::move(request)});
}

Task<Result<EntryReply>> handle(Partition& partition, Link request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(LinkOp{std::move(request)});
}

Task<Result<ReadDirectoryReply>> handle(Partition& partition, ReadDirectory request, CallInfo info) {
  if (request.session) {
    HR_CO_TRY(co_await partition.session(request.session, info));
  }
  co_return co_await partition.read_as(request.session, ReadDirectoryOp{request});
}

Task<Result<TextReply>> handle(Partition& partition, GetXattr request, CallInfo) {
  co_return co_await partition.read(GetXattrOp{std::move(request)});
}
Task<Result<Empty>> handle(Partition& partition, SetXattr request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(SetXattrOp{std::move(request)});
}
Task<Result<ListXattrReply>> handle(Partition& partition, ListXattr request, CallInfo) {
  co_return co_await partition.read(ListXattrOp{std::move(request)});
}
Task<Result<Empty>> handle(Partition& partition, RemoveXattr request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(RemoveXattrOp{std::move(request)});
}
Task<Result<ParentOfReply>> handle(Partition& partition, ParentOf request, CallInfo) {
  co_return co_await partition.read(ParentOfOp{request});
}
Task<Result<StatisticsReply>> handle(Partition& partition, Statistics, CallInfo) {
  PartitionStatusReply status = partition.status();
  co_return StatisticsReply{status.inodes, status.bytes};
}

Task<Result<void>> make_root(Partition& partition) {
  if (!partition.owns(kRootFile.slot())) co_return {};
  Result<Empty> made = co_await partition.change(MakeRootOp{});
  if (!made.ok()) co_return std::move(made).error();
  co_return {};
}

}  // namespace headrace
