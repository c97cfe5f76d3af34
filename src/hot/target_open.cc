// Making, opening and recovering a target.
#include <algorithm>

#include "hot/target.h"
#include "hot/target_place.h"
#include "runtime/patience.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr const char* kFileName = "/target.dat";
constexpr const char* kNewName = "/target.new";

// Where the node does not start as long as the file is there.
std::string remove_hint(uint32_t number) {
  return "move the file away, start again, and run `headrace target replace t" + std::to_string(number) +
         "`: what the right one held is rebuilt from the others";
}

std::string replace_hint(uint32_t number) {
  return "run `headrace target replace t" + std::to_string(number) + "`: what it held is rebuilt from the others";
}

Task<Result<void>> write_zeros(File& file, uint64_t offset, uint64_t bytes) {
  Buffer zeros = Buffer::zeroed(std::min(bytes, 4 * kMiB));
  while (bytes > 0) {
    uint64_t size = std::min<uint64_t>(bytes, zeros.size());
    std::vector<Buffer> pieces(1, zeros.slice(0, size));
    HR_CO_TRY(co_await file.write(offset, std::move(pieces)));
    offset += size;
    bytes -= size;
  }
  co_return Result<void>();
}

Task<Result<void>> write_new(Env env, TargetPlace place, Superblock superblock) {
  HR_CO_TRY(std::unique_ptr<File> file,
            co_await env.disk.open(place.path, {.create = !place.in_place, .direct = true}));
  if (place.in_place) {
    HR_CO_TRY(uint64_t size, co_await file->size());
    if (size < superblock.file_bytes())
      co_return Error(Code::kNoSpace, place.path + " has " + std::to_string(size / kMiB) + " MiB, " +
                                          std::to_string(superblock.file_bytes() / kMiB) + " are needed");
  } else {
    HR_CO_TRY(co_await file->resize(0));
  }
  HR_CO_TRY(co_await write_zeros(*file, 0, superblock.log_offset() + superblock.log_bytes));
  Buffer table = encode_batch({BatchKind::kTable, superblock.target, superblock.generation, 1}, {});
  for (uint8_t area = 0; area < 2; ++area) {
    std::vector<Buffer> pieces(1, table);
    HR_CO_TRY(co_await file->write(superblock.table_offset(area), std::move(pieces)));
  }
  HR_CO_TRY(co_await write_zeros(*file, superblock.data_offset(), std::min<uint64_t>(superblock.capacity, kMiB)));
  for (uint64_t offset : kSuperblockOffsets) {
    std::vector<Buffer> pieces(1, encode_superblock(superblock));
    HR_CO_TRY(co_await file->write(offset, std::move(pieces)));
  }
  co_return co_await file->flush();
}

Task<Result<Superblock>> superblock_of(File& file, uint32_t number) {
  Result<Superblock> found = co_await read_superblock(file);
  const std::string name = "target t" + std::to_string(number);
  if (found.code() == Code::kUnsupportedFormat)
    co_return Error(Code::kUnsupportedFormat, name + ": " + found.error().message());
  if (!found)
    co_return Error(Code::kCorrupt, name + " is lost: " + found.error().message() + "; " + replace_hint(number));
  co_return found;
}

struct Place {
  TargetPlace place;
  Result<std::unique_ptr<File>> file;
};

Task<Result<Place>> open_place(Env env, std::string directory) {
  HR_CO_TRY(TargetPlace place, co_await target_place(env, directory));
  Result<std::unique_ptr<File>> file = co_await env.disk.open(place.path, {.direct = true});
  co_return Place{std::move(place), std::move(file)};
}

