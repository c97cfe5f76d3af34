#include "client/write_back.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/fault_point.h"
#include "base/file_time.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {
constexpr Nanos kTick = milliseconds(500);
constexpr Nanos kWriterPatience = seconds(120);
constexpr uint32_t kMaxReservations = 4;
constexpr Nanos kRoomPatience = seconds(15);  // of a job that may hold what others wait for
constexpr Nanos kTightFor = seconds(60);      // after the hot tier was last too full for a segment
constexpr int kFullTargetAttempts = 30;

bool out_of_order(Code code) {
  return code == Code::kStale || code == Code::kNotFound;
}

struct SlotGuard {
  explicit SlotGuard(std::shared_ptr<Semaphore> semaphore) : slots(std::move(semaphore)) {}
  SlotGuard(const SlotGuard&) = delete;
  SlotGuard& operator=(const SlotGuard&) = delete;
  ~SlotGuard() {
    if (Scheduler::present()) slots->release();
  }
  std::shared_ptr<Semaphore> slots;
};

// Pieces that follow each other, in the file and in the segment, become one extent.
void append_extent(std::vector<Extent>& extents, Extent extent) {
  if (!extents.empty()) {
    Extent& last = extents.back();
    if (last.offset + last.length == extent.offset && last.segment_offset + last.length == extent.segment_offset &&
        last.segment == extent.segment) {
      last.length += extent.length;
      return;
    }
  }
  extents.push_back(extent);
}
}  // namespace

// ---- what is dirty ----

template <class F>
auto WriteBack::account(FileState& file, F change) {
  struct After {
    WriteBack& self;
    FileState& file;
    uint64_t bytes;
    uint64_t memory;
    ~After() {
      const uint64_t after = file.dirty.memory();
      self.dirty_bytes_ = self.dirty_bytes_ + file.dirty.bytes() - bytes;
      self.dirty_memory_ = self.dirty_memory_ + after - memory;
      if (after < memory && !self.writers_.empty()) Scheduler::current().wake_all(self.writers_);
    }
  } at_end{*this, file, file.dirty.bytes(), file.dirty.memory()};
  return change();
}

void WriteBack::enqueue(const FileRef& file) {
  if (file->queued || file->dirty.free_bytes() == 0) return;
  file->queued = true;
  file->dirty_since = env_.clock.now();
  queues_[file->session->partition].push_back(file);
}

Task<Result<void>> WriteBack::admit(FileRef file) {
  const Nanos deadline = env_.clock.now() + kWriterPatience;
  while (!admits(*file)) {
    if (refusing_) {
      // Probed by the flusher; an empty write-back may try itself.
      if (dirty_bytes_ > 0 || refusing_->code() == Code::kReadOnly) co_return *refusing_;
      refusing_.reset();
      break;
    }
    kick();
    bool woken = co_await ListWait(writers_, env_.clock, std::min(deadline, env_.clock.now() + seconds(1)));
    if (!woken && env_.clock.now() >= deadline)
      co_return Error(Code::kTimeout, "dirty data could not be written for 120 s: is the node up?");
  }
  co_return Result<void>();
}

void WriteBack::add(const FileRef& file, uint64_t offset, Buffer bytes) {
  const uint64_t size = bytes.size();
  HR_ASSERT(file->held.kind == GrantKind::kWrite && file->size_known);
  account(*file, [&] { file->dirty.write(offset, std::move(bytes)); });
  file->size = std::max(file->size, offset + size);
  const int64_t known = file->attributes ? file->attributes->mtime : 0;
  // Strictly ahead with each change: a kernel compares times to see whether its pages are old.
  const int64_t now = env_.clock.wall().count;
  file->mtime = std::max(moved_on(file->mtime, now), moved_on(known, now));
  ++file->served;
  enqueue(file);
  added_ += size;
  const uint64_t free = file->dirty.free_bytes();
  if (free < kSegment) {
    file->next_full_check = kSegment;
  } else if (free >= file->next_full_check && background_jobs_ < kBackgroundJobs) {
    JobRef job = new_job(*file);
    if (take_runs_into(*job, file)) {
      job->background = true;
      (void)launch(std::move(job));
    }
    file->next_full_check = std::max(kSegment, file->dirty.free_bytes() + kSegment);
  }
  if (added_ >= kSegment || pressed() || pressed(*file)) kick();
}

