// FuseSession: answers the kernel's requests from a FileSystem.
//
// Invariants
//  1. Every request is answered once; a WRITE only after FileSystem::write has returned.
//  2. Node ids are packed FileIds (the root is both 1), so the kernel's inode numbers are the
//  files' ids.
//  3. Attributes in an answer were asked for after the request arrived: the kernel would take older
//  ones for a truncation.
//  4. The kernel may use what it was told for as long as FileSystem said at the moment of the answer
//     (name_valid, attributes_valid), or until FileSystem's invalidation. Its pages are dropped when
//     the file's mtime or size changed, and by invalidations.
// Requests run as children of a Scope, bounded in number and in bytes; at the bound they are parked, in their order,
// and the kernel is read on, so that an INTERRUPT is heard: who is parked is answered EINTR at once, and who was let go
// after his patience takes no room any more. Only at a bound of parked bytes is nothing more taken from the kernel
// (requests without data are as many as it has callers). Owner: the mount (FuseGateway). One core. The FileSystem and
// Transport outlive it.
#pragma once

#include <array>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "client/file_system.h"
#include "gateway/fuse/handover.h"
#include "gateway/fuse/protocol.h"
#include "gateway/fuse/transport.h"
#include "runtime/scope.h"
#include "runtime/sync.h"
#include "runtime/timers.h"

namespace headrace {

struct FuseSessionOptions {
  size_t max_requests = 256;         // running at once
  uint64_t max_bytes = 128 * kMiB;   // of data of the WRITEs and READs among them
  uint64_t max_parked = 128 * kMiB;  // of data of WRITEs that wait for room
  size_t max_let_go = 4096;          // running though their callers were let go: above it they take room
  uint32_t block_size = 128 * kKiB;  // st_blksize: what programs use for their buffers
  Nanos keep_names = seconds(1);     // at most, whatever FileSystem::name_valid() says
  // The kernel keeps a file's pages until FileSystem invalidates them, without comparing mtime and
  // size before each read. Right only where every page that the kernel holds is under a grant.
  bool trust_invalidation = false;
  bool access_times = true;                // FileSystem is told of reads and listings, but of those with O_NOATIME
  Nanos patience = seconds(1);             // for the kernel to drop what it cached
  Nanos interrupt_patience = seconds(10);  // a caller that was signalled gets EINTR after so long
  Nanos drain = seconds(10);               // for running requests, at the end
};

struct FuseStatistics {
  uint64_t requests = 0;
  uint64_t errors = 0;  // answered with an errno other than ENOENT
  uint64_t malformed = 0;
  uint64_t unwanted_answers = 0;  // whoever asked was gone
  uint64_t invalidations = 0;
  uint64_t late_invalidations = 0;  // not done within patience, because the kernel waits for a request of the same file
  uint64_t nodes = 0;               // that the kernel knows
  uint64_t open_files = 0;
  uint64_t in_flight = 0;
  uint64_t parked = 0;
};

// What goes back to the kernel.
struct FuseAnswer {
  int error = 0;
  uint32_t size = 0;
  alignas(8) std::array<std::byte, sizeof(FuseStatxOut)> head;
  std::vector<Buffer> bulk;
  // Taken back when nobody receives the answer.
  FileId entered;
  std::vector<FileId> all_entered;
  uint64_t opened = 0;
  std::optional<std::pair<FileId, FileLock>> locked;
  bool put_aside = false;  // no answer: the request is asked again later

  FuseAnswer() {}  // NOLINT: head stays uninitialised on purpose
  explicit FuseAnswer(int error) : error(error) {}
  explicit FuseAnswer(const Error& error);
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void append(const T& out) {
    HR_ASSERT(size + sizeof(T) <= head.size());
    std::memcpy(head.data() + size, &out, sizeof(T));
    size += sizeof(T);
  }
};

class FuseSession {
 public:
  FuseSession(Env env, FileSystem& files, Transport& transport, FuseSessionOptions options = {});
  ~FuseSession();