Result<void> check_expected(const Superblock& found, const TargetExpected& expected) {
  std::string name = "target t" + std::to_string(expected.number);
  if (expected.cluster && found.cluster != expected.cluster)
    return Error(Code::kInvalid,
                 name + " belongs to cluster " + hex(found.cluster.value()) + ", not " + hex(expected.cluster.value()) +
                     ": put the right target.dat (or disk) back; if it is lost, " + remove_hint(expected.number));
  if (found.number != expected.number)
    return Error(Code::kInvalid, name + ": this is target t" + std::to_string(found.number) + " (" +
                                     to_string(found.target) +
                                     "): directories or disks were swapped; put each target.dat back where it was");
  if (expected.id && found.target != expected.id)
    return Error(Code::kInvalid, name + ": the file is of target " + to_string(found.target) + ", the cluster knows " +
                                     to_string(expected.id) +
                                     " there: it was replaced or copied from elsewhere; put the right "
                                     "file back; if it is lost, " +
                                     remove_hint(expected.number));
  if (found.generation < expected.generation)
    return Error(Code::kStale, name + " is lost: its file is an older copy (generation " +
                                   std::to_string(found.generation) + ", the cluster has seen " +
                                   std::to_string(expected.generation) +
                                   "): put the newest file back; if there is none, " + replace_hint(expected.number));
  return {};
}

}  // namespace

Task<Result<std::unique_ptr<Target>>> Target::format(Env env, std::string directory, TargetFormat format,
                                                     TargetOptions options) {
  HR_ASSERT(format.id && format.cluster);
  if (format.capacity < kMinTargetCapacity)
    co_return Error(Code::kInvalid, "target t" + std::to_string(format.number) + ": a capacity of " +
                                        std::to_string(format.capacity) + " bytes is too small; at least " +
                                        std::to_string(kMinTargetCapacity) + " are needed");
  HR_CO_TRY(co_await env.disk.make_directories(directory));
  HR_CO_TRY(TargetPlace place, co_await target_place(env, directory));
  Result<std::unique_ptr<File>> there = co_await env.disk.open(place.path, {.direct = place.in_place});
  if (there && place.in_place) {
    Result<Superblock> found = co_await superblock_of(**there, format.number);
    if (found.ok() || found.code() == Code::kUnsupportedFormat)
      co_return Error(Code::kExists,
                      "target t" + std::to_string(format.number) + ": " + place.path + " holds a target already");
    there = Error(Code::kNotFound, "");
  }
  if (there)
    co_return Error(Code::kExists,
                    "target t" + std::to_string(format.number) + ": " + directory + kFileName + " exists already");
  if (there.code() != Code::kNotFound) co_return std::move(there).error();
  Superblock superblock = lay_out(format.capacity);
  superblock.target = format.id;
  superblock.cluster = format.cluster;
  superblock.name_space = format.name_space;
  superblock.number = format.number;
  superblock.generation = 1;
  superblock.table_batches = 1;
  TargetPlace fresh = place;
  if (!place.in_place) fresh.path = directory + kNewName;
  Result<void> written = co_await write_new(env, fresh, superblock);
  if (!written) {
    if (!place.in_place) (void)co_await env.disk.remove(directory + kNewName);
    co_return std::move(written).error().within("format target t" + std::to_string(format.number));
  }
  if (!place.in_place) {
    HR_CO_TRY(co_await env.disk.rename(directory + kNewName, directory + kFileName));
    HR_CO_TRY(co_await env.disk.sync_directory(directory));
  }
  co_return co_await open(env, directory, {format.id, format.cluster, format.number, 0}, options);
}

