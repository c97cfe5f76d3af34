// FileSystem: POSIX semantics as a library. FUSE, S3, NFS and Python stand on it.
//
// What is durable on return: names and attributes when a call returns (each waits for the partition's journal), unless
// a directory write grant lets the client answer first (then fsync of file or directory is the durability point); data
// after fsync() (or close of an O_SYNC handle). Unsynced data is sent within 5 s. Coherent among clients: see grants.
// All methods may run concurrently. Errors are POSIX codes (base/result.h). Permissions are checked by the caller
// (the kernel's default_permissions); `who` only sets owners of what is made. ACLs are extended attributes
// (base/posix_acl.h): the mode follows the access ACL, and it the mode; what is made in a directory inherits its
// default ACL.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/meta.h"
#include "runtime/env.h"
#include "runtime/sync.h"

namespace headrace {

struct Credentials {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t umask = 0;  // taken from the mode of what is made, unless the directory has a default ACL
};

struct MakeOptions {
  FileType type = FileType::kFile;
  uint32_t mode = 0644;
  uint64_t rdev = 0;
  std::string target;  // symlink
};

struct AttributeChange {
  uint32_t mask = 0;  // SetMask
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  int64_t atime = 0;  // INT64_MIN: now
  int64_t mtime = 0;
  int64_t ctime = 0;
  std::optional<uint32_t> while_mode;  // kBusy, and nothing done, where the mode is another one by then
};

struct XattrOptions {
  bool must_create = false;
  bool must_replace = false;
  bool clear_setgid = false;  // with an access ACL
};

struct FileSystemStatistics {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t files = 0;
};

// An open file. Keeps an unlinked file alive. Offsets and lengths in bytes.
class OpenFile {
 public:
  virtual ~OpenFile() = default;  // releases without flushing: call FileSystem::close first
  [[nodiscard]] virtual FileId id() const = 0;
  // Something of the file was lost, and whoever has it open was told of all of it. For one that goes on with it
  // elsewhere: forgive() there, and it is not told again.
  [[nodiscard]] virtual bool told_of_loss() const { return false; }
  virtual void forgive() {}
};
using OpenFileRef = std::shared_ptr<OpenFile>;

struct OpenMode {
  bool read = true;
  bool write = false;
  bool append = false;
  bool truncate = false;
  bool direct = false;  // O_DIRECT: bypasses the client's write-back and read-ahead
  bool sync = false;    // O_SYNC / O_DSYNC
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  [[nodiscard]] virtual Task<Result<Attributes>> lookup(FileId parent, std::string name) = 0;
  [[nodiscard]] virtual Task<Result<Attributes>> get_attributes(FileId file) = 0;  // size includes own dirty data
  [[nodiscard]] virtual Task<Result<Attributes>> set_attributes(FileId file, AttributeChange change) = 0;
  [[nodiscard]] virtual Task<Result<Attributes>> make(FileId parent, std::string name, MakeOptions options,
                                                      Credentials who) = 0;
  struct Created {
    Attributes attributes;
    OpenFileRef file;
  };
  [[nodiscard]] virtual Task<Result<Created>> create(FileId parent, std::string name, uint32_t mode, OpenMode open,
                                                     Credentials who) = 0;
  // O_TMPFILE: a file without a name, in the directory's partition; gone when closed, unless link() gave it one.
  [[nodiscard]] virtual Task<Result<Created>> create_unnamed(FileId parent, uint32_t mode, OpenMode open,
                                                             Credentials who) = 0;
  [[nodiscard]] virtual Task<Result<void>> unlink(FileId parent, std::string name) = 0;
  [[nodiscard]] virtual Task<Result<void>> remove_directory(FileId parent, std::string name) = 0;
  struct RenameOptions {
    FileId from_parent;
    std::string from_name;
    FileId to_parent;
    std::string to_name;
    bool no_replace = false;
    bool exchange = false;  // both are there and change places
  };
  [[nodiscard]] virtual Task<Result<void>> rename(RenameOptions options) = 0;
  [[nodiscard]] virtual Task<Result<Attributes>> link(FileId file, FileId parent, std::string name) = 0;
  [[nodiscard]] virtual Task<Result<std::string>> read_link(FileId file) = 0;
  // Entries behind cookie `after` (0: from the start; '.' and '..' are the caller's). Stable under concurrent change.
  [[nodiscard]] virtual Task<Result<ReadDirectoryReply>> read_directory(FileId directory, uint64_t after,
                                                                        uint32_t limit, bool plus) = 0;

