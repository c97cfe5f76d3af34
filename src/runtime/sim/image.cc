#include "runtime/sim/image.h"

#include <algorithm>
#include <vector>

namespace headrace {

namespace {

// As a kernel does, older changes are written back once so much is dirty: memory stays bounded
// where nobody flushes.
constexpr uint64_t kMaxUnflushedBytes = 64 * kMiB;

bool all_zero(ByteView bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// Calls piece(offset, bytes) for each maximal run of sectors that the seed keeps.
template <class Piece>
void random_sectors(uint64_t offset, ByteView bytes, Random& random, Piece piece) {
  uint64_t at = 0;
  uint64_t run = 0;
  auto end_run = [&] {
    if (run < at) piece(offset + run, bytes.subspan(run, at - run));
  };
  while (at < bytes.size()) {
    uint64_t next = std::min<uint64_t>(round_down(offset + at, kSector) + kSector - offset, bytes.size());
    if (random.chance(1, 2)) {
      at = next;
      continue;
    }
    end_run();
    at = run = next;
  }
  end_run();
}

}  // namespace

void SimPages::write(uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    uint64_t index = offset / kBlock;
    uint64_t within = offset % kBlock;
    uint64_t n = std::min<uint64_t>(kBlock - within, bytes.size());
    if (n == kBlock && all_zero(bytes.first(n))) {
      pages_.erase(index);
    } else {
      std::shared_ptr<Page>& page = pages_[index];
      if (page == nullptr) {
        page = std::make_shared<Page>();
      } else if (page.use_count() > 1) {
        page = std::make_shared<Page>(*page);
      }
      std::memcpy(page->data() + within, bytes.data(), n);
    }
    offset += n;
    bytes = bytes.subspan(n);
  }
}

void SimPages::read(uint64_t offset, ByteSpan into) const {
  while (!into.empty()) {
    uint64_t within = offset % kBlock;
    uint64_t n = std::min<uint64_t>(kBlock - within, into.size());
    auto found = pages_.find(offset / kBlock);
    if (found == pages_.end()) {
      std::memset(into.data(), 0, n);
    } else {
      std::memcpy(into.data(), found->second->data() + within, n);
    }
    offset += n;
    into = into.subspan(n);
  }
}

void SimPages::truncate(uint64_t size) {
  std::erase_if(pages_, [&](const auto& entry) { return entry.first * kBlock >= size; });
  uint64_t within = size % kBlock;
  if (within == 0 || !pages_.contains(size / kBlock)) return;
  std::vector<std::byte> zeros(kBlock - within);
  write(size, zeros);
}

size_t SimInode::read(uint64_t offset, ByteSpan into) const {
  if (offset >= size_) return 0;
  size_t n = std::min<uint64_t>(into.size(), size_ - offset);
  current_.read(offset, into.first(n));
  return n;
}

void SimInode::write(uint64_t offset, ByteView bytes) {
  if (bytes.empty()) return;
  current_.write(offset, bytes);
  size_ = std::max<uint64_t>(size_, offset + bytes.size());
  if (!bad_sectors_.empty())
    for (uint64_t s = offset / kSector; s <= (offset + bytes.size() - 1) / kSector; ++s) bad_sectors_.erase(s);
  add({.offset = offset, .bytes = Buffer::copy_of(bytes), .resize = false});
}

void SimInode::write_some(uint64_t offset, ByteView bytes, Random& random) {
  random_sectors(offset, bytes, random, [&](uint64_t at, ByteView piece) { write(at, piece); });
}

void SimInode::resize(uint64_t size) {
  if (size < size_) current_.truncate(size);
  size_ = size;
  add({.offset = size, .resize = true});
}

void SimInode::add(Change change) {
  change.number = next_change_++;
  unflushed_bytes_ += change.bytes.size();
  changes_.push_back(std::move(change));
  while (unflushed_bytes_ > kMaxUnflushedBytes) make_durable(changes_.front().number);
}

void SimInode::keep_range(uint64_t offset, ByteView bytes) {
  durable_.write(offset, bytes);
  durable_size_ = std::max<uint64_t>(durable_size_, offset + bytes.size());
}

void SimInode::keep(const Change& change) {
  if (!change.resize) return keep_range(change.offset, change.bytes.view());
  if (change.offset < durable_size_) durable_.truncate(change.offset);
  durable_size_ = change.offset;
}

void SimInode::make_durable(uint64_t mark) {
  while (!changes_.empty() && changes_.front().number <= mark) {
    keep(changes_.front());
    unflushed_bytes_ -= changes_.front().bytes.size();
    changes_.pop_front();
  }
}

void SimInode::make_sure(uint64_t first, uint64_t last) {
  for (Change& change : changes_)
    if (change.number >= first && change.number <= last) change.sure = true;
}

void SimInode::tear(Random& random) {
  for (const Change& change : changes_) {
    if (change.sure) {
      keep(change);
      continue;
    }
    uint64_t kept = random.below(3);
    if (kept == 0) continue;
    if (kept == 1 || change.resize) {
      keep(change);
      continue;
    }
    random_sectors(change.offset, change.bytes.view(), random,
                   [&](uint64_t at, ByteView piece) { keep_range(at, piece); });
  }
  changes_.clear();
  unflushed_bytes_ = 0;
}

void SimInode::lose_power(Random& random) {
  tear(random);
  current_ = durable_;
  size_ = durable_size_;
}

bool SimInode::readable(uint64_t offset, uint64_t size) const {
  auto bad = bad_sectors_.lower_bound(offset / kSector);
  return size == 0 || bad == bad_sectors_.end() || *bad * kSector >= offset + size;
}

void SimInode::flip(uint64_t offset, std::byte bits) {
  for (SimPages* pages : {&current_, &durable_}) {
    std::byte value{};
    pages->read(offset, {&value, 1});
    value ^= bits;
    pages->write(offset, {&value, 1});
  }
}

void SimInode::assign(const SimInode& other) {
  current_ = durable_ = other.current_;
  size_ = durable_size_ = other.size_;
  changes_.clear();
  unflushed_bytes_ = 0;
  bad_sectors_ = other.bad_sectors_;
}

}  // namespace headrace
