// Names: everything about directories and inodes that is not data. All changes of the namespace go
// through here.
//
// Lookups and attributes are answered from cache under grants. A mutation is done in one of two ways:
//  - here: under write grants on the directory and on the inode that changes, when all is known that
//    decides its answer. Nothing is awaited, the change goes into the ChangeLog, and fsync of file or
//    directory makes it durable. Files (not directories) are made, removed, and given attributes so.
//  - there: one message to the partition of its directory (or inode), behind all that was answered
//    here of the same names and inodes; durable when it returns. The cache then knows the outcome,
//    unless another own mutation of the same name overlapped, or the directory's grant was lost
//    meanwhile. The first file that is made in a directory brings the write grant for the next.
// Owner: Client.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/change_log.h"
#include "client/data_path.h"
#include "client/files.h"
#include "client/sessions.h"
#include "client/write_back.h"

namespace headrace {

class Names {
 public:
  struct Options {
    bool directory_write_grants = true;
    Nanos backoff = seconds(2);  // no new one on a directory that another client wanted so lately
  };
  Names(Env env, ClientSessions& sessions, FileTable& files, ChangeLog& changes, WriteBack& write_back, DataPath& data,
        Scope& scope, Options options)
      : env_(env),
        sessions_(sessions),
        files_(files),
        changes_(changes),
        write_back_(write_back),
        data_(data),
        scope_(scope),
        options_(options) {}

  // Set before use. Nothing is answered here while another cluster owns the namespace.
  std::function<bool()> read_only;

  [[nodiscard]] Task<Result<Attributes>> lookup(FileId parent, std::string name);
  [[nodiscard]] Task<Result<Attributes>> get_attributes(FileId file);
  [[nodiscard]] Task<Result<Attributes>> set_attributes(FileId file, AttributeChange change);
  struct Opening {
    bool any = false;  // it is made to be open
    bool writes = false;
    bool durable = false;  // O_SYNC: it is at the partition on return
  };
  // An open one outlives its last name: by the write grant on it, or FileState::kept.
  [[nodiscard]] Task<Result<Attributes>> make(FileId parent, std::string name, MakeOptions options, Credentials who,
                                              Opening opening);
  // Open already: the partition keeps it.
  [[nodiscard]] Task<Result<Attributes>> make_unnamed(FileId parent, uint32_t mode, Credentials who, bool writes);
  [[nodiscard]] Task<Result<void>> unlink(FileId parent, std::string name, bool directory);
  [[nodiscard]] Task<Result<void>> rename(FileSystem::RenameOptions options);
  [[nodiscard]] Task<Result<Attributes>> link(FileId file, FileId parent, std::string name);
  [[nodiscard]] Task<Result<std::string>> read_link(FileId file);
  [[nodiscard]] Task<Result<ReadDirectoryReply>> read_directory(FileId directory, uint64_t after, uint32_t limit,
                                                                bool plus);

  [[nodiscard]] Task<Result<std::string>> get_xattr(FileId file, std::string name);
  [[nodiscard]] Task<Result<void>> set_xattr(FileId file, SetXattr request);
  [[nodiscard]] Task<Result<std::vector<std::string>>> list_xattr(FileId file);
  [[nodiscard]] Task<Result<void>> remove_xattr(FileId file, std::string name);

  // A name of the file is gone at the partition; `links` are left.
  void unlinked(FileId file, uint32_t links);

 private:
  class Change;
  struct Found {
    Attributes attributes;
    bool usable = false;  // attributes are whole and of now; otherwise only id and type
  };
  [[nodiscard]] Task<Result<Found>> lookup_there(FileRef directory, std::string name);
  // Which file the name means.
  [[nodiscard]] Task<Result<CachedName>> resolve(FileRef directory, std::string name);
  // The write grant is here, under which nobody else changes the mode, and it is this one.
  [[nodiscard]] Task<Result<void>> hold_mode(FileRef file, uint32_t mode);
  // The file survives the removal of a name of it by ourselves, which recalls nothing from us.
  [[nodiscard]] Task<Result<void>> protect(FileRef file);
  [[nodiscard]] Task<void> drop_if_gone(FileRef file);

  // ---- here ----
  [[nodiscard]] bool writes_names(const FileState& directory) const;
  [[nodiscard]] bool writes_attributes(const FileState& file) const;
  [[nodiscard]] bool wants_names(const FileState& directory) const;
  // Of a file that is readable(): it is known to have no such ACL.
  [[nodiscard]] static bool lacks_acl(const FileState& file, std::string_view name);
  // What was known of the attribute; where none was there, it may be the only one now.
  static void forget_xattr(FileState& file, const std::string& name);
  // nullopt: not to be done here.
  [[nodiscard]] Task<std::optional<Result<Attributes>>> make_here(FileRef directory, const std::string& name,
                                                                  const MakeOptions& options, Credentials who);
  [[nodiscard]] bool unlink_here(const FileRef& directory, const std::string& name, CachedName what);
  [[nodiscard]] Task<std::optional<Attributes>> set_attributes_here(FileRef file, AttributeChange change);
  // The write grant on a directory that this client has just made, before anything else is asked of it.
  [[nodiscard]] Task<void> take_new_directory(FileRef directory);
  [[nodiscard]] Task<Result<void>> reserve_files(ClientSessionRef session);
  [[nodiscard]] Task<void> reserve_more_files(ClientSessionRef session);
  static void learn_directory(FileState& directory, const EntryReply& reply);
  void touch_directory(const FileRef& directory, int64_t time);
  [[nodiscard]] int64_t now();

  Env env_;
  ClientSessions& sessions_;
  FileTable& files_;
  ChangeLog& changes_;
  WriteBack& write_back_;
  DataPath& data_;
  Scope& scope_;
  Options options_;
  int64_t time_ = 0;  // given last
};

}  // namespace headrace
