// Model: what a namespace must look like, given what its clients were told.
//
// Names. Every mutation of names claims the entries that it touches until its outcome is known, so that the answer is
// a function of the model; an operation whose outcome stays unknown (a crash, a lost session) keeps its claims, and the
// next verification looks which of its two outcomes came about. Creations of one name may race: exactly one wins.
// What a client may have answered before the partition knew (a Mutation that is `unsent`: under a directory write
// grant) is remembered until something shows that it was sent: a sync, another client that met it, an operation that
// comes behind it. When its client is lost meanwhile, or may have been, the entry is `unsure`: nothing touches it until
// the next verification, which takes any of the values that it had since, and minds that only a tail of what the client
// did in one directory may be missing. Contents. A file is a row of cells; every write gives whole cells a stamp that
// no other write uses, and the bytes of a cell are a function of stamp and offset. Data operations are kept in order
// with what is known of each: certain (acknowledged by sync), volatile (its client still has it), lossy (it may be
// gone, in part too). What a read may return follows from that: the newest certain stamp, and those of later ones that
// may or may not have survived. A volatile write must be seen by every reader as long as nothing happened to its client
// (lenient_until). Owner: the scenario; outlives every process, so that a crash leaves it as it is. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "proto/meta.h"
#include "runtime/timers.h"

namespace headrace::sim {

using Stamp = uint64_t;  // 0: zeros

// Bytes of a cell with that stamp, from an offset in the file on.
void fill_bytes(Stamp stamp, uint64_t offset, ByteSpan into);

struct DataOperation {
  enum Kind : uint8_t { kWrite, kTruncate, kPunch, kCopy } kind = kWrite;
  enum State : uint8_t { kVolatile, kCertain, kLossy } state = kVolatile;
  int client = 0;
  uint64_t from = 0;  // cells; kTruncate: the new length
  uint64_t to = 0;
  Stamp stamp = 0;
  uint64_t begun = 0;  // Model::tick()
  uint64_t done = 0;   // 0: not answered
  Nanos begun_at{};
  std::vector<std::vector<Stamp>> cells;  // kCopy: what each of them may be
};

using DataOperations = std::list<DataOperation>;  // in their order
// A client's that had been answered by then are certain.
void synced(DataOperations& operations, int client, uint64_t before);
// What it has not synced may be lost, and no later sync changes that.
void sync_failed(DataOperations& operations, int client);
// There is something that a sync of that client's must save, or tell.
[[nodiscard]] bool unsynced(const DataOperations& operations, int client);
// Whether something may have happened to the client of an operation, and so to what it has not synced.
using Lenient = std::function<bool(const DataOperation&)>;
// It did not get lost.
[[nodiscard]] bool surely_kept(const DataOperation& operation, const Lenient& lenient);

class Contents {
 public:
  uint64_t cell_bytes = 1000;

  // What a reader that began and ended then may see.
  struct View {
    uint64_t least = 0;  // length in bytes
    uint64_t most = 0;
    std::vector<std::vector<Stamp>> cells;  // allowed stamps
  };
  [[nodiscard]] View view(uint64_t began, const Lenient& lenient) const;
  // Empty: fine. Otherwise what is wrong. `length` was asked for at `offset`.
  // What cells [from, to) may hold from now on, unless somebody writes to them; nothing where they may not all be
  // there.
  [[nodiscard]] std::vector<std::vector<Stamp>> possible(uint64_t from, uint64_t to) const;
  [[nodiscard]] std::string check(const View& view, uint64_t offset, uint64_t length,
                                  const std::vector<Buffer>& got) const;
  // Of a whole read at a quiet moment: a file ends with bytes that somebody wrote, whatever was lost of what came
  // after.
  [[nodiscard]] std::string check_end(const std::vector<Buffer>& whole) const;
  // From a quiet moment on, this is what the file holds: a whole read of it that check() accepted.
  void settle(const View& view, const std::vector<Buffer>& whole);

