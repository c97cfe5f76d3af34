#include "meta/ops/acls.h"

#include <sys/stat.h>

namespace headrace {

namespace {

Task<Result<std::optional<PosixAcl>>> acl_row(Transaction& txn, FileId file, std::string_view name) {
  HR_CO_TRY(std::optional<RowValue> row, co_await txn.get(xattr_key(file, name)));
  if (!row) co_return std::optional<PosixAcl>();
  Result<std::optional<PosixAcl>> acl = PosixAcl::decode(*row);
  if (!acl.ok()) co_return Error(Code::kCorrupt, "the ACL of " + to_string(file) + ": " + acl.error().message());
  co_return *std::move(acl);
}

}  // namespace

Task<Result<std::optional<PosixAcl>>> default_acl(Transaction& txn, InodeRow directory) {
  if (directory.xattrs == 0) co_return std::optional<PosixAcl>();
  co_return co_await acl_row(txn, directory.attributes.id, kDefaultAcl);
}

void inherit_acl(Transaction& txn, InodeRow& made, PosixAcl acl) {
  Attributes& a = made.attributes;
  if (a.type == FileType::kDirectory) {
    txn.put(xattr_key(a.id, kDefaultAcl), acl.encode());
    ++made.xattrs;
  }
  acl.limit(a.mode);
  a.mode = acl.in_mode(a.mode);
  if (acl.is_mode()) return;
  txn.put(xattr_key(a.id, kAccessAcl), acl.encode());
  ++made.xattrs;
}

Task<Result<void>> acl_follows_mode(Transaction& txn, InodeRow inode) {
  if (inode.xattrs == 0) co_return {};
  const FileId file = inode.attributes.id;
  HR_CO_TRY(std::optional<PosixAcl> acl, co_await acl_row(txn, file, kAccessAcl));
  if (!acl) co_return {};
  acl->set_mode(inode.attributes.mode);
  txn.put(xattr_key(file, kAccessAcl), acl->encode());
  co_return {};
}

Task<Result<std::optional<InodeRow>>> set_acl(Transaction& txn, InodeRow inode, SetXattr request) {
  Attributes& a = inode.attributes;
  HR_CO_TRY(std::optional<PosixAcl> acl, PosixAcl::decode(request.value));
  if (a.type == FileType::kSymlink) co_return Error(Code::kNotSupported, "symlinks have no ACLs");
  if (!acl) co_return co_await remove_acl(txn, std::move(inode), std::move(request.name));
  const bool access = request.name == kAccessAcl;
  if (!access && a.type != FileType::kDirectory) co_return Error(Code::kAccess, "directories have default ACLs");
  Key key = xattr_key(a.id, request.name);
  HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(key));
  if (there) --inode.xattrs;
  if (access) {
    a.mode = acl->in_mode(a.mode);
    if (request.clear_setgid) a.mode &= ~uint32_t{S_ISGID};
    if (acl->is_mode()) {
      if (there) txn.erase(std::move(key));
      co_return std::optional(std::move(inode));
    }
  }
  ++inode.xattrs;
  txn.put(std::move(key), acl->encode());
  co_return std::optional(std::move(inode));
}

Task<Result<std::optional<InodeRow>>> remove_acl(Transaction& txn, InodeRow inode, std::string name) {
  if (inode.xattrs == 0) co_return std::optional<InodeRow>();
  Key key = xattr_key(inode.attributes.id, name);
  HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(key));
  if (!there) co_return std::optional<InodeRow>();
  --inode.xattrs;
  txn.erase(std::move(key));
  co_return std::optional(std::move(inode));
}

}  // namespace headrace
