#include "meta/ops/steps.h"

#include "base/fault_point.h"
#include "base/file_time.h"
#include "meta/ops/acls.h"
#include "meta/partition.h"

namespace headrace {

Result<void> check_name(const std::string& name) {
  if (name.empty() || name == "." || name == "..") return Error(Code::kInvalid, "not a name: '" + name + "'");
  if (name.size() > 255) return Error(Code::kNameTooLong, "a name has at most 255 bytes");
  if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos)
    return Error(Code::kInvalid, "a name contains no '/' and no NUL");
  return {};
}

Task<Result<InodeRow>> inode_of(Transaction& txn, FileId file) {
  HR_CO_TRY(std::optional<InodeRow> row, co_await txn.row<InodeRow>(inode_key(file)));
  if (!row) co_return Error(Code::kNotFound, "no such file");
  co_return *std::move(row);
}

Task<Result<InodeRow>> directory_inode(Transaction& txn, FileId directory) {
  HR_CO_TRY(InodeRow row, co_await inode_of(txn, directory));
  if (row.attributes.type != FileType::kDirectory) co_return Error(Code::kNotDirectory, "not a directory");
  co_return row;
}

namespace {

void touch(Transaction& txn, Attributes& attributes, int64_t at, bool contents) {
  // Never before the inode's last: the hybrid clock only helps within one partition.
  attributes.ctime = moved_to(attributes.ctime, at, txn.now());
  if (contents) attributes.mtime = moved_to(attributes.mtime, at, txn.now());
  ++attributes.change;
}

Task<Result<Attributes>> make_directory(Transaction& txn, Step step) {
  InodeRow row;
  row.attributes = step.attributes;
  row.attributes.id = txn.new_file(step.slot);
  row.attributes.type = FileType::kDirectory;
  row.attributes.links = 2;
  row.attributes.generation = txn.partition().counters().namespace_epoch.value();
  HR_CO_TRY(std::optional<PosixAcl> acl, PosixAcl::decode(step.name));
  if (acl) inherit_acl(txn, row, *std::move(acl));
  txn.put_row(inode_key(row.attributes.id), row);
  ++txn.counters.inodes;
  co_return row.attributes;
}

Task<Result<Attributes>> insert_entry(Transaction& txn, Step step) {
  HR_CO_TRY(check_name(step.name));
  // What another client did under a write grant must be here before any answer, a refusal too.
  HR_CO_TRY(co_await txn.share(step.directory));
  HR_CO_TRY(InodeRow directory, co_await directory_inode(txn, step.directory));
  HR_CO_TRY(std::optional<DentryRow> old, co_await txn.row<DentryRow>(dentry_key(step.directory, step.name)));
  if (old && !step.expect) co_return Error(Code::kExists, "the name exists");
  if ((old ? old->file : FileId()) != step.expect) co_return Error(Code::kBusy, "the name changed meanwhile");
  HR_CO_TRY(co_await txn.exclude(step.directory));
  if (old && old->type == FileType::kDirectory) --directory.attributes.links;
  if (step.type == FileType::kDirectory) {
    if (directory.attributes.links >= kMaxLinks) co_return Error(Code::kTooManyLinks, "too many subdirectories");
    ++directory.attributes.links;
  }
  // A name that is given to another file stays where it is: a listing under way meets it once.
  const uint64_t cookie = old ? old->cookie : directory.next_cookie;
  if (!old) {
    if (!mutant("reuse_cookie")) ++directory.next_cookie;
    ++directory.entries;
  }
  touch(txn, directory.attributes, step.now, true);
  txn.put_row(dentry_key(step.directory, step.name), DentryRow{step.file, step.type, cookie});
  txn.put_row(cookie_key(step.directory, cookie), CookieRow{step.name, step.file, step.type});
  txn.put_row(inode_key(step.directory), directory);
  co_return Attributes{};
}

Task<Result<Attributes>> remove_entry(Transaction& txn, Step step) {
  HR_CO_TRY(co_await txn.share(step.directory));
  HR_CO_TRY(InodeRow directory, co_await directory_inode(txn, step.directory));
  HR_CO_TRY(std::optional<DentryRow> old, co_await txn.row<DentryRow>(dentry_key(step.directory, step.name)));
  if (!old || old->file != step.expect) co_return Error(Code::kBusy, "the name changed meanwhile");
  HR_CO_TRY(co_await txn.exclude(step.directory));
  txn.erase(dentry_key(step.directory, step.name));
  if (!mutant("keep_cookie_of_removed")) txn.erase(cookie_key(step.directory, old->cookie));
  if (old->type == FileType::kDirectory) --directory.attributes.links;
  --directory.entries;
  touch(txn, directory.attributes, step.now, true);
  txn.put_row(inode_key(step.directory), directory);
  co_return Attributes{};
}

Task<Result<Attributes>> link_count(Transaction& txn, Step step) {
  HR_CO_TRY(InodeRow row, co_await inode_of(txn, step.file));
  Attributes& attributes = row.attributes;
  if (step.delta > 0) {
    if (attributes.type == FileType::kDirectory) co_return Error(Code::kNotPermitted, "directories have no hard links");
    if (attributes.links == 0) {
      HR_CO_TRY(std::optional<RowValue> orphan, co_await txn.get(orphan_key(step.file)));
      if (!step.unnamed || !orphan) co_return Error(Code::kNotFound, "the file was removed");
      txn.erase(orphan_key(step.file));
    }
    if (attributes.links >= kMaxLinks) co_return Error(Code::kTooManyLinks, "too many hard links");
  }
  HR_CO_TRY(co_await txn.exclude(step.file));
  attributes.links = static_cast<uint32_t>(static_cast<int32_t>(attributes.links) + step.delta);
  touch(txn, attributes, step.now, false);
  txn.put_row(inode_key(step.file), row);
  if (attributes.links == 0) txn.put(orphan_key(step.file), "");
  co_return attributes;
}

Task<Result<Attributes>> remove_directory(Transaction& txn, Step step) {
  HR_CO_TRY(co_await txn.share(step.file));
  HR_CO_TRY(InodeRow row, co_await directory_inode(txn, step.file));
  if (row.entries != 0) co_return Error(Code::kNotEmpty, "the directory is not empty");
  HR_CO_TRY(co_await txn.exclude(step.file));
  txn.erase(inode_key(step.file));
  if (row.xattrs != 0) txn.put(removal_key(step.file), "");
  --txn.counters.inodes;
  co_return row.attributes;
}

Task<Result<Attributes>> set_parent(Transaction& txn, Step step) {
  HR_CO_TRY(InodeRow row, co_await directory_inode(txn, step.file));
  HR_CO_TRY(co_await txn.exclude(step.file));
  row.attributes.parent = step.directory;
  touch(txn, row.attributes, step.now, false);
  txn.put_row(inode_key(step.file), row);
  co_return row.attributes;
}

Task<Result<Attributes>> lock_rename(Transaction& txn, Step step) {
  Key key = rename_lock_key(txn.partition().first_slot());
  HR_CO_TRY(std::optional<RowValue> old, co_await txn.get(key));
  Writer value;
  value(step.now, step.file);
  txn.put(key, value.take());
  co_return Attributes{};
}

}  // namespace

Task<Result<Attributes>> apply_step(Transaction& txn, Step step, Attributes made) {
  switch (step.kind) {
    case StepKind::kMakeDirectory:
      return make_directory(txn, std::move(step));
    case StepKind::kInsertEntry:
      if (!step.file) step.file = made.id;
      if (step.type == FileType::kNone) step.type = made.type;
      return insert_entry(txn, std::move(step));
    case StepKind::kRemoveEntry:
      return remove_entry(txn, std::move(step));
    case StepKind::kLinkCount:
      return link_count(txn, std::move(step));
    case StepKind::kRemoveDirectory:
      return remove_directory(txn, std::move(step));
    case StepKind::kSetParent:
      return set_parent(txn, std::move(step));
    case StepKind::kLockRename:
      return lock_rename(txn, std::move(step));
    case StepKind::kNone:
      break;
  }
  return [](StepKind kind) -> Task<Result<Attributes>> {
    co_return Error(Code::kNotSupported, "unknown step " + std::to_string(static_cast<int>(kind)));
  }(step.kind);
}

}  // namespace headrace
