// Fragments: writing, reading, freeing, inventory.
#include "hot/target.h"

#include <algorithm>
#include <cstring>

#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr uint64_t kJournalKeepChunks = 4;

constexpr Nanos kTick = seconds(1);
constexpr size_t kFreesPerCommit = 1024;

Error no_fragment(const FragmentName& name, const std::string& target) {
  return Error(Code::kNoFragment,
               target + " holds no fragment " + std::to_string(name.index) + " of segment " + to_string(name.segment));
}

}  // namespace

ExtentAllocator Target::all_free(const Superblock& superblock) {
  const auto blocks = static_cast<uint32_t>(superblock.capacity / kBlock);
  return {blocks, blocks * 3 / 100};
}

Target::Target(Env env, TargetOptions options, std::string directory, std::unique_ptr<WatchedFile> file,
               Superblock superblock)
    : env_(env),
      options_(options),
      directory_(std::move(directory)),
      file_(std::move(file)),
      through_(file_->can_write_through() ? file_.get() : nullptr),
      superblock_(superblock),
      opened_(env.clock.now()),
      space_(all_free(superblock)),
      crcs_(options.crc_cache_bytes),
      writes_(options.max_writes_bytes) {
  file_->when_it_hangs([this](std::string why) { hangs(std::move(why)); });
  chunk_bytes_ = options.chunk_bytes;
  if (superblock.capacity < kGiB) chunk_bytes_ = std::min(chunk_bytes_, kMiB);
  if (superblock.capacity < 64 * kMiB) chunk_bytes_ = std::min(chunk_bytes_, 256 * kKiB);
  journal_keep_ =
      std::min<uint64_t>(superblock.capacity / kBlock * 3 / 100 * kBlock, kJournalKeepChunks * chunk_bytes_);
  can_reserve_ = through_ != nullptr;
  max_fragments_ = superblock.table_bytes / 32 - 4 * kKiB;
}

Target::~Target() = default;

Result<void> Target::usable() const {
  if (fenced_) return Error(Code::kUnavailable, name() + " is fenced: " + *fenced_);
  if (closing_) return Error(Code::kUnavailable, name() + " is closing");
  return {};
}

void Target::fence(std::string reason) {
  if (fenced_) return;
  fenced_ = std::move(reason);
  prewrite_kick_.set();
  prewrite_progress_.set();
  wake_.set();
}

// Also where it is fenced to be scanned: what would be found now is not what is there.
void Target::hangs(std::string reason) {
  if (scannable_) fenced_.reset();
  scannable_ = false;
  fence(std::move(reason));
}

uint32_t Target::now_ticks() const {
  return static_cast<uint32_t>((env_.clock.now() - opened_).count / kTick.count);
}

uint32_t Target::extent_blocks(const FragmentEntry& entry) {
  uint64_t length = fragment_size(entry.segment_length, entry.protection.data);
  return static_cast<uint32_t>((fragment_header_size(length) + length) / kBlock);
}

Task<void> Target::close() {
  closing_ = true;
  wake_.set();
  prewrite_kick_.set();
  co_await scope_.join();
}

// ---- writing ----

