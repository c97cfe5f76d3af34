// What clients ask of a partition. A mutation carries a Ticket; its result is journaled with the change, so that
// the same ticket again gives the same reply: it takes effect exactly once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proto/header.h"
#include "proto/placement.h"

namespace headrace {

enum class FileType : uint8_t {
  kNone = 0,
  kFile = 1,
  kDirectory = 2,
  kSymlink = 3,
  kFifo = 4,
  kSocket = 5,
  kCharDevice = 6,
  kBlockDevice = 7
};

// Times are nanoseconds since 1970.
struct Attributes {
  FileId id;
  uint64_t generation = 0;  // namespace epoch of its birth
  FileType type = FileType::kNone;
  uint32_t mode = 0;  // permission bits and suid, sgid, sticky
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t links = 0;
  uint64_t size = 0;
  uint64_t bytes = 0;  // allocated
  uint64_t rdev = 0;
  int64_t atime = 0;
  int64_t mtime = 0;
  int64_t ctime = 0;
  int64_t btime = 0;
  uint64_t change = 0;  // grows with each change
  FileId parent;        // directories: their parent
  void fields(this auto& self, auto& v) {
    v(self.id, self.generation, self.type, self.mode, self.uid, self.gid, self.links, self.size, self.bytes, self.rdev,
      self.atime, self.mtime, self.ctime, self.btime, self.change, self.parent);
  }
};
// relatime: a read at that time moves the atime, being the first after a change, or for a day.
[[nodiscard]] inline bool moves_atime(const Attributes& of, int64_t time) {
  constexpr int64_t kDay = int64_t{24 * 60 * 60} * 1'000'000'000;
  return of.atime <= of.mtime || of.atime <= of.ctime || time - of.atime >= kDay;
}

struct Ticket {
  SessionId session;
  uint64_t sequence = 0;           // from 1, per session
  uint64_t lowest_unanswered = 0;  // results below it may be forgotten
  void fields(this auto& self, auto& v) { v(self.session, self.sequence, self.lowest_unanswered); }
};

// What a client may cache or do alone. On a file, read: attributes and data; write: also change data, size, times and
// other attributes before the partition knows. On a directory, read: its attributes and dentries, positive and
// negative; write: also change them, and make files in it, before the partition knows (ChangeNames).
enum class GrantKind : uint8_t { kNone = 0, kRead = 1, kWrite = 2 };
struct Grant {
  FileId file;
  GrantKind kind = GrantKind::kNone;
  GrantId id;
  void fields(this auto& self, auto& v) { v(self.file, self.kind, self.id); }
};

// ---- sessions ----
struct SessionOpenReply {
  SessionId session;
  uint32_t lease_ms = 10'000;
  void fields(this auto& self, auto& v) { v(self.session, self.lease_ms); }
};
// One session per (client, partition). Re-opening with `again` after a leader change keeps the session while it lives
// (kStale otherwise).
struct SessionOpen {
  static constexpr MessageType kType = MessageType::kSessionOpen;
  using Reply = SessionOpenReply;
  ClientId client;
  SessionId again;
  std::vector<Grant> claims;  // held before: granted again or the session is stale
  void fields(this auto& self, auto& v) { v(self.client, self.again, self.claims); }
};
struct SessionRenew {  // keeps the lease; also sent as the client's heartbeat
  static constexpr MessageType kType = MessageType::kSessionRenew;
  using Reply = Empty;
  SessionId session;
  void fields(this auto& self, auto& v) { v(self.session); }
};
struct SessionClose {
  static constexpr MessageType kType = MessageType::kSessionClose;
  using Reply = Empty;
  SessionId session;
  void fields(this auto& self, auto& v) { v(self.session); }
};

// ---- grants ----
struct GrantAcquireReply {
  static constexpr uint64_t kUnknown = ~uint64_t{0};
  Grant grant;
  Attributes attributes;
  uint64_t entries = kUnknown;  // of a directory: how many names it has
  bool no_xattrs = false;       // it has none; false: nothing is said
  void fields(this auto& self, auto& v) {
    v(self.grant, self.attributes);
    v.tail(self.entries, self.no_xattrs);
  }
};
struct GrantAcquire {  // waits while conflicting grants are recalled
  static constexpr MessageType kType = MessageType::kGrantAcquire;
  using Reply = GrantAcquireReply;
  SessionId session;
  FileId file;
  GrantKind kind = GrantKind::kRead;
  void fields(this auto& self, auto& v) { v(self.session, self.file, self.kind); }
};
struct GrantRelease {
  static constexpr MessageType kType = MessageType::kGrantRelease;
  using Reply = Empty;
  SessionId session;
  std::vector<GrantId> grants;
  void fields(this auto& self, auto& v) { v(self.session, self.grants); }
};
// Partition → client. The client flushes what is dirty under it, drops what it cached, then answers; `keep` says how
// much it may keep (kRead: a writer may go on caching). The answer ends the grant down to `keep`.
struct Recall {
  static constexpr MessageType kType = MessageType::kRecall;
  using Reply = Empty;
  SessionId session;
  Grant grant;
  GrantKind keep = GrantKind::kNone;
  void fields(this auto& self, auto& v) { v(self.session, self.grant, self.keep); }
};
// Partition → client at spin-down: flush everything, release all grants, end.
struct Closing {
  static constexpr MessageType kType = MessageType::kClosing;
  using Reply = Empty;
  SessionId session;
  void fields(this auto& self, auto& v) { v(self.session); }
};

// ---- names ----
struct EntryReply {  // grants that came with it (empty where none was free to give)
  Attributes attributes;
  std::optional<Grant> file_grant;
  std::optional<Grant> directory_grant;  // on the parent
  // Make with want_directory_write: the parent afterwards, and how many names it has.
  std::optional<Attributes> directory;
  uint64_t entries = 0;
  // They have no extended attributes; false: nothing is said.
  bool no_xattrs = false;
  bool directory_no_xattrs = false;
  void fields(this auto& self, auto& v) {
    v(self.attributes, self.file_grant, self.directory_grant);
    v.tail(self.directory);
    v.tail(self.entries, self.no_xattrs, self.directory_no_xattrs);
  }
};
// The child's inode may live in another partition: then attributes.type and id are set, generation is 0, and the caller
// asks GetAttributes there. Absent: kNotFound.
struct Lookup {
  static constexpr MessageType kType = MessageType::kLookup;
  using Reply = EntryReply;
  SessionId session;  // zero: no grants wanted
  FileId parent;
  std::string name;
  void fields(this auto& self, auto& v) { v(self.session, self.parent, self.name); }
};
struct GetAttributes {
  static constexpr MessageType kType = MessageType::kGetAttributes;
  using Reply = EntryReply;
  SessionId session;
  FileId file;
  GrantKind want = GrantKind::kNone;
  void fields(this auto& self, auto& v) { v(self.session, self.file, self.want); }
};
// Bits of SetAttributes.mask. An access ACL follows the mode.
// kOnlyGrow, with kSetSize: a file that is longer stays as it is.
enum SetMask : uint32_t {
  kSetMode = 1,
  kSetUid = 2,
  kSetGid = 4,
  kSetSize = 8,
  kSetAtime = 16,
  kSetMtime = 32,
  kSetCtime = 64,
  kOnlyGrow = 128
};
struct SetAttributes {
  static constexpr MessageType kType = MessageType::kSetAttributes;
  using Reply = EntryReply;
  Ticket ticket;
  FileId file;
  uint32_t mask = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  int64_t atime = 0;  // INT64_MIN: now
  int64_t mtime = 0;
  int64_t ctime = 0;
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.file, self.mask, self.mode, self.uid, self.gid, self.size, self.atime, self.mtime, self.ctime);
  }
};
// create, mkdir, mknod, symlink. What is made where the parent has a default ACL has that (directories: as their
// default ACL too; symlinks: not), and of its mode what the ACL allows.
struct Make {
  static constexpr MessageType kType = MessageType::kMake;
  using Reply = EntryReply;
  Ticket ticket;
  FileId parent;
  std::string name;
  FileType type = FileType::kFile;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t rdev = 0;
  std::string target;                 // of a symlink, ≤ 4095 bytes
  bool want_write_grant = false;      // files: about to be written
  bool keep_open = false;             // as OpenKept
  bool want_directory_write = false;  // a write grant on the parent: more is to be made in it
  bool unnamed = false;  // O_TMPFILE: a file in `parent`'s partition without a name (`name` is empty); needs keep_open
  uint32_t masked = 0;   // bits that the umask took from the mode: where a default ACL is, they count as given
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.parent, self.name, self.type, self.mode, self.uid, self.gid, self.rdev, self.target,
      self.want_write_grant, self.keep_open);
    v.tail(self.want_directory_write, self.unnamed, self.masked);
  }
};
struct UnlinkReply {
  FileId file;
  uint32_t links = 0;  // left
  void fields(this auto& self, auto& v) { v(self.file, self.links); }
};
struct Unlink {  // unlink and, with `directory`, rmdir
  static constexpr MessageType kType = MessageType::kUnlink;
  using Reply = UnlinkReply;
  Ticket ticket;
  FileId parent;
  std::string name;
  bool directory = false;
  uint32_t uid = 0;  // who asks: sticky bit checks happen in the kernel (default_permissions)
  void fields(this auto& self, auto& v) { v(self.ticket, self.parent, self.name, self.directory, self.uid); }
};
struct Rename {  // sent to the partition of the source's parent
  static constexpr MessageType kType = MessageType::kRename;
  using Reply = UnlinkReply;  // the replaced file, if any
  Ticket ticket;
  FileId from_parent;
  std::string from_name;
  FileId to_parent;
  std::string to_name;
  bool no_replace = false;
  bool exchange = false;  // both names are there and change places; nothing is replaced
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.from_parent, self.from_name, self.to_parent, self.to_name, self.no_replace);
    v.tail(self.exchange);
  }
};
struct Link {  // sent to the partition of the new name's parent
  static constexpr MessageType kType = MessageType::kLink;
  using Reply = EntryReply;
  Ticket ticket;
  FileId file;
  FileId parent;
  std::string name;
  bool unnamed = false;  // the file was made without a name and may get its first
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.file, self.parent, self.name);
    v.tail(self.unnamed);
  }
};
struct DirectoryEntry {
  std::string name;
  FileId id;
  FileType type = FileType::kNone;
  uint64_t cookie = 0;                   // > 2; ask again with it to continue behind this entry
  std::optional<Attributes> attributes;  // when its inode is in the same partition and `plus` was asked
  void fields(this auto& self, auto& v) { v(self.name, self.id, self.type, self.cookie, self.attributes); }
};
struct ReadDirectoryReply {
  std::vector<DirectoryEntry> entries;
  bool end = false;
  uint64_t last = 0;  // cookie that an entry had by then; those behind it came since. 0: not said
  void fields(this auto& self, auto& v) { v(self.entries, self.end, self.last); }
};
struct ReadDirectory {
  static constexpr MessageType kType = MessageType::kReadDirectory;
  using Reply = ReadDirectoryReply;
  SessionId session;
  FileId directory;
  uint64_t after = 0;  // cookie
  uint32_t limit = 512;
  bool plus = false;
  void fields(this auto& self, auto& v) { v(self.session, self.directory, self.after, self.limit, self.plus); }
};
struct TextReply {
  std::string text;
  void fields(this auto& self, auto& v) { v(self.text); }
};
struct GetXattr {  // name "" with a symlink: its target
  static constexpr MessageType kType = MessageType::kGetXattr;
  using Reply = TextReply;
  FileId file;
  std::string name;
  void fields(this auto& self, auto& v) { v(self.file, self.name); }
};
// The name of an ACL (base/posix_acl.h): the mode follows the access ACL, which is not kept where the mode alone says
// it; an ACL without entries goes. kInvalid, and must_create and must_replace mean nothing. kAccess: a default ACL of
// what is no directory.
struct SetXattr {
  static constexpr MessageType kType = MessageType::kSetXattr;
  using Reply = Empty;
  Ticket ticket;
  FileId file;
  std::string name;   // ≤ 255 bytes
  std::string value;  // ≤ 64 KiB
  bool must_create = false;
  bool must_replace = false;
  bool clear_setgid = false;  // with an access ACL: whoever sets it is not of the file's group
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.file, self.name, self.value, self.must_create, self.must_replace);
    v.tail(self.clear_setgid);
  }
};
struct ListXattrReply {
  std::vector<std::string> names;
  void fields(this auto& self, auto& v) { v(self.names); }
};
struct ListXattr {
  static constexpr MessageType kType = MessageType::kListXattr;
  using Reply = ListXattrReply;
  FileId file;
  void fields(this auto& self, auto& v) { v(self.file); }
};
struct RemoveXattr {  // an ACL may be absent already
  static constexpr MessageType kType = MessageType::kRemoveXattr;
  using Reply = Empty;
  Ticket ticket;
  FileId file;
  std::string name;
  void fields(this auto& self, auto& v) { v(self.ticket, self.file, self.name); }
};
// The client has the file open: while the session lives it survives its last unlink. Forget ends that.
struct OpenKept {
  static constexpr MessageType kType = MessageType::kOpenKept;
  using Reply = Empty;
  Ticket ticket;
  FileId file;
  void fields(this auto& self, auto& v) { v(self.ticket, self.file); }
};
struct Forget {
  static constexpr MessageType kType = MessageType::kForget;
  using Reply = Empty;
  Ticket ticket;
  std::vector<FileId> files;
  void fields(this auto& self, auto& v) { v(self.ticket, self.files); }
};

