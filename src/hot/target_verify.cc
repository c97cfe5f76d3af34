// Reading a fragment back from the device, for scrub: nothing of it comes from memory.
#include "hot/target.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr uint64_t kPiece = kMiB;

}  // namespace

Task<Result<uint64_t>> Target::verify(FragmentName fragment) {
  HR_CO_TRY(usable());
  const std::optional<FragmentEntry> entry = table_.find(fragment);
  const std::string what =
      name() + ": fragment " + std::to_string(fragment.index) + " of segment " + to_string(fragment.segment);
  if (!entry) co_return Error(Code::kNoFragment, what + " is not here");
  const uint64_t size = fragment_size(entry->segment_length, entry->protection.data);
  const uint64_t address = address_of(entry->block);
  const uint64_t header_size = fragment_header_size(size);
  auto gone = [this, &entry] {
    const std::optional<FragmentEntry> again = table_.find(entry->name);
    return !again || again->block != entry->block;
  };
  auto damaged = [this, &entry](std::string why) {
    ++counters_.corrupt_blocks;
    crcs_.erase(entry->name);  // whoever reads it next must meet the damage too
    return Error(Code::kCorrupt, std::move(why));
  };
  Buffer bytes = Buffer::zeroed(header_size);
  Result<size_t> got = co_await file_->read(address, bytes);
  HR_CO_TRY(usable());
  if (gone()) co_return Error(Code::kNoFragment, what + " was freed");
  if (!got || *got < bytes.size()) co_return damaged(what + ": its header cannot be read");
  Result<FragmentHeader> header = check_header(*entry, bytes.view());
  if (!header) co_return damaged(what + ": " + header.error().message());
  for (uint64_t at = 0; at < size; at += kPiece) {
    const uint64_t piece = std::min(kPiece, size - at);
    bytes = Buffer::allocate(piece);
    got = co_await file_->read(address + header_size + at, bytes);
    HR_CO_TRY(usable());
    if (gone()) co_return Error(Code::kNoFragment, what + " was freed");
    if (!got || *got < bytes.size()) co_return damaged(what + " cannot be read (a bad sector, or the file was cut)");
    const uint64_t first = at / kBlock;
    const auto begin = header->crcs.begin() + static_cast<ptrdiff_t>(first);
    const std::vector<uint32_t> crcs(begin, begin + static_cast<ptrdiff_t>(piece / kBlock));
    Result<void> fits =
        verify_blocks(fragment.segment, fragment.index, static_cast<uint32_t>(first), bytes.view(), crcs);
    if (!fits) co_return damaged(what + ": " + fits.error().message());
  }
  co_return header_size + size;
}

}  // namespace headrace