void WriteBack::drop(const FileRef& file, std::optional<Error> error) {
  counters_.dropped_bytes += file->dirty.bytes();
  ++file->drops;
  account(*file, [&] { file->dirty.clear(); });
  file->size_known = false;
  files_.bump_data(*file);
  files_.changed(*file);
  if (error && !lost_) lost_ = error;
  if (error && !mutant("swallow_lost")) file->lost.add(*std::move(error));
}

// ---- choosing what to write ----

void WriteBack::start() {
  scope_.spawn(flusher());
}

WriteBack::JobRef WriteBack::new_job(const FileState& file) const {
  auto job = std::make_shared<Job>();
  job->session = file.session;
  return job;
}

bool WriteBack::take_into(Job& job, const FileRef& file, uint64_t max_bytes) {
  if (file->dirty.free_bytes() == 0 || file->session != job.session || job.pieces >= kJobPieces) return false;
  const uint64_t flush = next_flush_++;
  std::vector<DirtyPiece> pieces =
      account(*file, [&] { return file->dirty.take(flush, max_bytes, kJobPieces - job.pieces); });
  if (pieces.empty()) return false;
  if (file->dirty.free_bytes() == 0) file->dirty_since = env_.clock.now();  // of what comes next
  Part& part = job.parts.emplace_back(file, flush);
  for (const DirtyPiece& piece : pieces) job.bytes += piece.bytes.size();
  job.pieces += pieces.size();
  part.pieces = std::move(pieces);
  return true;
}

bool WriteBack::take_runs_into(Job& job, const FileRef& file) {
  if (file->session != job.session) return false;
  const uint64_t flush = next_flush_++;
  std::vector<DirtyPiece> pieces = account(*file, [&] { return file->dirty.take_runs(flush, kSegment, job_bytes()); });
  if (pieces.empty()) return false;
  Part& part = job.parts.emplace_back(file, flush);
  for (const DirtyPiece& piece : pieces) job.bytes += piece.bytes.size();
  job.pieces += pieces.size();
  part.pieces = std::move(pieces);
  return true;
}

bool WriteBack::launch(JobRef job) {
  ++counters_.jobs;
  if (job->background) ++background_jobs_;
  return scope_.spawn(run(std::move(job)));
}

Task<void> WriteBack::flusher() {
  while (!scope_.token().cancelled()) {
    (void)co_await kicked_.wait_until(env_.clock, env_.clock.now() + kTick);
    kicked_.reset();
    added_ = 0;
    for (auto& [partition, queue] : queues_) {
      while (background_jobs_ < kBackgroundJobs && pump(queue)) {
      }
    }
    co_await yield();
  }
}

// Starts one job where it is time for one.
bool WriteBack::pump(std::deque<FileRef>& queue) {
  const Nanos now = env_.clock.now();
  std::deque<FileRef> kept;
  std::vector<FileRef> ready;
  uint64_t bytes = 0;
  bool due = pressed() && background_jobs_ == 0;  // otherwise room is on its way: whole segments are worth the wait
  for (FileRef& file : queue) {
    if (file->dirty.free_bytes() == 0) {
      file->queued = false;
      continue;
    }
    const bool aged = file->dirty_since + options_.flush_after - kTick <= now;
    const bool full = pressed(*file);
    if (file->retry_at <= now && (aged || file->opens == 0 || full || pressed())) {
      due |= aged || full;
      if (bytes < job_bytes() && ready.size() < kJobFiles) {
        ready.push_back(file);
        bytes += file->dirty.free_bytes();
      }
    }
    kept.push_back(std::move(file));
  }
  queue = std::move(kept);
  if (ready.empty() || (!due && bytes < kSegment)) return false;
  JobRef job = new_job(*ready.front());
  job->background = true;
  for (const FileRef& file : ready) {
    if (job->bytes >= job_bytes()) break;
    (void)take_into(*job, file, job_bytes() - job->bytes);
  }
  if (job->parts.empty()) return false;
  return launch(std::move(job));
}

