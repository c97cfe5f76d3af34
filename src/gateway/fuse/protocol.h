// The kernel's FUSE requests, decoded: what /dev/fuse hands out, as one variant.
//
// Structures and numbers are those of <linux/fuse.h> (Debian's describes 7.38); what newer kernels
// added and Headrace uses is defined here. Bytes come from outside: decode_fuse_request() never
// reads past them, and what it returns owns its strings; only a WRITE's data shares the memory of
// the buffer it was decoded from. Handles (fh) and node ids are numbers that the kernel echoes:
// nothing here says that they exist.
#pragma once

#include <linux/fuse.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"

namespace headrace {

// --- What <linux/fuse.h> 7.38 lacks ---

inline constexpr uint32_t kFuseStatx = 52;                             // opcode, 7.39
inline constexpr uint64_t kFuseDirectIoAllowMmap = uint64_t{1} << 36;  // init flag, 7.39

struct FuseStatxIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};
struct FuseStatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};
struct FuseStatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  FuseStatxTime atime;
  FuseStatxTime btime;
  FuseStatxTime ctime;
  FuseStatxTime mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(FuseStatxIn) == 24 && sizeof(FuseStatxOut) == 288);

inline constexpr uint32_t kFuseMajor = 7;
inline constexpr uint32_t kFuseMinor = 45;        // the newest that we speak
inline constexpr uint32_t kFuseOldestMinor = 31;  // Linux 5.4
inline constexpr uint32_t kFuseMaxWrite = 1 << 20;
inline constexpr uint32_t kFuseMaxPages = 256;
// Before the data of a WRITE; a receiver that reads to this many bytes before a block gets the data
// aligned.
inline constexpr size_t kFuseWriteHead = sizeof(fuse_in_header) + sizeof(fuse_write_in);

// --- Requests ---