// ---- names under directory write grants ----
struct ReserveFilesReply {
  uint64_t first = 0;  // local parts of FileIds, for any slot of the partition; nobody else ever gets them
  uint32_t count = 0;
  uint64_t generation = 0;  // of what is made with them
  void fields(this auto& self, auto& v) { v(self.first, self.count, self.generation); }
};
struct ReserveFiles {
  static constexpr MessageType kType = MessageType::kReserveFiles;
  using Reply = ReserveFilesReply;
  SessionId session;
  uint32_t count = 1;
  void fields(this auto& self, auto& v) { v(self.session, self.count); }
};
enum class NameChangeKind : uint8_t {
  kNone = 0,
  kMake = 1,           // name → file, a new inode (no directory) in the directory's slot
  kUnlink = 2,         // name → file goes; no directory
  kSetAttributes = 3,  // of `file` (or a directory), those of `mask`; never its size
  kTouch = 4,          // the directory's times: what was made in it and removed again
  kRename = 5,         // name → to_name in one directory; `replaced` goes. No directories
  kLink = 6,           // name → file, an inode of this partition
};
// Each is under the session's write grants: `directory_grant` on the directory whose names change, `file_grant` on the
// inode that changes. The one on a file that is made is given with it, under the id that the client chose.
struct NameChange {
  NameChangeKind kind = NameChangeKind::kNone;
  FileId directory;
  GrantId directory_grant;
  std::string name;
  std::string to_name;
  FileId file;
  GrantId file_grant;
  FileId replaced;
  GrantId replaced_grant;
  int64_t time = 0;  // when the client did it
  FileType type = FileType::kNone;
  uint32_t mask = 0;  // kSetAttributes: SetMask
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t rdev = 0;
  int64_t atime = 0;
  int64_t mtime = 0;
  int64_t ctime = 0;
  std::string target;      // of a symlink
  bool keep_open = false;  // kMake: as OpenKept
  void fields(this auto& self, auto& v) {
    v(self.kind, self.directory, self.directory_grant, self.name, self.to_name, self.file, self.file_grant,
      self.replaced, self.replaced_grant, self.time, self.type, self.mask, self.mode, self.uid, self.gid, self.rdev,
      self.atime, self.mtime, self.ctime, self.target, self.keep_open);
  }
};
struct ChangeNamesReply {
  std::vector<uint16_t> codes;  // a Code per change; a failed one changed nothing
  void fields(this auto& self, auto& v) { v(self.codes); }
};
// Changes that a client has answered already, in the order in which it did; all in one record. kStale, and nothing is
// changed, when one of the grants is not the session's (any more, or not yet claimed again).
struct ChangeNames {
  static constexpr MessageType kType = MessageType::kChangeNames;
  using Reply = ChangeNamesReply;
  static constexpr size_t kMaxChanges = 256;
  Ticket ticket;
  std::vector<NameChange> changes;
  void fields(this auto& self, auto& v) { v(self.ticket, self.changes); }
};

