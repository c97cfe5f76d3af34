// Checkpoints (protected copies of the store in the hot tier, named in the coordinator) and cuts (the same, kept for a
// manifest).
#include <algorithm>

#include "base/checksum.h"
#include "base/fault_point.h"
#include "meta/partition.h"
#include "runtime/when_all.h"
#include "stripe/placement_policy.h"

namespace headrace {

namespace {
Capability no_capability() {
  return {};
}  // nodes read and write without: capabilities bind clients
}  // namespace

Task<Result<std::unique_ptr<Store>>> Partition::open_checkpoint() {
  const PartitionRecord record = journal_.record();
  Placement placement{Protection{1, static_cast<uint8_t>(record.checkpoint_copies.size() - 1)},
                      record.checkpoint_copies};
  Result<Buffer> bytes = co_await context_.segments.read(record.checkpoint, record.checkpoint_length, placement, 0,
                                                         record.checkpoint_length, no_capability());
  if (!bytes.ok()) co_return std::move(bytes).error().within("checkpoint of partition " + std::to_string(id_.value()));
  HR_CO_TRY(checkpoint_, decode_durable<CheckpointRecord>(bytes->text()));
  if (checkpoint_.partition != id_ || checkpoint_.at != record.checkpoint_at)
    co_return Error(Code::kCorrupt, "the checkpoint record is not the one that the coordinator names");
  StoreFiles files;
  files.import = checkpoint_.store_import;
  std::map<std::string, std::vector<Location>> pieces;
  checkpoint_segments_.clear();
  checkpoint_segments_.insert(record.checkpoint);
  checkpoint_record_segment_ = record.checkpoint;
  for (const StoreFileCopy& copy : checkpoint_.files) {
    files.files.push_back(copy.file);
    pieces[copy.file.name] = copy.pieces;
    for (const Location& piece : copy.pieces) checkpoint_segments_.insert(piece.segment);
  }
  SegmentIo& io = context_.segments;
  FetchFile fetch = [&io, pieces](StoreFile file, uint64_t offset, uint64_t length) {
    auto it = pieces.find(file.name);
    return read_pieces(io, it == pieces.end() ? std::vector<Location>() : it->second, offset, length);
  };
  std::string name = "p" + std::to_string(id_.value()) + "-" + std::to_string(record.epoch.value());
  co_return co_await context_.stores.import(name, std::move(files), std::move(fetch));
}

Task<Result<Buffer>> Partition::read_pieces(SegmentIo& io, std::vector<Location> pieces, uint64_t offset,
                                            uint64_t length) {
  Buffer out = Buffer::allocate(length);
  uint64_t done = 0;
  uint64_t start = 0;  // of the piece in the file
  for (const Location& piece : pieces) {
    uint64_t end = start + piece.length;
    if (done < length && offset + done >= start && offset + done < end) {
      uint64_t within = offset + done - start;
      uint64_t take = std::min(length - done, piece.length - within);
      HR_CO_TRY(Buffer bytes,
                co_await io.read(piece.segment, piece.length, piece.placement, within, take, no_capability()));
      std::memcpy(out.data() + done, bytes.data(), take);
      done += take;
    }
    start = end;
  }
  if (done != length) co_return Error(Code::kCorrupt, "a checkpoint file is shorter than its record says");
  co_return out;
}

bool Partition::checkpoint_whole() const {
  const ClusterMap& map = context_.view.map();
  auto live = [&map](TargetId id) {
    const TargetInfo* info = map.target(id);
    return info != nullptr && info->state == TargetState::kLive;
  };
  if (!std::ranges::all_of(journal_.record().checkpoint_copies, live)) return false;
  for (const StoreFileCopy& copy : checkpoint_.files)
    for (const Location& piece : copy.pieces)
      if (!std::ranges::all_of(piece.placement.targets, live)) return false;
  return true;
}

std::optional<Location> Partition::checkpoint_location(const SegmentId& segment) const {
  if (!checkpoint_segments_.contains(segment)) return std::nullopt;
  if (segment == checkpoint_record_segment_) {
    const PartitionRecord& record = journal_.record();
    if (record.checkpoint != segment || record.checkpoint_copies.empty()) return std::nullopt;
    Location location;
    location.segment = segment;
    location.length = record.checkpoint_length;
    location.placement = {Protection{1, static_cast<uint8_t>(record.checkpoint_copies.size() - 1)},
                          record.checkpoint_copies};
    return location;
  }
  for (const StoreFileCopy& copy : checkpoint_.files)
    for (const Location& piece : copy.pieces)
      if (piece.segment == segment) return piece;
  return std::nullopt;
}

SegmentsReply Partition::checkpoint_on(TargetId target, const SegmentId& after, size_t limit) const {
  SegmentsReply reply;
  for (auto at = checkpoint_segments_.upper_bound(after); at != checkpoint_segments_.end(); ++at) {
    std::optional<Location> location = checkpoint_location(*at);  // none: it is being written
    if (!location || std::ranges::find(location->placement.targets, target) == location->placement.targets.end())
      continue;
    if (reply.segments.size() == limit) {
      reply.more = true;
      break;
    }
    reply.segments.push_back(*std::move(location));
  }
  return reply;
}

Task<Result<void>> Partition::checkpoint_now() {
  Mutex::Guard shipping = co_await shipping_.lock();
  if (!serving_) co_return Error(Code::kNotLeader, state_);
  uint64_t tag = next_tag_++;
  Position at;
  StoreFiles files;
  {
    Mutex::Guard guard = co_await checkpointing_.lock();
    at = mutant("trim_early") ? durable_ : applied_;
    Result<StoreFiles> taken = co_await store_->checkpoint(tag);
    // What a damaged store holds is in the last checkpoint and the journal: the next leader makes it anew.
    if (taken.code() == Code::kCorrupt) fail("store: " + taken.error().text());
    HR_CO_TRY(files, std::move(taken));
  }
  Result<void> shipped;
  if (at > journal_.record().checkpoint_at || !journal_.record().checkpoint ||
      (!journal_.fully_copied() && !mutant("skip_recopy")))
    shipped = co_await ship(std::move(files), tag, at, counters_.cut);
  Result<void> released = co_await store_->release(tag);
  last_checkpoint_ = env_.clock.now();
  if (!shipped.ok()) co_return shipped;
  co_return released;
}

Task<Result<StoreFileCopy>> Partition::ship_file(StoreFile file, uint64_t tag) {
  StoreFileCopy copy;
  copy.file = file;
  uint32_t crc = 0;
  const ClusterMap map = context_.view.map();  // another may come while this waits
  for (uint64_t offset = 0; offset < file.size; offset += kMaxSegment) {
    uint64_t length = std::min(kMaxSegment, file.size - offset);
    HR_CO_TRY(Buffer bytes, co_await store_->read_file(tag, file.name, offset, length));
    crc = crc32c(bytes.view(), crc);
    HR_CO_TRY(Location location, co_await write_mirrored(std::move(bytes), map.protection.parity));
    copy.pieces.push_back(std::move(location));
  }
  // No start would take it, and what the journal still has would be trimmed for it.
  if (crc != file.crc) {
    Error damaged(Code::kCorrupt, "store file " + file.name + " is not as it was when it was listed");
    fail("store: " + damaged.text());
    co_return damaged;
  }
  co_return copy;
}

// R = 1 + P copies of bytes that only the checkpoint record or the coordinator names.
Task<Result<Location>> Partition::write_mirrored(Buffer bytes, uint8_t parity) {
  HR_CO_TRY(std::vector<SegmentId> ids, co_await new_segments(first_slot(), 1));
  HR_CO_TRY(Choice choice, choose_targets(context_.view.map(), Protection{1, parity}, env_.random));
  Location location;
  location.segment = ids[0];
  location.length = bytes.size();
  checkpoint_segments_.insert(ids[0]);
  Result<Placement> placed =
      co_await context_.segments.write(ids[0], std::move(bytes), choice.placement, choice.spares, no_capability());
  if (!placed.ok()) {
    checkpoint_segments_.erase(ids[0]);
    co_return std::move(placed).error().within("checkpoint");
  }
  location.placement = *std::move(placed);
  co_return location;
}

Task<Result<void>> Partition::ship(StoreFiles files, uint64_t tag, Position at, Cut cut) {
  CheckpointRecord next;
  const ClusterMap map = context_.view.map();  // another may come while this waits
  next.name_space = map.name_space;
  next.namespace_epoch = map.namespace_epoch;
  next.partition = id_;
  next.first_slot = first_slot_;
  next.last_slot = last_slot_;
  next.epoch = journal_.epoch();
  next.at = at;
  next.cut = cut;
  next.store_import = files.import;
  // Files that the present checkpoint has already are named again, not written again, while none of their targets is
  // lost.
  auto usable = [&map](const StoreFileCopy& copy) {
    for (const Location& piece : copy.pieces)
      for (TargetId target : piece.placement.targets) {
        const TargetInfo* info = map.target(target);
        if (info == nullptr || info->state != TargetState::kLive) return false;
      }
    return true;
  };
  for (const StoreFile& file : files.files) {
    auto old = std::find_if(checkpoint_.files.begin(), checkpoint_.files.end(), [&](const StoreFileCopy& copy) {
      return copy.file.name == file.name && copy.file.crc == file.crc && copy.file.size == file.size && usable(copy);
    });
    if (old != checkpoint_.files.end()) {
      StoreFileCopy copy = *old;
      copy.file = file;
      next.files.push_back(std::move(copy));
      continue;
    }
    HR_CO_TRY(StoreFileCopy copy, co_await ship_file(file, tag));
    next.files.push_back(std::move(copy));
  }
  HR_CO_TRY(Location record,
            co_await write_mirrored(Buffer::copy_of(bytes_of(encode_durable(next))), map.protection.parity));
  Journal::CheckpointPointer pointer;
  pointer.segment = record.segment;
  pointer.length = record.length;
  pointer.copies = record.placement.targets;
  pointer.at = at;
  SegmentId old_record = checkpoint_record_segment_;
  std::vector<TargetId> old_record_copies = journal_.record().checkpoint_copies;
  Result<void> named = co_await journal_.checkpointed(std::move(pointer));
  if (!named.ok()) {
    if (named.code() == Code::kConflict || named.code() == Code::kDeposed) fail("deposed: " + named.error().text());
    co_return named;
  }
  // Only now may what it replaced be freed.
  std::set<SegmentId> kept{record.segment};
  for (const StoreFileCopy& copy : next.files)
    for (const Location& piece : copy.pieces) kept.insert(piece.segment);
  std::vector<Location> dead;
  for (const StoreFileCopy& copy : checkpoint_.files)
    for (const Location& piece : copy.pieces)
      if (!kept.contains(piece.segment)) dead.push_back(piece);
  if (old_record) {
    Location old;
    old.segment = old_record;
    old.placement.targets = old_record_copies;
    dead.push_back(std::move(old));
  }
  checkpoint_ = std::move(next);
  checkpoint_record_segment_ = record.segment;
  checkpoint_segments_ = std::move(kept);
  co_await free_segments(std::move(dead));
  co_return {};
}

Task<std::set<SegmentId>> Partition::free_segments(std::vector<Location> dead) {
  const ClusterMap& map = context_.view.map();
  std::map<TargetId, FragmentFree> requests;
  for (const Location& location : dead)
    for (size_t i = 0; i < location.placement.targets.size(); ++i) {
      const TargetInfo* info = map.target(location.placement.targets[i]);
      // Nothing is on its way to one that is away. It keeps orphans; its inventory finds them, should it come back.
      if (info == nullptr || !serves(info->state)) continue;
      FragmentFree& request = requests[info->id];
      request.target = info->id;
      request.fragments.push_back({location.segment, static_cast<uint8_t>(i)});
    }
  CallOptions options;
  options.partition = id_;
  options.partition_epoch = journal_.epoch();
  std::vector<std::vector<FragmentName>> asked;
  std::vector<Task<Result<Empty>>> calls;
  for (auto& [target, request] : requests) {
    asked.push_back(request.fragments);
    calls.push_back(context_.targets.call(std::move(request), options));
  }
  std::vector<Result<Empty>> replies = co_await when_all(std::move(calls));
  std::set<SegmentId> left;
  for (size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].code() == Code::kDeposed) fail("deposed: " + replies[i].error().text());
    if (replies[i].ok()) continue;
    for (const FragmentName& fragment : asked[i]) left.insert(fragment.segment);
  }
  co_return left;
}

