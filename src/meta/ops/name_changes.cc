// What a client did under a directory write grant, it did alone: nobody else has seen or could change these names and
// inodes since. So nothing here recalls anything, and none of the client's batches waits for another client: two
// clients' flushes can never wait for each other. A change that does not fit what is here (which only a faulty client
// sends) is refused by itself; a grant that is not held refuses all.
#include "meta/ops/name_changes.h"

#include <algorithm>
#include <map>

#include "base/file_time.h"
#include "meta/ops/acls.h"
#include "meta/ops/steps.h"

namespace headrace {

namespace {

constexpr size_t kMaxSymlink = 4095;
constexpr uint32_t kMaxReservedFiles = 16 * 1024;

class ChangeBatch {
 public:
  explicit ChangeBatch(Transaction& txn) : txn_(txn) {}

  Task<Result<void>> apply(NameChange change) {
    switch (change.kind) {
      case NameChangeKind::kMake:
        return make(std::move(change));
      case NameChangeKind::kUnlink:
        return unlink(std::move(change));
      case NameChangeKind::kSetAttributes:
        return set_attributes(std::move(change));
      case NameChangeKind::kTouch:
        return touch_directory(std::move(change));
      case NameChangeKind::kRename:
        return rename(std::move(change));
      case NameChangeKind::kLink:
        return link(std::move(change));
      case NameChangeKind::kNone:
        break;
    }
    return unknown();
  }

  // The inodes' rows, once each.
  void finish() {
    for (auto& [id, inode] : inodes_)
      if (inode.changed) txn_.put_row(inode_key(id), inode.row);
    if (unlinked_) txn_.on_commit([&p = txn_.partition()] { p.reap_soon(); });
  }

 private:
  struct Inode {
    InodeRow row;
    bool changed = false;
  };

  static Task<Result<void>> unknown() {
    co_return Error(Code::kNotSupported, "a change of an unknown kind: upgrade this node");
  }

  Task<Result<Inode*>> inode(FileId id) {
    auto at = inodes_.find(id);
    if (at == inodes_.end()) {
      if (!txn_.partition().owns(id.slot())) co_return Error(Code::kInvalid, "an inode of another partition");
      HR_CO_TRY(InodeRow row, co_await inode_of(txn_, id));
      at = inodes_.emplace(id, Inode{std::move(row)}).first;
    }
    co_return &at->second;
  }
  Task<Result<Inode*>> directory(FileId id) {
    HR_CO_TRY(Inode * found, co_await inode(id));
    if (found->row.attributes.type != FileType::kDirectory) co_return Error(Code::kNotDirectory, "not a directory");
    co_return found;
  }
  // What has names of its own here.
  Task<Result<Inode*>> file(FileId id) {
    HR_CO_TRY(Inode * found, co_await inode(id));
    if (found->row.attributes.type == FileType::kDirectory) co_return Error(Code::kIsDirectory, "is a directory");
    if (found->row.attributes.links == 0) co_return Error(Code::kNotFound, "the file was removed");
    co_return found;
  }

  void touch(Inode& inode, int64_t time, bool contents) const {
    Attributes& a = inode.row.attributes;
    a.ctime = moved_to(a.ctime, time, txn_.now());
    if (contents) a.mtime = moved_to(a.mtime, time, txn_.now());
    ++a.change;
    inode.changed = true;
  }
  void insert(Inode& directory, const std::string& name, FileId file, FileType type, int64_t time) {
    ++directory.row.entries;
    put(directory, name, file, type, directory.row.next_cookie++, time);
  }
  void put(Inode& directory, const std::string& name, FileId file, FileType type, uint64_t cookie, int64_t time) {
    const FileId id = directory.row.attributes.id;
    touch(directory, time, true);
    txn_.put_row(dentry_key(id, name), DentryRow{file, type, cookie});
    txn_.put_row(cookie_key(id, cookie), CookieRow{name, file, type});
  }
  void remove(Inode& directory, const std::string& name, uint64_t cookie, int64_t time) {
    const FileId id = directory.row.attributes.id;
    --directory.row.entries;
    touch(directory, time, true);
    txn_.erase(dentry_key(id, name));
    txn_.erase(cookie_key(id, cookie));
  }
  void drop_link(Inode& file, int64_t time) {
    --file.row.attributes.links;
    touch(file, time, false);
    if (file.row.attributes.links != 0) return;
    txn_.put(orphan_key(file.row.attributes.id), "");
    unlinked_ = true;
  }
  Task<Result<std::optional<DentryRow>>> entry(FileId directory, const std::string& name) {
    return txn_.row<DentryRow>(dentry_key(directory, name));
  }