// When files and directories were read, told now and then; nobody is recalled. What another client told already, by the
// rules of relatime, is not told again; whoever set the atime or changed the file since did that for good; what is gone
// is left out.
struct Access {
  FileId file;
  int64_t time = 0;
  void fields(this auto& self, auto& v) { v(self.file, self.time); }
};
struct NoteAccess {
  static constexpr MessageType kType = MessageType::kNoteAccess;
  using Reply = Empty;
  static constexpr size_t kMaxAccesses = 256;
  Ticket ticket;
  std::vector<Access> accesses;
  void fields(this auto& self, auto& v) { v(self.ticket, self.accesses); }
};

// ---- locks ----
// Advisory locks of programs: fcntl's over ranges, flock's over a whole file; the two kinds do not see each other. A
// lock belongs to an owner of a session (a number that the client chose) and ends with the session.
enum class LockKind : uint8_t { kUnlock = 0, kShared = 1, kExclusive = 2 };
struct FileLock {
  uint64_t owner = 0;
  uint32_t pid = 0;    // for fcntl(F_GETLK)
  bool whole = false;  // flock's
  LockKind kind = LockKind::kUnlock;
  uint64_t begin = 0;
  uint64_t end = 0;  // behind the last byte; 2^63: to the end of the file, however far
  void fields(this auto& self, auto& v) { v(self.owner, self.pid, self.whole, self.kind, self.begin, self.end); }
  bool operator==(const FileLock&) const = default;
};
inline constexpr uint64_t kLockEnd = uint64_t{1} << 63;
struct LockReply {
  bool granted = false;
  void fields(this auto& self, auto& v) { v(self.granted); }
};
// Takes, changes (in one step) or ends a lock. Where another's is in the way: waits for up to wait_ms, then is not
// granted. kDeadlock instead of a wait for an fcntl lock that would close a cycle of owners who wait at this partition.
struct Lock {
  static constexpr MessageType kType = MessageType::kLock;
  using Reply = LockReply;
  Ticket ticket;
  FileId file;
  FileLock lock;
  uint32_t wait_ms = 0;
  void fields(this auto& self, auto& v) { v(self.ticket, self.file, self.lock, self.wait_ms); }
};
struct FindLockReply {
  std::optional<FileLock> lock;
  void fields(this auto& self, auto& v) { v(self.lock); }
};
struct FindLock {  // one that would be in the way of `lock`
  static constexpr MessageType kType = MessageType::kFindLock;
  using Reply = FindLockReply;
  SessionId session;
  FileId file;
  FileLock lock;
  void fields(this auto& self, auto& v) { v(self.session, self.file, self.lock); }
};

