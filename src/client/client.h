// Client: the file system as a library, over any node of a cluster. Entry header of src/client
// (with file_system.h).
//
// Who owns what: Client owns the hub, the copy of the cluster map and one of each part:
// ClientSessions, FileTable (grants), ChangeLog, SegmentReader, WriteBack, DataPath, Names, Locks. All
// run on one core, in one Scope. Lifecycle: start() → use → shut_down() → destroy. Destroyed without
// shut_down() it is as if the machine had crashed: what was not synced is lost, and the node evicts
// it after its lease.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/access_times.h"
#include "client/change_log.h"
#include "client/data_path.h"
#include "client/file_system.h"
#include "client/files.h"
#include "client/handover.h"
#include "client/locks.h"
#include "client/names.h"
#include "client/segment_reader.h"
#include "client/sessions.h"
#include "client/write_back.h"
#include "coord/fragment_calls.h"
#include "coord/map_follower.h"
#include "coord/ports.h"
#include "rpc/hub.h"

namespace headrace {

struct ClientOptions {
  std::vector<Address> nodes;              // where to begin; the cluster map names the rest
  uint64_t dirty_limit = kGiB;             // unsynced bytes held; above it writers wait
  uint64_t file_dirty_limit = 256 * kMiB;  // of one file
  Nanos flush_after = seconds(5);          // dirty data is sent within
  uint64_t stage_limit = 64 * kKiB;        // up to it fsync goes through the journal
  uint64_t read_cache = 256 * kMiB;        // pieces of segments
  size_t max_files = 65'536;               // whose grants are held when idle
  Nanos idle_grant = seconds(600);
  // Names and attributes are answered before the partition has them; fsync of file or directory is then
  // the durability point. False: each is durable when answered.
  bool directory_write_grants = true;
  size_t max_unsent = 16'384;         // such changes; above it whoever makes more waits
  Nanos start_timeout = seconds(30);  // until a node must have answered
  // Goes on in the place of a client that handed over.
  std::optional<ClientHandover> handover;
};

struct ClientStatistics {
  WriteBack::Counters write_back;
  SegmentReader::Counters reader;
  SegmentIoCounters segments;
  FileTable::Counters grants;
  ChangeLog::Counters changes;
  uint64_t dirty_bytes = 0;
  uint64_t dirty_memory = 0;    // what they hold
  uint64_t unsent_changes = 0;  // of names, under directory write grants
  uint64_t files = 0;           // known of
};

class Client final : public FileSystem {
 public:
  // kUnavailable, naming what each node said, when none answered in time. The Env outlives the
  // client.
  [[nodiscard]] static Task<Result<std::unique_ptr<Client>>> start(Env env, ClientOptions options);
  ~Client() override;