  Task<Result<void>> make(NameChange change) {
    HR_CO_TRY(check_name(change.name));
    const bool sane = change.type == FileType::kFile || change.type == FileType::kSymlink ||
                      change.type == FileType::kFifo || change.type == FileType::kSocket ||
                      change.type == FileType::kCharDevice || change.type == FileType::kBlockDevice;
    if (!sane || change.target.size() > kMaxSymlink || change.target.empty() != (change.type != FileType::kSymlink))
      co_return Error(Code::kInvalid, "nothing that can be made so");
    if (change.file.slot() != change.directory.slot() || !txn_.given_out(change.file))
      co_return Error(Code::kInvalid, "a file id that was not reserved");
    HR_CO_TRY(Inode * directory, co_await this->directory(change.directory));
    HR_CO_TRY(std::optional<DentryRow> there, co_await entry(change.directory, change.name));
    if (there) co_return Error(Code::kExists, "the name exists");
    HR_CO_TRY(std::optional<RowValue> inode, co_await txn_.get(inode_key(change.file)));
    HR_CO_TRY(std::optional<RowValue> removal, co_await txn_.get(removal_key(change.file)));
    if (inode || removal || inodes_.contains(change.file)) co_return Error(Code::kInvalid, "the file id is in use");
    Inode made;
    made.changed = true;
    made.row.symlink = change.target;
    Attributes& a = made.row.attributes;
    a.id = change.file;
    a.generation = txn_.partition().counters().namespace_epoch.value();
    a.type = change.type;
    a.mode = change.mode & 07777;
    a.uid = change.uid;
    a.gid = change.gid;
    a.rdev = change.rdev;
    a.links = 1;
    a.size = change.target.size();
    a.atime = change.atime;
    a.mtime = change.mtime;
    a.ctime = change.ctime;
    a.btime = change.time;
    insert(*directory, change.name, change.file, change.type, change.time);
    inodes_.emplace(change.file, std::move(made));
    ++txn_.counters.inodes;
    if (change.keep_open) txn_.put(kept_key(change.file, txn_.session()), "");
    txn_.on_commit(
        [&p = txn_.partition(), session = txn_.session(),
         grant = Grant{change.file, GrantKind::kWrite, change.file_grant}] { p.grants().give_as(session, grant); });
    co_return {};
  }

  Task<Result<void>> unlink(NameChange change) {
    HR_CO_TRY(Inode * directory, co_await this->directory(change.directory));
    HR_CO_TRY(std::optional<DentryRow> there, co_await entry(change.directory, change.name));
    if (!there || there->file != change.file)
      co_return Error(Code::kNotFound, "the name is not there, or another file's");
    HR_CO_TRY(Inode * file, co_await this->file(change.file));
    remove(*directory, change.name, there->cookie, change.time);
    drop_link(*file, change.time);
    co_return {};
  }

  Task<Result<void>> link(NameChange change) {
    HR_CO_TRY(check_name(change.name));
    HR_CO_TRY(Inode * directory, co_await this->directory(change.directory));
    HR_CO_TRY(std::optional<DentryRow> there, co_await entry(change.directory, change.name));
    if (there) co_return Error(Code::kExists, "the name exists");
    HR_CO_TRY(Inode * file, co_await this->file(change.file));
    if (file->row.attributes.links >= kMaxLinks) co_return Error(Code::kTooManyLinks, "too many hard links");
    insert(*directory, change.name, change.file, file->row.attributes.type, change.time);
    ++file->row.attributes.links;
    touch(*file, change.time, false);
    co_return {};
  }

  Task<Result<void>> rename(NameChange change) {
    HR_CO_TRY(check_name(change.to_name));
    HR_CO_TRY(Inode * directory, co_await this->directory(change.directory));
    HR_CO_TRY(std::optional<DentryRow> from, co_await entry(change.directory, change.name));
    if (!from || from->file != change.file)
      co_return Error(Code::kNotFound, "the name is not there, or another file's");
    HR_CO_TRY(std::optional<DentryRow> to, co_await entry(change.directory, change.to_name));
    if ((to ? to->file : FileId()) != change.replaced || change.replaced == change.file)
      co_return Error(Code::kExists, "another file has the new name");
    HR_CO_TRY(Inode * file, co_await this->file(change.file));
    if (to) {
      HR_CO_TRY(Inode * replaced, co_await this->file(change.replaced));
      drop_link(*replaced, change.time);
      // Where it is: a listing under way meets the name once.
      put(*directory, change.to_name, change.file, from->type, to->cookie, change.time);
    } else {
      insert(*directory, change.to_name, change.file, from->type, change.time);
    }
    remove(*directory, change.name, from->cookie, change.time);
    touch(*file, change.time, false);
    co_return {};
  }