Task<Result<std::unique_ptr<Target>>> Target::open(Env env, std::string directory, TargetExpected expected,
                                                   TargetOptions options) {
  const std::string name = "target t" + std::to_string(expected.number);
  std::optional<Result<Place>> answer = co_await within(env.clock, options.patience, open_place(env, directory));
  if (!answer) co_return Error(Code::kUnavailable, name + ": " + silence(options.patience));
  HR_CO_TRY(Place opened, std::move(*answer));
  if (opened.file.code() == Code::kNotFound)
    co_return Error(Code::kNotFound, name + " is lost: " + opened.place.path + " does not exist; put it back, or " +
                                         replace_hint(expected.number));
  if (!opened.file) co_return std::move(opened.file).error().within("open " + name);
  auto file = std::make_unique<WatchedFile>(env.clock, *std::move(opened.file), options.patience);
  Result<Superblock> superblock = co_await superblock_of(*file, expected.number);
  // The one that was read may be the older one.
  if (file->hung()) co_return Error(Code::kUnavailable, name + ": " + file->hung()->message());
  if (!superblock) co_return std::move(superblock).error();
  HR_CO_TRY(check_expected(*superblock, expected));
  std::unique_ptr<Target> target(new Target(env, options, directory, std::move(file), *superblock));
  HR_CO_TRY(co_await target->recover());
  co_return target;
}

void Target::lose_log(std::string why) {
  table_ = FragmentTable();
  runs_.clear();
  promises_.clear();
  scannable_ = true;
  fence(std::move(why));
}

Task<Result<void>> Target::recover() {
  // What a killed process wrote may be in the device's cache alone, a superblock among it: it must not be lost after
  // what the other superblock names is written over.
  HR_CO_TRY(co_await file_->flush());
  Result<uint64_t> size = co_await file_->size();
  if (!size) co_return std::move(size).error().within(name());
  prewritten_ = *size > superblock_.data_offset() ? round_down(*size - superblock_.data_offset(), kBlock) : 0;
  prewritten_ = std::min(prewritten_, superblock_.capacity);
  reserved_ = prewritten_;  // what is only reserved of it has room all the same
  if (Result<void> loaded = co_await load_table(); !loaded) {
    HR_CO_TRY(usable());  // a device that does not answer has lost nothing
    lose_log(loaded.error().message());
    co_return Result<void>();
  }
  Result<std::vector<LogRecord>> last = co_await replay_log();
  if (!last) {
    HR_CO_TRY(usable());
    lose_log(last.error().message());
    co_return Result<void>();
  }
  // The last batch may never have been acknowledged: its fragments' bytes may be missing, and then
  // it holds none.
  for (const LogRecord& record : *last) {
    if (record.kind != RecordKind::kFragmentAdded) continue;
    bool whole = co_await fragment_is_whole(record.fragment);
    if (!whole) table_.erase(record.fragment);
  }
  HR_CO_TRY(usable());  // nor has it torn anything
  if (Result<void> taken = take_space(); !taken) {
    lose_log(taken.error().message());
    co_return Result<void>();
  }
  for (const auto& [id, run] : std::map(runs_)) HR_CO_TRY(co_await scan_run(run));
  // A new generation, durable before anything is served: batches of before can no longer be taken
  // for ours.
  Result<void> flipped = co_await flip();
  if (!flipped) co_return std::move(flipped).error().within(name());
  counters_.flips = 0;
  start();
  co_return Result<void>();
}

void Target::start() {
  scope_.spawn(commit_loop());
  scope_.spawn(prewrite_loop());
}

Task<Result<void>> Target::load_table() {
  uint64_t offset = 0;
  for (uint64_t sequence = 1; sequence <= superblock_.table_batches; ++sequence) {
    uint64_t size = std::min<uint64_t>(kMaxBatchBytes, superblock_.table_bytes - offset);
    Buffer bytes = Buffer::zeroed(size);
    Result<size_t> got = co_await file_->read(superblock_.table_offset(superblock_.table) + offset, bytes);
    Result<Batch> batch = got ? decode_batch(bytes.view().first(std::min(*got, bytes.size())),
                                             {BatchKind::kTable, id(), superblock_.generation, sequence})
                              : Result<Batch>(std::move(got).error());
    Result<void> applied;
    if (batch) {
      for (const LogRecord& record : batch->records) {
        applied = apply_record(record);
        if (!applied) break;
      }
    }
    if (!batch || !applied)
      co_return Error(Code::kCorrupt, "its table is damaged (" +
                                          (batch ? applied.error().message() : batch.error().message()) + "); " +
                                          replace_hint(superblock_.number));
    offset += batch->bytes;
  }
  co_return Result<void>();
}