  // Serves until the kernel has unmounted or aborted (ok), stop() was called (ok), or the device
  // failed. Returns after the running requests were answered, or after options.drain. Once.
  [[nodiscard]] Task<Result<void>> run();
  void stop() { ended_.set(); }  // takes no more requests
  // One session after another over one kernel connection. pause() takes nothing more from the kernel and returns when
  // nothing runs; who waits for a lock is put aside. Callers wait in the kernel, until resume() or another session's
  // go_on() (before its run()) and run(). An error: it goes on as it was.
  [[nodiscard]] Task<Result<void>> pause(Nanos patience);
  void resume();
  [[nodiscard]] FuseHandover hand_over() const;  // while paused
  // kNotSupported: more was agreed with the kernel than this version knows.
  [[nodiscard]] Task<Result<void>> go_on(FuseHandover from);
  [[nodiscard]] Event& initialised() { return initialised_; }
  [[nodiscard]] FuseStatistics statistics() const;
  [[nodiscard]] size_t in_flight() const { return active_.size(); }

 private:
  struct Node {
    uint64_t lookups = 0;      // that the kernel has and has not forgotten
    uint32_t busy = 0;         // requests running
    bool pages = false;        // the kernel may hold pages of it
    uint64_t invalidated = 0;  // by FileSystem, times
    Nanos attributes_until{};  // the kernel may use those it has
    struct Name {
      Nanos until;
      std::string name;
      bool directory;
    };
    std::list<Name> names;  // in this directory, that the kernel may use; oldest first. Nothing while empty
    enum : uint8_t { kUnknown, kNone, kSome } capability = kUnknown;  // security.capability
    bool acls = false;                                                // the kernel may hold ACLs of it
    bool ages = false;                                                // it is in aging_
    bool overwrites = false;                // then, by an answer that the kernel compares with nothing
    uint32_t answered_ms = 0;               // clock_ms() when it last got attributes to keep
    std::unique_ptr<Attributes> directory;  // of one, as they were answered last
  };
  struct Handle {
    FileId id;
    OpenMode mode;
    OpenFileRef file;
    OpenFileRef other;  // with O_APPEND the other way round; fcntl can change it
    bool pages = true;  // through the page cache
    // Who took fcntl locks through it and has not closed it since. At the release only open file descriptions are left
    // (F_OFD_SETLK): for their locks the kernel sends nothing else.
    std::set<uint64_t> lock_owners;
  };
  using HandleRef = std::shared_ptr<Handle>;
  struct Active {
    uint64_t bytes = 0;   // its share of the bound
    uint64_t memory = 0;  // of which it holds so much
    bool answered = false;
    bool interrupted = false;
    bool seeks_lock = false;  // it waits for one: however many do, others have room
    bool in_line = false;     // then, for its turn to ask: nothing is under way
    [[nodiscard]] bool takes_room() const { return !answered && !seeks_lock; }
  };
  struct Parked {
    FuseRequest request;
    uint64_t bytes = 0;   // as it will run
    uint64_t memory = 0;  // that it holds now
  };
  // For locks, waiting at FileSystem: however many more seek one, others' calls have room.
  static constexpr uint64_t kMaxLockCalls = 256;
  // From when an answer is written the kernel has put its attributes in place by then.
  static constexpr uint32_t kInPlaceMs = 10;
  class Running;  // one request's share of the bounds
  struct Notification {
    Event done;
    bool known = true;
  };

  Task<void> receive_all();
  void park(FuseRequest request, uint64_t bytes);
  Task<void> start_parked();
  void start(FuseRequest request, uint64_t bytes);  // of the bound
  void start_again();                               // what was put aside
  [[nodiscard]] bool take_at_once(const FuseRequest& request);
  [[nodiscard]] bool room_for(uint64_t bytes) const;
  [[nodiscard]] bool room_to_park(const FuseRequest& request) const;
  // Of one of those that run.
  void set(Active& active, bool Active::* what, bool value);
  void room_changed();
  Task<void> serve(FuseRequest request, std::unique_ptr<Running> running);
  void finish(uint64_t unique, FuseAnswer answer);
  void take_back(const FuseAnswer& answer);
  void forget(FileId id, uint64_t lookups);
  void forget_if_unused(FileId id);
  void check_idle();
  void initialise(const FuseHeader& header, const FuseInit& init);
  [[nodiscard]] bool agreed(uint64_t flag) const { return (agreed_ & flag) != 0; }
  void interrupt(uint64_t unique);
  Task<void> answer_interrupted(uint64_t unique, Nanos patience);
  Task<void> give_back(FileId file, FileLock lock);

