// FileState: all that this client knows of one file or directory. FileTable: all of them, and their
// grants.
//
// A grant is `held` until the partition has our answer; `usable` is what new operations may rely
// on. They differ while a recall is at work: its order is (1) the gateway drops what the kernel
// cached, operations go on; (2) usable falls: no operation begins under the grant any more; (3)
// what is dirty is flushed under the grant still held; (4) caches go, the grant ends, the recall is
// answered. An operation checks usable() and acts without awaiting in between, or checks again.
//
// Knowledge is versioned by one counter: bump() marks that what was asked before is outdated (an
// own change, the end of a grant). A reply is remembered only if nothing was bumped since it was
// asked for (asked() before, fresh() after), and if the grant was held then already, or came with
// that very reply: from before a grant nothing is known. Under a write grant `size` and `mtime` are
// the truth and the partition lags behind; without dirty bytes both agree. Owner: Client. FileState
// is shared; frames that hold one touch nothing else when they are destroyed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "client/dirty_map.h"
#include "client/extent_cache.h"
#include "client/file_system.h"
#include "client/sessions.h"

namespace headrace {

struct ChangeQueue;  // client/change_log.h
struct UnsentChange;

// What was lost of a file or directory, counted as errseq_t does: each opener is told of the last once, and who opens
// it later only of what nobody was told. Whoever syncs by id is one opener more.
class Lost {
 public:
  void add(Error why) {
    last_ = std::move(why);
    ++count_;
  }
  // Nobody is to be told of what was lost so far.
  void forgive() { seen_ = synced_ = count_; }
  // So much was told to who opens it now.
  [[nodiscard]] uint64_t opened() const { return seen_; }
  [[nodiscard]] uint64_t count() const { return count_; }
  [[nodiscard]] const std::optional<Error>& last() const { return last_; }
  // What its opener, who was told `told`, is to be told. by_sync: rather than by a write of an O_SYNC handle.
  [[nodiscard]] std::optional<Error> tell(uint64_t& told, bool by_sync) {
    if (told == count_) return std::nullopt;
    told = seen_ = count_;
    if (by_sync) synced_ = count_;
    return last_;
  }
  // No sync has told of it.
  [[nodiscard]] bool awaits_sync() const { return synced_ != count_; }

 private:
  std::optional<Error> last_;
  uint64_t count_ = 0;
  uint64_t seen_ = 0;  // of count_: somebody was told
  uint64_t synced_ = 0;
};

struct CachedName {
  FileId file;  // zero: known to be absent
  FileType type = FileType::kNone;
};

struct DirectoryState {
  static constexpr size_t kMaxAbsent = 4096;

  std::unordered_map<std::string, CachedName> names;
  bool complete = false;  // every name that exists is in names: none is there as absent
  struct Changing {
    uint32_t count = 0;
    bool overlapped = false;
  };
  std::unordered_map<std::string, Changing> changing;  // own mutations in progress
  size_t absent = 0;                                   // put into names since all such were dropped

  void know(const std::string& name, CachedName what) {
    if (what.file) {
      names[name] = what;
      return;
    }
    if (complete) {
      names.erase(name);
      return;
    }
    if (absent == kMaxAbsent) forget_absent();
    ++absent;
    names[name] = {};
  }
  void now_complete() {
    complete = true;
    forget_absent();
  }
  void forget_absent() {
    std::erase_if(names, [](const auto& known) { return !known.second.file; });
    absent = 0;
  }
  [[nodiscard]] bool lacks(const std::string& name) const {
    auto known = names.find(name);
    return known != names.end() ? !known->second.file : complete && !changing.contains(name);
  }
};

struct FileState {
  explicit FileState(FileId file) : id(file) {}

  const FileId id;

  // ---- grant ----
  ClientSessionRef session;  // that holds it
  Grant held;                // kNone: none
  GrantKind usable = GrantKind::kNone;
  bool recalling = false;
  WaitList recalled;                 // woken when recalling ends
  std::optional<Nanos> recalled_at;  // down to nothing, last
  Mutex acquiring;
  uint64_t losses = 0;  // times that a grant ended
  uint64_t served = 0;  // answers given that a kernel may have cached

  // ---- what is known, while usable ----
  uint64_t version = 0;
  uint64_t granted_at = 0;
  std::optional<Attributes> attributes;  // as the partition said
  bool size_known = false;
  uint64_t size = 0;
  uint64_t committed_size = 0;  // as the partition has it
  int64_t mtime = 0;            // of the newest dirty byte
  std::unique_ptr<DirectoryState> directory;
  std::map<std::string, std::optional<std::string>> xattrs;  // nullopt: known to be absent
  bool no_xattrs = false;                                    // none but those in xattrs
  uint32_t acls_changing = 0;                                // own changes of its ACLs under way
  std::string link_target;                                   // symlinks: never changes