WriteBack::JobRef WriteBack::stage_job(const FileRef& file) {
  const DirtyMap& dirty = file->dirty;
  if (dirty.bytes() != dirty.free_bytes() || dirty.bytes() > options_.stage_limit || dirty.pieces() > kStagePieces)
    return nullptr;
  JobRef job = new_job(*file);
  job->stage = true;
  return take_into(*job, file, options_.stage_limit) ? job : nullptr;
}

std::vector<WriteBack::JobRef> WriteBack::jobs_of(const FileRef& file) {
  std::vector<JobRef> jobs;
  if (JobRef job = stage_job(file)) {
    jobs.push_back(std::move(job));
    return jobs;
  }
  while (file->dirty.free_bytes() > 0) {
    JobRef job = new_job(*file);
    if (!take_into(*job, file, job_bytes())) break;
    jobs.push_back(std::move(job));
  }
  return jobs;
}

// ---- waiting for it ----

Task<void> WriteBack::settle(FileRef file) {
  Turn turn(file);
  co_await turn.come();
}

Task<Result<void>> WriteBack::flush(FileRef file) {
  for (int round = 0; round < 10;) {
    if (file->dirty.empty()) co_return Result<void>();
    const uint64_t put_backs = file->put_backs;
    std::vector<JobRef> jobs = jobs_of(file);
    for (const JobRef& job : jobs) {
      if (!launch(job)) co_return Error(Code::kCancelled, "the client is shutting down");
    }
    std::optional<Error> error;
    for (const JobRef& job : jobs) {
      if (mutant("sync_before_commit")) co_return Result<void>();
      co_await job->done.wait();
      if (job->parts.front().error && !error) error = job->parts.front().error;
    }
    co_await settle(file);                                       // what others took before
    if (file->put_backs == put_backs) co_return Result<void>();  // written, or dropped: then file->lost says why
    if (error && error->code() == Code::kBusy) continue;         // space is being made: as long as that takes
    if (error && error->code() != Code::kStale) co_return *error;
    ++round;
  }
  co_return Error(Code::kIo, "the file's data could not be written: its grant ends over and over");
}

Task<Result<void>> WriteBack::flush_all() {
  std::optional<Error> error;
  for (int round = 0; round < 10;) {
    error.reset();
    std::vector<JobRef> jobs;
    std::vector<FileRef> dirty;
    for (const FileRef& file : files_.all()) {
      if (!file->dirty.empty()) dirty.push_back(file);
    }
    if (dirty.empty()) break;
    std::map<PartitionId, JobRef> open;
    for (const FileRef& file : dirty) {
      while (file->dirty.free_bytes() > 0) {
        JobRef& job = open[file->session->partition];
        if (job == nullptr) job = new_job(*file);
        const bool taken = take_into(*job, file, job_bytes() - std::min(job->bytes, job_bytes()));
        if (taken && job->bytes < job_bytes() && job->parts.size() < kJobFiles && job->pieces < kJobPieces) continue;
        if (job->parts.empty()) break;
        jobs.push_back(std::exchange(job, nullptr));
      }
    }
    for (auto& [partition, job] : open) {
      if (job != nullptr && !job->parts.empty()) jobs.push_back(std::move(job));
    }
    // A few at a time: each holds its segments in memory.
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (!launch(jobs[i])) co_return Error(Code::kCancelled, "the client is shutting down");
      if (i >= 3) co_await jobs[i - 3]->done.wait();
    }
    for (const JobRef& job : jobs) {
      co_await job->done.wait();
      for (const Part& part : job->parts) {
        if (part.error && !error) error = part.error;
      }
    }
    for (const FileRef& file : dirty) co_await settle(file);
    if (error && error->code() == Code::kBusy) continue;  // as in flush()
    if (error && error->code() != Code::kStale) break;
    ++round;
  }
  if (error) co_return *error;
  co_return Result<void>();
}

// ---- running a job ----