  Task<void> invalidate(FileSystem::Invalidation what);
  // The kernel drops attributes, and with `pages` those as well. False: it does not know the inode.
  Task<bool> notify_inode(FileId file, bool pages);
  Task<void> drop_pages(FileId file);
  Task<void> drop_names(std::vector<std::string> bodies, FileId node);
  [[nodiscard]] uint32_t clock_ms() const;
  [[nodiscard]] static std::string entry_notification(FileId parent, const std::string& name, bool expires);
  [[nodiscard]] bool may_keep(FileId directory, const std::string& name) const;  // the kernel
  void expire_moved(FileId to, const std::string& to_name);
  // Bodies of notifications of one kind, for the kernel one after the other. False: it does not know one of them.
  Task<bool> notify(int code, std::vector<std::string> bodies, FileId node);
  Task<void> send_notifications(int code, std::vector<std::string> bodies, FileId node,
                                std::shared_ptr<Notification> notification);

  [[nodiscard]] bool busy(FileId id) const;
  [[nodiscard]] HandleRef handle(uint64_t fh) const;
  [[nodiscard]] uint64_t add_handle(FileId id, OpenMode mode, OpenFileRef file);
  void forget_old_names(Nanos now);
  [[nodiscard]] fuse_attr attributes_out(const Attributes& attributes) const;
  [[nodiscard]] fuse_entry_out entry_out(FileId parent, const std::string& name, const Attributes& attributes);
  [[nodiscard]] fuse_open_out open_out(uint64_t fh, FileId id);
  void enter(FuseAnswer& answer, const Attributes& attributes);
  void note_directory(const Attributes& attributes);
  // Of one that the kernel still has though it is gone, as `outcome` says: as it was, without a link.
  [[nodiscard]] std::optional<Attributes> removed_directory(FileId file, Code outcome) const;
  Task<Result<Attributes>> attributes_of(FileId file);  // also of such a one
  // Asked of a node that is no directory, as a name led there. Gone, its name may mean another by now: at ESTALE the
  // kernel looks again, at ENOENT it does not.
  [[nodiscard]] bool means_one_file(const FuseHeader& header) const;
  // Without a name (O_TMPFILE): a kernel keeps none.
  [[nodiscard]] FuseAnswer created(FileId parent, const std::string& name, FileSystem::Created created, OpenMode mode);
  [[nodiscard]] FuseAnswer entry(FileId parent, const std::string& name, Result<Attributes> attributes);
  [[nodiscard]] FuseAnswer attributes(Result<Attributes> attributes);
  // How long from now the kernel may use them; noted, so that they can be invalidated.
  [[nodiscard]] Nanos attributes_valid(FileId file);
  [[nodiscard]] Nanos name_valid(FileId parent, const std::string& name, const Attributes& what);
  Task<Result<void>> drop_privileges(FileId file, std::optional<uint32_t> group = std::nullopt);  // of who must
  Task<Result<bool>> has_capability(FileId file);
  // What is answered next is an ACL, asked for when the node had been invalidated so many times.
  Task<void> tell_acl(FileId file, uint64_t invalidated);
  // Whoever sets an access ACL is not of the file's group, as far as the kernel says.
  Task<Result<bool>> clears_setgid(FuseHeader header, uint32_t setxattr_flags);
  [[nodiscard]] int check_xattr(std::string_view name) const;  // 0, or the errno that says why there is none such
  Task<Result<Attributes>> lookup_handle(FileId node, bool parent);
  Task<Result<OpenFileRef>> file_for(HandleRef handle, bool append);
  Task<Result<uint64_t>> copy_some(OpenFileRef from, OpenFileRef to, FuseCopyRange left);
  Task<int> seek_lock(uint64_t unique, FileId file, FileLock lock);

