// Target: fragments and journal runs on one prewritten file, DIR/target.dat (DIR =
// STATE/targets/tN), by O_DIRECT.
//
// The log decides what exists: a fragment is there when the batch that names it was flushed. One
// loop commits: it gathers everything that is waiting, writes log batch and journal frames in
// parallel, flushes once, and only then changes the tables in memory and answers. Fragments' bytes
// are written before they join a commit.
//
// Invariants
//  1. What is in table_ and durable in runs_ is durable on the device; nothing is answered before.
//  2. Space of a freed fragment or chunk is given out again only after the record that freed it was
//  flushed.
//  3. The log of generation G follows the table of generation G; both superblocks name G before
//  anything is served.
//  4. After a failed write or flush, and after a request that its device has not answered for `patience`, the target is
//  fenced: it serves nothing more until it is opened again, whatever the device answers later.
// A target owns all its work: callers may be destroyed at any await. Concurrency: one core.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "hot/crc_cache.h"
#include "hot/extent_allocator.h"
#include "hot/fragment_table.h"
#include "hot/target_format.h"
#include "hot/watched_file.h"
#include "proto/target.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"
#include "stripe/fragment.h"

namespace headrace {

struct TargetFormat {
  TargetId id;
  ClusterId cluster;
  NamespaceId name_space;
  uint64_t capacity = 0;  // bytes of data space, at least kMinTargetCapacity; the file is a little larger
  uint32_t number = 0;    // 'tN'
};
inline constexpr uint64_t kMinTargetCapacity = 2 * kMiB;

// What the cluster map says about it. Zero id or generation: not known.
struct TargetExpected {
  TargetId id;
  ClusterId cluster;
  uint32_t number = 0;
  uint64_t generation = 0;  // highest ever seen: a lower one is an older copy
};

struct TargetOptions {
  uint64_t crc_cache_bytes = 32 * kMiB;
  uint64_t prewrite_ahead = 64 * kMiB;  // prewritten beyond the high-water mark
  uint64_t prewrite_chunk = 4 * kMiB;
  // Fragments of at least this size go to space that is only reserved: zeros first would double what a stream writes.
  uint64_t large_fragment = 512 * kKiB;
  uint64_t reserve_ahead = 64 * kMiB;  // for them
  // Bytes of the file system that are left to others (local stores, logs, the coordinator): nothing is prewritten
  // below; ahead of use, nothing below four times as much. 0: it is the target's alone.
  uint64_t keep_free = 0;
  uint64_t chunk_bytes = 4 * kMiB;         // of journals; 1 MiB on targets below 1 GiB, 256 KiB below 64 MiB
  uint64_t max_writes_bytes = 128 * kMiB;  // fragments being written at once; more wait
  Nanos patience = seconds(30);            // with one request to the device
};

struct TargetCounters {
  uint64_t commits = 0;    // flushes that acknowledged something
  uint64_t committed = 0;  // operations in them
  uint64_t flips = 0;
  uint64_t fragment_reads = 0;
  uint64_t fragment_writes = 0;
  uint64_t journal_appends = 0;
  uint64_t corrupt_blocks = 0;  // blocks, headers and frames that did not verify
  uint64_t crc_misses = 0;
  uint64_t prewritten_bytes = 0;
  uint64_t large_fragments = 0;  // that were not prewritten
  uint64_t prewrite_waits = 0;
};

class Target {
 public:
  // Makes DIR/target.dat. kExists when there is one; kNoSpace; the file appears whole or not at
  // all.
  [[nodiscard]] static Task<Result<std::unique_ptr<Target>>> format(Env env, std::string directory, TargetFormat format,
                                                                    TargetOptions options = {});
  // kNotFound: no file. kCorrupt: lost (both superblocks), with the mend. kStale: the same, since it is
  // an older copy of itself. kInvalid: another cluster's, a clone or a swapped one. kUnsupportedFormat. With a damaged
  // log or table the target opens fenced, and scannable(). kUnavailable: its device does not answer; nothing has
  // changed by then that a later open would miss.
  [[nodiscard]] static Task<Result<std::unique_ptr<Target>>> open(Env env, std::string directory,
                                                                  TargetExpected expected, TargetOptions options = {});
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Messages as proto/target.h describes them. A fenced or closed target answers kUnavailable with
  // the reason, and kIo to what was in the failing commit.
  [[nodiscard]] Task<Result<void>> write(FragmentWrite request);
  [[nodiscard]] Task<Result<FragmentReadReply>> read(FragmentRead request);
  // Header and every block, from the device. Returns the bytes read; kCorrupt, kNoFragment.
  [[nodiscard]] Task<Result<uint64_t>> verify(FragmentName fragment);
  [[nodiscard]] Task<Result<void>> free(FragmentFree request, PartitionId partition, PartitionEpoch epoch);
  [[nodiscard]] Result<InventoryReply> inventory(const Inventory& request) const;
  [[nodiscard]] TargetStatusReply status() const;
  [[nodiscard]] Task<Result<void>> journal_open(JournalOpen request, PartitionId partition, PartitionEpoch epoch);
  [[nodiscard]] Task<Result<void>> journal_append(JournalAppend request, PartitionId partition, PartitionEpoch epoch);
  [[nodiscard]] Task<Result<JournalSealReply>> journal_seal(JournalSeal request, PartitionId partition,
                                                            PartitionEpoch epoch);
  [[nodiscard]] Task<Result<JournalReadReply>> journal_read(JournalRead request);
  [[nodiscard]] Task<Result<void>> journal_trim(JournalTrim request, PartitionId partition, PartitionEpoch epoch);