Task<Result<void>> Target::write(FragmentWrite request) {
  HR_CO_TRY(usable());
  FragmentName name{request.segment, request.index};
  if (!request.protection.valid() || request.index >= request.protection.width() || request.segment_length == 0 ||
      request.segment_length > kMaxSegment || !request.segment ||
      request.payload.size() != fragment_size(request.segment_length, request.protection.data) || request.key)
    co_return Error(Code::kInvalid, "fragment write: lengths, protection and index do not fit each other");
  if (auto fits = verify_blocks(request.segment, request.index, 0, request.payload.view(), request.crcs); !fits)
    co_return std::move(fits).error().within("fragment write");
  while (true) {
    HR_CO_TRY(usable());
    if (auto at = writing_.find(name); at != writing_.end()) {
      std::shared_ptr<Writing> other = at->second;
      bool same = other->request.crcs == request.crcs && other->request.segment_length == request.segment_length;
      co_await other->done.wait();
      if (!same && *other->result)
        co_return Error(Code::kExists, "fragment " + std::to_string(name.index) + " of segment " +
                                           to_string(name.segment) + " is here with other bytes");
      if (same) co_return *other->result;
      continue;
    }
    std::optional<FragmentEntry> entry = table_.find(name);
    if (!entry) break;
    Result<CrcCache::Crcs> crcs = co_await load_crcs(*entry);
    std::optional<FragmentEntry> again = table_.find(name);
    if (!again || again->block != entry->block) continue;  // freed meanwhile
    if (!crcs) co_return std::move(crcs).error();
    if (**crcs == request.crcs && entry->protection == request.protection &&
        entry->segment_length == request.segment_length)
      co_return Result<void>();
    co_return Error(Code::kExists, "fragment " + std::to_string(name.index) + " of segment " + to_string(name.segment) +
                                       " is here with other bytes");
  }
  if (takes_no_more_) co_return Error(Code::kUnavailable, this->name() + " is being removed: it takes nothing new");
  if (table_.size() + writing_.size() >= max_fragments_)
    co_return Error(Code::kNoSpace, this->name() + " holds as many fragments as its table can name");
  auto writing = std::make_shared<Writing>();
  writing->request = std::move(request);
  writing_.emplace(name, writing);
  if (!scope_.spawn(run_write(writing))) {
    writing_.erase(name);
    co_return Error(Code::kUnavailable, this->name() + " is closing");
  }
  co_await writing->done.wait();
  co_return *writing->result;
}

Task<void> Target::run_write(std::shared_ptr<Writing> writing) {
  uint64_t units = std::min<uint64_t>(writing->request.payload.size(), options_.max_writes_bytes);
  co_await writes_.acquire(units);
  writing->result = co_await write_fragment(writing);
  writes_.release(units);
  writing_.erase({writing->request.segment, writing->request.index});
  writing->request.payload = Buffer();
  writing->done.set();
  if (closing_) wake_.set();
}

Task<Result<void>> Target::write_fragment(std::shared_ptr<Writing> writing) {
  const FragmentWrite& request = writing->request;
  FragmentEntry entry;
  entry.name = {request.segment, request.index};
  entry.protection = request.protection;
  entry.segment_length = request.segment_length;
  uint32_t blocks = extent_blocks(entry);
  Result<uint32_t> block = co_await allocate(blocks, ExtentAllocator::Purpose::kFragment);
  if (!block) co_return std::move(block).error();
  entry.block = *block;
  uint64_t address = address_of(entry.block);
  FragmentHeader header;
  header.segment = request.segment;
  header.index = request.index;
  header.protection = request.protection;
  header.segment_length = request.segment_length;
  header.fragment_length = request.payload.size();
  header.crcs = request.crcs;
  std::vector<Buffer> pieces;
  pieces.push_back(encode_fragment_header(header, id(), address));
  bool aligned = reinterpret_cast<uintptr_t>(request.payload.data()) % kBlock == 0;
  pieces.push_back(aligned ? request.payload : Buffer::copy_of(request.payload.view()));
  Result<void> written = co_await file_->write(address, std::move(pieces));
  if (!written) {
    if (written.code() == Code::kNoSpace) {  // a hole or a copy-on-write file system below: nothing is recorded
      space_.release(entry.block, blocks);
      co_return std::move(written).error().within(name());
    }
    fence("write failed: " + written.error().text());
    co_return Error(Code::kIo, name() + " is fenced: " + *fenced_);
  }
  auto operation = std::make_shared<Commit>();
  encode_record(added(entry), operation->records);
  entry.birth = now_ticks();
  operation->apply = [this, entry] {
    bool fresh = table_.insert(entry);
    HR_ASSERT(fresh);
    ++counters_.fragment_writes;
  };
  co_return co_await commit(std::move(operation));
}

// ---- reading ----