  Task<Result<void>> set_attributes(NameChange change) {
    if ((change.mask & kSetSize) != 0) co_return Error(Code::kInvalid, "a size is not set under a grant");
    HR_CO_TRY(Inode * inode, co_await this->inode(change.file));
    Attributes& a = inode->row.attributes;
    if ((change.mask & kSetMode) != 0) {
      a.mode = change.mode & 07777;
      HR_CO_TRY(co_await acl_follows_mode(txn_, inode->row));
    }
    if ((change.mask & kSetUid) != 0) a.uid = change.uid;
    if ((change.mask & kSetGid) != 0) a.gid = change.gid;
    if ((change.mask & kSetAtime) != 0) a.atime = change.atime;
    if ((change.mask & kSetMtime) != 0) a.mtime = change.mtime;
    a.ctime = (change.mask & kSetCtime) != 0 ? change.ctime : moved_to(a.ctime, change.time, txn_.now());
    ++a.change;
    inode->changed = true;
    co_return {};
  }

  Task<Result<void>> touch_directory(NameChange change) {
    HR_CO_TRY(Inode * directory, co_await this->directory(change.directory));
    touch(*directory, change.time, true);
    co_return {};
  }

  Transaction& txn_;
  std::map<FileId, Inode> inodes_;
  bool unlinked_ = false;
};

struct ChangeNamesOp {
  using Reply = ChangeNamesReply;
  ChangeNames request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  // Held without a break since it was given: an id is never given twice.
  [[nodiscard]] Result<void> check_grants(Transaction& txn) const {
    const Grants& grants = txn.partition().grants();
    auto writes = [&](FileId file, GrantId grant) {
      const Grant* held = grants.held(txn.session(), file);
      return held != nullptr && held->kind == GrantKind::kWrite && held->id == grant;
    };
    std::map<FileId, GrantId> made;
    for (const NameChange& change : request.changes) {
      bool fine = change.kind == NameChangeKind::kSetAttributes || writes(change.directory, change.directory_grant);
      auto changes = [&](FileId file, GrantId grant) {
        auto own = made.find(file);
        return own != made.end() ? own->second == grant : writes(file, grant);
      };
      if (change.kind == NameChangeKind::kMake) {
        const Grant* held = grants.held(txn.session(), change.file);  // claimed already, after a leader change
        fine = fine && (held == nullptr || held->id == change.file_grant) &&
               !grants.conflict(change.file, txn.session(), GrantKind::kWrite);
        made[change.file] = change.file_grant;
      } else if (change.kind != NameChangeKind::kTouch) {
        fine = fine && changes(change.file, change.file_grant);
        if (change.replaced) fine = fine && changes(change.replaced, change.replaced_grant);
      }
      if (!fine) return Error(Code::kStale, "a write grant has ended");
    }
    return {};
  }

  Task<Result<ChangeNamesReply>> run(Transaction& txn) {
    ChangeNamesReply reply;
    ChangeBatch batch(txn);
    for (const NameChange& change : request.changes) {
      Result<void> done = co_await batch.apply(change);
      if (!done.ok() && done.error().retry() != Retry::kFinal) co_return std::move(done).error();
      reply.codes.push_back(static_cast<uint16_t>(done.code()));
    }
    // After the last await: what holds here holds at the commit.
    HR_CO_TRY(check_grants(txn));
    batch.finish();
    co_return reply;
  }
};

struct NoteAccessOp {
  using Reply = Empty;
  NoteAccess request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  Task<Result<Empty>> run(Transaction& txn) {
    for (const Access& access : request.accesses) {
      if (!txn.partition().owns(access.file.slot())) co_return Error(Code::kInvalid, "an inode of another partition");
      HR_CO_TRY(std::optional<InodeRow> inode, co_await txn.row<InodeRow>(inode_key(access.file)));
      if (!inode) continue;
      Attributes& a = inode->attributes;
      if (!moves_atime(a, access.time) || access.time <= a.atime || access.time <= a.ctime) continue;
      a.atime = access.time;
      txn.put_row(inode_key(access.file), *inode);
    }
    co_return Empty{};
  }
};

}  // namespace

Task<Result<Empty>> handle(Partition& partition, NoteAccess request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  if (request.accesses.empty() || request.accesses.size() > NoteAccess::kMaxAccesses)
    co_return Error(Code::kInvalid, "note 1 to 256 accesses at once");
  co_return co_await partition.mutate(NoteAccessOp{std::move(request)});
}

Task<Result<ChangeNamesReply>> handle(Partition& partition, ChangeNames request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  if (request.changes.empty() || request.changes.size() > ChangeNames::kMaxChanges)
    co_return Error(Code::kInvalid, "change 1 to 256 names at once");
  co_return co_await partition.mutate(ChangeNamesOp{std::move(request)});
}

Task<Result<ReserveFilesReply>> handle(Partition& partition, ReserveFiles request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.session, info));
  if (request.count == 0) co_return Error(Code::kInvalid, "reserve at least one file id");
  ReserveFilesReply reply;
  reply.count = std::min(request.count, kMaxReservedFiles);
  HR_CO_TRY(reply.first, co_await partition.reserve_files(reply.count));
  reply.generation = partition.counters().namespace_epoch.value();
  co_return reply;
}

}  // namespace headrace