  DataOperation& add(DataOperation operation);
  [[nodiscard]] DataOperations& operations() { return operations_; }
  [[nodiscard]] uint64_t cells() const;  // length if everything happened
  uint32_t readers = 0;                  // reads under way: what they may see is kept

 private:
  void fold();
  std::vector<std::vector<Stamp>> base_;
  uint64_t least_ = 0;  // bytes
  uint64_t most_ = 0;
  DataOperations operations_;
};

class AppendLog;
struct Inode;
using InodeRef = std::shared_ptr<Inode>;

struct Entry {
  InodeRef inode;  // null: absent
  bool claimed = false;
  uint32_t makers = 0;  // racing creations under one claim
  uint32_t unsure = 0;  // unsent changes of it that may be lost
  [[nodiscard]] bool open() const { return claimed || unsure > 0; }
  uint64_t touched = 0;
};

struct Inode {
  FileId id;  // zero: not known yet
  uint64_t number = 0;
  FileType type = FileType::kNone;
  uint32_t mode = 0;
  uint32_t links = 0;  // names; directories: 1 while they exist
  std::string target;
  std::map<std::string, std::string> xattrs;
  // Directories.
  std::map<std::string, Entry> entries;
  std::weak_ptr<Inode> parent;
  int home_of = -1;     // the client that works in it, or with it, mostly alone
  uint32_t claims = 0;  // of entries, and what is unsure about them
  bool frozen = false;  // being removed
  bool arena = false;   // what is in it is not the model's
  // Files.
  int maker = -1;    // the client that made it may know of it alone,
  bool met = false;  // until another one has found it by its name
  Contents contents;
  std::shared_ptr<AppendLog> log;  // all that is done with it is to append; then it has no contents
  bool writing = false;            // one writer at a time
  bool poisoned = false;           // a truncation or punch has an unknown outcome
  uint32_t pins = 0;               // in use: must not lose its last name
  // Both.
  uint32_t busy = 0;    // mutations of its links, mode or existence under way
  uint32_t unsure = 0;  // whether it has the names that the model says
  uint32_t mode_unsure = 0;
  bool xattr_busy = false;
  uint64_t touched = 0;

  [[nodiscard]] DataOperations& operations();  // of its contents, or its log
  [[nodiscard]] bool usable() const { return id && links > 0 && busy == 0 && !frozen; }
  [[nodiscard]] std::string name() const { return (type == FileType::kDirectory ? "d" : "f") + std::to_string(number); }
};

struct Mutation {
  enum Kind : uint8_t { kMake, kUnlink, kRename, kLink, kSetXattr, kSetMode } kind = kMake;
  int client = 0;
  InodeRef from_directory;  // the entry that goes (unlink, rename)
  std::string from_name;
  InodeRef to_directory;  // the entry that comes (make, rename, link)
  std::string to_name;
  InodeRef inode;     // made, moved, linked, removed, changed
  InodeRef replaced;  // by a rename
  std::string xattr;
  std::optional<std::string> value;
  uint32_t mode = 0;
  bool harmless = false;       // whatever the answer, nothing changes
  bool maybe_invalid = false;  // a rename of a directory beside others: their order is not known
  bool unsent = false;         // its client may answer it before the partition knows
  bool wild = false;           // what it is about became unsure while it was under way: any answer may be right
  uint64_t begun = 0;          // Model::tick()
  [[nodiscard]] std::string text() const;
};
using MutationRef = std::shared_ptr<Mutation>;

// Done, answered, perhaps not at the partition yet: an entry's new value, or (directory null) an inode's new mode.
struct Unsent {
  int client = 0;
  uint64_t life = 0;  // of the client, between two times when it may have lost something
  InodeRef directory;
  std::string name;
  InodeRef before;
  InodeRef after;
  InodeRef inode;
  uint32_t mode_before = 0;
  uint32_t mode_after = 0;
  uint64_t begun = 0;
  uint64_t done = 0;
  bool frozen = false;  // its client may have lost it
  bool lossy = false;   // no sync makes it certain any more
  enum class Fate : uint8_t { kEither, kKept, kLost } fate = Fate::kEither;
  [[nodiscard]] bool names(const InodeRef& i) const { return i && (before == i || after == i || inode == i); }
};

// A namespace as a client saw it.
struct SeenDirectory {
  std::map<std::string, std::pair<FileId, FileType>> entries;
  bool twice = false;  // a name came twice
};
using SeenTree = std::map<FileId, SeenDirectory>;

class Model {
 public:
  Model();
  // Inodes refer to each other by entries: break what a broken run may leave.
  ~Model();