Task<void> WriteBack::run(JobRef job) {
  if (job->stage) {
    co_await run_stage(job);
  } else {
    co_await run_commit(job);
  }
  // Turns end in the order of the parts; those that failed early wait for theirs too.
  for (Part& part : job->parts) {
    co_await part.turn.come();
    const Turn ended = std::move(part.turn);
  }
  if (job->background) --background_jobs_;
  if (!queues_.empty()) kick();
  job->done.set();
}

bool WriteBack::may_commit(const Job& job, const Part& part) const {
  const FileState& file = *part.file;
  return part.drops == file.drops && file.session == job.session && file.held.kind == GrantKind::kWrite &&
         !job.session->lost;
}

uint64_t WriteBack::size_after(const Part& part) {
  uint64_t end = mutant("size_of_unwritten") ? part.file->size : part.file->committed_size;
  for (const DirtyPiece& piece : part.pieces) end = std::max(end, piece.offset + piece.bytes.size());
  return end;
}

void WriteBack::note(Code code) {
  if (code == Code::kOk) {
    refusing_.reset();
  } else if (code == Code::kNoSpace) {
    refusing_.emplace(code, "no space left in the hot tier for new data");
  } else if (code == Code::kReadOnly) {
    refusing_.emplace(code, "the namespace is read-only: another cluster owns it, or it is spun down");
  }
  if (!writers_.empty()) Scheduler::current().wake_all(writers_);
}

void WriteBack::committed(const Job&, Part& part) {
  FileState& file = *part.file;
  if (part.drops != file.drops) return;
  file.committed_size = size_after(part);
  account(file, [&] { file.dirty.finished(part.flush); });
  file.failures = 0;
  file.refusals.forget();
  files_.bump_data(file);
  files_.changed(file);
  if (part.extents.empty()) {  // staged: the partition knows where
    for (const DirtyPiece& piece : part.pieces) file.extents.forget(piece.offset, piece.offset + piece.bytes.size());
  } else {
    for (const Extent& extent : part.extents)
      if (!mutant("stale_extent_cache")) file.extents.replace(extent);
  }
}

void WriteBack::failed(Part& part, Error error) {
  FileState& file = *part.file;
  if (part.drops != file.drops) return;  // given up meanwhile, with an error of its own
  part.error = error;
  if (error.code() == Code::kNotFound) {  // the file is gone, and with it the wish
    part.error.reset();
    std::optional<Error> lost;  // for whoever has it open: it went with an evicted session
    if (file.opens > 0) lost.emplace(Code::kStale, "the file had lost its last name, and is gone");
    drop(part.file, std::move(lost));
    return;
  }
  const bool stale = error.code() == Code::kStale;
  if (error.code() == Code::kReadOnly ||
      (stale && file.refusals.too_often(file.session == nullptr ? PartitionEpoch() : file.session->epoch))) {
    drop(part.file, std::move(error).within("unsynced data was lost"));
    if (stale) {
      files_.disown(file);
      files_.keep_open_soon(part.file);
    }
    return;
  }
  if (!stale) {
    ++file.failures;
    file.retry_at = env_.clock.now() + milliseconds(100) * (int64_t{1} << std::min<uint32_t>(file.failures, 6));
  }
  put_back(part, std::move(error));
}

void WriteBack::put_back(Part& part, Error error) {
  FileState& file = *part.file;
  if (part.drops != file.drops) return;
  part.error = std::move(error);
  ++counters_.put_back;
  ++file.put_backs;
  account(file, [&] {
    if (mutant("failed_not_put_back")) file.dirty.finished(part.flush);
    file.dirty.put_back(part.flush);
  });
  enqueue(part.file);
}

void WriteBack::fail_all(Job& job, const Error& error) {
  note(error.code());
  for (Part& part : job.parts) failed(part, error);
}

Task<Result<void>> WriteBack::born(JobRef job) {
  for (Part& part : job->parts) {
    if (!part.file->unborn) continue;
    HR_CO_TRY(co_await changes_.flush(part.file));
  }
  co_return Result<void>();
}

