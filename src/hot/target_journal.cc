// Journal runs and promises.
#include <algorithm>

#include "hot/target.h"

#include "base/fault_point.h"

namespace headrace {
namespace {

constexpr size_t kMaxAbout = 16 * kKiB;

}  // namespace

PartitionEpoch Target::promised(PartitionId partition) const {
  auto at = promises_.find(partition);
  return at == promises_.end() ? PartitionEpoch() : at->second;
}

Result<void> Target::check_epoch(PartitionId partition, PartitionEpoch epoch) const {
  PartitionEpoch promise = promised(partition);
  if (epoch < promise)
    return Error(Code::kDeposed, name() + ": partition " + std::to_string(partition.value()) + " is at epoch " +
                                     std::to_string(promise.value()) + ", not " + std::to_string(epoch.value()));
  return {};
}

// In memory at once, so that lower epochs are refused from now on; durable with the commit that
// gets the record, which must follow: later operations of the epoch write none.
void Target::raise_promise(PartitionId partition, PartitionEpoch epoch, std::string& records) {
  if (epoch <= promised(partition)) return;
  promises_[partition] = epoch;
  LogRecord record;
  record.kind = RecordKind::kPromise;
  record.partition = partition;
  record.epoch = epoch;
  encode_record(record, records);
}

std::shared_ptr<Target::Run> Target::find_run(RunId id) const {
  auto at = runs_.find(id);
  return at == runs_.end() || at->second->ending ? nullptr : at->second;
}

Task<Result<void>> Target::journal_open(JournalOpen request, PartitionId partition, PartitionEpoch epoch) {
  HR_CO_TRY(usable());
  HR_CO_TRY(check_epoch(partition, epoch));
  if (!request.run || !request.first || request.about.size() > kMaxAbout)
    co_return Error(Code::kInvalid, "journal open: no run, no first position, or too much about it");
  auto at = runs_.find(request.run);
  if (at != runs_.end()) {
    const Run& run = *at->second;
    if (run.ending || run.partition != partition || run.first != request.first || run.about != request.about)
      co_return Error(Code::kExists, name() + ": another run " + hex(request.run.value()) + " is here");
  }
  auto operation = std::make_shared<Commit>();
  raise_promise(partition, epoch, operation->records);
  if (at == runs_.end()) {
    auto run = std::make_shared<Run>();
    run->id = request.run;
    run->partition = partition;
    run->first = run->next = request.first;
    run->durable = Position(request.first.value() - 1);
    run->about = request.about;
    LogRecord record;
    record.kind = RecordKind::kRunOpened;
    record.run = run->id;
    record.partition = partition;
    record.position = run->first;
    record.about = run->about;
    encode_record(record, operation->records);
    runs_.emplace(run->id, run);
  }
  co_return co_await commit(std::move(operation));
}

Task<Result<void>> Target::journal_append(JournalAppend request, PartitionId partition, PartitionEpoch epoch) {
  HR_CO_TRY(usable());
  HR_CO_TRY(check_epoch(partition, epoch));
  std::shared_ptr<Run> run = find_run(request.run);
  if (!run || run->partition != partition)
    co_return Error(Code::kNotFound, name() + " has no run " + hex(request.run.value()) + " of partition " +
                                         std::to_string(partition.value()));
  if (request.first > request.last || request.payload.size() > kMaxSegment)
    co_return Error(Code::kInvalid, "journal append: bad positions or size");
  auto operation = std::make_shared<Commit>();
  {
    Mutex::Guard guard = co_await run->appending.lock();
    uint64_t size = frame_bytes(request.payload.size());
    Chunk chunk;
    if (request.first == run->next && run->room < size) {
      chunk.blocks = static_cast<uint32_t>(std::max(chunk_bytes_, size) / kBlock);
      Result<uint32_t> block = co_await allocate(chunk.blocks, ExtentAllocator::Purpose::kJournal);
      if (!block && block.code() == Code::kNoSpace && chunk.blocks * kBlock > size) {
        chunk.blocks = static_cast<uint32_t>(size / kBlock);  // no such stretch is left: as much as it takes
        block = co_await allocate(chunk.blocks, ExtentAllocator::Purpose::kJournal);
      }
      if (!block) co_return std::move(block).error();
      chunk.block = *block;
      chunk.first = request.first;
    }
    // Time may have passed.
    Result<void> still = usable();
    if (still) still = check_epoch(partition, epoch);
    if (still && run->ending) still = Error(Code::kNotFound, name() + ": the run is being forgotten");
    if (!still) {
      if (chunk.blocks > 0) space_.release(chunk.block, chunk.blocks);
      co_return still;
    }
    if (request.first == run->next) {
      raise_promise(partition, epoch, operation->records);
      if (chunk.blocks > 0) {
        LogRecord record;
        record.kind = RecordKind::kChunkAdded;
        record.run = run->id;
        record.block = chunk.block;
        record.blocks = chunk.blocks;
        record.position = chunk.first;
        if (!mutant("chunk_not_logged")) encode_record(record, operation->records);
        run->chunks.push_back(chunk);
        run->room = chunk.blocks * kBlock;
      }
      const Chunk& into = run->chunks.back();
      uint64_t address = address_of(into.block) + into.blocks * kBlock - run->room;
      Buffer frame = encode_journal_frame(request, id(), address);
      Result<JournalFrame> header = decode_journal_frame(frame.view(), id(), address);
      HR_ASSERT(header.ok());
      run->room -= size;
      run->next = Position(request.last.value() + 1);
      run->batches.push_back({request.first, request.last, address, static_cast<uint32_t>(size), header->crc});
      operation->frames.emplace_back(address, std::move(frame));
      operation->apply = [this, run, last = request.last] {
        run->durable = last;
        ++counters_.journal_appends;
      };
    } else {
      // Again: fine if it is the same batch. Its commit may still be on its way; ours comes after
      // it.
      auto at = std::ranges::lower_bound(run->batches, request.first, {}, &BatchAt::first);
      bool same = at != run->batches.end() && at->first == request.first && at->last == request.last &&
                  at->bytes == frame_bytes(request.payload.size());
      if (same) {
        Buffer frame = encode_journal_frame(request, id(), at->address);
        Result<JournalFrame> header = decode_journal_frame(frame.view(), id(), at->address);
        same = header && header->crc == at->crc;
      }
      if (!same)
        co_return Error(Code::kInvalid, name() + ": run " + hex(request.run.value()) + " goes on at position " +
                                            std::to_string(run->next.value()) + ", not " +
                                            std::to_string(request.first.value()));
      raise_promise(partition, epoch, operation->records);
    }
    enqueue(operation);
  }
  co_return co_await wait(std::move(operation));
}

Task<Result<JournalSealReply>> Target::journal_seal(JournalSeal, PartitionId partition, PartitionEpoch epoch) {
  HR_CO_TRY(usable());
  HR_CO_TRY(check_epoch(partition, epoch));
  auto operation = std::make_shared<Commit>();
  raise_promise(partition, epoch, operation->records);
  // Also without a record: appends that were taken before are durable when this one is through.
  HR_CO_TRY(co_await commit(std::move(operation)));
  JournalSealReply reply;
  for (const auto& [id, run] : runs_) {
    if (run->partition != partition || run->ending) continue;
    RunSummary summary;
    summary.run = id;
    summary.first = run->batches.empty() ? run->next : run->batches.front().first;
    summary.last = run->durable;
    summary.damaged = run->damaged;
    summary.about = run->about;
    reply.runs.push_back(std::move(summary));
  }
  co_return reply;
}

Task<Result<JournalReadReply>> Target::journal_read(JournalRead request) {
  HR_CO_TRY(usable());
  std::shared_ptr<Run> run = find_run(request.run);
  if (!run) co_return Error(Code::kNotFound, name() + " has no run " + hex(request.run.value()));
  JournalReadReply reply;
  uint64_t bytes = 0;
  Position from = request.from;
  while (bytes < request.max_bytes && from <= run->durable) {
    auto at = std::ranges::lower_bound(run->batches, from, {}, &BatchAt::last);
    if (at == run->batches.end() || at->last > run->durable) break;
    if (at->first > from) {
      if (!reply.batches.empty()) break;
      co_return Error(Code::kNotFound, name() + ": run " + hex(request.run.value()) + " begins at position " +
                                           std::to_string(at->first.value()) + "; what was before is trimmed");
    }
    uint64_t address = at->address;
    uint64_t size = 0;
    std::vector<BatchAt> stretch;
    for (; at != run->batches.end() && at->last <= run->durable && at->address == address + size; ++at) {
      if (!stretch.empty() && (bytes + size >= request.max_bytes || size + at->bytes > 4 * kMiB)) break;
      size += at->bytes;
      stretch.push_back(*at);
    }
    Buffer into = Buffer::allocate(size);
    Result<size_t> got = co_await file_->read(address, into);
    HR_CO_TRY(usable());
    size_t valid = got ? *got : 0;
    uint64_t offset = 0;
    for (const BatchAt& batch : stretch) {
      Result<JournalFrame> frame =
          offset + batch.bytes <= valid
              ? decode_journal_frame(into.view().subspan(offset, batch.bytes), id(), batch.address)
              : Result<JournalFrame>(Error(Code::kCorrupt, "journal frame: cannot be read"));
      if (frame && (frame->run != run->id || frame->first != batch.first || frame->last != batch.last ||
                    frame->crc != batch.crc))
        frame = Error(Code::kCorrupt, "journal frame: of another batch");
      if (!frame) {
        bool trimmed = run->ending || run->batches.empty() || run->batches.front().first > batch.first;
        if (!trimmed) ++counters_.corrupt_blocks;
        if (!reply.batches.empty()) co_return reply;
        co_return Error(trimmed ? Code::kNotFound : Code::kCorrupt,
                        name() + ": run " + hex(run->id.value()) + " position " + std::to_string(batch.first.value()) +
                            ": " + frame.error().message());
      }
      JournalBatch out;
      out.first = batch.first;
      out.last = batch.last;
      out.bytes = into.slice(offset + kFrameHeaderBytes, frame->payload.size());
      bytes += out.bytes.size() + 1;
      reply.batches.push_back(std::move(out));
      offset += batch.bytes;
      from = Position(batch.last.value() + 1);
    }
  }
  co_return reply;
}

Task<Result<void>> Target::journal_trim(JournalTrim request, PartitionId partition, PartitionEpoch epoch) {
  HR_CO_TRY(usable());
  HR_CO_TRY(check_epoch(partition, epoch));
  for (RunId id : request.forget)
    if (auto run = find_run(id); run && run->partition != partition)
      co_return Error(Code::kInvalid, name() + ": run " + hex(id.value()) + " is another partition's");
  auto operation = std::make_shared<Commit>();
  raise_promise(partition, epoch, operation->records);
  std::vector<std::shared_ptr<Run>> ended;
  for (RunId id : request.forget) {
    auto at = runs_.find(id);
    if (at == runs_.end()) continue;
    at->second->ending = true;  // no append joins a commit after this one
    LogRecord record;
    record.kind = RecordKind::kRunForgotten;
    record.run = id;
    encode_record(record, operation->records);
    ended.push_back(at->second);
  }
  std::shared_ptr<Run> trimmed = request.run ? find_run(request.run) : nullptr;
  uint32_t keep = 0;
  bool trims = false;
  if (trimmed && trimmed->partition == partition) {
    size_t drop = 0;
    while (drop + 1 < trimmed->chunks.size() && trimmed->chunks[drop + 1].first <= request.below &&
           trimmed->chunks[drop + 1].first <= Position(trimmed->durable.value() + 1))
      ++drop;
    if (drop > 0) {
      trims = true;
      keep = trimmed->chunks[drop].block;
      LogRecord record;
      record.kind = RecordKind::kRunTrimmed;
      record.run = trimmed->id;
      record.block = keep;
      encode_record(record, operation->records);
    }
  }
  operation->apply = [this, ended = std::move(ended), trimmed, trims, keep] {
    for (const auto& run : ended) {
      auto at = runs_.find(run->id);
      if (at == runs_.end() || at->second != run) continue;  // forgotten twice at once
      runs_.erase(at);
      for (const Chunk& chunk : run->chunks) space_.release(chunk.block, chunk.blocks);
      run->chunks.clear();
    }
    if (!trims || std::ranges::find(trimmed->chunks, keep, &Chunk::block) == trimmed->chunks.end()) return;
    while (trimmed->chunks.front().block != keep) {
      space_.release(trimmed->chunks.front().block, trimmed->chunks.front().blocks);
      trimmed->chunks.pop_front();
    }
    while (!trimmed->batches.empty() && trimmed->batches.front().first < trimmed->chunks.front().first)
      trimmed->batches.pop_front();
  };
  co_return co_await commit(std::move(operation));
}

}  // namespace headrace