  // Its superblocks are good, its log or table is lost: it serves nothing until adopt(). Not so where the fence has
  // another reason.
  [[nodiscard]] bool scannable() const { return scannable_ && !closing_; }
  // Every whole fragment whose header is on the device, freed ones included; ascending. Only while scannable().
  // kCancelled once `wanted` says no; kUnavailable when the device does not answer: only a later open can be scanned.
  [[nodiscard]] Task<Result<std::vector<FragmentEntry>>> scan(std::function<bool()> wanted);
  // These are its fragments, and nothing else is: durable on return, and it serves. Its journal runs are gone.
  // kUnavailable: no more scannable().
  [[nodiscard]] Task<Result<void>> adopt(std::vector<FragmentEntry> confirmed,
                                         std::vector<std::pair<PartitionId, PartitionEpoch>> promises);

  // From here on it takes no fragment that it does not hold (kUnavailable): it is to be emptied.
  void take_no_more() { takes_no_more_ = true; }

  // Commits what is waiting, then ends. Reads in progress finish first.
  [[nodiscard]] Task<void> close();

  [[nodiscard]] TargetId id() const { return superblock_.target; }
  [[nodiscard]] uint32_t number() const { return superblock_.number; }
  [[nodiscard]] uint64_t generation() const { return superblock_.generation; }
  [[nodiscard]] const Superblock& superblock() const { return superblock_; }
  [[nodiscard]] bool fenced() const { return fenced_.has_value(); }
  // For how long its device has answered nothing of what waits for it; zero where nothing waits.
  [[nodiscard]] Nanos silent() const { return file_->silent(); }
  // Bytes of data space that exist already, whatever the file system under it has left; those that only journals get of
  // them.
  [[nodiscard]] uint64_t prewritten() const { return prewritten_; }
  [[nodiscard]] uint64_t kept_for_journals() const { return journal_keep_; }
  [[nodiscard]] const TargetCounters& counters() const { return counters_; }
  [[nodiscard]] std::optional<FragmentEntry> find(const FragmentName& name) const { return table_.find(name); }
  [[nodiscard]] PartitionEpoch promised(PartitionId partition) const;
  [[nodiscard]] std::string name() const { return "target t" + std::to_string(superblock_.number); }

 private:
  // One operation of a commit. Shared: whoever asked may be gone when it is done.
  struct Commit {
    std::string records;                              // encoded
    std::vector<std::pair<uint64_t, Buffer>> frames;  // file offset, whole blocks
    std::move_only_function<void()> apply;            // once durable
    std::optional<Result<void>> result;
    Event done;
  };
  struct Writing {  // a fragment on its way in
    FragmentWrite request;
    std::optional<Result<void>> result;
    Event done;
  };
  struct Chunk {
    uint32_t block = 0;
    uint32_t blocks = 0;
    Position first;  // lowest position that it may hold
  };
  struct BatchAt {
    Position first;
    Position last;
    uint64_t address = 0;
    uint32_t bytes = 0;  // of the frame
    uint32_t crc = 0;
  };
  struct Run {
    RunId id;
    PartitionId partition;
    Position first;    // when it was opened
    Position next;     // of the next append, those not durable yet included
    Position durable;  // last position that is durable; next - 1 when nothing is in flight
    std::string about;
    std::deque<Chunk> chunks;
    std::deque<BatchAt> batches;
    uint64_t room = 0;  // bytes left at the end of the last chunk
    bool damaged = false;
    bool ending = false;  // being forgotten
    Mutex appending;
  };

  Target(Env env, TargetOptions options, std::string directory, std::unique_ptr<WatchedFile> file,
         Superblock superblock);

  [[nodiscard]] Result<void> usable() const;
  void fence(std::string reason);
  void hangs(std::string reason);
  [[nodiscard]] uint64_t address_of(uint32_t block) const {
    return superblock_.data_offset() + uint64_t{block} * kBlock;
  }
  [[nodiscard]] uint32_t now_ticks() const;
  [[nodiscard]] static uint32_t extent_blocks(const FragmentEntry& entry);