Task<void> WriteBack::run_stage(JobRef job) {
  Part& part = job->parts.front();
  co_await part.turn.come();
  Result<void> there = co_await born(job);
  if (!there.ok()) {
    fail_all(*job, there.error());
    co_return;
  }
  if (!may_commit(*job, part)) {
    failed(part, Error(Code::kStale, "the grant has ended"));
    co_return;
  }
  Stage request;
  request.file = part.file->id;
  request.grant = part.file->held.id;
  for (const DirtyPiece& piece : part.pieces) request.pieces.push_back({piece.offset, std::string(piece.bytes.text())});
  request.size = size_after(part);
  request.mtime = part.file->mtime;
  ++counters_.stages;
  Result<Empty> reply = co_await sessions_.mutate_under(job->session, std::move(request));
  if (reply.ok()) {
    committed(*job, part);
    note(Code::kOk);
  } else if (out_of_order(reply.code()) || job->session->lost || reply.code() == Code::kReadOnly) {
    fail_all(*job, Error(job->session->lost ? Code::kStale : reply.code(), reply.error().message()));
  } else {
    co_await run_commit(job);  // not to be staged just now: as a segment
  }
}

// A written segment that no commit will name.
void WriteBack::abandon(ClientSession& session, const SegmentId& segment) {
  --session.written;
  session.abandoned.push_back(segment);
}

Task<void> WriteBack::run_commit(JobRef job) {
  Result<std::vector<Written>> written = co_await write_segments(job);
  if (!written.ok()) {
    fail_all(*job, written.error());
    co_return;
  }
  const Named named = co_await commit(job, *written);
  for (const Written& one : *written) {
    if (named == Named::kYes) --job->session->written;
    if (named == Named::kNever) abandon(*job->session, one.segment.segment);
  }
}

Task<WriteBack::Named> WriteBack::commit(JobRef job, const std::vector<Written>& written) {
  for (Part& part : job->parts)
    if (!mutant("commit_out_of_turn")) co_await part.turn.come();
  Result<void> there = co_await born(job);
  if (!there.ok()) {
    fail_all(*job, there.error());
    co_return Named::kNever;
  }
  // To be refused, which says nothing of the grants: however many of one file waited for their turn.
  if (std::ranges::any_of(written, [&](const Written& one) { return one.reopened != job->session->reopened; })) {
    for (Part& part : job->parts) put_back(part, Error(Code::kStale, "it was reserved by an earlier leader"));
    co_return Named::kNever;
  }
  Commit request;
  std::vector<Part*> named;
  for (Part& part : job->parts) {
    if (!may_commit(*job, part)) {
      failed(part, Error(Code::kStale, "the grant has ended"));
      continue;
    }
    CommitFile file;
    file.file = part.file->id;
    file.grant = part.file->held.id;
    file.extents = part.extents;
    file.size = size_after(part);
    file.mtime = part.file->mtime;
    request.files.push_back(std::move(file));
    named.push_back(&part);
  }
  if (named.empty()) co_return Named::kNever;
  for (const Written& segment : written) request.segments.push_back(segment.segment);
  ++counters_.commits;
  Result<CommitReply> reply = co_await sessions_.mutate_under(job->session, std::move(request));
  if (reply.ok() && reply->codes.size() != named.size())
    reply = Error(Code::kIo, "a commit was answered for other files");
  if (!reply.ok()) {
    const Error error(job->session->lost ? Code::kStale : reply.code(), reply.error().message());
    note(error.code());
    for (Part* part : named) failed(*part, error);
    co_return Named::kMaybe;
  }
  note(Code::kOk);
  for (const Written& segment : written) {
    Location location;
    location.segment = segment.segment.segment;
    location.length = segment.segment.length;
    location.bucket = location.segment.name_space();
    location.placement = segment.segment.placement;
    reader_.learn(std::move(location), segment.capability);
  }
  bool stale = false;
  for (size_t i = 0; i < named.size(); ++i) {
    const auto code = static_cast<Code>(reply->codes[i]);
    if (code == Code::kOk) {
      committed(*job, *named[i]);
      ++counters_.committed_files;
    } else {
      stale |= code == Code::kStale;
      failed(*named[i], Error(code, "commit refused"));
    }
  }
  // A new leader knows of no grant before it was claimed: ask before believing that it ended.
  if (stale) (void)co_await sessions_.reopen(job->session);
  co_return Named::kYes;
}