  Task<Result<Attributes>> lookup(FileId parent, std::string name) override;
  Task<Result<Attributes>> get_attributes(FileId file) override;
  Task<Result<Attributes>> set_attributes(FileId file, AttributeChange change) override;
  Task<Result<Attributes>> make(FileId parent, std::string name, MakeOptions options, Credentials who) override;
  Task<Result<Created>> create(FileId parent, std::string name, uint32_t mode, OpenMode open, Credentials who) override;
  Task<Result<Created>> create_unnamed(FileId parent, uint32_t mode, OpenMode open, Credentials who) override;
  Task<Result<void>> unlink(FileId parent, std::string name) override;
  Task<Result<void>> remove_directory(FileId parent, std::string name) override;
  Task<Result<void>> rename(RenameOptions options) override;
  Task<Result<Attributes>> link(FileId file, FileId parent, std::string name) override;
  Task<Result<std::string>> read_link(FileId file) override;
  Task<Result<ReadDirectoryReply>> read_directory(FileId directory, uint64_t after, uint32_t limit, bool plus) override;
  Task<Result<std::string>> get_xattr(FileId file, std::string name) override;
  Task<Result<void>> set_xattr(FileId file, std::string name, std::string value, XattrOptions options) override;
  Task<Result<std::vector<std::string>>> list_xattr(FileId file) override;
  Task<Result<void>> remove_xattr(FileId file, std::string name) override;
  Task<Result<OpenFileRef>> open(FileId file, OpenMode mode) override;
  Task<Result<std::vector<Buffer>>> read(OpenFileRef file, uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> write(OpenFileRef file, uint64_t offset, Buffer data) override;
  Task<Result<void>> sync(FileId file) override;
  Task<Result<void>> sync(OpenFileRef file) override;
  Task<Result<void>> punch(OpenFileRef file, uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> copy(OpenFileRef from, uint64_t from_offset, OpenFileRef to, uint64_t to_offset,
                              uint64_t length) override;
  Task<Result<void>> grow(OpenFileRef file, uint64_t size) override;
  Task<Result<uint64_t>> seek(OpenFileRef file, uint64_t offset, bool hole) override;
  Task<Result<void>> close(OpenFileRef file) override;
  Task<Result<bool>> lock(FileId file, FileLock lock, Nanos wait) override;
  Task<Result<std::optional<FileLock>>> find_lock(FileId file, FileLock lock) override;
  Task<Result<void>> unlock_all(FileId file, uint64_t owner, bool whole) override;
  Task<Result<FileSystemStatistics>> statistics() override;
  Task<Result<void>> sync_all() override;
  void accessed(FileId file) override;
  Nanos name_valid(FileId parent, const std::string& name, FileId file) const override;
  Nanos attributes_valid(FileId file) const override;
  void on_invalidate(Invalidate invalidate) override { files_.invalidate = std::move(invalidate); }
  Event& closing() override { return closing_; }
  Task<Result<void>> shut_down() override;

  // For a successor. The first makes the second short and may run while operations do: dirty data is sent, grants are
  // given back. The second is for when none runs and none begins: on its return everything is flushed, no grant is
  // held, and this client changes nothing at the partitions until resume(). It then keeps its sessions alive, answers
  // no recall (they are the successor's), and is destroyed without shut_down() if the successor went on. An error,
  // which says why it cannot be handed over: nothing has happened.
  [[nodiscard]] Task<Result<void>> prepare_hand_over();
  [[nodiscard]] Task<Result<ClientHandover>> hand_over(Nanos patience);
  void resume() { handed_over_ = false; }

  // Not for good: another cluster owns the namespace now. Why, in words.
  [[nodiscard]] bool read_only() const { return follower_.read_only(); }
  [[nodiscard]] std::string why_read_only() const { return follower_.why_read_only(); }
  [[nodiscard]] const ClusterMap& map() const { return view_.map(); }
  [[nodiscard]] ClientId id() const { return identity_.client; }
  [[nodiscard]] Hub& hub() { return hub_; }
  [[nodiscard]] ClientStatistics counters() const;
  [[nodiscard]] size_t known_names() const { return files_.names(); }  // a scan of all that is known
  // What reads found damaged since the last call, bounded; for whoever reports it to the node.
  [[nodiscard]] std::vector<Damage> take_damage() { return segments_.take_damage(); }
  // What went with a session that its partition ended; a sync tells each who wrote it.
  struct Loss {
    PartitionId partition;
    uint64_t bytes = 0;    // written and not synced
    uint64_t changes = 0;  // of names, answered and not sent
  };
  [[nodiscard]] std::vector<Loss> take_losses() { return std::exchange(losses_, {}); }

 private:
  Client(Env env, ClientOptions options);
  [[nodiscard]] Task<Result<void>> begin();
  [[nodiscard]] Nanos kernel_may_keep(const FileState& file) const;
  void see_map();
  [[nodiscard]] Task<void> follow_map();
  [[nodiscard]] Task<void> maintain();
  [[nodiscard]] Task<Result<void>> go_on(ClientHandover from);
  [[nodiscard]] Task<Result<void>> flush_everything();
  [[nodiscard]] Task<Result<void>> keep_all_open();
  [[nodiscard]] bool quiet() const;
  [[nodiscard]] ClientHandover handover_now() const;
  [[nodiscard]] Task<Result<Empty>> recall(Recall request);
  [[nodiscard]] Task<Result<Empty>> leave(Closing request);
  [[nodiscard]] Task<void> leave_now();
  [[nodiscard]] Task<Result<void>> keep_open(FileRef file);
  [[nodiscard]] Task<void> forget_closed();
  template <class T>
  [[nodiscard]] static Task<Result<T>> of_open_file(Task<Result<T>> work);
  [[nodiscard]] Result<void> writable() const;
  void session_lost(const ClientSessionRef& session);

  Env env_;
  ClientOptions options_;
  Identity identity_;
  Handlers handlers_;
  ClusterView view_;
  Hub hub_;
  NodeMapFollower follower_;
  PartitionPort partitions_;
  TargetPort targets_;
  RpcFragmentPort fragments_;
  SegmentIo segments_;
  Event closing_;
  bool leaving_ = false;
  uint64_t told_to_leave_ = 0;
  bool ended_ = false;
  bool handed_over_ = false;
  std::vector<Loss> losses_;
  ClosedFiles closed_ = std::make_shared<std::vector<FileRef>>();
  Mutex forgetting_;
  ClientSessions sessions_;
  FileTable files_;
  ChangeLog changes_;
  SegmentReader reader_;
  WriteBack write_back_;
  DataPath data_;
  Names names_;
  Locks locks_;
  AccessTimes access_times_;
  Scope scope_;  // last: its tasks use all of the above
};

}  // namespace headrace
