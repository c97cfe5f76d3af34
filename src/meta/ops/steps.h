// Steps: the parts that name operations are made of, each on the rows of one partition (proto/transaction.h).
// The same code runs them inside a local transaction and inside a prepare.
#pragma once

#include "meta/transaction.h"
#include "proto/transaction.h"

namespace headrace {

// Puts the step's changes; the attributes it has to say (of the inode made or changed), else zero ones.
// `made`: the directory made by an earlier kMakeDirectory of the same operation, for a kInsertEntry with file zero.
[[nodiscard]] Task<Result<Attributes>> apply_step(Transaction& txn, Step step, Attributes made);

// The inode of a directory that names may be put into; kNotFound, kNotDirectory.
[[nodiscard]] Task<Result<InodeRow>> directory_inode(Transaction& txn, FileId directory);
[[nodiscard]] Task<Result<InodeRow>> inode_of(Transaction& txn, FileId file);
[[nodiscard]] Result<void> check_name(const std::string& name);

inline constexpr uint32_t kMaxLinks = 65'000;

}  // namespace headrace