  // target_commit.cc
  [[nodiscard]] static LogRecord added(const FragmentEntry& entry);
  [[nodiscard]] Task<Result<void>> commit(std::shared_ptr<Commit> operation);
  void enqueue(std::shared_ptr<Commit> operation);
  [[nodiscard]] Task<Result<void>> wait(std::shared_ptr<Commit> operation);
  Task<void> commit_loop();
  Task<void> commit_group(std::vector<std::shared_ptr<Commit>> group);
  Task<void> write_to(uint64_t offset, std::vector<Buffer> pieces, std::shared_ptr<std::optional<Error>> failed);
  [[nodiscard]] Task<Result<void>> write_group(std::string records, std::vector<std::pair<uint64_t, Buffer>> frames);
  [[nodiscard]] Task<Result<void>> flip();
  [[nodiscard]] Task<Result<uint64_t>> write_table(uint8_t area, uint64_t generation);
  [[nodiscard]] Task<Result<void>> write_superblocks(Superblock next);
  Task<void> prewrite_loop();
  [[nodiscard]] Task<uint64_t> room_for_prewriting(bool ahead);
  [[nodiscard]] Task<Result<uint32_t>> allocate(uint32_t blocks, ExtentAllocator::Purpose purpose);
  [[nodiscard]] bool goes_to_reserved(uint32_t blocks, ExtentAllocator::Purpose purpose) const;
  [[nodiscard]] uint64_t prewrite_goal() const;
  [[nodiscard]] uint64_t table_bytes_wanted(uint64_t margin) const;

  // target_open.cc
  [[nodiscard]] Task<Result<void>> recover();
  [[nodiscard]] Task<Result<void>> load_table();
  [[nodiscard]] Task<Result<std::vector<LogRecord>>> replay_log();
  [[nodiscard]] Result<void> apply_record(const LogRecord& record);
  [[nodiscard]] Task<bool> fragment_is_whole(FragmentName name);
  [[nodiscard]] Task<Result<void>> scan_run(std::shared_ptr<Run> run);
  [[nodiscard]] static ExtentAllocator all_free(const Superblock& superblock);
  [[nodiscard]] Result<void> take_space();
  // Fences, to be scanned.
  void lose_log(std::string why);

  // target_scan.cc
  [[nodiscard]] Task<Buffer> read_for_scan(uint64_t offset, uint64_t size);
  [[nodiscard]] Task<std::optional<FragmentEntry>> scan_one(uint32_t block);

  void start();

  // target.cc
  Task<void> run_write(std::shared_ptr<Writing> writing);
  [[nodiscard]] Task<Result<void>> write_fragment(std::shared_ptr<Writing> writing);
  Task<void> read_into(uint64_t offset, Buffer into, std::shared_ptr<std::vector<size_t>> got, size_t slot);
  [[nodiscard]] Task<Result<CrcCache::Crcs>> load_crcs(FragmentEntry entry);
  [[nodiscard]] Result<FragmentHeader> check_header(const FragmentEntry& entry, ByteView bytes) const;
  [[nodiscard]] Result<CrcCache::Crcs> take_header(const FragmentEntry& entry, ByteView bytes);

  // target_journal.cc
  [[nodiscard]] Result<void> check_epoch(PartitionId partition, PartitionEpoch epoch) const;
  void raise_promise(PartitionId partition, PartitionEpoch epoch, std::string& records);
  [[nodiscard]] std::shared_ptr<Run> find_run(RunId id) const;

  Env env_;
  TargetOptions options_;
  std::string directory_;
  std::unique_ptr<WatchedFile> file_;
  WriteThrough* through_;  // of file_; may be null
  Superblock superblock_;
  Nanos opened_{};
  uint64_t chunk_bytes_ = 0;
  uint64_t journal_keep_ = 0;  // prewritten bytes that no fragment gets: journals go on when the disk under it is full
  std::optional<std::string> fenced_;
  bool scannable_ = false;
  bool closing_ = false;
  bool takes_no_more_ = false;
  TargetCounters counters_;

  FragmentTable table_;
  ExtentAllocator space_;
  CrcCache crcs_;
  std::map<FragmentName, std::shared_ptr<Writing>> writing_;
  std::map<RunId, std::shared_ptr<Run>> runs_;
  std::map<PartitionId, PartitionEpoch> promises_;  // some may not be durable yet
  uint64_t max_fragments_ = 0;

  // Commits.
  std::deque<std::shared_ptr<Commit>> pending_;  // bounded by the callers that wait
  Event wake_;
  uint64_t log_at_ = 0;        // next byte of the log
  uint64_t log_sequence_ = 1;  // of the next batch
  Semaphore writes_;

  // Prewriting.
  uint64_t prewritten_ = 0;  // bytes of data space that exist on the device, in large fragments or as zeros
  uint64_t reserved_ = 0;    // for which the device has room; at least prewritten_
  uint64_t reserve_wanted_ = 0;
  bool can_reserve_ = false;       // false after it failed, until zeros could be written again
  bool zeroing_ = false;           // zeros are on their way to what follows prewritten_
  uint64_t table_prewritten_ = 0;  // of each table area
  Mutex table_areas_;              // who may write to them
  uint64_t prewrite_wanted_ = 0;   // by someone who waits
  std::optional<Error> prewrite_error_;
  Event prewrite_kick_;
  Event prewrite_progress_;

  Scope scope_;  // last: its tasks use all of the above
};

}  // namespace headrace