Task<void> Target::read_into(uint64_t offset, Buffer into, std::shared_ptr<std::vector<size_t>> got, size_t slot) {
  Result<size_t> bytes = co_await file_->read(offset, std::move(into));
  (*got)[slot] = bytes ? *bytes : 0;
}

Result<FragmentHeader> Target::check_header(const FragmentEntry& entry, ByteView bytes) const {
  Result<FragmentHeader> header = decode_fragment_header(bytes, id(), address_of(entry.block));
  if (header && (header->segment != entry.name.segment || header->index != entry.name.index ||
                 header->protection != entry.protection || header->segment_length != entry.segment_length))
    return Error(Code::kCorrupt, "fragment header: of another fragment");
  return header;
}

Result<CrcCache::Crcs> Target::take_header(const FragmentEntry& entry, ByteView bytes) {
  Result<FragmentHeader> header = check_header(entry, bytes);
  if (!header) return std::move(header).error().within(name());
  auto crcs = std::make_shared<const std::vector<uint32_t>>(std::move(header->crcs));
  crcs_.put(entry.name, crcs);
  return CrcCache::Crcs(crcs);
}

Task<Result<CrcCache::Crcs>> Target::load_crcs(FragmentEntry entry) {
  if (CrcCache::Crcs known = crcs_.get(entry.name)) co_return known;
  Buffer bytes = Buffer::zeroed(fragment_header_size(fragment_size(entry.segment_length, entry.protection.data)));
  Result<size_t> got = co_await file_->read(address_of(entry.block), bytes);
  std::optional<FragmentEntry> again = table_.find(entry.name);
  if (!again || again->block != entry.block) co_return no_fragment(entry.name, name());
  if (!got || *got < bytes.size()) {
    HR_CO_TRY(usable());
    ++counters_.corrupt_blocks;
    co_return Error(Code::kCorrupt, name() + ": the header of a fragment cannot be read");
  }
  Result<CrcCache::Crcs> crcs = take_header(entry, bytes.view());
  if (!crcs) ++counters_.corrupt_blocks;
  co_return crcs;
}

Task<Result<FragmentReadReply>> Target::read(FragmentRead request) {
  HR_CO_TRY(usable());
  FragmentName name{request.segment, request.index};
  std::optional<FragmentEntry> entry = table_.find(name);
  if (!entry) co_return no_fragment(name, this->name());
  uint64_t size = fragment_size(entry->segment_length, entry->protection.data);
  if (request.offset % kBlock != 0 || request.length % kBlock != 0 || request.length == 0 || request.offset > size ||
      request.length > size - request.offset)
    co_return Error(Code::kInvalid, "fragment read: the range is not one of whole blocks inside the fragment");
  ++counters_.fragment_reads;
  uint64_t header_size = fragment_header_size(size);
  uint64_t address = address_of(entry->block);
  CrcCache::Crcs crcs = crcs_.get(name);
  Buffer data;
  bool short_read = false;
  Result<CrcCache::Crcs> loaded = crcs;
  auto got = std::make_shared<std::vector<size_t>>(2);
  if (crcs) {
    data = Buffer::allocate(request.length);
    co_await read_into(address + header_size + request.offset, data, got, 0);
    short_read = (*got)[0] < data.size();
  } else if (request.offset == 0) {  // header and range are one stretch
    ++counters_.crc_misses;
    Buffer both = Buffer::allocate(header_size + request.length);
    co_await read_into(address, both, got, 0);
    short_read = (*got)[0] < both.size();
    if (!short_read) {
      loaded = take_header(*entry, both.view());
      data = both.slice(header_size, request.length);
    }
  } else {
    ++counters_.crc_misses;
    data = Buffer::allocate(request.length);
    Buffer header = Buffer::allocate(header_size);
    Scope both;
    both.spawn(read_into(address, header, got, 0));
    both.spawn(read_into(address + header_size + request.offset, data, got, 1));
    co_await both.join();
    short_read = (*got)[0] < header.size() || (*got)[1] < data.size();
    if (!short_read) loaded = take_header(*entry, header.view());
  }
  std::optional<FragmentEntry> again = table_.find(name);
  if (!again || again->block != entry->block) {
    crcs_.erase(name);
    co_return no_fragment(name, this->name());
  }
  if (short_read) {
    HR_CO_TRY(usable());
    ++counters_.corrupt_blocks;
    co_return Error(Code::kCorrupt, this->name() + ": fragment " + std::to_string(name.index) + " of segment " +
                                        to_string(name.segment) +
                                        " cannot be read (a bad sector, or the file was cut)");
  }
  if (!loaded) {
    ++counters_.corrupt_blocks;
    co_return std::move(loaded).error();
  }
  FragmentReadReply reply;
  reply.segment_length = entry->segment_length;
  reply.protection = entry->protection;
  uint64_t first = request.offset / kBlock;
  auto begin = (*loaded)->begin() + static_cast<ptrdiff_t>(first);
  reply.crcs.assign(begin, begin + static_cast<ptrdiff_t>(request.length / kBlock));
  Result<void> fits = verify_blocks(name.segment, name.index, static_cast<uint32_t>(first), data.view(), reply.crcs);
  if (!fits) {
    ++counters_.corrupt_blocks;
    co_return std::move(fits).error().within(this->name());
  }
  reply.payload = std::move(data);
  co_return reply;
}