struct FuseInit {
  uint32_t major = 0;
  uint32_t minor = 0;
  uint32_t max_readahead = 0;
  uint64_t flags = 0;
};
struct FuseLookup {
  std::string name;
};
struct FuseForget {  // FORGET and BATCH_FORGET: the kernel drops so many lookups of a node
  std::vector<std::pair<FileId, uint64_t>> nodes;
};
struct FuseGetAttributes {};
struct FuseStatx {};
struct FuseSetAttributes {
  fuse_setattr_in in;
};
struct FuseReadLink {};
struct FuseSymlink {
  std::string name;
  std::string target;
};
struct FuseMakeNode {
  std::string name;
  uint32_t mode = 0;
  uint32_t rdev = 0;
  uint32_t umask = 0;
};
struct FuseMakeDirectory {
  std::string name;
  uint32_t mode = 0;
  uint32_t umask = 0;
};
struct FuseUnlink {
  std::string name;
};
struct FuseRemoveDirectory {
  std::string name;
};
struct FuseRename {
  std::string from_name;
  FileId to_parent;
  std::string to_name;
  uint32_t flags = 0;  // RENAME_NOREPLACE, RENAME_EXCHANGE, …
};
struct FuseLink {
  FileId file;
  std::string name;
};
struct FuseOpen {
  uint32_t flags = 0;       // O_…
  uint32_t open_flags = 0;  // FUSE_OPEN_…
};
struct FuseOpenDirectory {};
struct FuseCreate {
  std::string name;
  uint32_t flags = 0;
  uint32_t mode = 0;
  uint32_t umask = 0;
};
struct FuseCreateUnnamed {  // TMPFILE
  uint32_t flags = 0;
  uint32_t mode = 0;
  uint32_t umask = 0;
};
struct FuseRead {
  uint64_t fh = 0;
  uint64_t offset = 0;
  uint32_t size = 0;
  uint32_t flags = 0;  // O_… of the description, now
};
struct FuseWrite {
  uint64_t fh = 0;
  uint64_t offset = 0;
  uint32_t write_flags = 0;  // FUSE_WRITE_…
  uint32_t flags = 0;        // O_… of the description, now
  Buffer data;
};
struct FuseReadDirectory {
  uint64_t fh = 0;
  uint64_t offset = 0;
  uint32_t size = 0;
  bool plus = false;
};
struct FuseFlush {  // of each close(2)
  uint64_t fh = 0;
  uint64_t lock_owner = 0;
};
struct FuseRelease {
  uint64_t fh = 0;
  uint32_t release_flags = 0;  // FUSE_RELEASE_…
  uint64_t lock_owner = 0;
};
struct FuseReleaseDirectory {
  uint64_t fh = 0;
};
struct FuseSync {  // FSYNC, FSYNCDIR
  uint64_t fh = 0;
};
struct FuseSyncFileSystem {};  // SYNCFS
struct FuseStatFileSystem {};
struct FuseSetXattr {
  std::string name;
  std::string value;
  uint32_t flags = 0;           // XATTR_CREATE, XATTR_REPLACE
  uint32_t setxattr_flags = 0;  // FUSE_SETXATTR_…
};
struct FuseGetXattr {
  std::string name;
  uint32_t size = 0;  // 0: only the length is wanted
};
struct FuseListXattr {
  uint32_t size = 0;
};
struct FuseRemoveXattr {
  std::string name;
};
struct FuseAllocate {
  uint64_t fh = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint32_t mode = 0;  // FALLOC_FL_…
};
struct FuseSeek {  // LSEEK
  uint64_t fh = 0;
  uint64_t offset = 0;
  uint32_t whence = 0;  // SEEK_DATA, SEEK_HOLE
};
struct FuseCopyRange {
  uint64_t from_fh = 0;
  uint64_t from_offset = 0;
  FileId to;
  uint64_t to_fh = 0;
  uint64_t to_offset = 0;
  uint64_t length = 0;
};
struct FuseLock {  // GETLK, SETLK, SETLKW
  uint64_t fh = 0;
  uint64_t owner = 0;
  fuse_file_lock lock;
  uint32_t lock_flags = 0;  // FUSE_LK_FLOCK
};
struct FuseInterrupt {
  uint64_t unique = 0;  // of the request that its caller would like to end
};
struct FuseDestroy {};
struct FuseUnsupported {};  // understood as a request, but not an operation that we have

using FuseBody =
    std::variant<FuseUnsupported, FuseInit, FuseLookup, FuseForget, FuseGetAttributes, FuseStatx, FuseSetAttributes,
                 FuseReadLink, FuseSymlink, FuseMakeNode, FuseMakeDirectory, FuseUnlink, FuseRemoveDirectory,
                 FuseRename, FuseLink, FuseOpen, FuseOpenDirectory, FuseCreate, FuseCreateUnnamed, FuseRead, FuseWrite,
                 FuseReadDirectory, FuseFlush, FuseRelease, FuseReleaseDirectory, FuseSync, FuseSyncFileSystem,
                 FuseStatFileSystem, FuseSetXattr, FuseGetXattr, FuseListXattr, FuseRemoveXattr, FuseAllocate, FuseSeek,
                 FuseCopyRange, FuseLock, FuseInterrupt, FuseDestroy>;

struct FuseHeader {
  uint32_t opcode = 0;
  uint64_t unique = 0;
  FileId node;
  uint32_t uid = 0;
  uint32_t gid = 0;
};

struct FuseRequest {
  FuseHeader header;
  FuseBody body;
};

// kInvalid when even the header is not whole (there is nobody to answer).
// DECODER: fuse_header
[[nodiscard]] Result<FuseHeader> decode_fuse_header(ByteView bytes);
// One request, as read from /dev/fuse. kInvalid when it is shorter than its operation needs, or a
// name is not one (empty, with '/', not terminated). setxattr_extended: FUSE_SETXATTR_EXT was agreed.
// DECODER: fuse_request
[[nodiscard]] Result<FuseRequest> decode_fuse_request(const Buffer& bytes, bool setxattr_extended = false);

}  // namespace headrace