// ---- data ----
struct Reservation {
  SegmentId segment;
  Placement placement;  // one target per fragment
  std::vector<TargetId> spares;
  Capability capability;  // kRead | kWrite of the whole segment
  void fields(this auto& self, auto& v) { v(self.segment, self.placement, self.spares, self.capability); }
};
struct ReserveReply {
  std::vector<Reservation> reservations;
  void fields(this auto& self, auto& v) { v(self.reservations); }
};
// Ids and placements that belong to the session until committed, abandoned or given back by its end. kBusy (the hot
// tier is full, space is being made), kNoSpace (none can be made) / kUnavailable (fewer than P+1 targets); what is
// abandoned is taken back whatever the answer.
struct Reserve {
  static constexpr MessageType kType = MessageType::kReserve;
  using Reply = ReserveReply;
  SessionId session;
  Slot slot;  // of the files that will name them: the segments' home
  uint32_t count = 1;
  std::vector<SegmentId> abandoned;  // reserved before, never named in a commit: their fragments are freed
  uint32_t written = 0;  // of what is reserved: filled on the targets, so that space is not claimed for it twice
  bool crowded = false;  // a target had no room for what was reserved last: some is made before more is given
  void fields(this auto& self, auto& v) {
    v(self.session, self.slot, self.count);
    v.tail(self.abandoned, self.written, self.crowded);
  }
};
// One file's part of a commit: replaces what the ranges of `extents` held. Times and size are set when given.
struct CommitFile {
  FileId file;
  GrantId grant;                // write grant of the session on the file
  std::vector<Extent> extents;  // kSegment (of `segments`, or already in this file) or kHole
  uint64_t size = 0;            // file size afterwards
  int64_t mtime = 0;
  void fields(this auto& self, auto& v) { v(self.file, self.grant, self.extents, self.size, self.mtime); }
};
struct CommitSegment {  // written whole, all fragments durable
  SegmentId segment;
  uint64_t length = 0;
  Placement placement;  // as written: spares may stand in
  void fields(this auto& self, auto& v) { v(self.segment, self.length, self.placement); }
};
struct CommitReply {
  std::vector<uint16_t> codes;  // a Code per file; a failed one (kStale, kNotFound) changes nothing of that file
  void fields(this auto& self, auto& v) { v(self.codes); }
};
struct Commit {  // files of one partition
  static constexpr MessageType kType = MessageType::kCommit;
  using Reply = CommitReply;
  Ticket ticket;
  std::vector<CommitSegment> segments;
  std::vector<CommitFile> files;
  void fields(this auto& self, auto& v) { v(self.ticket, self.segments, self.files); }
};
// Bytes that must be durable now, ≤ 64 KiB in all, into the journal and a staged row.
struct StagePiece {
  uint64_t offset = 0;
  std::string bytes;
  void fields(this auto& self, auto& v) { v(self.offset, self.bytes); }
};
struct Stage {
  static constexpr MessageType kType = MessageType::kStage;
  using Reply = Empty;
  Ticket ticket;
  FileId file;
  GrantId grant;
  std::vector<StagePiece> pieces;
  uint64_t size = 0;
  int64_t mtime = 0;
  void fields(this auto& self, auto& v) { v(self.ticket, self.file, self.grant, self.pieces, self.size, self.mtime); }
};
struct StagedBytes {
  uint64_t staged = 0;
  Buffer bytes;  // whole staged row
  void fields(this auto& self, auto& v) { v(self.staged, self.bytes); }
};
struct GetExtentsReply {
  uint64_t size = 0;
  // Cover [offset, min(offset+length, size)) without gaps; holes explicit. One that is all of it may reach further.
  std::vector<Extent> extents;
  std::vector<Location> locations;       // of the segments named, each once
  std::vector<Capability> capabilities;  // kRead, same order as locations
  std::vector<StagedBytes> staged;
  void fields(this auto& self, auto& v) { v(self.size, self.extents, self.locations, self.capabilities, self.staged); }
};
struct GetExtents {
  static constexpr MessageType kType = MessageType::kGetExtents;
  using Reply = GetExtentsReply;
  SessionId session;
  FileId file;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) { v(self.session, self.file, self.offset, self.length); }
};
struct LocateReply {
  Location location;
  Capability capability;
  void fields(this auto& self, auto& v) { v(self.location, self.capability); }
};
struct Locate {  // current placement, after kNoFragment. kNotFound: the segment is dead
  static constexpr MessageType kType = MessageType::kLocate;
  using Reply = LocateReply;
  SegmentId segment;
  void fields(this auto& self, auto& v) { v(self.segment); }
};
struct Punch {  // a hole in [offset, offset+length), size unchanged. (Truncation is SetAttributes.)
  static constexpr MessageType kType = MessageType::kPunch;
  using Reply = Empty;
  Ticket ticket;
  FileId file;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) { v(self.ticket, self.file, self.offset, self.length); }
};
struct CopyRangeReply {
  uint64_t copied = 0;  // bytes: fewer than asked for where the source ends, or the rest would not fit one change
  void fields(this auto& self, auto& v) { v(self.copied); }
};
// By reference: what [source_offset, source_offset + copied) of `source` names, [offset, offset + copied) of `file`
// names too, as of one moment. Of one file the ranges do not overlap. kNotSupported: the files are of different
// partitions, or staged bytes would have to be copied and there is no room for them (read and write, then).
struct CopyRange {
  static constexpr MessageType kType = MessageType::kCopyRange;
  using Reply = CopyRangeReply;
  Ticket ticket;
  FileId source;
  uint64_t source_offset = 0;
  FileId file;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) {
    v(self.ticket, self.source, self.source_offset, self.file, self.offset, self.length);
  }
};
struct StatisticsReply {  // of this partition; the client adds them up
  uint64_t files = 0;
  uint64_t bytes = 0;
  void fields(this auto& self, auto& v) { v(self.files, self.bytes); }
};
struct Statistics {
  static constexpr MessageType kType = MessageType::kStatistics;
  using Reply = StatisticsReply;
  PartitionId partition;
  void fields(this auto& self, auto& v) { v(self.partition); }
};