// ---- freeing ----

Task<Result<void>> Target::free(FragmentFree request, PartitionId partition, PartitionEpoch epoch) {
  HR_CO_TRY(usable());
  HR_CO_TRY(check_epoch(partition, epoch));
  for (size_t at = 0; at < request.fragments.size(); at += kFreesPerCommit) {
    size_t end = std::min(at + kFreesPerCommit, request.fragments.size());
    // What is just arriving must not outlive its free.
    for (size_t i = at; i < end; ++i) {
      auto arriving = writing_.find(request.fragments[i]);
      if (arriving == writing_.end()) continue;
      std::shared_ptr<Writing> writing = arriving->second;
      co_await writing->done.wait();
    }
    HR_CO_TRY(usable());
    HR_CO_TRY(check_epoch(partition, epoch));
    auto operation = std::make_shared<Commit>();
    raise_promise(partition, epoch, operation->records);
    std::vector<FragmentName> freed;
    for (size_t i = at; i < end; ++i) {
      if (!table_.find(request.fragments[i])) continue;
      LogRecord record;
      record.kind = RecordKind::kFragmentFreed;
      record.fragment = request.fragments[i];
      encode_record(record, operation->records);
      freed.push_back(request.fragments[i]);
    }
    operation->apply = [this, freed = std::move(freed)] {
      for (const FragmentName& name : freed) {
        std::optional<FragmentEntry> entry = table_.erase(name);  // absent: freed twice at once
        if (!entry) continue;
        crcs_.erase(name);
        space_.release(entry->block, extent_blocks(*entry));
      }
    };
    HR_CO_TRY(co_await commit(std::move(operation)));
  }
  co_return Result<void>();
}

Result<InventoryReply> Target::inventory(const Inventory& request) const {
  HR_TRY(usable());
  InventoryReply reply;
  uint32_t now = now_ticks();
  for (const FragmentEntry& entry :
       table_.after(request.after, std::clamp<uint32_t>(request.limit, 1, 10'000), reply.more)) {
    InventoryItem item;
    item.fragment = entry.name;
    item.bytes = fragment_size(entry.segment_length, entry.protection.data);
    // Since it was opened at least, for what was here before.
    item.age_ms = uint64_t{now > entry.birth ? now - entry.birth : 0} * 1000;
    reply.items.push_back(item);
  }
  return reply;
}

TargetStatusReply Target::status() const {
  TargetStatusReply out;
  out.capacity = superblock_.capacity;
  out.used = uint64_t{space_.used()} * kBlock;
  out.fragments = table_.size();
  out.corrupt_blocks = counters_.corrupt_blocks;
  out.fenced = fenced_.has_value();
  if (fenced_) out.reason = *fenced_;
  return out;
}

}  // namespace headrace