// Applies every batch up to the first that is not valid; returns the records of the last one.
// Anything valid beyond that end means that a batch was damaged after it had been acknowledged.
Task<Result<std::vector<LogRecord>>> Target::replay_log() {
  Buffer log = Buffer::zeroed(superblock_.log_bytes);
  for (uint64_t at = 0; at < log.size(); at += kMiB) {
    uint64_t size = std::min<uint64_t>(kMiB, log.size() - at);
    Result<size_t> got = co_await file_->read(superblock_.log_offset() + at, log.slice(at, size));
    if (!got)
      co_return Error(Code::kCorrupt,
                      "its log cannot be read (" + got.error().message() + "); " + replace_hint(superblock_.number));
    if (*got < size) break;
  }
  std::vector<LogRecord> last;
  uint64_t at = 0;
  BatchPlace place{BatchKind::kLog, id(), superblock_.generation, 1};
  while (at < log.size()) {
    Result<Batch> batch = decode_batch(log.view().subspan(at), place);
    if (!batch) break;
    for (const LogRecord& record : batch->records) {
      if (Result<void> applied = apply_record(record); !applied)
        co_return Error(Code::kCorrupt, "its log contradicts itself (" + applied.error().message() + "); " +
                                            replace_hint(superblock_.number));
    }
    last = std::move(batch->records);
    at += batch->bytes;
    ++place.sequence;
  }
  for (uint64_t beyond = at; beyond < log.size(); beyond += kBlock) {
    uint64_t sequence = batch_sequence(log.view().subspan(beyond), place);
    if (sequence >= place.sequence)
      co_return Error(Code::kCorrupt, "its log is damaged: batch " + std::to_string(place.sequence) +
                                          " cannot be read and batch " + std::to_string(sequence) + " follows; " +
                                          replace_hint(superblock_.number));
  }
  co_return last;
}

Result<void> Target::apply_record(const LogRecord& record) {
  switch (record.kind) {
    case RecordKind::kFragmentAdded: {
      FragmentEntry entry;
      entry.name = record.fragment;
      entry.protection = record.protection;
      entry.segment_length = record.segment_length;
      entry.block = record.block;
      if (entry.protection.data == 0 || entry.protection.parity > 15 || entry.segment_length == 0 ||
          entry.segment_length > kMaxSegment || entry.name.index >= entry.protection.width() || !table_.insert(entry))
        return Error(Code::kCorrupt, "a fragment that is impossible or there already");
      return {};
    }
    case RecordKind::kFragmentFreed:
      table_.erase(record.fragment);
      return {};
    case RecordKind::kRunOpened: {
      if (runs_.contains(record.run)) return {};  // a flip while it was being opened
      if (!record.run || !record.position) return Error(Code::kCorrupt, "an impossible journal run");
      auto run = std::make_shared<Run>();
      run->id = record.run;
      run->partition = record.partition;
      run->first = run->next = record.position;
      run->durable = Position(record.position.value() - 1);
      run->about = record.about;
      runs_.emplace(run->id, std::move(run));
      return {};
    }
    case RecordKind::kChunkAdded: {
      auto at = runs_.find(record.run);
      if (at == runs_.end()) return {};  // forgotten by a flip's table, which is newer
      if (record.blocks == 0) return Error(Code::kCorrupt, "an empty journal chunk");
      for (const Chunk& chunk : at->second->chunks)
        if (chunk.block == record.block) return {};
      at->second->chunks.push_back({record.block, record.blocks, record.position});
      return {};
    }
    case RecordKind::kRunTrimmed: {
      auto at = runs_.find(record.run);
      if (at == runs_.end()) return {};
      auto& chunks = at->second->chunks;
      auto keep = std::ranges::find(chunks, record.block, &Chunk::block);
      if (keep != chunks.end()) chunks.erase(chunks.begin(), keep);
      return {};
    }
    case RecordKind::kRunForgotten:
      runs_.erase(record.run);
      return {};
    case RecordKind::kPromise: {
      PartitionEpoch& promise = promises_[record.partition];
      promise = std::max(promise, record.epoch);
      return {};
    }
    case RecordKind::kNone:
      break;
  }
  return Error(Code::kCorrupt, "a record of unknown kind");
}