// ---- node services ----
struct GetMapReply {
  std::string map;         // encode_durable(ClusterMap)
  bool read_only = false;  // another cluster owns the namespace now
  std::string why;
  void fields(this auto& self, auto& v) { v(self.map, self.read_only, self.why); }
};
struct GetMap {
  static constexpr MessageType kType = MessageType::kGetMap;
  using Reply = GetMapReply;
  uint64_t newer_than = 0;
  void fields(this auto& self, auto& v) { v(self.newer_than); }
};
// What a client counted since it started, for the node's status. Sent about once a second, and at its end.
struct Report {
  static constexpr MessageType kType = MessageType::kReport;
  using Reply = Empty;
  uint64_t degraded_reads = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  std::vector<Damage> damage;  // that its reads met since the last report: the node repairs it. At most kMaxDamage
  static constexpr size_t kMaxDamage = 256;
  void fields(this auto& self, auto& v) {
    v(self.degraded_reads, self.bytes_read, self.bytes_written);
    v.tail(self.damage);
  }
};
// Bytes of a segment that is in the bucket only, through a node's cache. `crc` is over the payload.
struct ColdReadReply {
  uint32_t crc = 0;
  Buffer payload;
  void fields(this auto& self, auto& v) { v(self.crc); }
};
struct ColdRead {
  static constexpr MessageType kType = MessageType::kColdRead;
  using Reply = ColdReadReply;
  Location location;
  uint64_t offset = 0;
  uint64_t length = 0;
  void fields(this auto& self, auto& v) { v(self.location, self.offset, self.length); }
};

}  // namespace headrace