  [[nodiscard]] virtual Task<Result<std::string>> get_xattr(FileId file, std::string name) = 0;
  [[nodiscard]] virtual Task<Result<void>> set_xattr(FileId file, std::string name, std::string value,
                                                     XattrOptions options) = 0;
  [[nodiscard]] virtual Task<Result<std::vector<std::string>>> list_xattr(FileId file) = 0;
  [[nodiscard]] virtual Task<Result<void>> remove_xattr(FileId file, std::string name) = 0;

  [[nodiscard]] virtual Task<Result<OpenFileRef>> open(FileId file, OpenMode mode) = 0;
  // Up to length bytes; fewer only at the end of the file. Pieces back to back (zero-copy where a block fits).
  [[nodiscard]] virtual Task<Result<std::vector<Buffer>>> read(OpenFileRef file, uint64_t offset, uint64_t length) = 0;
  // Buffered (unless direct or sync); waits while too much is dirty. With append the offset is ignored.
  [[nodiscard]] virtual Task<Result<uint64_t>> write(OpenFileRef file, uint64_t offset, Buffer data) = 0;
  // Durable on return: the file's name, data, size and attributes; a directory's names. What was lost in the background
  // is an error of the next sync of each who had it open (and of who opens it before anybody was told), and of the next
  // one by id.
  [[nodiscard]] virtual Task<Result<void>> sync(OpenFileRef file) = 0;
  [[nodiscard]] virtual Task<Result<void>> sync(FileId file) = 0;
  [[nodiscard]] virtual Task<Result<void>> punch(OpenFileRef file, uint64_t offset, uint64_t length) = 0;
  // [from_offset, from_offset + length) of `from` into `to` at to_offset by reference: no bytes are read or written.
  // The bytes that were copied, fewer where `from` ends or much would change at once; durable on return. kNotSupported:
  // not between these two (read and write then).
  [[nodiscard]] virtual Task<Result<uint64_t>> copy(OpenFileRef from, uint64_t from_offset, OpenFileRef to,
                                                    uint64_t to_offset, uint64_t length) = 0;
  // The file is at least so long afterwards, whoever else grows it meanwhile.
  [[nodiscard]] virtual Task<Result<void>> grow(OpenFileRef file, uint64_t size) = 0;
  // Where data (or, with `hole`, a hole) begins at or behind offset; the end of the file counts as a hole. kNotFound:
  // there is none.
  [[nodiscard]] virtual Task<Result<uint64_t>> seek(OpenFileRef file, uint64_t offset, bool hole) = 0;
  [[nodiscard]] virtual Task<Result<void>> close(OpenFileRef file) = 0;  // last reference; starts no flush of its own

  // Advisory locks (fcntl, flock), among all clients. False: another's is in the way, after waiting for up to `wait`.
  // They end with unlock_all(), or with this client's session. kDeadlock: to wait would be to wait for itself.
  [[nodiscard]] virtual Task<Result<bool>> lock(FileId file, FileLock lock, Nanos wait) = 0;
  [[nodiscard]] virtual Task<Result<std::optional<FileLock>>> find_lock(FileId file, FileLock lock) = 0;
  [[nodiscard]] virtual Task<Result<void>> unlock_all(FileId file, uint64_t owner, bool whole) = 0;

  [[nodiscard]] virtual Task<Result<FileSystemStatistics>> statistics() = 0;
  [[nodiscard]] virtual Task<Result<void>> sync_all() = 0;

  // It was read, or listed, by a program that wants the atime to show it (relatime). Others see it soon.
  virtual void accessed(FileId /*file*/) {}

  // What a kernel may go on answering by itself, for how long: while a grant covers it and no recall of that is under
  // way. Of what was answered just now: ask without awaiting in between. on_invalidate() ends it sooner. Zero: not at
  // all.
  [[nodiscard]] virtual Nanos name_valid(FileId /*parent*/, const std::string& /*name*/, FileId /*file*/) const {
    return {};
  }
  [[nodiscard]] virtual Nanos attributes_valid(FileId /*file*/) const { return {}; }
  // Called when what the kernel may have cached must be dropped before a recall is answered. Set by the gateway.
  struct Invalidation {
    FileId file;
    bool attributes = false;
    bool data = false;
    bool names = false;  // of a directory: all that are in it
  };
  using Invalidate = std::function<Task<void>(Invalidation)>;
  virtual void on_invalidate(Invalidate invalidate) = 0;
  // True once the node asked all clients to leave (spin-down) or the namespace turned read-only for good.
  [[nodiscard]] virtual Event& closing() = 0;
  // Flushes, gives grants and sessions back.
  [[nodiscard]] virtual Task<Result<void>> shut_down() = 0;
};

}  // namespace headrace
