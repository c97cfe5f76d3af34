// WriteBack: dirty bytes on their way into segments and commits. Where data would get lost.
//
// Job: bytes of up to 1,000 files of one partition, at most 64 MiB: written as segments of up to 16
// MiB (one file's long runs alone; small files packed together), all fragments durable, then named
// in one Commit. Staging: up to stage_limit bytes of one file that must be durable now, in one
// message.
//
// Invariants
//  1. Bytes leave a file's DirtyMap only when a Commit or Stage that holds them was answered, when
//  the file is gone, or
//     by drop(), which records an error that the next sync reports. A failed job puts them back.
//  2. Commits of one file happen in the order in which their bytes were taken (Turn), each under
//  the write grant held at
//     that moment; what was taken before a drop() is never committed after it.
//  3. A commit says how long the file is as far as it was ever committed: unwritten bytes never
//  show as zeros.
//  4. At most dirty_limit bytes are held by what is dirty, and file_limit of one file (plus one write
//  per writer): further writers wait. More of one stream would not make it faster, only fill fresh memory.
// Jobs run in the client's scope, so that whoever waits for one may go away.
// Owner: Client.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "client/change_log.h"
#include "client/files.h"
#include "client/segment_reader.h"
#include "client/sessions.h"
#include "stripe/segment_io.h"

namespace headrace {

class WriteBack {
 public:
  struct Options {
    uint64_t dirty_limit = kGiB;
    uint64_t file_limit = 256 * kMiB;
    Nanos flush_after = seconds(5);
    uint64_t stage_limit = 64 * kKiB;
  };
  static constexpr uint64_t kSegment = kMaxSegment;
  static constexpr uint64_t kJobBytes = 4 * kMaxSegment;
  static constexpr size_t kJobFiles = 1000;
  static constexpr size_t kJobPieces = 8192;
  static constexpr size_t kStagePieces = 64;
  static constexpr size_t kBackgroundJobs = 8;
  static constexpr uint64_t kSegmentsInFlight = 6;

  WriteBack(Env env, ClientSessions& sessions, FileTable& files, ChangeLog& changes, SegmentIo& io,
            SegmentReader& reader, Scope& scope, Options options)
      : env_(env),
        sessions_(sessions),
        files_(files),
        changes_(changes),
        io_(io),
        reader_(reader),
        scope_(scope),
        options_(options) {}

  void start();  // the background flusher, until the scope ends

  // Waits while too much is dirty. kNoSpace, kReadOnly: nothing can be written at present.
  [[nodiscard]] Task<Result<void>> admit(FileRef file);
  [[nodiscard]] bool admits(const FileState& file) const {
    return dirty_memory_ < options_.dirty_limit && file.dirty.memory() < options_.file_limit && !refusing_;
  }
  // The caller holds the write grant, checked without awaiting since. Extends the file.
  void add(const FileRef& file, uint64_t offset, Buffer bytes);
  // Everything dirty in the file when called is durable on return.
  [[nodiscard]] Task<Result<void>> flush(FileRef file);
  [[nodiscard]] Task<Result<void>> flush_all();
  // No commit of bytes taken before the call is under way any more.
  [[nodiscard]] Task<void> settle(FileRef file);
  void drop(const FileRef& file, std::optional<Error> error);
  // Bytes of some file were lost since the last call: why, of the first. Apart from file->lost, which its own syncs
  // report: as with syncfs and fsync, each is told once.
  [[nodiscard]] std::optional<Error> take_lost() { return std::exchange(lost_, std::nullopt); }
  [[nodiscard]] const std::optional<Error>& lost() const { return lost_; }
  void set_lost(Error error) { lost_ = std::move(error); }

  struct Counters {
    uint64_t jobs = 0;
    uint64_t segments = 0;
    uint64_t segment_bytes = 0;
    uint64_t commits = 0;
    uint64_t committed_files = 0;
    uint64_t stages = 0;
    uint64_t put_back = 0;
    uint64_t dropped_bytes = 0;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] uint64_t dirty_bytes() const { return dirty_bytes_; }
  [[nodiscard]] uint64_t dirty_memory() const { return dirty_memory_; }

