// How a target becomes durable: the commit loop, the flip of a full log into a table, prewriting.
#include <algorithm>

#include "base/fault_point.h"
#include "hot/target.h"

namespace headrace {
namespace {

constexpr size_t kMaxGroupRecords = 64 * kKiB;
constexpr uint64_t kMaxGroupFrames = 16 * kMiB;
constexpr size_t kMaxGroup = 1024;
constexpr size_t kMaxStretch = 256;  // pieces of one write
constexpr size_t kTableBatch = 256 * kKiB;
constexpr uint64_t kTableMargin = 256 * kKiB;
constexpr Nanos kPrewriteRetry = seconds(1);

}  // namespace

void Target::enqueue(std::shared_ptr<Commit> operation) {
  pending_.push_back(std::move(operation));
  wake_.set();
}

Task<Result<void>> Target::wait(std::shared_ptr<Commit> operation) {
  co_await operation->done.wait();
  co_return std::move(*operation->result);
}

Task<Result<void>> Target::commit(std::shared_ptr<Commit> operation) {
  enqueue(operation);
  co_return co_await wait(std::move(operation));
}

Task<void> Target::commit_loop() {
  while (true) {
    if (pending_.empty()) {
      if (closing_ && writing_.empty()) co_return;
      wake_.reset();
      co_await wake_.wait();
      continue;
    }
    std::vector<std::shared_ptr<Commit>> group;
    size_t records = 0;
    uint64_t frames = 0;
    while (!pending_.empty() && group.size() < kMaxGroup) {
      const Commit& next = *pending_.front();
      uint64_t more = 0;
      for (const auto& [offset, frame] : next.frames) more += frame.size();
      if (!group.empty() && (records + next.records.size() > kMaxGroupRecords || frames + more > kMaxGroupFrames))
        break;
      records += next.records.size();
      frames += more;
      group.push_back(std::move(pending_.front()));
      pending_.pop_front();
    }
    co_await commit_group(std::move(group));
  }
}

Task<void> Target::write_to(uint64_t offset, std::vector<Buffer> pieces, std::shared_ptr<std::optional<Error>> failed) {
  Result<void> written = co_await file_->write(offset, std::move(pieces));
  if (!written && !failed->has_value()) *failed = std::move(written).error();
}

Task<void> Target::commit_group(std::vector<std::shared_ptr<Commit>> group) {
  std::string records;
  std::vector<std::pair<uint64_t, Buffer>> frames;
  for (const auto& operation : group) {
    records += operation->records;
    for (auto& frame : operation->frames) frames.push_back(std::move(frame));
  }
  Result<void> outcome;
  if (fenced_) outcome = Error(Code::kUnavailable, name() + " is fenced: " + *fenced_);
  if (outcome && !records.empty()) {
    uint64_t needed = round_up(kBatchHeaderBytes + records.size(), kBlock);
    if (log_at_ + needed > superblock_.log_bytes) outcome = co_await flip();
  }
  if (outcome && (!records.empty() || !frames.empty())) {
    outcome = co_await write_group(std::move(records), std::move(frames));
    ++counters_.commits;
  }
  if (!outcome && !fenced_) {
    fence("commit failed: " + outcome.error().text());
    outcome = Error(Code::kIo, name() + " is fenced: " + *fenced_);
  }
  if (fenced_ && outcome) outcome = Error(Code::kIo, name() + " is fenced: " + *fenced_);
  counters_.committed += group.size();
  for (const auto& operation : group) {
    if (outcome && operation->apply) operation->apply();
    operation->result = outcome;
    operation->done.set();
  }
}

// Durable on return, with every fragment that the records name.
Task<Result<void>> Target::write_group(std::string records, std::vector<std::pair<uint64_t, Buffer>> frames) {
  struct Stretch {
    uint64_t offset;
    uint64_t end;
    std::vector<Buffer> pieces;
  };
  std::vector<Stretch> stretches;
  const bool names_fragments = !records.empty();
  if (names_fragments) {
    Buffer batch = encode_batch({BatchKind::kLog, id(), superblock_.generation, log_sequence_}, records);
    uint64_t offset = superblock_.log_offset() + log_at_;
    log_at_ += batch.size();
    ++log_sequence_;
    Stretch& log = stretches.emplace_back(offset, 0);
    log.pieces.push_back(std::move(batch));
  }
  // Frames of one run lie back to back: one write for each stretch.
  std::ranges::sort(frames, {}, [](const auto& frame) { return frame.first; });
  for (auto& [offset, frame] : frames) {
    if (stretches.empty() || stretches.back().end != offset || stretches.back().pieces.size() >= kMaxStretch)
      stretches.emplace_back(offset, offset);
    stretches.back().end += frame.size();
    stretches.back().pieces.push_back(std::move(frame));
  }
  // Frames alone, the metadata's daily bread: one request instead of a write and then a flush.
  if (stretches.size() == 1 && !names_fragments && through_ != nullptr && !mutant("skip_flush"))
    co_return co_await through_->write_through(stretches[0].offset, std::move(stretches[0].pieces));
  auto failed = std::make_shared<std::optional<Error>>();
  {
    Scope writes;
    for (Stretch& stretch : stretches) writes.spawn(write_to(stretch.offset, std::move(stretch.pieces), failed));
    co_await writes.join();
  }
  if (*failed) co_return std::move(**failed);
  if (mutant("skip_flush")) co_return Result<void>();
  co_return co_await file_->flush();
}

// The table of generation G + 1 goes to the other area and is flushed; then both superblocks, each
// flushed before the other is touched. Until the first of them is durable, everything of generation
// G is untouched.
Task<Result<void>> Target::flip() {
  Superblock next = superblock_;
  next.generation = superblock_.generation + 1;
  next.table = superblock_.table ^ 1;
  {
    Mutex::Guard guard = co_await table_areas_.lock();
    HR_CO_TRY(next.table_batches, co_await write_table(next.table, next.generation));
  }
  if (!mutant("flip_unflushed")) HR_CO_TRY(co_await file_->flush());
  HR_CO_TRY(co_await write_superblocks(next));
  superblock_ = next;
  log_at_ = 0;
  log_sequence_ = 1;
  ++counters_.flips;
  co_return Result<void>();
}

Task<Result<void>> Target::write_superblocks(Superblock next) {
  for (uint64_t offset : kSuperblockOffsets) {
    std::vector<Buffer> pieces(1, encode_superblock(next));
    HR_CO_TRY(co_await file_->write(offset, std::move(pieces)));
    HR_CO_TRY(co_await file_->flush());
  }
  co_return Result<void>();
}

LogRecord Target::added(const FragmentEntry& entry) {
  LogRecord record;
  record.kind = RecordKind::kFragmentAdded;
  record.fragment = entry.name;
  record.protection = entry.protection;
  record.segment_length = static_cast<uint32_t>(entry.segment_length);
  record.block = entry.block;
  return record;
}

// Returns the number of batches. The commit loop alone calls it, and it alone changes the table of fragments: that one
// is taken shard by shard, each when those before it are written. Runs and promises are what they are at the call.
Task<Result<uint64_t>> Target::write_table(uint8_t area, uint64_t generation) {
  std::vector<std::string> batches(1);
  auto add = [&batches](const LogRecord& record) {
    if (batches.back().size() > kTableBatch) batches.emplace_back();
    encode_record(record, batches.back());
  };
  for (const auto& [partition, epoch] : promises_) {
    LogRecord record;
    record.kind = RecordKind::kPromise;
    record.partition = partition;
    record.epoch = epoch;
    add(record);
  }
  for (const auto& [id, run] : runs_) {
    LogRecord opened;
    opened.kind = RecordKind::kRunOpened;
    opened.run = id;
    opened.partition = run->partition;
    opened.position = run->first;
    opened.about = run->about;
    add(opened);
    for (const Chunk& chunk : run->chunks) {
      LogRecord added;
      added.kind = RecordKind::kChunkAdded;
      added.run = id;
      added.block = chunk.block;
      added.blocks = chunk.blocks;
      added.position = chunk.first;
      add(added);
    }
  }
  uint64_t offset = 0;
  uint64_t count = 0;
  for (size_t shard = 0; shard < FragmentTable::kShards; ++shard) {
    table_.for_each_of(shard, [&](const FragmentEntry& entry) { add(added(entry)); });
    const bool last = shard + 1 == FragmentTable::kShards;
    const size_t full = batches.size() - (last ? 0 : 1);
    for (size_t i = 0; i < full; ++i) {
      Buffer batch = encode_batch({BatchKind::kTable, id(), generation, ++count}, batches[i]);
      if (offset + batch.size() > superblock_.table_bytes)
        co_return Error(Code::kNoSpace, name() + ": the table does not fit its area");
      const uint64_t size = batch.size();
      std::vector<Buffer> pieces(1, std::move(batch));
      HR_CO_TRY(co_await file_->write(superblock_.table_offset(area) + offset, std::move(pieces)));
      offset += size;
    }
    batches.erase(batches.begin(), batches.begin() + static_cast<ptrdiff_t>(full));
  }
  table_prewritten_ = std::max(table_prewritten_, offset);
  co_return count;
}

uint64_t Target::table_bytes_wanted(uint64_t margin) const {
  uint64_t chunks = 0;
  for (const auto& [id, run] : runs_) chunks += run->chunks.size() * 24 + run->about.size() + 64;
  uint64_t bytes = (table_.size() + writing_.size()) * 32 + chunks + margin;
  return std::min(round_up(bytes, kBlock), superblock_.table_bytes);
}

// Prewritten space is for journals and small fragments, whose flushes would otherwise wait for the file system's own
// journal. A large fragment takes of it only what is more than they will want.
bool Target::goes_to_reserved(uint32_t blocks, ExtentAllocator::Purpose purpose) const {
  if (purpose != ExtentAllocator::Purpose::kFragment || !can_reserve_) return false;
  const uint64_t bytes = uint64_t{blocks} * kBlock;
  return bytes >= options_.large_fragment &&
         prewritten_ < uint64_t{space_.used()} * kBlock + bytes + options_.prewrite_ahead;
}

uint64_t Target::prewrite_goal() const {
  uint64_t goal = uint64_t{space_.used()} * kBlock + journal_keep_ + options_.prewrite_ahead;
  // Free space in small pieces is of no use to a journal.
  const uint64_t frontier = uint64_t{space_.frontier()} * kBlock;
  if (uint64_t{space_.largest_free()} * kBlock < 2 * chunk_bytes_) goal = std::max(goal, frontier + 2 * chunk_bytes_);
  return std::min(std::max(goal, prewrite_wanted_), superblock_.capacity);
}

// Contiguous blocks that the device has room for. kNoSpace when the target or the file system under it
// is full.
Task<Result<uint32_t>> Target::allocate(uint32_t blocks, ExtentAllocator::Purpose purpose) {
  while (true) {
    if (auto ok = usable(); !ok) co_return std::move(ok).error();
    bool table_fits =
        purpose == ExtentAllocator::Purpose::kJournal || table_bytes_wanted(kTableMargin / 4) <= table_prewritten_;
    ExtentAllocator::Outcome got;
    const bool reserved = table_fits && goes_to_reserved(blocks, purpose);
    if (reserved) {
      if (!zeroing_)
        got = space_.extend(blocks, static_cast<uint32_t>(prewritten_ / kBlock),
                            static_cast<uint32_t>(reserved_ / kBlock));
      if (got.block) {
        prewritten_ = uint64_t{space_.frontier()} * kBlock;
        ++counters_.large_fragments;
      }
      if (got.block || got.beyond_limit || zeroing_) {
        reserve_wanted_ =
            std::min(prewritten_ + uint64_t{blocks} * kBlock + options_.reserve_ahead, superblock_.capacity);
        if (reserve_wanted_ > reserved_ + options_.reserve_ahead / 2 || !got.block) prewrite_kick_.set();
        if (got.block) co_return *got.block;
        got.beyond_limit = true;
      }
    }
    // What is prewritten of free space must stay enough for journals: when the disk under it is full, nothing more
    // comes.
    const uint64_t with_keep = uint64_t{space_.used()} * kBlock + uint64_t{blocks} * kBlock + journal_keep_;
    if (table_fits && !got.beyond_limit && purpose == ExtentAllocator::Purpose::kFragment && with_keep > prewritten_ &&
        with_keep <= superblock_.capacity) {
      prewrite_wanted_ = std::max(prewrite_wanted_, with_keep);
      got.beyond_limit = true;
    }
    if (table_fits && !got.beyond_limit) {  // also a large one for which there is no room at the end
      got = space_.allocate(blocks, purpose, static_cast<uint32_t>(prewritten_ / kBlock));
      if (prewrite_goal() > prewritten_ || table_bytes_wanted(kTableMargin / 2) > table_prewritten_)
        prewrite_kick_.set();
      if (got.block) co_return *got.block;
      if (got.beyond_limit)
        prewrite_wanted_ = std::max(prewrite_wanted_, (uint64_t{space_.frontier()} + blocks) * kBlock);
    }
    if (table_fits && !got.beyond_limit)
      co_return Error(Code::kNoSpace, name() + " is full: " + std::to_string(uint64_t{space_.used()} * kBlock / kMiB) +
                                          " of " + std::to_string(superblock_.capacity / kMiB) + " MiB are in use");
    ++counters_.prewrite_waits;
    prewrite_error_.reset();
    prewrite_progress_.reset();
    prewrite_kick_.set();
    co_await prewrite_progress_.wait();
    if (prewrite_error_) co_return *prewrite_error_;
  }
}

// Bytes of the file system that prewriting may still take.
Task<uint64_t> Target::room_for_prewriting(bool ahead) {
  if (options_.keep_free == 0) co_return UINT64_MAX;
  const uint64_t keep = ahead ? 4 * options_.keep_free : options_.keep_free;
  Result<uint64_t> free = co_await env_.disk.free_bytes(directory_);
  if (!free) co_return UINT64_MAX;  // the write itself will tell
  co_return *free > keep ? *free - keep : 0;
}

// Keeps the table areas and the data space ahead of their use written, so that no commit has to
// extend the file.
Task<void> Target::prewrite_loop() {
  Buffer zeros = Buffer::zeroed(options_.prewrite_chunk);
  while (!closing_ && !fenced_) {
    const uint64_t wanted = prewrite_goal();
    uint64_t table = round_up(table_bytes_wanted(kTableMargin), kTableMargin);
    table = std::min(table, superblock_.table_bytes);
    Result<void> written;
    if (table > table_prewritten_) {
      // Zeros must not meet what flip() writes.
      Mutex::Guard guard = co_await table_areas_.lock();
      if (table <= table_prewritten_) continue;
      uint64_t size = std::min<uint64_t>(table - table_prewritten_, zeros.size());
      for (uint8_t area = 0; area < 2 && written; ++area) {
        std::vector<Buffer> pieces(1, zeros.slice(0, size));
        written = co_await file_->write(superblock_.table_offset(area) + table_prewritten_, std::move(pieces));
      }
      if (written) table_prewritten_ += size;
    } else if (reserve_wanted_ > reserved_) {
      const uint64_t until = reserve_wanted_;
      const uint64_t room = co_await room_for_prewriting(true);
      if (room < until - reserved_)
        written = Error(Code::kNoSpace, "the rest is kept for the node's own files");
      else
        written = co_await through_->reserve(superblock_.data_offset() + reserved_, until - reserved_);
      if (written) reserved_ = until;
      if (written.code() == Code::kNotSupported || written.code() == Code::kNoSpace) {
        // Large fragments then go where all others do: into what is free, and prewritten if need be.
        can_reserve_ = false;
        reserve_wanted_ = 0;
        written = Result<void>();
      }
    } else if (wanted > prewritten_) {
      uint64_t size = std::min<uint64_t>(wanted - prewritten_, zeros.size());
      const bool only_ahead =
          std::max(prewrite_wanted_, uint64_t{space_.used()} * kBlock + journal_keep_) <= prewritten_;
      zeroing_ = true;  // nobody else extends prewritten_ meanwhile
      const uint64_t room = co_await room_for_prewriting(only_ahead);
      if (room >= size) {
        std::vector<Buffer> pieces(1, zeros.slice(0, size));
        written = co_await file_->write(superblock_.data_offset() + prewritten_, std::move(pieces));
      } else {
        written = Error(Code::kNoSpace, "the rest is kept for the node's own files");
      }
      zeroing_ = false;
      if (room < size && only_ahead) {  // it is written when it is needed
        if (reserve_wanted_ > reserved_ || prewrite_wanted_ > prewritten_) continue;
        prewrite_kick_.reset();
        prewrite_progress_.set();
        co_await prewrite_kick_.wait();
        continue;
      }
      if (written) {
        prewritten_ += size;
        reserved_ = std::max(reserved_, prewritten_);
        can_reserve_ = through_ != nullptr;
        counters_.prewritten_bytes += size;
      }
    } else {
      prewrite_kick_.reset();
      prewrite_progress_.set();
      co_await prewrite_kick_.wait();
      continue;
    }
    if (written) {
      prewrite_error_.reset();
      prewrite_progress_.set();
      continue;
    }
    if (written.code() != Code::kNoSpace) {
      fence("prewriting failed: " + written.error().text());
      break;
    }
    prewrite_error_ =
        Error(Code::kNoSpace, name() + ": the disk under it is full; free space there or move the target");
    prewrite_kick_.reset();
    prewrite_progress_.set();
    // Tried again when someone needs it, though not in a busy loop.
    co_await env_.clock.sleep(kPrewriteRetry / 10);
    if (closing_) break;
    if (!prewrite_kick_.is_set())
      (void)co_await prewrite_kick_.wait_until(env_.clock, env_.clock.now() + kPrewriteRetry);
  }
  prewrite_progress_.set();
}

}  // namespace headrace