Task<Result<std::vector<WriteBack::Written>>> WriteBack::write_segments(JobRef job) {
  struct Place {
    size_t part;
    size_t segment;
    Extent extent;
  };
  std::vector<Place> places;
  std::vector<std::vector<Buffer>> contents;
  uint64_t filled = kSegment;
  for (size_t i = 0; i < job->parts.size(); ++i) {
    for (const DirtyPiece& piece : job->parts[i].pieces) {
      for (uint64_t at = 0; at < piece.bytes.size();) {
        if (filled == kSegment) {
          contents.emplace_back();
          filled = 0;
        }
        const uint64_t length = std::min(piece.bytes.size() - at, kSegment - filled);
        contents.back().push_back(piece.bytes.slice(at, length));
        Extent extent{
            .offset = piece.offset + at, .length = length, .kind = ExtentKind::kSegment, .segment_offset = filled};
        places.push_back({i, contents.size() - 1, extent});
        at += length;
        filled += length;
      }
    }
  }
  const Slot home = job->parts.front().file->id.slot();
  std::vector<Task<Result<Written>>> writes;
  for (std::vector<Buffer>& pieces : contents) {
    // Joined only when its turn has come: until then nothing is held twice.
    struct Join {
      static Task<Result<Written>> run(WriteBack& self, ClientSessionRef session, Slot home,
                                       std::vector<Buffer> pieces) {
        co_await self.slots_->acquire();
        SlotGuard guard(self.slots_);
        Buffer data = pieces.front();
        if (pieces.size() > 1) {
          uint64_t length = 0;
          for (const Buffer& piece : pieces) length += piece.size();
          data = Buffer::allocate(length);
          uint64_t at = 0;
          for (const Buffer& piece : pieces) {
            std::memcpy(data.data() + at, piece.data(), piece.size());
            at += piece.size();
          }
        }
        pieces.clear();
        co_return co_await self.write_segment(std::move(session), home, std::move(data));
      }
    };
    writes.push_back(Join::run(*this, job->session, home, std::move(pieces)));
  }
  contents.clear();
  std::vector<Result<Written>> results = co_await when_all(std::move(writes));
  std::vector<Written> written;
  std::optional<Error> error;
  for (Result<Written>& result : results) {
    if (result.ok()) {
      written.push_back(*std::move(result));
    } else if (!error) {
      error = std::move(result).error();
    }
  }
  if (error) {
    for (const Written& one : written) abandon(*job->session, one.segment.segment);
    co_return *std::move(error);
  }
  for (const Place& place : places) {
    Extent extent = place.extent;
    extent.segment = written[place.segment].segment.segment;
    append_extent(job->parts[place.part].extents, extent);
  }
  co_return written;
}

// The place of a segment among those being written. One that met a full target goes before all that came later: they
// would take the room that is made for it, piece by piece, and it needs as much on every target.
class WriteBack::InTurn {
 public:
  explicit InTurn(WriteBack& self) : self_(self), number_(++self.segments_begun_) {}
  InTurn(const InTurn&) = delete;
  InTurn& operator=(const InTurn&) = delete;
  ~InTurn() {
    if (self_.short_of_room_.erase(number_) != 0) Scheduler::current().wake_all(self_.room_);
  }
  void wants_room() { self_.short_of_room_.insert(number_); }
  [[nodiscard]] Task<void> come() {
    while (!self_.short_of_room_.empty() && *self_.short_of_room_.begin() < number_) co_await ListWait(self_.room_);
  }

 private:
  WriteBack& self_;
  uint64_t number_;
};

