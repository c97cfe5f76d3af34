// ACLs of an inode: two of its xattr rows (base/posix_acl.h). Its mode says what the access ACL says, after every
// commit.
#pragma once

#include "base/posix_acl.h"
#include "meta/transaction.h"
#include "proto/meta.h"

namespace headrace {

// What inodes inherit that are made in the directory.
[[nodiscard]] Task<Result<std::optional<PosixAcl>>> default_acl(Transaction& txn, InodeRow directory);
// To a new inode, which has its id, its type and the mode that was asked for.
void inherit_acl(Transaction& txn, InodeRow& made, PosixAcl acl);
// The mode was set.
[[nodiscard]] Task<Result<void>> acl_follows_mode(Transaction& txn, InodeRow inode);

// The inode's row afterwards, for the caller to put; nullopt: nothing changed.
[[nodiscard]] Task<Result<std::optional<InodeRow>>> set_acl(Transaction& txn, InodeRow inode, SetXattr request);
[[nodiscard]] Task<Result<std::optional<InodeRow>>> remove_acl(Transaction& txn, InodeRow inode, std::string name);

}  // namespace headrace