Task<bool> Target::fragment_is_whole(FragmentName name) {
  std::optional<FragmentEntry> entry = table_.find(name);
  if (!entry) co_return true;  // freed in the same batch
  uint64_t length = fragment_size(entry->segment_length, entry->protection.data);
  uint64_t header_size = fragment_header_size(length);
  Buffer bytes = Buffer::zeroed(header_size + length);
  Result<size_t> got = co_await file_->read(address_of(entry->block), bytes);
  if (!got) got = co_await file_->read(address_of(entry->block), bytes);  // a device that erred once
  if (!got || *got < bytes.size()) co_return false;
  Result<FragmentHeader> header = decode_fragment_header(bytes.view(), id(), address_of(entry->block));
  if (!header || header->segment != name.segment || header->index != name.index) co_return false;
  co_return verify_blocks(name.segment, name.index, 0, bytes.view().subspan(header_size), header->crcs).ok();
}

Result<void> Target::take_space() {
  space_ = all_free(superblock_);
  std::vector<std::pair<uint32_t, uint32_t>> extents;
  extents.reserve(table_.size());
  table_.for_each([&](const FragmentEntry& entry) { extents.emplace_back(entry.block, extent_blocks(entry)); });
  for (const auto& [id, run] : runs_)
    for (const Chunk& chunk : run->chunks) extents.emplace_back(chunk.block, chunk.blocks);
  std::ranges::sort(extents);
  for (auto [block, blocks] : extents)
    if (!space_.take(block, blocks)) {
      space_ = all_free(superblock_);
      return Error(Code::kCorrupt, "two things claim the same space; " + replace_hint(superblock_.number));
    }
  return {};
}

// Finds the longest valid prefix of a run. A chunk ends where the next frame did not fit, or where
// a restart left it; the run then goes on at the start of the next chunk.
Task<Result<void>> Target::scan_run(std::shared_ptr<Run> run) {
  if (!run->chunks.empty()) run->next = run->chunks.front().first;
  std::vector<Position> stray;  // valid frames that do not follow
  for (const Chunk& chunk : std::deque(run->chunks)) {
    uint64_t base = address_of(chunk.block);
    Buffer bytes = Buffer::zeroed(chunk.blocks * kBlock);
    Result<size_t> got = co_await file_->read(base, bytes);
    if (!got) {  // find out which blocks are bad
      for (uint64_t at = 0; at < bytes.size(); at += kBlock)
        (void)co_await file_->read(base + at, bytes.slice(at, kBlock));
    }
    uint64_t at = 0;
    while (at < bytes.size()) {
      Result<JournalFrame> frame = decode_journal_frame(bytes.view().subspan(at), id(), base + at);
      if (!frame || frame->run != run->id) break;
      if (frame->first != run->next) break;
      run->batches.push_back({frame->first, frame->last, base + at, static_cast<uint32_t>(frame->bytes), frame->crc});
      run->next = Position(frame->last.value() + 1);
      at += frame->bytes;
    }
    for (; at < bytes.size(); at += kBlock) {
      Result<JournalFrame> frame = decode_journal_frame(bytes.view().subspan(at), id(), base + at);
      if (frame && frame->run == run->id) stray.push_back(frame->first);
    }
  }
  for (Position first : stray) run->damaged = run->damaged || first >= run->next;
  run->durable = Position(run->next.value() - 1);
  run->room = 0;  // appends begin a chunk of their own: nothing is written beside what may be torn
  co_return Result<void>();
}

}  // namespace headrace