Task<Result<WriteBack::Written>> WriteBack::write_segment(ClientSessionRef session, Slot home, Buffer data) {
  InTurn turn(*this);
  co_await turn.come();
  Nanos deadline = env_.clock.now() + ClientSessions::kPatience;
  Nanos pause = milliseconds(10);
  bool crowded = false;
  for (int attempt = 0;; ++attempt) {
    if (session->lost) co_return Error(Code::kStale, "the session has ended");
    Result<Reservation> reservation = co_await reserve(session, home, std::exchange(crowded, false));
    const uint64_t reopened = session->reopened;
    Result<Placement> placement = Error(Code::kUnavailable, "");
    if (reservation.ok()) {
      placement = co_await io_.write(reservation->segment, data, reservation->placement, reservation->spares,
                                     reservation->capability);
      if (placement.ok()) {
        ++session->written;
        ++counters_.segments;
        counters_.segment_bytes += data.size();
        co_return Written{
            {reservation->segment, data.size(), *std::move(placement)}, reservation->capability, reopened};
      }
    } else {
      placement = std::move(reservation).error();
    }
    // Never the same id again: some of its fragments may be there.
    if (reservation.ok()) session->abandoned.push_back(reservation->segment);
    const Code code = placement.code();
    // A full target: what was reserved before it was full is no good either. The partition says when the hot tier is
    // full for good.
    crowded = reservation.ok() && code == Code::kNoSpace;
    if (crowded) {
      session->abandon_reservations();
      turn.wants_room();
    }
    const bool final = code == Code::kReadOnly || code == Code::kStale || code == Code::kBusy ||
                       (code == Code::kNoSpace && attempt >= (reservation.ok() ? kFullTargetAttempts : 2));
    if (final || env_.clock.now() >= deadline) co_return std::move(placement).error().within("write a segment");
    const Nanos before = env_.clock.now();
    co_await turn.come();
    deadline = deadline + (env_.clock.now() - before);
    co_await env_.clock.sleep(pause);
    pause = std::min(pause * 2, seconds(2));
  }
}

Task<Result<Reservation>> WriteBack::reserve(ClientSessionRef session, Slot home, bool crowded) {
  const int64_t now_s = env_.clock.wall().count / 1'000'000'000;
  // In the order of the jobs, also while the hot tier is full: who is first in turn to commit is first to get a place.
  Mutex::Guard guard = co_await session->reserving.lock();
  const Nanos deadline = env_.clock.now() + kRoomPatience;
  Nanos pause = milliseconds(10);
  std::erase_if(session->reservations, [&](const Reservation& r) {
    const bool old = int64_t{r.capability.expiry_s} < now_s + 300;
    if (old) session->abandoned.push_back(r.segment);
    return old;
  });
  while (session->reservations.empty()) {
    Reserve request;
    request.slot = home;
    request.count = session->reserve_next;
    request.abandoned = session->abandoned;
    request.written = session->written;
    request.crowded = std::exchange(crowded, false);
    const uint64_t reopened = session->reopened;
    Result<ReserveReply> reply = co_await sessions_.ask_under(session, request);
    // Taken back whatever the answer; told again where there was none.
    if (reply.ok() || reply.code() == Code::kBusy || reply.code() == Code::kNoSpace)
      session->abandoned.erase(session->abandoned.begin(), session->abandoned.begin() + std::ssize(request.abandoned));
    if (!reply.ok()) {
      session->reserve_next = 1;
      if (reply.code() == Code::kBusy) {
        tight_until_ = env_.clock.now() + kTightFor;
        if (env_.clock.now() < deadline && !session->lost && !scope_.token().cancelled()) {
          co_await env_.clock.sleep(pause);
          pause = std::min(pause * 2, seconds(2));
          continue;
        }
      }
      co_return std::move(reply).error();
    }
    if (reply->reservations.empty()) co_return Error(Code::kUnavailable, "no reservation was given");
    session->reserve_next = std::min(session->reserve_next * 2, kMaxReservations);
    session->reservations = std::move(reply->reservations);
    if (session->reopened != reopened) session->abandon_reservations();  // perhaps an earlier leader's
  }
  Reservation out = std::move(session->reservations.front());
  session->reservations.erase(session->reservations.begin());
  co_return out;
}

}  // namespace headrace