Task<void> Partition::checkpoint_loop() {
  while (!stopping_) {
    bool asked =
        co_await checkpoint_wanted_.wait_until(env_.clock, env_.clock.now() + context_.options.checkpoint_interval);
    checkpoint_wanted_.reset();
    if (stopping_ || !serving_) co_return;
    if (!asked && applied_ == journal_.record().checkpoint_at) continue;
    Result<void> done = co_await checkpoint_now();
    if (done.ok()) checkpoint_wanted_.reset();  // what it was wished for meanwhile is in it, or comes again
    if (!done.ok() && serving_) {
      last_error_ = "checkpoint: " + done.error().text();
      bool slept = co_await scope_.token().sleep(env_.clock, seconds(1));  // and again at the next wish
      if (!slept) co_return;
      checkpoint_wanted_.set();
    }
  }
}

// ---- cuts ----

Task<Result<StoreFiles>> Partition::flush_at(Cut cut, Position at) {
  HR_CO_TRY(co_await apply_up_to(at));
  if (applied_ != at) co_return Error(Code::kConflict, "the store is not at the cut");
  co_return co_await store_->checkpoint(cut.packed());
}

Task<Result<TakeCutReply>> Partition::take_cut(Cut cut) {
  if (context_.options.cut_delay > Nanos{})
    co_await env_.clock.sleep(
        Nanos{static_cast<int64_t>(env_.random.below(static_cast<uint64_t>(context_.options.cut_delay.count)))});
  if (cut < counters_.cut && std::none_of(cuts_.begin(), cuts_.end(), [&](const KeptCut& k) { return k.cut == cut; }))
    co_return Error(Code::kConflict, "cut " + to_string(cut) + " has passed: take a new one");
  // Once a newer manifest is published, what this partition began on may go: first it must stand on its own.
  if (!has_checkpoint() && journal_.record().checkpoint_at.value() > 0) HR_CO_TRY(co_await checkpoint_now());
  observe(cut);
  auto find = [&]() {
    return std::find_if(cuts_.begin(), cuts_.end(), [&](const KeptCut& k) { return k.cut == cut; });
  };
  if (find() == cuts_.end()) co_return Error(Code::kConflict, "cut " + to_string(cut) + " has passed: take a new one");
  Position at = find()->at;
  HR_CO_TRY(co_await wait_durable(at));
  if (find() != cuts_.end() && !find()->taken) {
    Mutex::Guard guard = co_await checkpointing_.lock();
    if (find() == cuts_.end()) co_return Error(Code::kConflict, "cut was given up");
    if (!find()->taken) {
      if (applied_ > at)
        co_return Error(Code::kConflict, "the store is past cut " + to_string(cut) + ": take a new one");
      find()->in_work = true;  // until this returns it is not given up for its age
      Result<StoreFiles> files = co_await flush_at(cut, at);
      auto kept = find();
      if (kept != cuts_.end()) kept->in_work = false;
      if (!files.ok()) co_return std::move(files).error();
      if (kept == cuts_.end()) {
        HR_CO_TRY(co_await store_->release(cut.packed()));
        co_return Error(Code::kConflict, "cut was given up");
      }
      kept->taken = true;
      kept->files = *std::move(files);
    }
  }
  apply_wanted_.set();
  auto kept = find();
  if (kept == cuts_.end()) co_return Error(Code::kConflict, "cut was given up");
  TakeCutReply reply;
  reply.at = at;
  reply.store_import = kept->files.import;
  reply.files = kept->files.files;
  reply.files_count = counters_.sums.inodes > 0 ? static_cast<uint64_t>(counters_.sums.inodes) : 0;
  reply.bytes = counters_.sums.bytes > 0 ? static_cast<uint64_t>(counters_.sums.bytes) : 0;
  // Segments alive at the cut that have no object yet.
  co_await work_known_.wait();
  Key after;
  for (;;) {
    HR_CO_TRY(auto rows, co_await scan_work(Table::kUploadable, after, 1000));
    if (rows.empty()) break;
    after = rows.back().first;
    for (auto& [key, value] : rows) {
      Transaction txn(*this, SessionId());
      SegmentId id = segment_of(key, context_.view.map().name_space);
      HR_CO_TRY(std::optional<SegmentRow> row, co_await txn.row<SegmentRow>(segment_key(id)));
      if (row && row->birth <= cut && row->death > cut) ++reply.unplaced;
    }
  }
  co_return reply;
}