  // ---- changes of it, or of its names, that the partition does not have yet ----
  uint64_t unsent = 0;
  uint64_t last_change = 0;  // in the queue, answered or not
  std::weak_ptr<ChangeQueue> changes;
  bool unborn = false;  // its making is among them
  std::weak_ptr<UnsentChange> making;
  std::weak_ptr<UnsentChange> touching;
  bool made_here = false;     // directories: by this client, and no grant on it was asked for yet
  Nanos write_recalled_at{};  // directories: when another client was in the way last

  int64_t accessed = 0;        // read here last, as far as the atime shows it; 0: as the partition says
  bool access_unsent = false;  // the partition is yet to be told

  // ---- data ----
  DirtyMap dirty;
  ExtentCache extents;
  uint64_t data_version = 0;  // as version, of extents
  Nanos dirty_since{};
  bool queued = false;  // in the write-back's queue
  uint64_t next_full_check = 0;
  Nanos retry_at{};  // after a failed flush
  uint32_t failures = 0;
  Refusals refusals;       // of commits
  uint64_t put_backs = 0;  // flushes that failed and left their bytes dirty
  uint64_t drops = 0;      // times that all dirty bytes were given up
  Lost lost;               // dirty bytes, and changes
  uint64_t told = 0;       // of it, to whoever syncs by id
  bool resizing = false;   // a truncation or punch is at work: writers wait
  WaitList resized;
  // Commits, in the order in which their bytes were taken.
  uint64_t next_turn = 0;
  uint64_t turn = 0;
  std::set<uint64_t> abandoned_turns;
  WaitList turns;

  // ---- opens ----
  uint32_t opens = 0;
  bool unnamed = false;     // made without a name and given none yet
  bool kept = false;        // the partition knows that we have it open
  bool maybe_kept = false;  // it was asked to, and nobody knows whether it does
  uint32_t unlinking = 0;   // own removals of a name of it under way: who opens it now tells the partition
  bool nameless = false;    // we removed its last name: no grant keeps it
  uint32_t locked = 0;      // own removals and moves of it under way: a kernel holds its lock until they are answered
  bool forgetting = false;  // Forget is under way
  WaitList forgotten;
  Mutex opening;
  Nanos last_use{};

  // Somebody sets the atime, or may change the file: what was noted before is void.
  void forget_access() {
    accessed = 0;
    access_unsent = false;
  }
  void has_no_xattrs() {
    xattrs.clear();
    no_xattrs = true;
  }
  // The partition keeps it for us, also when its last name goes. Not while it may be forgetting that.
  [[nodiscard]] bool keeps() const { return kept && !forgetting; }
  [[nodiscard]] DirectoryState& as_directory() {
    if (directory == nullptr) directory = std::make_unique<DirectoryState>();
    return *directory;
  }
};
using FileRef = std::shared_ptr<FileState>;

// A place in a file's order of commits. Others wait until it is gone.
class Turn {
 public:
  explicit Turn(FileRef file) : file_(std::move(file)), number_(file_->next_turn++) {}
  Turn(Turn&& other) noexcept : file_(std::move(other.file_)), number_(other.number_) {}
  Turn& operator=(Turn&&) = delete;
  ~Turn();
  [[nodiscard]] Task<void> come();

 private:
  FileRef file_;
  uint64_t number_;
};

class FileTable {
 public:
  struct Options {
    size_t max_files = 65'536;  // grants over it are given back, the least used first
    Nanos idle = seconds(600);  // grants unused for longer are given back
    Nanos invalidate_timeout = seconds(2);
    Nanos recall_flush_timeout = seconds(30);
  };
  FileTable(Env env, ClientSessions& sessions, Scope& scope, Options options)
      : env_(env), sessions_(sessions), scope_(scope), options_(options) {}

  // Set before use.
  std::function<Task<Result<void>>(FileRef)> flush;                     // everything dirty becomes durable
  std::function<Task<Result<void>>(FileRef)> flush_changes;             // the partition has all of `unsent`
  std::function<void(const ClientSessionRef&, Error)> give_up_changes;  // they are lost
  std::function<void(const FileRef&, Error)> drop_dirty;                // it is lost; recorded in FileState::lost
  std::function<Task<Result<void>>(FileRef)> keep_open;                 // tells the partition that it is open here
  FileSystem::Invalidate invalidate;

  [[nodiscard]] FileRef get(FileId file);
  [[nodiscard]] FileRef find(FileId file) const;  // null: nothing known
  [[nodiscard]] size_t size() const { return files_.size(); }
  [[nodiscard]] size_t names() const;  // of all directories, those known to be absent too