 private:
  struct Part {
    Part(FileRef f, uint64_t n) : file(f), flush(n), drops(f->drops), turn(std::move(f)) {}
    FileRef file;
    uint64_t flush;
    uint64_t drops;
    std::vector<DirtyPiece> pieces;
    std::vector<Extent> extents;  // where the pieces went
    std::optional<Error> error;
    Turn turn;
  };
  struct Job {
    ClientSessionRef session;
    bool stage = false;
    bool background = false;
    std::vector<Part> parts;
    uint64_t bytes = 0;
    size_t pieces = 0;
    Event done;
  };
  using JobRef = std::shared_ptr<Job>;
  class InTurn;
  struct Written {
    CommitSegment segment;
    Capability capability;
    uint64_t reopened = 0;  // of the session when it was reserved: a leader's reservations go with it
  };
  struct Planned {  // one segment to be
    Buffer data;
    uint64_t filled = 0;
  };

  // Every change of a file's DirtyMap: taking, too, changes what it holds.
  template <class F>
  auto account(FileState& file, F change);
  void enqueue(const FileRef& file);
  void kick() { kicked_.set(); }

  // ---- choosing ----
  [[nodiscard]] JobRef new_job(const FileState& file) const;
  bool take_into(Job& job, const FileRef& file, uint64_t max_bytes);
  bool take_runs_into(Job& job, const FileRef& file);
  [[nodiscard]] Task<void> flusher();
  bool pump(std::deque<FileRef>& queue);
  // While the hot tier is nearly full a job is one segment, so that none holds some while it waits for more.
  [[nodiscard]] uint64_t job_bytes() const { return env_.clock.now() < tight_until_ ? kSegment : kJobBytes; }
  [[nodiscard]] bool pressed() const { return dirty_memory_ > options_.dirty_limit / 4 * 3; }
  [[nodiscard]] bool pressed(const FileState& file) const {
    return file.dirty.free_memory() > options_.file_limit / 4 * 3;
  }
  [[nodiscard]] JobRef stage_job(const FileRef& file);
  [[nodiscard]] std::vector<JobRef> jobs_of(const FileRef& file);
  [[nodiscard]] bool launch(JobRef job);

  // ---- running ----
  [[nodiscard]] Task<void> run(JobRef job);
  [[nodiscard]] Task<void> run_stage(JobRef job);
  [[nodiscard]] Task<void> run_commit(JobRef job);
  // Whether a commit names the segments. Maybe: they stay reserved, and on the targets, until the session ends.
  enum class Named : uint8_t { kNever, kMaybe, kYes };
  [[nodiscard]] Task<Named> commit(JobRef job, const std::vector<Written>& written);
  [[nodiscard]] Task<Result<std::vector<Written>>> write_segments(JobRef job);
  [[nodiscard]] Task<Result<Written>> write_segment(ClientSessionRef session, Slot home, Buffer data);
  static void abandon(ClientSession& session, const SegmentId& segment);
  // kBusy: the hot tier was too full for longer than a job may wait with what it holds.
  // crowded: what was reserved last found no room on its targets.
  [[nodiscard]] Task<Result<Reservation>> reserve(ClientSessionRef session, Slot home, bool crowded);
  // The partition has the files.
  [[nodiscard]] Task<Result<void>> born(JobRef job);
  [[nodiscard]] bool may_commit(const Job& job, const Part& part) const;
  [[nodiscard]] static uint64_t size_after(const Part& part);
  void committed(const Job& job, Part& part);
  void failed(Part& part, Error error);
  void put_back(Part& part, Error error);
  void fail_all(Job& job, const Error& error);
  void note(Code code);

  Env env_;
  ClientSessions& sessions_;
  FileTable& files_;
  ChangeLog& changes_;
  SegmentIo& io_;
  SegmentReader& reader_;
  Scope& scope_;
  Options options_;
  uint64_t dirty_bytes_ = 0;
  uint64_t dirty_memory_ = 0;  // what they hold: scattered small writes are more than their bytes
  uint64_t added_ = 0;         // since the flusher last looked
  uint64_t next_flush_ = 1;
  size_t background_jobs_ = 0;
  Nanos tight_until_{};
  std::optional<Error> lost_;
  std::optional<Error> refusing_;  // the last commit failed for want of space, or of the namespace
  WaitList writers_;
  Event kicked_;
  std::map<PartitionId, std::deque<FileRef>> queues_;  // by age of their oldest bytes
  uint64_t segments_begun_ = 0;
  std::set<uint64_t> short_of_room_;  // of those being written
  WaitList room_;                     // those that came after one of them
  std::shared_ptr<Semaphore> slots_ = std::make_shared<Semaphore>(kSegmentsInFlight);
  Counters counters_;
};

}  // namespace headrace