Task<Result<Buffer>> Partition::read_cut_file(Cut cut, std::string name, uint64_t offset, uint64_t length) {
  for (const KeptCut& kept : cuts_)
    if (kept.cut == cut && kept.taken)
      co_return co_await store_->read_file(cut.packed(), std::move(name), offset, length);
  co_return Error(Code::kNotFound, "cut " + to_string(cut) + " is not kept");
}

Task<Result<void>> Partition::release_cut(Cut cut, bool published) {
  bool taken = false;
  for (const KeptCut& kept : cuts_) taken |= kept.cut == cut && kept.taken;
  std::erase_if(cuts_, [&](const KeptCut& kept) { return kept.cut == cut; });
  if (published) published_ = std::max(published_, cut);
  apply_wanted_.set();
  reap_soon();
  if (!taken) co_return {};
  co_return co_await store_->release(cut.packed());
}

bool Partition::cut_pending(Cut birth, Cut death) const {
  for (const KeptCut& kept : cuts_)
    if (birth <= kept.cut && kept.cut < death) return true;
  return false;
}

Result<std::vector<Location>> Partition::cut_locations(Cut cut) const {
  for (const KeptCut& kept : cuts_) {
    if (kept.cut != cut) continue;
    std::vector<Location> out;
    for (const auto& [id, location] : kept.locations) out.push_back(location);
    return out;
  }
  return Error(Code::kConflict, "cut " + to_string(cut) + " is not kept: take a new one");
}

void Partition::location_changed(SegmentId segment, const LocationRow& row) {
  for (KeptCut& kept : cuts_) {
    Location& location = kept.locations[segment];
    location.segment = segment;
    location.length = row.length;
    location.bucket = row.bucket;
    location.object = row.object;
  }
}

}  // namespace headrace