  // ---- versions ----
  [[nodiscard]] uint64_t asked() const { return clock_; }
  [[nodiscard]] static bool fresh(const FileState& file, uint64_t asked) { return file.version <= asked; }
  // A reply that brought no grant, asked for then, may be remembered.
  [[nodiscard]] bool may_remember(const FileState& file, uint64_t asked) const {
    return readable(file) && !file.recalling && fresh(file, asked) && file.granted_at <= asked;
  }
  void bump(FileState& file) { file.version = ++clock_; }
  void bump_data(FileState& file) { file.data_version = ++clock_; }
  // An own change of its attributes began or ended.
  void changed(FileState& file) {
    bump(file);
    file.attributes.reset();
  }

  // ---- grants ----
  [[nodiscard]] GrantKind usable(const FileState& file) const {
    return file.usable != GrantKind::kNone && sessions_.alive(*file.session) ? file.usable : GrantKind::kNone;
  }
  [[nodiscard]] bool readable(const FileState& file) const { return usable(file) >= GrantKind::kRead; }
  [[nodiscard]] bool writable(const FileState& file) const { return usable(file) >= GrantKind::kWrite; }
  // On return the grant is usable and the size known. kUnavailable while the partition gives none
  // (closing).
  [[nodiscard]] Task<Result<void>> acquire(FileRef file, GrantKind kind);
  // What a reply brought: a grant, and attributes (null: none) as of then, and perhaps that it has no extended ones.
  // Whether that grant is held now.
  bool take(const FileRef& file, const std::optional<Grant>& grant, const Attributes* attributes, bool no_xattrs,
            const GrantRequest& request, uint64_t asked);
  // A file that this client makes, with the write grant that goes with it.
  void adopt(const FileRef& file, const ClientSessionRef& session, GrantId grant, const Attributes& attributes);
  // Attributes with this client's own size and times; from cache, hence readable() and attributes
  // there.
  [[nodiscard]] Attributes present(FileState& file) const;
  // `attributes` as some reply had them, with own size and times where a write grant makes them the
  // truth.
  [[nodiscard]] Attributes present(const FileState& file, Attributes attributes) const;

  // The partition does not know of the grant any more.
  void disown(FileState& file);
  // Nor is what was believed under it true: the kernel forgets it too.
  void distrust(const FileRef& file);
  // An open file outlives its last name: by a grant, since an unlink elsewhere recalls that first,
  // or by OpenKept.
  [[nodiscard]] bool is_protected(const FileState& file) const {
    return file.keeps() || (readable(file) && !file.recalling && file.unlinking == 0 && !file.nameless);
  }
  void keep_open_soon(const FileRef& file);

  // ---- names ----
  // granted: take() said so of the same reply.
  void remember_name(FileState& directory, const std::string& name, CachedName what, uint64_t asked, bool granted);

  // ---- the partition's side ----
  [[nodiscard]] Task<Result<Empty>> recall(Recall request);
  [[nodiscard]] std::vector<Grant> claims(const ClientSession& session) const;
  void session_lost(const ClientSessionRef& session);
  void session_expired(const ClientSessionRef& session);

  // Gives back grants that are idle or too many, and forgets files of which nothing is left to
  // know.
  [[nodiscard]] Task<void> trim();
  [[nodiscard]] Task<void> release_all();
  // As release_all(), a few at a time, so that operations on others go on meanwhile.
  [[nodiscard]] Task<void> release_gently();
  [[nodiscard]] std::vector<FileRef> all() const;

  struct Counters {
    uint64_t recalls = 0;
    uint64_t acquired = 0;
    uint64_t released = 0;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  [[nodiscard]] Task<void> run_recall(FileRef file, Recall request, std::shared_ptr<Event> done);
  [[nodiscard]] Task<void> give_up(FileRef file, GrantKind keep);
  [[nodiscard]] Task<void> keep_open_now(FileRef file);
  [[nodiscard]] Task<void> drop_kernel_caches(FileRef file);
  [[nodiscard]] Task<void> invalidate_now(FileId file, std::shared_ptr<Event> done);
  [[nodiscard]] Task<void> invalidate_all(std::vector<FileId> all);
  [[nodiscard]] Task<void> release(std::vector<FileRef> files);
  void forget_knowledge(FileState& file);
  void end_recall(FileState& file);

  Env env_;
  ClientSessions& sessions_;
  Scope& scope_;
  Options options_;
  uint64_t clock_ = 0;
  uint64_t last_erase_ = 0;
  std::unordered_map<FileId, FileRef> files_;
  Counters counters_;
};

}  // namespace headrace
