// Names: everything about directories and inodes that is not data. All changes of the namespace go
// through here.
//
// Lookups and attributes are answered from cache under grants. Each mutation is one message to the
// partition of its directory (or inode) and is durable there when it returns; the cache then knows
// its outcome, unless another own mutation of the same name overlapped, or the directory's grant
// was lost meanwhile. (Answering mutations before the partition does, under a directory write
// grant, belongs in here too.) Owner: Client.
#pragma once

#include <string>
#include <vector>

#include "client/data_path.h"
#include "client/files.h"
#include "client/sessions.h"
#include "client/write_back.h"

namespace headrace {

class Names {
 public:
  Names(Env env, ClientSessions& sessions, FileTable& files, WriteBack& write_back, DataPath& data,
        Scope& scope)
      : env_(env),
        sessions_(sessions),
        files_(files),
        write_back_(write_back),
        data_(data),
        scope_(scope) {}

  [[nodiscard]] Task<Result<Attributes>> lookup(FileId parent, std::string name);
  [[nodiscard]] Task<Result<Attributes>> get_attributes(FileId file);
  [[nodiscard]] Task<Result<Attributes>> set_attributes(FileId file, AttributeChange change);
  // kept: the partition keeps it while we have it open, as OpenKept.
  [[nodiscard]] Task<Result<Attributes>> make(FileId parent, std::string name, MakeOptions options,
                                              Credentials who, bool kept = false,
                                              bool writes = false);
  [[nodiscard]] Task<Result<void>> unlink(FileId parent, std::string name, bool directory);
  [[nodiscard]] Task<Result<void>> rename(FileSystem::RenameOptions options);
  [[nodiscard]] Task<Result<Attributes>> link(FileId file, FileId parent, std::string name);
  [[nodiscard]] Task<Result<std::string>> read_link(FileId file);
  [[nodiscard]] Task<Result<ReadDirectoryReply>> read_directory(FileId directory, uint64_t after,
                                                                uint32_t limit, bool plus);

  [[nodiscard]] Task<Result<std::string>> get_xattr(FileId file, std::string name);
  [[nodiscard]] Task<Result<void>> set_xattr(FileId file, SetXattr request);
  [[nodiscard]] Task<Result<std::vector<std::string>>> list_xattr(FileId file);
  [[nodiscard]] Task<Result<void>> remove_xattr(FileId file, std::string name);

 private:
  class Change;
  struct Found {
    Attributes attributes;
    bool usable = false;  // attributes are whole and of now; otherwise only id and type
  };
  [[nodiscard]] Task<Result<Found>> lookup_there(FileRef directory, std::string name);
  // Which file the name means.
  [[nodiscard]] Task<Result<CachedName>> resolve(FileRef directory, std::string name);
  // The file survives the removal of a name of it by ourselves, which recalls nothing from us.
  [[nodiscard]] Task<Result<void>> protect(FileRef file);
  [[nodiscard]] Task<void> drop_if_gone(FileRef file);
  void unlinked(FileId file, uint32_t links);

  Env env_;
  ClientSessions& sessions_;
  FileTable& files_;
  WriteBack& write_back_;
  DataPath& data_;
  Scope& scope_;
};

}  // namespace headrace