  // One per operation.
  Task<FuseAnswer> answer(FuseHeader header, FuseUnsupported request);
  Task<FuseAnswer> answer(FuseHeader header, FuseInit request);
  Task<FuseAnswer> answer(FuseHeader header, FuseLookup request);
  Task<FuseAnswer> answer(FuseHeader header, FuseForget request);
  Task<FuseAnswer> answer(FuseHeader header, FuseGetAttributes request);
  Task<FuseAnswer> answer(FuseHeader header, FuseStatx request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSetAttributes request);
  Task<FuseAnswer> answer(FuseHeader header, FuseReadLink request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSymlink request);
  Task<FuseAnswer> answer(FuseHeader header, FuseMakeNode request);
  Task<FuseAnswer> answer(FuseHeader header, FuseMakeDirectory request);
  Task<FuseAnswer> answer(FuseHeader header, FuseUnlink request);
  Task<FuseAnswer> answer(FuseHeader header, FuseRemoveDirectory request);
  Task<FuseAnswer> answer(FuseHeader header, FuseRename request);
  Task<FuseAnswer> answer(FuseHeader header, FuseLink request);
  Task<FuseAnswer> answer(FuseHeader header, FuseOpen request);
  Task<FuseAnswer> answer(FuseHeader header, FuseOpenDirectory request);
  Task<FuseAnswer> answer(FuseHeader header, FuseCreate request);
  Task<FuseAnswer> answer(FuseHeader header, FuseCreateUnnamed request);
  Task<FuseAnswer> answer(FuseHeader header, FuseRead request);
  Task<FuseAnswer> answer(FuseHeader header, FuseWrite request);
  Task<FuseAnswer> answer(FuseHeader header, FuseReadDirectory request);
  Task<FuseAnswer> answer(FuseHeader header, FuseFlush request);
  Task<FuseAnswer> answer(FuseHeader header, FuseRelease request);
  Task<FuseAnswer> answer(FuseHeader header, FuseReleaseDirectory request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSync request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSyncFileSystem request);
  Task<FuseAnswer> answer(FuseHeader header, FuseStatFileSystem request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSetXattr request);
  Task<FuseAnswer> answer(FuseHeader header, FuseGetXattr request);
  Task<FuseAnswer> answer(FuseHeader header, FuseListXattr request);
  Task<FuseAnswer> answer(FuseHeader header, FuseRemoveXattr request);
  Task<FuseAnswer> answer(FuseHeader header, FuseAllocate request);
  Task<FuseAnswer> answer(FuseHeader header, FuseSeek request);
  Task<FuseAnswer> answer(FuseHeader header, FuseCopyRange request);
  Task<FuseAnswer> answer(FuseHeader header, FuseLock request);
  Task<FuseAnswer> answer(FuseHeader header, FuseInterrupt request);
  Task<FuseAnswer> answer(FuseHeader header, FuseDestroy request);

  Env env_;
  FileSystem& files_;
  Transport& transport_;
  FuseSessionOptions options_;
  uint64_t agreed_ = 0;  // INIT's flags
  uint32_t minor_ = 0;   // and version
  uint32_t max_write_ = kFuseMaxWrite;

  std::unordered_map<FileId, Node> nodes_;
  std::deque<std::pair<Nanos, FileId>> aging_;  // directories with names, by when they have none that may be used
  std::unordered_map<uint64_t, HandleRef> handles_;
  uint64_t next_handle_ = 1;
  // Of open directories: the last cookie when the listing was begun. What comes behind it is not listed: whoever
  // renames each entry that is found would never be through. 0: not known yet.
  std::unordered_map<uint64_t, uint64_t> listings_;
  std::unordered_map<uint64_t, Active> active_;  // by unique
  uint64_t bytes_ = 0;
  size_t taking_room_ = 0;  // of active_
  size_t let_go_ = 0;       // of them: answered with EINTR
  std::deque<Parked> parked_;
  uint64_t parked_bytes_ = 0;  // of memory
  bool starting_ = false;      // start_parked() is at work
  size_t notifying_ = 0;
  std::unordered_map<FileId, uint32_t> unfinished_;  // notifications under way, by node
  size_t giving_back_ = 0;
  Semaphore lock_calls_{kMaxLockCalls};
  bool in_hand_ = false;          // a request was taken and does not run yet
  bool putting_aside_ = false;    // who waits for a lock
  bool paused_ = false;           // nothing is taken
  bool kernel_is_stuck_ = false;  // while paused: with a notification
  std::vector<FuseRequest> aside_;
  WaitList room_;
  FuseStatistics statistics_;
  Event initialised_;
  Event ended_;
  Event idle_;
  Result<void> outcome_;
  Scope requests_;
  std::optional<Scope> receiver_;
};

}  // namespace headrace