  InodeRef root;
  std::vector<InodeRef> inodes;  // that exist or existed since the last verification, by number

  uint64_t tick() { return ++clock_; }
  [[nodiscard]] uint64_t now() const { return clock_; }
  Stamp next_stamp() { return ++stamp_; }
  [[nodiscard]] InodeRef new_inode(FileType type);

  // ---- mutations: begin() claims, finish() applies or gives up, and releases ----
  [[nodiscard]] bool claimable(const InodeRef& directory, const std::string& name, bool making) const;
  MutationRef begin(Mutation mutation);
  // `frozen`: its client may have lost it already, if it is unsent.
  void finish(const MutationRef& mutation, bool happened, bool frozen = false);
  [[nodiscard]] size_t unknown() const { return pending_.size(); }
  [[nodiscard]] const std::list<MutationRef>& pending() const { return pending_; }
  [[nodiscard]] bool directory_rename_pending() const;
  [[nodiscard]] bool inside(const InodeRef& directory, const InodeRef& ancestor) const;  // or the same

  // ---- what is unsent ----
  // A client's operation that began then met all that was answered of the directory's names before; its own as well
  // when it went to the partition behind them.
  void met(int client, const InodeRef& directory, uint64_t began, bool own);
  void met_mode(int client, const InodeRef& inode, uint64_t began);
  // The file or directory was synced, or everything; by a sync that began then.
  void synced(int client, const InodeRef& inode, uint64_t began);
  void synced_all(int client, uint64_t began);
  void sync_failed(int client, const InodeRef& inode);  // null: everything
  void may_lose(int client);                            // from now on, what it has not synced
  [[nodiscard]] const std::list<Unsent>& unsent() const { return unsent_; }

  // ---- verification ----
  // Decides every pending mutation of names by what is there, and what is unsure. Call when nothing is under way any
  // more.
  void resolve(const SeenTree& tree);
  // Of the modes that the inode may have: whether it is one of them, which then is its mode.
  [[nodiscard]] bool resolve_mode(const InodeRef& inode, uint32_t mode);
  void forget_unsent();
  void compare(const SeenTree& tree);

  void client_lost(int client);  // crashed: what it had not synced may be gone

  // ---- violations ----
  void violation(std::string what);
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  [[nodiscard]] bool failed() const { return !violations_.empty(); }
  std::function<std::string()> when;                 // prefix of violations: the time
  std::function<void(const std::string&)> on_event;  // what operations do and are answered, for a reader; may be empty
  [[nodiscard]] bool told() const { return static_cast<bool>(on_event); }
  void tell(const std::string& text) const {
    if (on_event) on_event(text);
  }

 private:
  void claim(const InodeRef& directory, const std::string& name, bool making);
  void release(const InodeRef& directory, const std::string& name);
  void apply(const Mutation& mutation);
  void settle(const std::function<bool(const Unsent&)>& which);
  void freeze(Unsent& change);
  void thaw(const Unsent& change);
  void resolve_unsent(const SeenTree& tree);
  void check_order();
  void count_links();
  [[nodiscard]] static Entry& entry(const InodeRef& directory, const std::string& name) {
    return directory->entries[name];
  }

  uint64_t clock_ = 1;
  Stamp stamp_ = 0;
  uint64_t next_number_ = 1;
  std::list<MutationRef> pending_;
  std::list<Unsent> unsent_;  // in the order in which they were answered
  std::map<int, uint64_t> lives_;
  std::vector<std::string> violations_;
};

}  // namespace headrace::sim
